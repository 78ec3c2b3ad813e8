//! The scheduler's picture of nodes and the pods on them, those included that it has just decided to put there.
//!
//! Owned and updated by one task, between scheduling cycles; within a cycle it is only read. Every change touches
//! one node, so the picture is never rebuilt.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, Uid};

/// The place of a node in the snapshot. It stays the same while the node is known.
pub type NodeId = usize;

/// All nodes, as a scheduling cycle sees them.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, NodeId>,
    /// The nodes that exist, taken from the zones in turn, so that neighbours in the list are in different zones.
    order: Vec<NodeId>,
    /// On how many nodes an image is, by name.
    image_nodes: HashMap<String, usize>,
}

impl Snapshot {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    pub fn node(&self, id: NodeId) -> &NodeInfo {
        &self.slots[id]
    }

    /// A node that exists.
    pub fn get(&self, name: &str) -> Option<(NodeId, &NodeInfo)> {
        let id = *self.by_name.get(name)?;
        let node = &self.slots[id];
        node.node.is_some().then_some((id, node))
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.order.iter().map(|id| (*id, &self.slots[*id]))
    }

    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.image_nodes.get(name).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
struct PodState {
    info: Arc<PodInfo>,
    node: NodeId,
    /// Decided here and not yet seen in the API.
    assumed: bool,
}

#[derive(Debug, Default)]
pub struct Cache {
    snapshot: Snapshot,
    free: Vec<NodeId>,
    pods: HashMap<Uid, PodState>,
    /// The list of nodes is to be made anew before the next cycle.
    order_is_stale: bool,
    /// Zones in the order in which they were first seen.
    zones: Vec<String>,
}

impl Cache {
    /// The picture for the next cycle.
    pub fn snapshot(&mut self) -> &Snapshot {
        if std::mem::take(&mut self.order_is_stale) {
            self.order_nodes();
        }
        &self.snapshot
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let id = self.slot(&name);
        let slot = &mut self.snapshot.slots[id];
        self.order_is_stale |= slot.node.as_deref().is_none_or(|old| zone(old) != zone(&node));
        count_images(&mut self.snapshot.image_nodes, slot, false);
        slot.set_node(node);
        count_images(&mut self.snapshot.image_nodes, slot, true);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.snapshot.by_name.get(name).copied() else { return };
        let slot = &mut self.snapshot.slots[id];
        count_images(&mut self.snapshot.image_nodes, slot, false);
        slot.remove_node();
        self.order_is_stale = true;
        self.release(id);
    }

    /// Counts a pod in on the node that was chosen for it, before the API knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: NodeId) {
        self.put(pod, node, true);
    }

    /// Takes back an assumption that has not come true. A pod that the API has confirmed stays.
    pub fn forget(&mut self, uid: &Uid) -> Option<Arc<PodInfo>> {
        if !self.is_assumed(uid) {
            return None;
        }
        self.remove_pod(uid)
    }

    pub fn is_assumed(&self, uid: &Uid) -> bool {
        self.pods.get(uid).is_some_and(|state| state.assumed)
    }

    pub fn pod(&self, uid: &Uid) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|state| &state.info)
    }

    /// A pod that the API shows on a node: new, changed, or an assumption come true.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        let Some(name) = pod.node_name() else { return };
        let node = self.slot(name);
        self.put(pod, node, false);
    }

    pub fn remove_pod(&mut self, uid: &Uid) -> Option<Arc<PodInfo>> {
        let state = self.pods.remove(uid)?;
        self.snapshot.slots[state.node].remove_pod(uid);
        self.release(state.node);
        Some(state.info)
    }

    fn put(&mut self, info: Arc<PodInfo>, node: NodeId, assumed: bool) {
        let uid = info.uid.clone();
        if let Some(old) = self.pods.insert(uid.clone(), PodState { info: info.clone(), node, assumed }) {
            self.snapshot.slots[old.node].remove_pod(&uid);
            if old.node != node {
                self.release(old.node);
            }
        }
        self.snapshot.slots[node].add_pod(info);
    }

    fn slot(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.snapshot.by_name.get(name) {
            return *id;
        }
        let info = NodeInfo::new(name);
        let key = info.name.clone();
        let id = match self.free.pop() {
            Some(id) => {
                self.snapshot.slots[id] = info;
                id
            }
            None => {
                self.snapshot.slots.push(info);
                self.snapshot.slots.len() - 1
            }
        };
        self.snapshot.by_name.insert(key, id);
        id
    }

    /// Gives a slot back that holds neither a node nor pods.
    fn release(&mut self, id: NodeId) {
        let slot = &self.snapshot.slots[id];
        if slot.node.is_none() && slot.pods.is_empty() && self.snapshot.by_name.remove(&slot.name).is_some() {
            self.free.push(id);
        }
    }

    fn order_nodes(&mut self) {
        let mut by_zone: HashMap<String, Vec<NodeId>> = HashMap::new();
        for (id, slot) in self.snapshot.slots.iter().enumerate() {
            if let Some(node) = &slot.node {
                let zone = zone(node);
                if !self.zones.contains(&zone) {
                    self.zones.push(zone.clone());
                }
                by_zone.entry(zone).or_default().push(id);
            }
        }
        self.zones.retain(|zone| by_zone.contains_key(zone));
        let mut lists: Vec<_> =
            self.zones.iter().filter_map(|zone| by_zone.remove(zone)).map(Vec::into_iter).collect();
        let order = &mut self.snapshot.order;
        order.clear();
        while !lists.is_empty() {
            lists.retain_mut(|list| match list.next() {
                Some(id) => {
                    order.push(id);
                    true
                }
                None => false,
            });
        }
    }
}

fn count_images(counts: &mut HashMap<String, usize>, node: &NodeInfo, on: bool) {
    for name in node.images.keys() {
        if on {
            *counts.entry(name.clone()).or_default() += 1;
        } else if let Some(count) = counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
            }
        }
    }
}

/// Region and zone of a node by its well-known labels, the old names where the new ones are missing.
fn zone(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let label = |names: [&str; 2]| {
        let found = labels.and_then(|labels| names.iter().find_map(|name| labels.get(*name)));
        found.map(String::as_str).unwrap_or_default().to_owned()
    };
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    format!("{region}\0{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};
    use serde_json::json;

    fn names(cache: &mut Cache) -> Vec<String> {
        cache.snapshot().nodes().map(|(_, node)| node.name.to_string()).collect()
    }

    fn node_in(name: &str, zone: &str) -> Arc<Node> {
        node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
    }

    #[test]
    fn neighbours_are_in_different_zones() {
        let mut cache = Cache::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("c2", "c")] {
            cache.set_node(node_in(name, zone));
        }
        assert_eq!(names(&mut cache), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        cache.remove_node("b1");
        cache.set_node(node_in("a2", "c"));
        assert_eq!(names(&mut cache), ["a1", "a2", "a3", "c1", "c2"]);
    }

    #[test]
    fn assumptions_come_true_or_are_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("n", json!({})));
        let id = cache.snapshot().get("n").expect("the node").0;
        let used = |cache: &mut Cache| cache.snapshot().node(id).requested.milli_cpu;
        let waiting = pod(
            "p",
            json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
        );
        cache.assume(waiting.clone(), id);
        assert_eq!((used(&mut cache), cache.is_assumed(&waiting.uid)), (1000, true));
        assert!(cache.forget(&waiting.uid).is_some());
        assert_eq!(used(&mut cache), 0);

        cache.assume(waiting.clone(), id);
        let bound = pod(
            "p",
            json!({"spec": {"nodeName": "n", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
        );
        cache.set_pod(bound.clone());
        assert_eq!((used(&mut cache), cache.is_assumed(&bound.uid)), (1000, false));
        assert!(cache.forget(&bound.uid).is_none(), "what the API shows is not forgotten");
        cache.remove_pod(&bound.uid);
        assert_eq!(used(&mut cache), 0);
    }

    #[test]
    fn pods_outlive_their_node_and_come_before_it() {
        let mut cache = Cache::default();
        let early = pod(
            "p",
            json!({"spec": {"nodeName": "n", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
        );
        cache.set_pod(early.clone());
        assert!(cache.snapshot().get("n").is_none());
        assert!(cache.snapshot().is_empty());
        cache.set_node(node("n", json!({})));
        assert_eq!(cache.snapshot().get("n").expect("the node").1.requested.milli_cpu, 1000);
        cache.remove_node("n");
        assert!(cache.snapshot().is_empty());
        cache.set_node(node("n", json!({})));
        assert_eq!(cache.snapshot().get("n").expect("the node").1.requested.milli_cpu, 1000);
        cache.remove_node("n");
        cache.remove_pod(&early.uid);
        cache.set_node(node("other", json!({})));
        assert_eq!(cache.snapshot.slots.len(), 1, "places are used again");
    }
}
