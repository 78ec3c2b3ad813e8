//! How many pods to make, which to delete, and what the status says. No clock, no IO.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::{owners, pods};

/// At most so many pods are made or deleted in one go.
pub const BURST: usize = 500;

#[derive(Debug, PartialEq)]
pub enum Action {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

pub fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

/// What to do so that as many pods run as are wanted. `related` are the pods of all sets of the same owner: of
/// pods that are equal otherwise, those go first that crowd a node.
pub fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Action {
    if set.metadata.deletion_timestamp.is_some() {
        return Action::Nothing;
    }
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let wanted = wanted(set);
    if active.len() < wanted {
        return Action::Create((wanted - active.len()).min(BURST));
    }
    if active.len() == wanted {
        return Action::Nothing;
    }
    let surplus = (active.len() - wanted).min(BURST);
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowd.entry(pods::node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(_, Arc<Pod>)> =
        active.into_iter().map(|pod| (rank(pod, &crowd, now), pod.clone())).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    Action::Delete(ranked.into_iter().take(surplus).map(|(_, pod)| pod).collect())
}

/// The order in which pods are given up: the least useful first.
type Rank = (bool, u8, bool, i64, Reverse<usize>, Reverse<i64>, Reverse<i32>, Reverse<i64>);

fn rank(pod: &Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> Rank {
    let node = pods::node_name(pod);
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = pods::is_ready(pod);
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations
        .and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost")?.parse().ok())
        .unwrap_or_default();
    let status = pod.status.as_ref();
    let ready_since = status
        .and_then(|status| status.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"))
        .and_then(|condition| condition.last_transition_time.as_ref())
        .filter(|_| ready);
    let restarts = status
        .and_then(|status| status.container_statuses.as_ref())
        .and_then(|all| all.iter().map(|container| container.restart_count).max());
    // ages count by their order of magnitude, so that who goes is not a matter of milliseconds
    let magnitude = |time: Option<&Time>| {
        let age = time.map_or(0, |time| now.as_second() - time.0.as_second()).max(0);
        i64::from(64 - age.leading_zeros())
    };
    (
        !node.is_empty(),
        phase,
        ready,
        cost,
        Reverse(if ready { crowd.get(node).copied().unwrap_or_default() } else { 0 }),
        Reverse(-magnitude(ready_since)),
        Reverse(restarts.unwrap_or_default()),
        Reverse(-magnitude(pod.metadata.creation_timestamp.as_ref())),
    )
}

/// The status, and in how many seconds it changes by itself, when a pod becomes available.
pub fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<i64>) {
    let spec = set.spec.clone().unwrap_or_default();
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let mut status = ReplicaSetStatus { observed_generation: set.metadata.generation, ..Default::default() };
    let (mut fully, mut ready, mut available, mut terminating) = (0, 0, 0, 0);
    let mut soonest: Option<i64> = None;
    for pod in owned {
        if pods::has_ended(pod) {
            continue;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            terminating += 1;
            continue;
        }
        status.replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        if template_labels.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value)) {
            fully += 1;
        }
        if pods::is_ready(pod) {
            ready += 1;
            match pods::is_available(pod, min_ready, now) {
                Ok(true) => available += 1,
                Ok(false) => {}
                Err(left) => soonest = Some(soonest.map_or(left, |soonest| soonest.min(left))),
            }
        }
    }
    let some = |count: i32| (count > 0).then_some(count);
    status.fully_labeled_replicas = some(fully);
    status.ready_replicas = some(ready);
    status.available_replicas = some(available);
    status.terminating_replicas = Some(terminating);
    let missing = usize::try_from(status.replicas).unwrap_or_default() < wanted(set);
    let before = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions: Vec<ReplicaSetCondition> =
        before.iter().filter(|condition| condition.type_ != "ReplicaFailure").cloned().collect();
    if let Some(message) = failure {
        let kept = before.into_iter().find(|condition| condition.type_ == "ReplicaFailure");
        conditions.push(kept.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if missing { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
        }));
    }
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    (status, soonest)
}

/// Pods that a set might own: those it owns and those that nobody owns.
pub fn candidates(all: Vec<Arc<Pod>>, uid: &str) -> Vec<Arc<Pod>> {
    all.into_iter()
        .filter(|pod| owners::controller_of(pod.as_ref()).is_none_or(|owner| owner.uid == uid))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSetSpec;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        let spec = ReplicaSetSpec { replicas: Some(replicas), ..ReplicaSetSpec::default() };
        ReplicaSet { spec: Some(spec), ..ReplicaSet::default() }
    }

    fn pod(name: &str, node: &str, phase: &str, ready: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.spec = Some(PodSpec { node_name: Some(node.into()), ..PodSpec::default() });
        let status = if ready { "True" } else { "False" };
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: status.into(),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        });
        Arc::new(pod)
    }

    #[test]
    fn the_number_of_pods_is_made_true() {
        let now = Timestamp::UNIX_EPOCH;
        let pods = [pod("a", "n", "Running", true), pod("b", "n", "Failed", false)];
        assert_eq!(plan(&set(1), &pods, &[], now), Action::Nothing);
        assert_eq!(plan(&set(3), &pods, &[], now), Action::Create(2));
        assert_eq!(plan(&set(1000), &pods, &[], now), Action::Create(BURST));
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let now = Timestamp::UNIX_EPOCH;
        let order = [
            pod("unscheduled", "", "Pending", false),
            pod("pending", "n1", "Pending", false),
            pod("unready", "n1", "Running", false),
            pod("crowded", "n2", "Running", true),
            pod("alone", "n3", "Running", true),
        ];
        let related = [order.to_vec(), vec![pod("other", "n2", "Running", true)]].concat();
        for keep in 0..order.len() {
            let mut shuffled = order.to_vec();
            shuffled.reverse();
            let Action::Delete(deleted) = plan(&set(keep as i32), &shuffled, &related, now) else {
                panic!("{keep} of {} pods are kept", order.len());
            };
            let names = |pods: &[Arc<Pod>]| -> Vec<String> {
                pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
            };
            assert_eq!(names(&deleted), names(&order[..order.len() - keep]));
        }
    }

    #[test]
    fn the_status_counts() {
        let now = Timestamp::UNIX_EPOCH;
        let pods =
            [pod("a", "n", "Running", true), pod("b", "n", "Running", false), pod("c", "n", "Failed", false)];
        let (counted, _) = status(&set(2), &pods, None, now);
        assert_eq!(
            (counted.replicas, counted.ready_replicas, counted.available_replicas, counted.conditions),
            (2, Some(1), Some(1), None)
        );
    }

    #[test]
    fn a_failure_is_told_until_it_is_over() {
        let now = Timestamp::UNIX_EPOCH;
        let pods = [pod("a", "n", "Running", true), pod("b", "n", "Running", false)];
        for (wanted, reason) in [(3, "FailedCreate"), (1, "FailedDelete")] {
            let mut set = set(wanted);
            let (failed, _) = status(&set, &pods, Some("quota"), now);
            let told = failed.conditions.clone().unwrap();
            assert_eq!(
                (told[0].reason.as_deref(), told[0].message.as_deref()),
                (Some(reason), Some("quota"))
            );
            set.status = Some(failed);
            let later = now + k8s_openapi::jiff::Span::new().hours(1);
            let (still, _) = status(&set, &pods, Some("another quota"), later);
            assert_eq!(still.conditions, Some(told), "the first word of a failure stays");
            let (over, _) = status(&set, &pods, None, later);
            assert_eq!(over.conditions, None);
        }
    }
}
