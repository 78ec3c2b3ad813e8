//! Node IPAM: every node gets a range of pod addresses of its own. A range is taken by writing it into the node,
//! and the ranges in use are read from the nodes, so that nothing is remembered elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, bail};
use client::runner::{self, Again};
use client::{ObjectKey, Queue, Recorder, events};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Shared;

/// The cluster's pod addresses and how large a part each node gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u32,
    prefix: u8,
    node_prefix: u8,
}

impl ClusterCidr {
    /// Parses a range such as `10.244.0.0/16`; nodes get parts of `node_prefix`.
    pub fn parse(text: &str, node_prefix: u8) -> anyhow::Result<Self> {
        let (ip, prefix) = text.split_once('/').context("a range of addresses looks like 10.244.0.0/16")?;
        let ip: Ipv4Addr = ip.parse().with_context(|| format!("{ip:?} is not an IPv4 address"))?;
        let prefix: u8 = prefix.parse().with_context(|| format!("{prefix:?} is not a prefix length"))?;
        if prefix == 0 || prefix > node_prefix || node_prefix > 30 {
            bail!("nodes with ranges of /{node_prefix} do not fit the cluster's /{prefix}");
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Self { base: u32::from(ip) & mask, prefix, node_prefix })
    }

    fn count(&self) -> u32 {
        1 << (self.node_prefix - self.prefix)
    }

    fn part(&self, index: u32) -> String {
        let base = self.base + (index << (32 - self.node_prefix));
        format!("{}/{}", Ipv4Addr::from(base), self.node_prefix)
    }

    /// The first part that nobody has.
    pub fn free(&self, used: &BTreeSet<String>) -> Option<String> {
        (0..self.count()).map(|index| self.part(index)).find(|part| !used.contains(part))
    }
}

pub async fn run(shared: Shared, client: Client, cluster: ClusterCidr, cancel: CancellationToken) {
    let nodes = shared.informers.all::<Node>();
    let queue = Arc::new(Queue::default());
    nodes.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    nodes.wait_for_sync().await;
    let recorder = Recorder::new(client.clone(), "cidrAllocator", "");
    // ranges given out that the cache does not show yet; one worker, so that none is given twice
    let given: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    runner::run("node-ipam", queue, 1, cancel, |key| {
        let (nodes, client, given, recorder) =
            (nodes.clone(), client.clone(), given.clone(), recorder.clone());
        async move {
            let Some(node) = nodes.store().get_key(&key) else { return Ok(Again::OnChange) };
            let range_of = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
            let mut used: BTreeSet<String> =
                nodes.store().list().iter().filter_map(|node| range_of(node)).collect();
            if range_of(&node).is_some() {
                given.lock().remove(&key.name);
                return Ok(Again::OnChange);
            }
            used.extend(given.lock().values().cloned());
            // one that is on its way stays the same, however often it is written
            let known = given.lock().get(&key.name).cloned();
            let Some(range) = known.or_else(|| cluster.free(&used)) else {
                let about = events::reference(node.as_ref());
                recorder.normal(
                    &about,
                    "CIDRNotAvailable",
                    format!("Node {} status is now: CIDRNotAvailable", key.name),
                );
                bail!("no range of pod addresses is left for node {}", key.name);
            };
            given.lock().insert(key.name.clone(), range.clone());
            let api: Api<Node> = Api::all(client);
            let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
            let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            if let Err(error) = patched {
                given.lock().remove(&key.name);
                return Err(error).context("writing the node's range");
            }
            Ok(Again::OnChange)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_in_order_and_run_out() {
        let cluster = ClusterCidr::parse("10.244.3.0/22", 24).unwrap();
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(part) = cluster.free(&used) {
            used.insert(part.clone());
            given.push(part);
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        assert!(
            ClusterCidr::parse("10.244.0.0/25", 24).is_err() && ClusterCidr::parse("10.244.0.0", 24).is_err()
        );
    }
}
