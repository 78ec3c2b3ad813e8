//! What the proxy needs to know of a Service: one entry per port. Knows nothing of packets or of the API.

use std::fmt;
use std::net::Ipv4Addr;

use client::ObjectKey;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort as ApiPort, ServiceSpec};

/// How long a client sticks to an endpoint when the Service does not say.
const DEFAULT_STICKY_SECONDS: u32 = 10_800;
/// The older way to say `spec.loadBalancerSourceRanges`.
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Which port of which Service; shown as upstream does, since chain names are hashes of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    pub service: ObjectKey,
    pub port: String,
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service.namespace, self.service.name)?;
        if self.port.is_empty() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: PortName,
    pub cluster_ip: Ipv4Addr,
    pub port: u16,
    /// 0 for none.
    pub node_port: u16,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    pub source_ranges: Vec<Ipv4Net>,
    /// Seconds for which a client's address sticks to an endpoint.
    pub affinity: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    /// 0 for none.
    pub health_check_node_port: u16,
}

impl ServicePort {
    pub fn externally_accessible(&self) -> bool {
        self.node_port != 0 || !self.load_balancer_ips.is_empty() || !self.external_ips.is_empty()
    }

    /// Even with an external policy of `Local`, traffic from this node and its pods goes to any endpoint.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }
}

/// The ports of a Service that is to be proxied; headless ones and external names are not.
pub fn ports(service: &Service) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let Some(cluster_ip) = cluster_ip(spec) else { return Vec::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    ports.iter().filter_map(|port| service_port(service, spec, cluster_ip, port)).collect()
}

fn cluster_ip(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|ip| ip.parse().ok()).next()
}

fn service_port(
    service: &Service,
    spec: &ServiceSpec,
    cluster_ip: Ipv4Addr,
    port: &ApiPort,
) -> Option<ServicePort> {
    let name = PortName {
        service: ObjectKey::of(service),
        port: port.name.clone().unwrap_or_default(),
        protocol: Protocol::of(port.protocol.as_deref())?,
    };
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress = ingress.flat_map(|balancer| balancer.ingress.iter().flatten());
    let health_check = spec.health_check_node_port.filter(|_| external_local).unwrap_or_default();
    Some(ServicePort {
        name,
        cluster_ip,
        port: number(port.port)?,
        node_port: number(port.node_port.unwrap_or_default())?,
        external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
        load_balancer_ips: ingress.filter_map(virtual_ip).collect(),
        source_ranges: source_ranges(service, spec),
        affinity: sticky_seconds(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        health_check_node_port: number(health_check)?,
    })
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok()
}

/// An ingress address whose packets arrive as they were sent; in mode `Proxy` the balancer is the endpoint.
fn virtual_ip(ingress: &LoadBalancerIngress) -> Option<Ipv4Addr> {
    match ingress.ip_mode.as_deref() {
        None | Some("VIP") => ingress.ip.as_deref()?.parse().ok(),
        Some(_) => None,
    }
}

fn sticky_seconds(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    Some(seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_STICKY_SECONDS))
}

fn source_ranges(service: &Service, spec: &ServiceSpec) -> Vec<Ipv4Net> {
    let parse = |range: &str| range.trim().parse::<Ipv4Net>().ok().map(|range| range.trunc());
    match spec.load_balancer_source_ranges.as_deref() {
        Some(ranges) if !ranges.is_empty() => ranges.iter().filter_map(|range| parse(range)).collect(),
        _ => {
            let annotation =
                service.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE_RANGES_ANNOTATION));
            annotation.into_iter().flat_map(|ranges| ranges.split(',')).filter_map(parse).collect()
        }
    }
}
