//! A port of a node goes to one pod.

use component_helpers::pod::HostPort;

use crate::cache::Snapshot;
use crate::framework::{
    ActionType, Applies, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Plugin,
    PreFilter, QueueingHint, Status,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct NodePorts;

fn conflict(wanted: &[HostPort], used: &[HostPort]) -> bool {
    wanted.iter().any(|port| used.iter().any(|other| port.conflicts(other)))
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
}

impl PreFilter for NodePorts {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<Applies, Status> {
        Ok(if pod.ports.is_empty() { Applies::Skip } else { Applies::Everywhere })
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if conflict(&pod.ports, &node.used_ports) {
            return Err(Status::unschedulable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}

impl EnqueueExtensions for NodePorts {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[(EventResource::AssignedPod, ActionType::DELETE), (EventResource::Node, ActionType::ADD)]
    }

    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint {
        match event {
            ClusterEvent::AssignedPod { old: Some(gone), .. } => {
                QueueingHint::queue_if(conflict(&pod.ports, &gone.ports))
            }
            _ => QueueingHint::Queue,
        }
    }
}
