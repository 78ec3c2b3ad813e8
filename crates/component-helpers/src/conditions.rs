//! Conditions of pods and nodes: how they are found, set and judged.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const POD_READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const POD_INITIALIZED: &str = "Initialized";
pub const POD_SCHEDULED: &str = "PodScheduled";
pub const POD_READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub const NODE_READY: &str = "Ready";

pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn is_pod_ready(pod: &Pod) -> bool {
    pod_condition(pod, POD_READY).is_some_and(|c| c.status == "True")
}

/// Whether a pod has been ready for at least `min_ready`.
pub fn is_pod_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    let Some(condition) = pod_condition(pod, POD_READY).filter(|c| c.status == "True") else { return false };
    if min_ready.is_zero() {
        return true;
    }
    let Some(Time(since)) = condition.last_transition_time else { return false };
    now.duration_since(since)
        >= jiff::SignedDuration::try_from(min_ready).unwrap_or(jiff::SignedDuration::MAX)
}

/// Whether a pod has come to its end and will not run again.
pub fn is_pod_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Puts a condition into a list. The time of the last transition stays unless the status changed; returns whether
/// anything changed.
pub fn set_pod_condition(conditions: &mut Vec<PodCondition>, mut new: PodCondition, now: Timestamp) -> bool {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        None => {
            new.last_transition_time.get_or_insert(Time(now));
            conditions.push(new);
            true
        }
        Some(old) => {
            new.last_transition_time = if old.status == new.status {
                old.last_transition_time.clone()
            } else {
                Some(new.last_transition_time.unwrap_or(Time(now)))
            };
            let changed = *old != new;
            *old = new;
            changed
        }
    }
}

pub fn node_condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn is_node_ready(node: &Node) -> bool {
    node_condition(node, NODE_READY).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn condition(kind: &str, status: &str) -> PodCondition {
        PodCondition { type_: kind.into(), status: status.into(), ..PodCondition::default() }
    }

    #[test]
    fn a_pod_is_available_after_its_time() {
        let pod: Pod = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"}]}}))
        .expect("a pod");
        for (min_ready, now, want) in [(0, 0, true), (10, 109, false), (10, 110, true)] {
            assert_eq!(
                is_pod_available(&pod, Duration::from_secs(min_ready), at(now)),
                want,
                "{min_ready} {now}"
            );
        }
        assert!(!is_pod_available(&Pod::default(), Duration::ZERO, at(0)));
    }

    #[test]
    fn only_a_change_of_status_moves_the_transition_time() {
        let mut conditions = Vec::new();
        assert!(set_pod_condition(&mut conditions, condition("Ready", "False"), at(1)));
        assert!(!set_pod_condition(&mut conditions, condition("Ready", "False"), at(2)));
        let with_reason = PodCondition { reason: Some("Why".into()), ..condition("Ready", "False") };
        assert!(set_pod_condition(&mut conditions, with_reason, at(3)));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(1))));
        assert!(set_pod_condition(&mut conditions, condition("Ready", "True"), at(4)));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(4))));
        assert_eq!(conditions.len(), 1);
    }
}
