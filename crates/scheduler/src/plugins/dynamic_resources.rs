//! Pods that claim devices (KEP-4381). The API serves no claims yet: a pod that names one waits, as it would for a
//! claim that does not exist, and there are no claims to take back when a pod does not fit.

use crate::cache::Snapshot;
use crate::framework::{
    ActionType, ClusterEvent, CycleState, Diagnosis, EnqueueExtensions, EventResource, Plugin, PostFilter,
    PostFilterResult, PreEnqueue, QueueingHint, Status,
};
use crate::pod_info::PodInfo;

pub struct DynamicResources;

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        let claims =
            pod.pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default();
        match claims.first() {
            None => Ok(()),
            Some(claim) => {
                let name = claim.resource_claim_name.as_deref().unwrap_or(&claim.name);
                Err(Status::unresolvable(format!("resourceclaim {name:?} not found")))
            }
        }
    }
}

impl PostFilter for DynamicResources {
    fn post_filter(
        &self,
        _: &CycleState,
        _: &PodInfo,
        _: &Snapshot,
        _: &Diagnosis,
    ) -> Result<PostFilterResult, Status> {
        Ok(PostFilterResult::Unresolved(Status::unschedulable("no new claims to deallocate")))
    }
}

impl EnqueueExtensions for DynamicResources {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[]
    }

    fn is_schedulable_after(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> QueueingHint {
        QueueingHint::Skip
    }
}
