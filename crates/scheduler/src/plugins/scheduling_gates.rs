//! Pods with scheduling gates are not tried until the last gate is taken away (KEP-3521).

use crate::framework::{
    ActionType, ClusterEvent, EnqueueExtensions, EventResource, Plugin, PreEnqueue, QueueingHint, Status,
};
use crate::pod_info::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        let gates: Vec<&str> = pod.scheduling_gates().iter().map(|gate| gate.name.as_str()).collect();
        if gates.is_empty() {
            return Ok(());
        }
        Err(Status::unresolvable(format!("waiting for scheduling gates: [{}]", gates.join(" "))))
    }
}

impl EnqueueExtensions for SchedulingGates {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[(EventResource::TargetPod, ActionType::UPDATE_POD_SCHEDULING_GATES_ELIMINATED)]
    }

    fn is_schedulable_after(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> QueueingHint {
        QueueingHint::Queue
    }
}
