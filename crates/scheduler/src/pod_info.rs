//! A pod with what scheduling needs to know of it worked out once.

use std::sync::Arc;

use component_helpers::amount::Amount;
use component_helpers::pod::{HostPort, host_ports, priority};
use component_helpers::resource::{
    CPU, MEMORY, Options, ResourceList, is_supported_pod_level_resource, pod_requests,
};
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, PodSchedulingGate, Toleration};

use crate::resource::Resource;

pub type Uid = Arc<str>;

/// What a container that asks for nothing is taken to need when nodes are scored, so that such pods spread.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub uid: Uid,
    pub priority: i32,
    /// The resources that the pod takes from a node.
    pub requests: Resource,
    /// CPU (thousandths) and memory (bytes) with the defaults above for containers that ask for nothing.
    pub non_zero: NonZero,
    pub ports: Vec<HostPort>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonZero {
    pub milli_cpu: i64,
    pub memory: i64,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Arc<Self> {
        let options = Options { use_status: true, ..Options::default() };
        let requests = pod_requests(&pod, &options);
        let defaults = defaults(&pod, &requests);
        let non_zero = if defaults.is_empty() {
            NonZero { milli_cpu: requests.milli_cpu(), memory: requests.memory() }
        } else {
            let filled = pod_requests(&pod, &Options { non_missing_requests: defaults, ..options });
            NonZero { milli_cpu: filled.milli_cpu(), memory: filled.memory() }
        };
        Arc::new(Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            priority: priority(&pod),
            requests: Resource::from_list(&requests),
            non_zero,
            ports: host_ports(&pod),
            pod,
        })
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The node that the pod is assigned to.
    pub fn node_name(&self) -> Option<&str> {
        node_name(&self.pod)
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    pub fn scheduling_gates(&self) -> &[PodSchedulingGate] {
        self.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default()
    }

    pub fn node_affinity(&self) -> Option<&NodeAffinity> {
        self.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
    }

    pub fn is_being_deleted(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// `None` for a pod without a node.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The defaults that apply to a pod: both, but where pod-level requests are set only those that are still missing.
fn defaults(pod: &Pod, requests: &ResourceList) -> ResourceList {
    let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let pod_level_set = pod_level.is_some_and(|r| r.keys().any(|name| is_supported_pod_level_resource(name)));
    [(CPU, Amount::from_millis(DEFAULT_MILLI_CPU)), (MEMORY, Amount::from_units(DEFAULT_MEMORY))]
        .into_iter()
        .filter(|(name, _)| !pod_level_set || requests.get(name).is_none())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn containers_that_ask_for_nothing_count_a_little() {
        let cases: Vec<(Value, (i64, i64))> = vec![
            (json!({"containers": [{"name": "a"}]}), (100, DEFAULT_MEMORY)),
            (json!({"containers": [{"name": "a"}, {"name": "b"}]}), (200, 2 * DEFAULT_MEMORY)),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}),
                (1000, DEFAULT_MEMORY),
            ),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "0", "memory": "1"}}}]}),
                (0, 1),
            ),
            (
                json!({"resources": {"requests": {"cpu": "2", "memory": "5"}}, "containers": [{"name": "a"}]}),
                (2000, 5),
            ),
        ];
        for (spec, (milli_cpu, memory)) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
            assert_eq!(PodInfo::new(Arc::new(pod)).non_zero, NonZero { milli_cpu, memory }, "{spec}");
        }
    }
}
