//! Services to packet rules: watches Services, EndpointSlices and its node, and keeps iptables as they say. Rules are
//! pure text made from objects (`service`, `endpoints`, `rules`, `restore`); `proxier` owns what is installed.
//! IPv4 only: other families' addresses of a Service are left alone.

mod chains;
mod conntrack;
mod endpoints;
mod health;
mod iptables;
mod metrics;
mod proxier;
mod restore;
mod rules;
mod service;
mod sync;
mod sysctl;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;

pub use iptables::{Error, Iptables};
pub use proxier::{Done, HealthCheck, Proxier, World};
pub use rules::Settings;
pub use sync::run;

#[cfg(test)]
mod tests;

/// How a proxy runs.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// The pods' range: traffic to Services from outside of it is masqueraded.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Addresses of this range that belong to no Service are refused.
    pub service_cidr: Option<Ipv4Net>,
    pub healthz_address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub masquerade_all: bool,
    /// Which bit of the packet mark asks for masquerading.
    pub masquerade_bit: u8,
    /// Whether node ports answer on loopback addresses.
    pub localhost_node_ports: bool,
    /// How often it is looked whether somebody flushed the rules, and how soon a failure is tried again at most.
    pub sync_period: Duration,
    /// Changes within this time are written together.
    pub min_sync_period: Duration,
}

impl Config {
    /// Upstream's defaults, but for the time within which changes are gathered: a change here costs little.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            cluster_cidr: None,
            service_cidr: None,
            healthz_address: ([0, 0, 0, 0], 10256).into(),
            metrics_address: ([127, 0, 0, 1], 10249).into(),
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::from_millis(5),
        }
    }
}

/// Removes the chains and jumps of a proxy from all tables, and nothing else. The chain that is shared with the
/// kubelet goes only where that is to go too.
pub async fn cleanup(with_kubelets: bool) -> Result<(), Error> {
    let iptables = Iptables::open().await?;
    let mut found = BTreeMap::new();
    for table in ["filter", "mangle", "nat"] {
        found.insert(table, iptables.save(table).await?);
    }
    match restore::cleanup(&found, with_kubelets) {
        nothing if nothing.is_empty() => Ok(()),
        input => iptables.restore(&input).await,
    }
}
