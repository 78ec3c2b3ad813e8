//! Node selector and node affinity: which nodes a pod demands, and which it prefers.

use std::collections::BTreeSet;

use component_helpers::node_affinity::{NodeView, matches_required, preferred_score};
use k8s_openapi::api::core::v1::{NodeSelectorTerm, PreferredSchedulingTerm};

use crate::cache::Snapshot;
use crate::framework::{
    ActionType, Applies, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Plugin,
    PreFilter, PreScore, QueueingHint, Score, Status, default_normalize_score,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct NodeAffinity;

fn required_terms(pod: &PodInfo) -> Option<&[NodeSelectorTerm]> {
    let required = pod.node_affinity()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(&required.node_selector_terms)
}

fn preferred_terms(pod: &PodInfo) -> &[PreferredSchedulingTerm] {
    pod.node_affinity()
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

/// The nodes that a term names; `None` when it names none and so leaves all open.
fn named_nodes(term: &NodeSelectorTerm) -> Option<BTreeSet<String>> {
    term.match_fields
        .iter()
        .flatten()
        .filter(|field| field.key == "metadata.name" && field.operator == "In")
        .map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<String>>())
        .reduce(|a, b| a.intersection(&b).cloned().collect())
}

fn matches(pod: &PodInfo, node: NodeView<'_>) -> bool {
    // a term that cannot be read matches nothing
    matches_required(&pod.pod, node).unwrap_or(false)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
}

impl PreFilter for NodeAffinity {
    /// Pods of a DaemonSet name their node: then no other is looked at.
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<Applies, Status> {
        let Some(terms) = required_terms(pod) else {
            let selects = pod.pod.spec.as_ref().is_some_and(|spec| spec.node_selector.is_some());
            return Ok(if selects { Applies::Everywhere } else { Applies::Skip });
        };
        let mut names = BTreeSet::new();
        for term in terms {
            match named_nodes(term) {
                None => return Ok(Applies::Everywhere),
                Some(named) => names.extend(named),
            }
        }
        match (terms.is_empty(), names.is_empty()) {
            (true, _) => Ok(Applies::Everywhere),
            (false, true) => Err(Status::unresolvable("pod affinity terms conflict")),
            (false, false) => Ok(Applies::Nodes(names)),
        }
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if node.view().is_some_and(|view| matches(pod, view)) {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &[&NodeInfo],
        _: &Snapshot,
    ) -> Result<Applies, Status> {
        Ok(if preferred_terms(pod).is_empty() { Applies::Skip } else { Applies::Everywhere })
    }
}

impl Score for NodeAffinity {
    fn score(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status> {
        let terms = preferred_terms(pod);
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = node.view().map_or(0, |view| preferred_score(terms, view));
        }
        Ok(())
    }

    fn normalize_score(&self, scores: &mut [i64]) {
        default_normalize_score(false, scores);
    }
}

impl EnqueueExtensions for NodeAffinity {
    fn events(&self) -> &'static [(EventResource, ActionType)] {
        &[(EventResource::Node, ActionType::ADD), (EventResource::Node, ActionType::UPDATE_NODE_LABEL)]
    }

    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint {
        match event {
            ClusterEvent::Node { old, new: Some(new), .. } => QueueingHint::queue_if(
                matches(pod, NodeView::from(*new))
                    && old.is_none_or(|old| !matches(pod, NodeView::from(old))),
            ),
            _ => QueueingHint::Skip,
        }
    }
}
