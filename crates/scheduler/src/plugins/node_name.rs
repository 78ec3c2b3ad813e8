//! A pod that names its node goes there or nowhere.

use crate::framework::{
    ActionType, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Plugin, QueueingHint,
    Status,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if pod.node_name().is_none_or(|name| name == &*node.name) {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) didn't match the requested node name"))
    }
}

impl EnqueueExtensions for NodeName {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[(EventResource::Node, ActionType::ADD)]
    }

    fn is_schedulable_after(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> QueueingHint {
        QueueingHint::Queue
    }
}
