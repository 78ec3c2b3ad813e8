//! A node with its pods summed up.

use std::collections::HashMap;
use std::sync::Arc;

use component_helpers::node_affinity::NodeView;
use component_helpers::pod::HostPort;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod_info::{NonZero, PodInfo, Uid};
use crate::resource::Resource;

#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// `None` while pods are known to be on a node that itself is not known, or no longer.
    pub node: Option<Arc<Node>>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resource,
    pub pods: Vec<Arc<PodInfo>>,
    pub requested: Resource,
    pub non_zero_requested: NonZero,
    pub used_ports: Vec<HostPort>,
    /// The size in bytes of each image on the node, by all its names.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            node: None,
            unschedulable: false,
            taints: Vec::new(),
            allocatable: Resource::default(),
            pods: Vec::new(),
            requested: Resource::default(),
            non_zero_requested: NonZero::default(),
            used_ports: Vec::new(),
            images: HashMap::new(),
        }
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let spec = node.spec.as_ref();
        self.unschedulable = spec.is_some_and(|spec| spec.unschedulable == Some(true));
        self.taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let status = node.status.as_ref();
        self.allocatable = Resource::from_quantities(status.and_then(|status| status.allocatable.as_ref()));
        self.images = status
            .iter()
            .flat_map(|status| status.images.iter().flatten())
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes)))
            .filter_map(|(name, size)| Some((name, size?)))
            .collect();
        self.node = Some(node);
    }

    /// The node is gone; its pods may still be there.
    pub fn remove_node(&mut self) {
        let pods = std::mem::take(&mut self.pods);
        *self = Self::new(&self.name);
        for pod in pods {
            self.add_pod(pod);
        }
    }

    /// The node as selectors see it.
    pub fn view(&self) -> Option<NodeView<'_>> {
        self.node.as_deref().map(NodeView::from)
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero_requested.milli_cpu += pod.non_zero.milli_cpu;
        self.non_zero_requested.memory += pod.non_zero.memory;
        self.used_ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, uid: &Uid) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid == *uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.non_zero_requested.milli_cpu -= pod.non_zero.milli_cpu;
        self.non_zero_requested.memory -= pod.non_zero.memory;
        for port in &pod.ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}
