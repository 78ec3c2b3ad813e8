//! Nodes that are cordoned take no pods, but for pods that tolerate the taint of the same meaning.

use component_helpers::taints::{NO_SCHEDULE, NODE_UNSCHEDULABLE, any_tolerates};
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::framework::{
    ActionType, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Plugin, QueueingHint,
    Status,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct NodeUnschedulable;

impl NodeUnschedulable {
    fn tolerates(pod: &PodInfo) -> bool {
        let taint =
            Taint { key: NODE_UNSCHEDULABLE.to_owned(), effect: NO_SCHEDULE.to_owned(), ..Taint::default() };
        any_tolerates(pod.tolerations(), &taint, false)
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if !node.unschedulable || Self::tolerates(pod) {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) were unschedulable"))
    }
}

impl EnqueueExtensions for NodeUnschedulable {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[
            (EventResource::Node, ActionType::ADD),
            (EventResource::Node, ActionType::UPDATE_NODE_TAINT),
            (EventResource::TargetPod, ActionType::UPDATE_POD_TOLERATION),
        ]
    }

    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint {
        match event {
            ClusterEvent::Node { old, new: Some(new), .. } => {
                QueueingHint::queue_if(!is_unschedulable(new) && old.is_none_or(is_unschedulable))
            }
            _ => QueueingHint::queue_if(Self::tolerates(pod)),
        }
    }
}
