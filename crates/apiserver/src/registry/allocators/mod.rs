//! What Services are given: cluster addresses and node ports. Every decision is a write to the store that one of
//! several servers wins, so none lives in memory only.

mod addresses;
mod families;
mod ports;
pub mod repair;

use std::net::IpAddr;

use api::validation::{allocates_node_ports, needs_health_check};
use apimachinery::field::{self, Path};
use apimachinery::{Object, Status, Value};
use serde_json::json;

pub use addresses::{Cidr, ServiceRanges};
pub use ports::PortRange;

use super::Registry;
use crate::kinds::Kind;

/// Where addresses and ports come from.
pub struct Allocators {
    pub addresses: ServiceRanges,
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
            addresses::release(registry, address).await;
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

fn spec(service: &Object) -> &Value {
    service.get(&["spec"]).unwrap_or(&Value::Null)
}

fn has_node_ports(service: &Object) -> bool {
    matches!(text(service, "type"), "NodePort" | "LoadBalancer")
}

fn invalid(kind: &Kind, service: &Object, errors: &[field::Error]) -> Status {
    Status::invalid(&kind.resource.group_kind(), service.name(), errors)
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
        api::core::service::align_cluster_ips(service, None);
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
        let configured = self.addresses.families();
        families::fill_in(service, old, &configured).map_err(|errors| invalid(kind, service, &errors))?;
        let headless = service.get_array(&["spec", "clusterIPs"]).first().is_some_and(|ip| ip == "None");
        if text(service, "type") != "ExternalName" && !headless && !families::stays_as_it_is(service, old) {
            self.cluster_ips(registry, kind, service, old, dry_run, allocation).await?;
        }
        let mut taker = Taker { ports: &self.ports, registry, dry_run, taken: &mut allocation.taken.ports };
        match old {
            None if has_node_ports(service) => taker.node_ports_of_new(kind, service).await?,
            Some(old) if has_node_ports(service) => taker.node_ports_of_old(kind, service, old).await?,
            _ => {}
        }
        taker.health_check(kind, service, old).await
    }

    /// Gives each family of a Service an address: the one it asks for, or any.
    async fn cluster_ips(
        &self,
        registry: &Registry,
        kind: &Kind,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        allocation: &mut Allocation,
    ) -> Result<(), Status> {
        let families: Vec<String> = strings(service, "ipFamilies");
        // one that has addresses keeps them, and at most gets a second one
        let kept = match old.filter(|old| text(old, "type") != "ExternalName") {
            Some(old) if strings(old, "ipFamilies").len() == 1 && families.len() == 2 => 1,
            Some(_) => return Ok(()),
            None => 0,
        };
        let mut ips = strings(service, "clusterIPs");
        let asked = service.get_array(&["spec", "clusterIPs"]).to_vec();
        ips.resize(families.len(), String::new());
        for (ip, family) in ips.iter_mut().zip(&families).skip(kept) {
            let family = if family == families::V6 { families::V6 } else { families::V4 };
            let ranges = self.addresses.of(registry, family);
            let given = if ip.is_empty() {
                addresses::take_any(&ranges, registry, service, dry_run).await?
            } else {
                let wanted = apimachinery::validation::parse_ip_sloppy(ip);
                let wanted = wanted.ok_or_else(|| Status::internal(format!("{ip:?} is no address")))?;
                addresses::take(&ranges, registry, service, wanted, dry_run).await.map_err(|why| {
                    let detail = format!("failed to allocate IP {ip}: {why}");
                    let error =
                        field::Error::invalid(&Path::new("spec").child("clusterIPs"), asked.clone(), detail);
                    invalid(kind, service, &[error])
                })?;
                wanted
            };
            if !dry_run {
                allocation.taken.addresses.push(given);
            }
            if ip.is_empty() {
                *ip = given.to_string();
            }
        }
        service.set(&["spec", "clusterIP"], ips.first().map(String::as_str).unwrap_or_default());
        service.set(&["spec", "clusterIPs"], json!(ips));
        Ok(())
    }
}

fn strings(service: &Object, key: &str) -> Vec<String> {
    let list = service.get_array(&["spec", key]).iter().filter_map(Value::as_str);
    list.map(str::to_owned).collect()
}

/// Takes ports and notes each, so that all can go back.
struct Taker<'a> {
    ports: &'a PortRange,
    registry: &'a Registry,
    dry_run: bool,
    taken: &'a mut Vec<u16>,
}

impl Taker<'_> {
    /// Takes a given port. The inner error says why not.
    async fn take(&mut self, port: i64) -> Result<Result<u16, String>, Status> {
        const TAKEN: &str = "provided port is already allocated";
        let number = match self.ports.check(port) {
            Ok(number) => number,
            Err(why) => return Ok(Err(why)),
        };
        if self.taken.contains(&number) || !self.ports.take(self.registry, number, self.dry_run).await? {
            return Ok(Err(TAKEN.into()));
        }
        self.taken.push(number);
        Ok(Ok(number))
    }

    async fn take_any(&mut self) -> Result<u16, Status> {
        loop {
            let number = self.ports.take_any(self.registry, self.dry_run).await?;
            // a dry run leaves no trace in the store, and may be given the same port twice
            if !self.taken.contains(&number) {
                self.taken.push(number);
                return Ok(number);
            }
        }
    }

    async fn take_for(
        &mut self,
        kind: &Kind,
        service: &Object,
        index: usize,
        port: i64,
    ) -> Result<(), Status> {
        let path = Path::new("spec").child("ports").index(index).child("nodePort");
        self.take(port)
            .await?
            .map(drop)
            .map_err(|why| invalid(kind, service, &[field::Error::invalid(&path, port, why)]))
    }

    /// Node ports of a new Service. Entries for one port, which differ in protocol, share one node port.
    async fn node_ports_of_new(&mut self, kind: &Kind, service: &mut Object) -> Result<(), Status> {
        let allocates = allocates_node_ports(spec(service));
        let mut ports = service.get_array(&["spec", "ports"]).to_vec();
        let mut shared: Vec<(i64, i64)> = Vec::new();
        for index in 0..ports.len() {
            let (port, own) = (number(&ports[index], "port"), number(&ports[index], "nodePort"));
            if own == 0 && !allocates {
                continue;
            }
            let known = shared.iter().find(|(other, _)| *other == port).map(|(_, node)| *node);
            let given = match known {
                Some(node) if own == 0 || own == node => node,
                Some(_) => {
                    self.take_for(kind, service, index, own).await?;
                    own
                }
                None => {
                    let same = ports.iter().filter(|other| number(other, "port") == port);
                    let asked = same.map(|other| number(other, "nodePort")).find(|node| *node != 0);
                    let node = match asked {
                        Some(asked) => {
                            self.take_for(kind, service, index, asked).await?;
                            asked
                        }
                        None => self.take_any().await?.into(),
                    };
                    shared.push((port, node));
                    node
                }
            };
            if let Some(port) = ports[index].as_object_mut() {
                port.insert("nodePort".into(), json!(given));
            }
        }
        if !ports.is_empty() {
            service.set(&["spec", "ports"], ports);
        }
        Ok(())
    }

    /// Node ports of a Service that may have some already.
    async fn node_ports_of_old(
        &mut self,
        kind: &Kind,
        service: &mut Object,
        old: &Object,
    ) -> Result<(), Status> {
        let allocates = allocates_node_ports(spec(service));
        let held: Vec<i64> =
            old.get_array(&["spec", "ports"]).iter().map(|p| number(p, "nodePort")).collect();
        let mut ports = service.get_array(&["spec", "ports"]).to_vec();
        let mut here: Vec<(Value, i64)> = Vec::new();
        for (index, port) in ports.iter_mut().enumerate() {
            let own = number(port, "nodePort");
            if own == 0 && !allocates {
                continue;
            }
            let given = if own == 0 {
                self.take_any().await?.into()
            } else {
                if !held.contains(&own) && !here.iter().any(|(_, node)| *node == own) {
                    self.take_for(kind, service, index, own).await?;
                }
                own
            };
            let protocol = port.get("protocol").cloned().unwrap_or_default();
            if here.contains(&(protocol.clone(), given)) {
                let protocol = protocol.as_str().unwrap_or_default();
                return Err(Status::internal(format!("duplicate nodePort: {{{protocol} {given}}}")));
            }
            here.push((protocol, given));
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".into(), json!(given));
            }
        }
        if !ports.is_empty() {
            service.set(&["spec", "ports"], ports);
        }
        Ok(())
    }

    /// The port at which nodes say whether they have endpoints.
    async fn health_check(
        &mut self,
        kind: &Kind,
        service: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        const KEY: &str = "healthCheckNodePort";
        if !needs_health_check(spec(service)) {
            return Ok(());
        }
        let asked = number(spec(service), KEY);
        if let Some(old) = old.filter(|old| needs_health_check(spec(old))) {
            if asked != number(spec(old), KEY) {
                let why = "cannot change healthCheckNodePort on loadBalancer service with externalTraffic=Local during update";
                let error = field::Error::invalid(&Path::new("spec").child(KEY), asked, why);
                return Err(invalid(kind, service, &[error]));
            }
            return Ok(());
        }
        if asked == 0 {
            let given = self.take_any().await?;
            service.set(&["spec", KEY], given);
            return Ok(());
        }
        self.take(asked).await?.map(drop).map_err(|why| {
            Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
        })
    }
}

fn number(tree: &Value, key: &str) -> i64 {
    tree.get(key).and_then(Value::as_i64).unwrap_or_default()
}
