//! Which endpoints take a Service's traffic on this node. Pure rules over EndpointSlices.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::service::{PortName, Protocol, ServicePort};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ip, self.port)
    }
}

impl Endpoint {
    fn last_resort(&self) -> bool {
        self.serving && self.terminating
    }
}

/// The node on which rules are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub labels: BTreeMap<String, String>,
}

/// The endpoints of one port, in order. While an endpoint moves between slices it may be in two of them.
pub fn of_port(name: &PortName, slices: &[Arc<EndpointSlice>], node: &str) -> Vec<Endpoint> {
    let mut found: BTreeMap<String, Endpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        for port in slice.ports.iter().flatten() {
            let same_name = port.name.as_deref().unwrap_or_default() == name.port;
            let protocol = Protocol::of(port.protocol.as_deref());
            let Some(number) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
            if !same_name || protocol != Some(name.protocol) {
                continue;
            }
            let of_slice = slice.endpoints.iter().flatten();
            for endpoint in of_slice.filter_map(|endpoint| read(endpoint, number, node)) {
                let key = endpoint.to_string();
                if endpoint.local || !found.contains_key(&key) {
                    found.insert(key, endpoint);
                }
            }
        }
    }
    found.into_values().collect()
}

fn read(endpoint: &ApiEndpoint, port: u16, node: &str) -> Option<Endpoint> {
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
    Some(Endpoint {
        ip: endpoint.addresses.first()?.parse().ok()?,
        port,
        ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node),
        zone_hints: zones.into_iter().flatten().map(|zone| zone.name.clone()).collect(),
        node_hints: nodes.into_iter().flatten().map(|node| node.name.clone()).collect(),
    })
}

/// The endpoints of a port by what they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    pub cluster: Vec<&'a Endpoint>,
    pub local: Vec<&'a Endpoint>,
    /// Both together, each once.
    pub reachable: Vec<&'a Endpoint>,
    /// Whether any node has a usable endpoint.
    pub any: bool,
}

/// Ready endpoints, or serving ones that terminate when no others are left (KEP-1669).
pub fn choose<'a>(port: &ServicePort, endpoints: &'a [Endpoint], place: &Place) -> Choice<'a> {
    let mut choice = Choice::default();
    if port.uses_cluster_endpoints() {
        let near = preference(endpoints, place);
        choice.cluster =
            endpoints.iter().filter(|endpoint| endpoint.ready && near.admits(endpoint, place)).collect();
        if choice.cluster.is_empty() {
            choice.cluster = endpoints.iter().filter(|endpoint| endpoint.last_resort()).collect();
        }
        choice.any = !choice.cluster.is_empty();
    }
    if port.uses_local_endpoints() {
        choice.any |= endpoints.iter().any(|endpoint| endpoint.ready || endpoint.last_resort());
        let local = |usable: fn(&Endpoint) -> bool| -> Vec<&Endpoint> {
            endpoints.iter().filter(|endpoint| endpoint.local && usable(endpoint)).collect()
        };
        choice.local = local(|endpoint| endpoint.ready);
        if choice.local.is_empty() {
            choice.local = local(Endpoint::last_resort);
        }
    }
    let used: HashSet<*const Endpoint> =
        choice.cluster.iter().chain(&choice.local).map(|endpoint| std::ptr::from_ref(*endpoint)).collect();
    choice.reachable =
        endpoints.iter().filter(|endpoint| used.contains(&std::ptr::from_ref(*endpoint))).collect();
    choice
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference {
    Any,
    SameZone,
    SameNode,
}

impl Preference {
    fn admits(self, endpoint: &Endpoint, place: &Place) -> bool {
        match self {
            Self::Any => true,
            Self::SameNode => endpoint.node_hints.contains(&place.node),
            Self::SameZone => {
                place.labels.get(ZONE_LABEL).is_some_and(|zone| endpoint.zone_hints.contains(zone))
            }
        }
    }
}

/// Hints are followed when every ready endpoint carries them and one of them is meant for here (KEP-2433,
/// KEP-3015).
fn preference(endpoints: &[Endpoint], place: &Place) -> Preference {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    let one_for_here = |preference: Preference| ready().any(|endpoint| preference.admits(endpoint, place));
    if ready().all(|endpoint| !endpoint.node_hints.is_empty()) && one_for_here(Preference::SameNode) {
        return Preference::SameNode;
    }
    if ready().all(|endpoint| !endpoint.zone_hints.is_empty()) && one_for_here(Preference::SameZone) {
        return Preference::SameZone;
    }
    Preference::Any
}
