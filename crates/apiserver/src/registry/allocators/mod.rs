//! What Services are given: cluster addresses and node ports. Every decision is a write to the store that one of
//! several servers wins, so none lives in memory only.

mod addresses;
mod ports;

use std::net::IpAddr;

use apimachinery::field::{self, Path};
use apimachinery::{Object, Status, Value};
use serde_json::json;

pub use addresses::Cidr;
pub use ports::PortRange;

use super::Registry;
use crate::kinds::Kind;

/// Where addresses and ports come from.
pub struct Allocators {
    pub addresses: Cidr,
    pub ports: PortRange,
}

/// What one write took and gives up: taken things go back when it fails, given up ones when it succeeds.
#[derive(Default)]
#[must_use]
pub struct Allocation {
    taken: Resources,
    given_up: Resources,
}

#[derive(Default)]
struct Resources {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Allocation {
    /// The write of a new object succeeded.
    pub fn keep(self) {}

    /// The write of an existing object succeeded.
    pub async fn finish(self, registry: &Registry) {
        self.given_up.release(registry).await;
    }

    /// The write failed.
    pub async fn release(self, registry: &Registry) {
        self.taken.release(registry).await;
    }
}

impl Resources {
    async fn release(self, registry: &Registry) {
        for address in self.addresses {
            registry.allocators.addresses.release(registry, address).await;
        }
        if !self.ports.is_empty() {
            registry.allocators.ports.release(registry, &self.ports).await;
        }
    }
}

fn is_service(kind: &Kind) -> bool {
    (kind.resource.group, kind.resource.plural) == ("", "services")
}

fn text<'a>(service: &'a Object, key: &str) -> &'a str {
    service.get_str(&["spec", key])
}

/// The addresses that a Service holds.
fn addresses_of(service: &Object) -> Vec<IpAddr> {
    let listed = service.get_array(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    listed.filter_map(|text| text.parse().ok()).collect()
}

/// The node ports that a Service holds, each once.
fn ports_of(service: &Object) -> Vec<u16> {
    let mut out: Vec<u16> = service
        .get_array(&["spec", "ports"])
        .iter()
        .filter_map(|port| u16::try_from(port.get("nodePort")?.as_i64()?).ok())
        .chain(service.get_i64(&["spec", "healthCheckNodePort"]).and_then(|port| u16::try_from(port).ok()))
        .filter(|port| *port != 0)
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn wants_node_ports(service: &Object) -> bool {
    match text(service, "type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.get(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

impl Allocators {
    pub async fn begin_create(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        dry_run: bool,
    ) -> Result<Allocation, Status> {
        if !is_service(kind) {
            return Ok(Allocation::default());
        }
        let mut allocation = Allocation::default();
        match self.allocate(registry, kind, service, None, dry_run, &mut allocation).await {
            Ok(()) => Ok(allocation),
            Err(status) => {
                allocation.release(registry).await;
                Err(status)
            }
        }
    }

    pub async fn begin_update(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        old: &Object,
        dry_run: bool,
    ) -> Result<Allocation, Status> {
        if !is_service(kind) {
            return Ok(Allocation::default());
        }
        // what the update leaves out is kept before anything new is given out
        kind.resource.strategy.prepare_for_update(service, old);
        let mut allocation = Allocation::default();
        match self.allocate(registry, kind, service, Some(old), dry_run, &mut allocation).await {
            Ok(()) => {
                let (kept_ips, kept_ports) = (addresses_of(service), ports_of(service));
                allocation.given_up = Resources {
                    addresses: addresses_of(old).into_iter().filter(|ip| !kept_ips.contains(ip)).collect(),
                    ports: ports_of(old).into_iter().filter(|port| !kept_ports.contains(port)).collect(),
                };
                Ok(allocation)
            }
            Err(status) => {
                allocation.release(registry).await;
                Err(status)
            }
        }
    }

    /// Gives back what an object that is gone held.
    pub async fn released(&self, registry: &Registry, kind: &Kind, object: &Object) {
        if is_service(kind) {
            let held = Resources { addresses: addresses_of(object), ports: ports_of(object) };
            held.release(registry).await;
        }
    }

    async fn allocate(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        allocation: &mut Allocation,
    ) -> Result<(), Status> {
        if text(service, "type") != "ExternalName" {
            self.cluster_ip(registry, kind, service, old, dry_run, allocation).await?;
        }
        if wants_node_ports(service) {
            self.node_ports(registry, kind, service, old, dry_run, allocation).await?;
        }
        Ok(())
    }

    async fn cluster_ip(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        allocation: &mut Allocation,
    ) -> Result<(), Status> {
        // each of the two fields fills in the other
        let first = service.get_array(&["spec", "clusterIPs"]).first().and_then(Value::as_str);
        let asked = match (text(service, "clusterIP"), first) {
            ("", Some(first)) => first.to_owned(),
            (ip, _) => ip.to_owned(),
        };
        let family = if self.addresses.is_ipv6() { "IPv6" } else { "IPv4" };
        let headless = asked == "None";
        if service.get(&["spec", "ipFamilyPolicy"]).is_none() {
            let open = headless && service.get(&["spec", "selector"]).is_none();
            service.set(&["spec", "ipFamilyPolicy"], if open { "RequireDualStack" } else { "SingleStack" });
        }
        if service.get_array(&["spec", "ipFamilies"]).is_empty() {
            let open = text(service, "ipFamilyPolicy") == "RequireDualStack" && headless;
            let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
            let families = if open { json!([family, other]) } else { json!([family]) };
            service.set(&["spec", "ipFamilies"], families);
        }
        let chosen = if headless {
            asked
        } else {
            let held = old.map(addresses_of).unwrap_or_default();
            match asked.parse::<IpAddr>() {
                Ok(ip) if held.contains(&ip) => asked,
                Ok(ip) => {
                    let taken = self.addresses.take(registry, service, ip, dry_run).await;
                    taken.map_err(|why| {
                        let path = Path::new("spec").child("clusterIPs");
                        let detail = format!("failed to allocate IP {ip}: {why}");
                        let error = field::Error::invalid(&path, json!([asked]), detail);
                        Status::invalid(&kind.resource.group_kind(), service.name(), &[error])
                    })?;
                    if !dry_run {
                        allocation.taken.addresses.push(ip);
                    }
                    asked
                }
                Err(_) if !asked.is_empty() => {
                    let path = Path::new("spec").child("clusterIPs").index(0);
                    let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                    let error = field::Error::invalid(&path, asked, detail);
                    return Err(Status::invalid(&kind.resource.group_kind(), service.name(), &[error]));
                }
                Err(_) => {
                    let ip = self.addresses.take_any(registry, service, dry_run).await?;
                    if !dry_run {
                        allocation.taken.addresses.push(ip);
                    }
                    ip.to_string()
                }
            }
        };
        service.set(&["spec", "clusterIP"], chosen.as_str());
        service.set(&["spec", "clusterIPs"], json!([chosen]));
        Ok(())
    }

    async fn node_ports(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        allocation: &mut Allocation,
    ) -> Result<(), Status> {
        let held = old.map(ports_of).unwrap_or_default();
        let mut ports = service.get_array(&["spec", "ports"]).to_vec();
        let mut here: Vec<(u16, Value)> = Vec::new();
        for (index, port) in ports.iter_mut().enumerate() {
            let protocol = port["protocol"].clone();
            let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or_default();
            if asked != 0 {
                let path = Path::new("spec").child("ports").index(index).child("nodePort");
                let refuse = |why: String| {
                    let error = field::Error::invalid(&path, asked, why);
                    Status::invalid(&kind.resource.group_kind(), service.name(), &[error])
                };
                let number = self.ports.check(asked).map_err(refuse)?;
                // one number may serve two protocols of one Service
                let shared = here.iter().any(|(n, p)| *n == number && *p != protocol);
                if !held.contains(&number) && !shared {
                    if !self.ports.take(registry, number, dry_run).await? {
                        return Err(refuse("provided port is already allocated".into()));
                    }
                    if !dry_run {
                        allocation.taken.ports.push(number);
                    }
                }
                here.push((number, protocol));
                continue;
            }
            // the same port over another protocol gets the same node port
            let number = port["port"].clone();
            let twin = service.get_array(&["spec", "ports"])[..index]
                .iter()
                .zip(&here)
                .find(|(other, (_, p))| other["port"] == number && *p != protocol)
                .map(|(_, (n, _))| *n);
            let given = match twin {
                Some(number) => number,
                None => {
                    let number = self.ports.take_any(registry, dry_run).await?;
                    if !dry_run {
                        allocation.taken.ports.push(number);
                    }
                    number
                }
            };
            here.push((given, protocol));
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".into(), json!(given));
            }
        }
        service.set(&["spec", "ports"], ports);
        let needs_health = text(service, "type") == "LoadBalancer"
            && text(service, "externalTrafficPolicy") == "Local"
            && service.get_i64(&["spec", "healthCheckNodePort"]).unwrap_or_default() == 0;
        if needs_health {
            let number = self.ports.take_any(registry, dry_run).await?;
            if !dry_run {
                allocation.taken.ports.push(number);
            }
            service.set(&["spec", "healthCheckNodePort"], number);
        }
        Ok(())
    }
}
