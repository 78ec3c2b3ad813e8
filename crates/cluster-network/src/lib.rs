//! The pod network: CNI configuration, and the way of pods to the outside.

mod bridge;
pub mod cni;
mod masquerade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Informers, Selector};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube_proxy::Iptables;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use cni::Network;

/// After a failure to write, and in case somebody took away what was written.
const RETRY: Duration = Duration::from_secs(30);

/// Which node's network is kept, and where.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The runtime's CNI configuration folder.
    pub cni_folder: PathBuf,
    /// Where host-local keeps the addresses it gave away.
    pub state: PathBuf,
    pub mtu: u32,
    /// The addresses of all pods. To others, pods have the address of their node.
    pub cluster_cidr: Ipv4Net,
}

/// Keeps the node's CNI configuration in line with `Node.spec.podCIDRs` until cancelled.
pub async fn run(config: Config, client: Client, cancel: CancellationToken) -> anyhow::Result<()> {
    let iptables = Iptables::open().await?;
    let informers = Informers::new(client, cancel.clone());
    let nodes = informers.select::<Node>(Selector::fields(format!("metadata.name={}", config.node_name)));
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    nodes.on_change(move |_| wake.notify_one());
    let follow = async {
        loop {
            let node = nodes.store().get("", &config.node_name);
            let pod_cidrs = node.as_deref().map(pod_cidrs).unwrap_or_default();
            if !pod_cidrs.is_empty() {
                let network = Network { pod_cidrs, state: config.state.clone(), mtu: config.mtu };
                match cni::write(&config.cni_folder, &network) {
                    Ok(true) => {
                        tracing::info!(pod_cidrs = network.pod_cidrs.join(","), "configured the pod network")
                    }
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the pod network cannot be configured"),
                }
                for pods in network.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()) {
                    if let Err(error) = masquerade::ensure(&iptables, pods, config.cluster_cidr).await {
                        tracing::error!(%error, "pods do not reach the outside");
                    }
                }
            }
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    };
    cancel.run_until_cancelled(follow).await;
    Ok(())
}

/// Takes back what is left of the pod network when all pods of this machine are gone.
pub async fn cleanup() -> anyhow::Result<()> {
    masquerade::cleanup().await.context("the packet rules of the pod network cannot be taken back")?;
    bridge::remove().await.context("the bridge of the pod network cannot be removed")
}

/// One range per address family: a pod has one address of each.
fn pod_cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.as_ref());
    let mut chosen: Vec<String> = Vec::new();
    for cidr in all {
        if !chosen.iter().any(|other| other.contains(':') == cidr.contains(':')) {
            chosen.push(cidr.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_each_family_is_taken() {
        let node = |spec: serde_json::Value| -> Node {
            serde_json::from_value(serde_json::json!({"spec": spec})).expect("a node")
        };
        let both = serde_json::json!({"podCIDRs": ["10.1.0.0/24", "fd00::/64", "10.2.0.0/24"], "podCIDR": "10.1.0.0/24"});
        assert_eq!(pod_cidrs(&node(both)), ["10.1.0.0/24", "fd00::/64"]);
        assert_eq!(pod_cidrs(&node(serde_json::json!({"podCIDR": "10.1.0.0/24"}))), ["10.1.0.0/24"]);
        assert!(pod_cidrs(&Node::default()).is_empty());
    }
}
