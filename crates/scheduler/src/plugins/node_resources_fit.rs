//! A node takes a pod when what it has left covers what the pod asks for; nodes with much left are liked best.

use k8s_openapi::api::core::v1::Node;
use smallvec::SmallVec;

use crate::framework::{
    ActionType, ClusterEvent, Code, CycleState, EnqueueExtensions, EventResource, Filter, MAX_NODE_SCORE,
    Plugin, QueueingHint, Score, Status,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resource::Resource;

pub struct Fit;

/// Why a pod does not fit. `None` when it does, which is the case to be quick in.
fn insufficient(pod: &PodInfo, pods: usize, used: &Resource, allocatable: &Resource) -> Option<Status> {
    let wanted = &pod.requests;
    let count = i64::try_from(pods).unwrap_or(i64::MAX);
    let lacks = |wanted: i64, used: i64, allocatable: i64| wanted > 0 && wanted > allocatable - used;
    let too_many = count >= allocatable.allowed_pods;
    let cpu = lacks(wanted.milli_cpu, used.milli_cpu, allocatable.milli_cpu);
    let memory = lacks(wanted.memory, used.memory, allocatable.memory);
    let storage = lacks(wanted.ephemeral_storage, used.ephemeral_storage, allocatable.ephemeral_storage);
    let scalar =
        |(name, value): &&(Box<str>, i64)| lacks(*value, used.scalar(name), allocatable.scalar(name));
    if !(too_many || cpu || memory || storage || wanted.scalars.iter().any(|pair| scalar(&pair))) {
        return None;
    }
    let mut reasons = SmallVec::new();
    // more than an empty node has: then no removal of pods helps
    let mut unresolvable = false;
    if too_many {
        reasons.push("Too many pods".into());
    }
    if cpu {
        reasons.push("Insufficient cpu".into());
        unresolvable |= wanted.milli_cpu > allocatable.milli_cpu;
    }
    if memory {
        reasons.push("Insufficient memory".into());
        unresolvable |= wanted.memory > allocatable.memory;
    }
    if storage {
        reasons.push("Insufficient ephemeral-storage".into());
        unresolvable |= wanted.ephemeral_storage > allocatable.ephemeral_storage;
    }
    for (name, value) in wanted.scalars.iter().filter(scalar) {
        reasons.push(format!("Insufficient {name}").into());
        unresolvable |= *value > allocatable.scalar(name);
    }
    let code = if unresolvable { Code::UnschedulableAndUnresolvable } else { Code::Unschedulable };
    Some(Status { code, plugin: "", reasons })
}

fn allocatable(node: &Node) -> Resource {
    Resource::from_quantities(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

/// Whether anything grew that the pod asks for.
fn grew(pod: &PodInfo, old: &Resource, new: &Resource) -> bool {
    let wanted = &pod.requests;
    new.allowed_pods > old.allowed_pods
        || (wanted.milli_cpu > 0 && new.milli_cpu > old.milli_cpu)
        || (wanted.memory > 0 && new.memory > old.memory)
        || (wanted.ephemeral_storage > 0 && new.ephemeral_storage > old.ephemeral_storage)
        || wanted.scalars.iter().any(|(name, value)| *value > 0 && new.scalar(name) > old.scalar(name))
}

/// Whether a pod that became smaller, or went, gave up anything that the waiting pod asks for.
fn gave_up(pod: &PodInfo, old: &Resource, new: &Resource) -> bool {
    let wanted = &pod.requests;
    (wanted.milli_cpu > 0 && new.milli_cpu < old.milli_cpu)
        || (wanted.memory > 0 && new.memory < old.memory)
        || (wanted.ephemeral_storage > 0 && new.ephemeral_storage < old.ephemeral_storage)
        || wanted.scalars.iter().any(|(name, value)| *value > 0 && new.scalar(name) < old.scalar(name))
}

/// The share of a resource that is left, of a hundred. A resource that the node does not have has no say.
fn least_requested(requested: i64, allocatable: i64) -> Option<i64> {
    match allocatable {
        0 => None,
        _ if requested > allocatable => Some(0),
        _ => Some((allocatable - requested) * MAX_NODE_SCORE / allocatable),
    }
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
}

impl Filter for Fit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        insufficient(pod, node.pods.len(), &node.requested, &node.allocatable).map_or(Ok(()), Err)
    }
}

impl Score for Fit {
    /// `LeastAllocated` over CPU and memory, equally weighted.
    fn score(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status> {
        for (score, node) in scores.iter_mut().zip(nodes) {
            let used = &node.non_zero_requested;
            let cpu = least_requested(used.milli_cpu + pod.non_zero.milli_cpu, node.allocatable.milli_cpu);
            let memory = least_requested(used.memory + pod.non_zero.memory, node.allocatable.memory);
            *score = match (cpu, memory) {
                (Some(cpu), Some(memory)) => (cpu + memory) / 2,
                (one, other) => one.or(other).unwrap_or(0),
            };
        }
        Ok(())
    }
}

impl EnqueueExtensions for Fit {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[
            (EventResource::AssignedPod, ActionType::DELETE),
            (EventResource::AssignedPod, ActionType::UPDATE_POD_SCALE_DOWN),
            (EventResource::TargetPod, ActionType::UPDATE_POD_SCALE_DOWN),
            (EventResource::Node, ActionType::ADD),
            (EventResource::Node, ActionType::UPDATE_NODE_ALLOCATABLE),
        ]
    }

    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint {
        match event {
            ClusterEvent::AssignedPod { old: Some(old), new: Some(new), .. } => {
                QueueingHint::queue_if(gave_up(pod, &old.requests, &new.requests))
            }
            ClusterEvent::AssignedPod { .. } | ClusterEvent::TargetPod { .. } => QueueingHint::Queue,
            ClusterEvent::Node { old, new: Some(new), .. } => {
                let new = allocatable(new);
                let fits = insufficient(pod, 0, &Resource::default(), &new).is_none();
                QueueingHint::queue_if(fits && old.is_none_or(|old| grew(pod, &allocatable(old), &new)))
            }
            ClusterEvent::Node { .. } => QueueingHint::Skip,
        }
    }
}
