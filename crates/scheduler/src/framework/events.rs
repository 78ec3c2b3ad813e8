//! What happens in a cluster that may make a pod fit that did not fit before, and which plugins care.

use std::ops::BitOr;

use k8s_openapi::api::core::v1::Node;

use crate::pod_info::PodInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResource {
    Node,
    /// A pod that has a node.
    AssignedPod,
    /// The waiting pod itself.
    TargetPod,
}

/// A set of kinds of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionType(u16);

impl ActionType {
    pub const ADD: Self = Self(1);
    pub const DELETE: Self = Self(1 << 1);
    pub const UPDATE_NODE_ALLOCATABLE: Self = Self(1 << 2);
    pub const UPDATE_NODE_LABEL: Self = Self(1 << 3);
    pub const UPDATE_NODE_TAINT: Self = Self(1 << 4);
    pub const UPDATE_POD_LABEL: Self = Self(1 << 5);
    pub const UPDATE_POD_SCALE_DOWN: Self = Self(1 << 6);
    pub const UPDATE_POD_TOLERATION: Self = Self(1 << 7);
    pub const UPDATE_POD_SCHEDULING_GATES_ELIMINATED: Self = Self(1 << 8);

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::default() }
    }
}

impl BitOr for ActionType {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One change, with the objects before and after.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    Node { actions: ActionType, old: Option<&'a Node>, new: Option<&'a Node> },
    AssignedPod { actions: ActionType, old: Option<&'a PodInfo>, new: Option<&'a PodInfo> },
    TargetPod { actions: ActionType, new: &'a PodInfo },
}

impl<'a> ClusterEvent<'a> {
    /// What of a node's change matters to scheduling.
    pub fn node(old: Option<&'a Node>, new: Option<&'a Node>) -> Self {
        let actions = match (old, new) {
            (None, _) => ActionType::ADD,
            (Some(_), None) => ActionType::DELETE,
            (Some(old), Some(new)) => node_changes(old, new),
        };
        Self::Node { actions, old, new }
    }

    /// What of an assigned pod's change matters to scheduling.
    pub fn assigned_pod(old: Option<&'a PodInfo>, new: Option<&'a PodInfo>) -> Self {
        let actions = match (old, new) {
            (None, _) => ActionType::ADD,
            (Some(_), None) => ActionType::DELETE,
            (Some(old), Some(new)) => pod_changes(old, new),
        };
        Self::AssignedPod { actions, old, new }
    }

    pub fn target_pod(old: &PodInfo, new: &'a PodInfo) -> Self {
        Self::TargetPod { actions: pod_changes(old, new), new }
    }

    pub fn actions(&self) -> ActionType {
        match self {
            Self::Node { actions, .. }
            | Self::AssignedPod { actions, .. }
            | Self::TargetPod { actions, .. } => *actions,
        }
    }

    pub fn is_of(&self, (resource, actions): (EventResource, ActionType)) -> bool {
        let own = match self {
            Self::Node { .. } => EventResource::Node,
            Self::AssignedPod { .. } => EventResource::AssignedPod,
            Self::TargetPod { .. } => EventResource::TargetPod,
        };
        own == resource && self.actions().meets(actions)
    }
}

fn node_changes(old: &Node, new: &Node) -> ActionType {
    let unschedulable = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let allocatable =
        [old, new].map(|node| node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    let taints = [old, new].map(|node| node.spec.as_ref().and_then(|spec| spec.taints.as_ref()));
    ActionType::UPDATE_NODE_ALLOCATABLE.when(allocatable[0] != allocatable[1])
        | ActionType::UPDATE_NODE_LABEL.when(old.metadata.labels != new.metadata.labels)
        | ActionType::UPDATE_NODE_TAINT
            .when(taints[0] != taints[1] || (unschedulable(old) && !unschedulable(new)))
}

fn pod_changes(old: &PodInfo, new: &PodInfo) -> ActionType {
    ActionType::UPDATE_POD_LABEL.when(old.pod.metadata.labels != new.pod.metadata.labels)
        | ActionType::UPDATE_POD_SCALE_DOWN.when(new.requests.is_less_in_any(&old.requests))
        | ActionType::UPDATE_POD_TOLERATION.when(old.tolerations().len() != new.tolerations().len())
        | ActionType::UPDATE_POD_SCHEDULING_GATES_ELIMINATED
            .when(!old.scheduling_gates().is_empty() && new.scheduling_gates().is_empty())
}

/// Whether a change is a reason to try a pod again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueingHint {
    Skip,
    Queue,
}

impl QueueingHint {
    pub fn queue_if(condition: bool) -> Self {
        if condition { Self::Queue } else { Self::Skip }
    }
}
