//! Keeps the rules of this node as the objects say. One task owns it: what is installed, what failed, and so no
//! more than one iptables-restore at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::{ObjectKey, Store};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::chains;
use crate::conntrack;
use crate::endpoints::{self, Endpoint, Place};
use crate::iptables::{Error, Iptables};
use crate::restore::{self, JUMPS, Jump};
use crate::rules::{Block, Settings};
use crate::service::{self, PortName, Protocol, ServicePort};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Files EndpointSlices under the Service they belong to.
const SERVICE_INDEX: &str = "service";

/// The objects rules are made of.
#[derive(Clone)]
pub struct World {
    pub services: Arc<Store<Service>>,
    pub slices: Arc<Store<EndpointSlice>>,
}

impl World {
    pub fn new(services: Arc<Store<Service>>, slices: Arc<Store<EndpointSlice>>) -> Self {
        slices.add_index(SERVICE_INDEX, |slice| {
            service_of(slice).map(|key| key.to_string()).into_iter().collect()
        });
        Self { services, slices }
    }
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone()?, name.clone()))
}

/// One port as it is installed.
struct Installed {
    port: ServicePort,
    endpoints: Vec<Endpoint>,
    block: Block,
}

/// What a Service that wants health checks on a port of its own is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ObjectKey,
    pub port: u16,
    pub local_endpoints: usize,
}

/// What a synchronisation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Nothing,
    Change,
    Everything,
}

pub struct Proxier {
    iptables: Iptables,
    settings: Settings,
    place: Place,
    world: World,
    installed: HashMap<ObjectKey, Vec<Installed>>,
    /// What is in the tables is not what `installed` says: nothing was written yet, somebody flushed them, or a
    /// write failed.
    unknown: bool,
    /// Where UDP may still flow along rules of before.
    udp_changed: bool,
}

impl Proxier {
    pub fn new(iptables: Iptables, settings: Settings, node: &str, world: World) -> Self {
        let place = Place { node: node.to_owned(), ..Place::default() };
        Self { iptables, settings, place, world, installed: HashMap::new(), unknown: true, udp_changed: true }
    }

    /// What is installed is not to be trusted; the next synchronisation writes everything.
    pub fn distrust(&mut self) {
        self.unknown = true;
    }

    /// The labels of this node choose among endpoints. True when they are others than before.
    pub fn set_labels(&mut self, labels: std::collections::BTreeMap<String, String>) -> bool {
        let changed = self.place.labels != labels;
        self.place.labels = labels;
        changed
    }

    /// The Services there are or were.
    pub fn services(&self) -> BTreeSet<ObjectKey> {
        self.installed.keys().cloned().chain(self.world.services.keys()).collect()
    }

    /// Brings the tables to what the objects say of these Services, or of all when the tables are not to be
    /// trusted. After an error everything is written anew next time.
    pub async fn sync(&mut self, changed: &BTreeSet<ObjectKey>) -> Result<Done, Error> {
        let done = if self.unknown { self.sync_all().await? } else { self.sync_change(changed).await? };
        if std::mem::take(&mut self.udp_changed) {
            let ports = self.installed.values().flatten();
            let udp = ports.filter(|installed| installed.port.name.protocol == Protocol::Udp);
            conntrack::clean(udp.map(|installed| (&installed.port, installed.endpoints.as_slice()))).await;
        }
        Ok(done)
    }

    async fn sync_change(&mut self, changed: &BTreeSet<ObjectKey>) -> Result<Done, Error> {
        let new: Vec<_> = changed.iter().map(|key| (key, self.desired(key))).collect();
        let mut pairs = Vec::new();
        for (key, new) in &new {
            let old = self.installed.get(*key).map(Vec::as_slice).unwrap_or_default();
            let find =
                |all: &'_ [Installed], name: &PortName| all.iter().position(|one| one.port.name == *name);
            for one in new {
                pairs.push((find(old, &one.port.name).map(|at| &old[at].block), Some(&one.block)));
            }
            let gone = old.iter().filter(|one| find(new, &one.port.name).is_none());
            pairs.extend(gone.map(|one| (Some(&one.block), None)));
            let udp = |all: &[Installed]| all.iter().any(|one| one.port.name.protocol == Protocol::Udp);
            self.udp_changed |= udp(old) || udp(new);
        }
        let change = restore::change(&pairs);
        drop(pairs);
        if let Some(input) = &change {
            self.write(input).await?;
        }
        for (key, new) in new {
            match new.is_empty() {
                true => self.installed.remove(key),
                false => self.installed.insert(key.clone(), new),
            };
        }
        Ok(if change.is_some() { Done::Change } else { Done::Nothing })
    }

    async fn sync_all(&mut self) -> Result<Done, Error> {
        let keys = self.world.services.keys();
        let all = keys.into_iter().map(|key| (self.desired(&key), key));
        self.installed = all.filter(|(new, _)| !new.is_empty()).map(|(new, key)| (key, new)).collect();
        self.udp_changed = true;
        let missing = self.missing_jumps().await?;
        let blocks = self.installed.values().flatten().map(|installed| &installed.block);
        for input in restore::full(blocks, &self.settings, &missing) {
            self.write(&input).await?;
        }
        self.unknown = false;
        self.remove_stale().await;
        Ok(Done::Everything)
    }

    async fn write(&mut self, input: &str) -> Result<(), Error> {
        tracing::trace!(input, "writing packet rules");
        let written = self.iptables.restore(input).await;
        self.unknown |= written.is_err();
        written
    }

    fn desired(&self, key: &ObjectKey) -> Vec<Installed> {
        let Some(service) = self.world.services.get_key(key) else { return Vec::new() };
        let slices = self.world.slices.by_index(SERVICE_INDEX, &key.to_string());
        let ports = service::ports(&service).into_iter();
        let install = |port: ServicePort| {
            let endpoints = endpoints::of_port(&port.name, &slices, &self.place.node);
            let block = Block::of(&port, &endpoints, &self.place, &self.settings);
            Installed { port, endpoints, block }
        };
        ports.map(install).collect()
    }

    async fn missing_jumps(&self) -> Result<Vec<Jump>, Error> {
        let mut listed: HashMap<(&str, &str), Vec<String>> = HashMap::new();
        let mut missing = Vec::new();
        for jump in JUMPS {
            let rules = match listed.entry((jump.table, jump.from)) {
                std::collections::hash_map::Entry::Occupied(rules) => rules.into_mut(),
                std::collections::hash_map::Entry::Vacant(rules) => {
                    rules.insert(self.iptables.list(jump.table, jump.from).await?)
                }
            };
            if !rules.iter().any(|rule| jump.is(rule)) {
                missing.push(jump);
            }
        }
        Ok(missing)
    }

    /// Removes chains that a proxy of before left. They do no harm, so neither does a failure.
    async fn remove_stale(&self) {
        let saved = match self.iptables.save("nat").await {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(%error, "chains of Services that are gone could not be looked for");
                return;
            }
        };
        let blocks = self.installed.values().flatten().map(|installed| &installed.block);
        let used: BTreeSet<&str> = blocks.flat_map(|block| block.own.keys()).map(String::as_str).collect();
        let names = saved.iter().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let stale: Vec<String> = names
            .filter(|name| chains::is_of_service(name) && !used.contains(name))
            .map(str::to_owned)
            .collect();
        if stale.is_empty() {
            return;
        }
        if let Err(error) = self.iptables.restore(&restore::remove(&stale)).await {
            tracing::warn!(%error, "chains of Services that are gone could not be removed");
        }
    }

    /// Whether somebody flushed a table since rules were written.
    pub async fn was_flushed(&self) -> bool {
        for table in ["mangle", "nat", "filter"] {
            match self.iptables.list(table, chains::CANARY).await {
                Ok(_) => {}
                Err(Error::Failed { .. }) => return true,
                Err(error) => {
                    tracing::debug!(%error, "whether the tables were flushed is not known");
                    return false;
                }
            }
        }
        false
    }

    /// The Services that want to be asked on a port of their own whether this node has endpoints of theirs.
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        let mut checks: HashMap<&ObjectKey, HealthCheck> = HashMap::new();
        for installed in self.installed.values().flatten() {
            let port = &installed.port;
            if port.health_check_node_port == 0 {
                continue;
            }
            let here = installed.endpoints.iter().filter(|endpoint| endpoint.local && endpoint.ready).count();
            let service = &port.name.service;
            let check = checks.entry(service).or_insert_with(|| HealthCheck {
                service: service.clone(),
                port: port.health_check_node_port,
                local_endpoints: 0,
            });
            check.local_endpoints = check.local_endpoints.max(here);
        }
        checks.into_values().collect()
    }
}
