//! Nodes whose taints a pod does not tolerate do not take it; taints of the soft kind make a node less liked.

use component_helpers::taints::{PREFER_NO_SCHEDULE, any_tolerates, find_untolerated, keeps_pods_away};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::cache::Snapshot;
use crate::framework::{
    ActionType, Applies, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Plugin,
    PreScore, QueueingHint, Score, Status, default_normalize_score,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct TaintToleration;

impl TaintToleration {
    fn tolerates(pod: &PodInfo, taints: &[Taint]) -> bool {
        taints.is_empty() || find_untolerated(taints, pod.tolerations(), false, keeps_pods_away).is_none()
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_soft(taint: &Taint) -> bool {
    taint.effect == PREFER_NO_SCHEDULE
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if Self::tolerates(pod, &node.taints) {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) had untolerated taint(s)"))
    }
}

impl PreScore for TaintToleration {
    /// Without soft taints all nodes are alike.
    fn pre_score(
        &self,
        _: &mut CycleState,
        _: &PodInfo,
        nodes: &[&NodeInfo],
        _: &Snapshot,
    ) -> Result<Applies, Status> {
        let any = nodes.iter().any(|node| node.taints.iter().any(is_soft));
        Ok(if any { Applies::Everywhere } else { Applies::Skip })
    }
}

impl Score for TaintToleration {
    fn score(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status> {
        let of_soft_taints = |toleration: &&Toleration| {
            matches!(toleration.effect.as_deref().unwrap_or_default(), "" | PREFER_NO_SCHEDULE)
        };
        let tolerations: Vec<Toleration> = pod.tolerations().iter().filter(of_soft_taints).cloned().collect();
        for (score, node) in scores.iter_mut().zip(nodes) {
            let untolerated = node
                .taints
                .iter()
                .filter(|taint| is_soft(taint) && !any_tolerates(&tolerations, taint, false));
            *score = untolerated.count().try_into().unwrap_or(i64::MAX);
        }
        Ok(())
    }

    fn normalize_score(&self, scores: &mut [i64]) {
        default_normalize_score(true, scores);
    }
}

impl EnqueueExtensions for TaintToleration {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[
            (EventResource::Node, ActionType::ADD),
            (EventResource::Node, ActionType::UPDATE_NODE_TAINT),
            (EventResource::TargetPod, ActionType::UPDATE_POD_TOLERATION),
        ]
    }

    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint {
        match event {
            ClusterEvent::Node { old, new: Some(new), .. } => QueueingHint::queue_if(
                Self::tolerates(pod, taints(new)) && old.is_none_or(|old| !Self::tolerates(pod, taints(old))),
            ),
            _ => QueueingHint::Queue,
        }
    }
}
