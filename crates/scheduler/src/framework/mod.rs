//! The scheduling framework: the points at which plugins take part in placing a pod (KEP-624).
//!
//! A scheduling cycle runs `PreFilter` to `Permit` for one pod at a time over an unchanging snapshot, and is
//! synchronous; a binding cycle runs `PreBind` to `PostBind`, and many of them run at once.

mod cycle_state;
mod diagnosis;
pub mod events;
mod runtime;
mod status;
mod waiting;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

pub use cycle_state::CycleState;
pub use diagnosis::{Diagnosis, FitError};
pub use events::{ActionType, ClusterEvent, EventResource, QueueingHint};
pub use runtime::{Framework, FrameworkBuilder};
pub use status::{Code, Status};
pub use waiting::{Waiting, WaitingPods};

use crate::cache::Snapshot;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::QueuedPod;

pub const MAX_NODE_SCORE: i64 = 100;

pub trait Plugin: Send + Sync + 'static {
    fn name(&self) -> &'static str;
}

/// Says which changes may help a pod that this plugin turned away.
pub trait EnqueueExtensions: Plugin {
    fn events(&self) -> &'static [(EventResource, ActionType)];

    /// Called with an event of [`EnqueueExtensions::events`]: whether it may make the pod fit.
    fn is_schedulable_after(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> QueueingHint;
}

/// Keeps a pod out of the active queue.
pub trait PreEnqueue: Plugin {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status>;
}

/// Orders the active queue. One plugin does.
pub trait QueueSort: Plugin {
    /// Whether the first pod goes before the second.
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool;
}

/// What `PreFilter` and `PreScore` found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applies {
    /// The plugin has no say on this pod: its `Filter` or `Score` is not run.
    Skip,
    Everywhere,
    /// Only these nodes can do (`PreFilter` alone).
    Nodes(BTreeSet<String>),
}

/// Looks at the pod, and at the cluster as a whole, before nodes are filtered.
pub trait PreFilter: Plugin {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Applies, Status>;
}

/// Says whether a node can take a pod.
pub trait Filter: Plugin {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status>;
}

/// What `PostFilter` achieved for a pod that no node can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostFilterResult {
    /// The pod may fit next time, perhaps on the node named.
    Resolved { nominated_node: Option<String> },
    /// It will not; why is shown to users.
    Unresolved(Status),
}

/// Tries to make room for a pod that no node can take.
pub trait PostFilter: Plugin {
    fn post_filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        diagnosis: &Diagnosis,
    ) -> Result<PostFilterResult, Status>;
}

/// Looks at all nodes that can take a pod before they are scored.
pub trait PreScore: Plugin {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        snapshot: &Snapshot,
    ) -> Result<Applies, Status>;
}

/// Says how well nodes suit a pod. All nodes are scored in one call, so that a plugin's work for a pod is done once.
pub trait Score: Plugin {
    /// Writes the score of each node into the place of the same index.
    fn score(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status>;

    /// Brings the scores into 0..=100, where `score` does not.
    fn normalize_score(&self, _scores: &mut [i64]) {}
}

/// Keeps books of its own about what a pod takes from a node.
pub trait Reserve: Plugin {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status>;

    /// Takes a reservation back. Also called when `reserve` failed or never ran: it must bear that.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermitResult {
    Allow,
    /// Wait for [`WaitingPods::allow`], at most so long.
    Wait(Duration),
}

/// Holds a pod back before it is bound.
pub trait Permit: Plugin {
    fn permit(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<PermitResult, Status>;
}

/// Work that must be done before a pod is bound.
#[async_trait]
pub trait PreBind: Plugin {
    async fn pre_bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<(), Status>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Yes,
    /// Left to the next plugin.
    Skip,
}

/// Binds a pod to its node. The first plugin that does not skip has done it.
#[async_trait]
pub trait Bind: Plugin {
    async fn bind(&self, state: &CycleState, pod: &PodInfo, node: &str) -> Result<Bound, Status>;
}

/// Told of a pod that was bound.
pub trait PostBind: Plugin {
    fn post_bind(&self, state: &CycleState, pod: &PodInfo, node: &str);
}

/// Stretches scores so that the highest is 100; `reverse` makes the lowest the best.
pub fn default_normalize_score(reverse: bool, scores: &mut [i64]) {
    let highest = scores.iter().copied().max().unwrap_or_default();
    if highest == 0 {
        if reverse {
            scores.fill(MAX_NODE_SCORE);
        }
        return;
    }
    for score in scores {
        *score = *score * MAX_NODE_SCORE / highest;
        if reverse {
            *score = MAX_NODE_SCORE - *score;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_stretched_to_a_hundred() {
        for (reverse, scores, want) in [
            (false, [1, 2, 4], [25, 50, 100]),
            (true, [1, 2, 4], [75, 50, 0]),
            (false, [0, 0, 0], [0, 0, 0]),
            (true, [0, 0, 0], [100, 100, 100]),
        ] {
            let mut got = scores;
            default_normalize_score(reverse, &mut got);
            assert_eq!(got, want, "{reverse} {scores:?}");
        }
    }
}
