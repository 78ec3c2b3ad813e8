//! What a Deployment's ReplicaSets should be: which is the newest, how far each is scaled, and what the status
//! says. No clock, no IO.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// The condition that tells how a rollout goes, and its reasons.
const PROGRESSING: &str = "Progressing";
pub const CREATE_ERROR: &str = "ReplicaSetCreateError";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// Annotations that stay with the object they are on.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub fn is_own_annotation(key: &str) -> bool {
    OWN_ANNOTATIONS.contains(&key)
}

/// How a Deployment rolls, in whole pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub replicas: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
    pub recreate: bool,
}

impl Limits {
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.unwrap_or_default();
        if strategy.type_.as_deref() == Some("Recreate") {
            return Self { replicas, max_surge: 0, max_unavailable: 0, recreate: true };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let mut max_surge = scaled(rolling.max_surge.as_ref(), replicas, true);
        let mut max_unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, false);
        // both rounding to nothing would never move
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        max_surge = max_surge.max(0);
        max_unavailable = max_unavailable.min(replicas).max(0);
        Self { replicas, max_surge, max_unavailable, recreate: false }
    }

    pub fn max_pods(&self) -> i32 {
        self.replicas + self.max_surge
    }

    pub fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let product = percent * i64::from(total);
            let rounded = if round_up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn status_of(set: &ReplicaSet) -> k8s_openapi::api::apps::v1::ReplicaSetStatus {
    set.status.clone().unwrap_or_default()
}

pub fn available(set: &ReplicaSet) -> i32 {
    status_of(set).available_replicas.unwrap_or_default()
}

/// Whether two templates make the same pods.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        if let Some(meta) = template.metadata.as_mut() {
            meta.creation_timestamp = None;
            meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
            meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        }
        template.metadata = template.metadata.filter(|meta| *meta != Default::default());
        template
    };
    plain(a) == plain(b)
}

/// The hash that names a template's ReplicaSet.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = serde_json::to_string(template).unwrap_or_default();
    let mut bytes = text.into_bytes();
    if let Some(count) = collisions {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    // FNV-1a, as upstream uses; what goes in is JSON here, so the hashes differ from upstream's
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The set whose template is the Deployment's; of several, the oldest.
pub fn newest<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a Arc<ReplicaSet>> {
    let template = deployment.spec.as_ref()?.template.clone();
    let mut same: Vec<&Arc<ReplicaSet>> = sets
        .iter()
        .filter(|set| {
            let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            of_set.is_some_and(|of_set| same_template(of_set, &template))
        })
        .collect();
    same.sort_by_key(|set| (created(set), set.metadata.name.clone()));
    same.first().copied()
}

fn created(set: &ReplicaSet) -> Option<Timestamp> {
    set.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

pub fn revision(annotations: Option<&std::collections::BTreeMap<String, String>>) -> i64 {
    annotations.and_then(|annotations| annotations.get(REVISION)?.parse().ok()).unwrap_or_default()
}

/// A set and how many replicas it should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub name: String,
    pub replicas: i32,
}

fn scale(set: &ReplicaSet, replicas: i32) -> Scale {
    Scale { name: set.metadata.name.clone().unwrap_or_default(), replicas: replicas.max(0) }
}

/// The next steps of a rolling update: how far the newest set and the old ones are scaled now.
pub fn roll(limits: &Limits, newest: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Vec<Scale> {
    let old_total: i32 = old.iter().map(|set| replicas(set)).sum();
    let total = old_total + replicas(newest);
    let mut out = Vec::new();
    // up first
    let current = replicas(newest);
    let mut planned = current;
    if current > limits.replicas {
        planned = limits.replicas;
    } else if current < limits.replicas && total < limits.max_pods() {
        planned = current + (limits.max_pods() - total).min(limits.replicas - current);
    }
    if planned != current {
        return vec![scale(newest, planned)];
    }
    if old_total == 0 {
        return out;
    }
    // then down: as many as may go while enough stay available
    let unavailable_new = replicas(newest) - available(newest);
    let mut may_go = total - limits.min_available() - unavailable_new;
    if may_go <= 0 {
        return out;
    }
    let mut by_age: Vec<&Arc<ReplicaSet>> = old.iter().filter(|set| replicas(set) > 0).collect();
    by_age.sort_by_key(|set| created(set));
    let mut left: Vec<(i32, &Arc<ReplicaSet>)> = by_age.into_iter().map(|set| (replicas(set), set)).collect();
    // pods that are not available anyway go before those that are
    for (count, set) in &mut left {
        let broken = (*count - available(set)).max(0).min(may_go);
        *count -= broken;
        may_go -= broken;
    }
    let available_now: i32 = old.iter().map(|set| available(set)).sum::<i32>() + available(newest);
    let mut surplus = (available_now - limits.min_available()).max(0);
    for (count, set) in &mut left {
        let healthy = (*count).min(available(set)).min(surplus);
        *count -= healthy;
        surplus -= healthy;
    }
    for (count, set) in left {
        if count != replicas(set) {
            out.push(scale(set, count));
        }
    }
    out
}

/// When only the number of replicas changed: each set gets its share of the difference.
pub fn proportional(limits: &Limits, active: &[Arc<ReplicaSet>]) -> Vec<Scale> {
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    if let [only] = active {
        return match replicas(only) == limits.replicas {
            true => Vec::new(),
            false => vec![scale(only, limits.replicas)],
        };
    }
    let allowed = if limits.replicas > 0 { limits.max_pods() } else { 0 };
    let mut to_add = allowed - total;
    if to_add == 0 || total == 0 {
        return Vec::new();
    }
    let growing = to_add > 0;
    let mut sets: Vec<&Arc<ReplicaSet>> = active.iter().collect();
    // the largest first; of equals, the newest when growing, the oldest when shrinking
    sets.sort_by_key(|set| {
        let age = created(set).map_or(0, |time| time.as_second());
        (-replicas(set), if growing { -age } else { age })
    });
    let mut out = Vec::new();
    for set in &sets {
        let share = (i64::from(to_add) * i64::from(replicas(set))).div_euclid(i64::from(total));
        let share = i32::try_from(share).unwrap_or_default();
        out.push((replicas(set) + share, *set));
    }
    let given: i32 = out.iter().map(|(count, set)| count - replicas(set)).sum();
    to_add -= given;
    // what rounding left goes to the largest
    if let Some((count, _)) = out.first_mut() {
        *count += to_add;
    }
    out.into_iter()
        .filter(|(count, set)| *count != replicas(set))
        .map(|(count, set)| scale(set, count))
        .collect()
}

/// What the status says of the sets, and of a pause.
pub fn status(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    newest: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let limits = Limits::of(deployment);
    let sum = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        sets.iter().map(|set| count(&status_of(set))).sum()
    };
    let total = sum(|status| status.replicas);
    let available = sum(|status| status.available_replicas.unwrap_or_default());
    let some = |count: i32| (count > 0).then_some(count);
    let before = deployment.status.clone().unwrap_or_default();
    let mut out = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(newest.map_or(0, |set| status_of(set).replicas)),
        ready_replicas: some(sum(|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some((sets.iter().map(|set| replicas(set)).sum::<i32>() - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or_default())),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    note_pause(deployment, &mut out, now);
    let condition = match available >= limits.min_available() {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    set_condition(&mut out, "Available", condition.0, condition.1, condition.2.to_owned(), now);
    out
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Sets a condition. Times move only with what they tell of.
fn set_condition(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    replace_condition(status, condition);
}

fn replace_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_).filter(|old| old.status == new.status) {
        if old.reason == new.reason {
            return;
        }
        new.last_transition_time.clone_from(&old.last_transition_time);
    }
    remove_condition(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    let mut left = status.conditions.take().unwrap_or_default();
    left.retain(|condition| condition.type_ != kind);
    status.conditions = Some(left).filter(|left| !left.is_empty());
}

/// Takes over from the sets that pods cannot be made or deleted: from the newest one, else from any.
pub fn replica_failure(status: &mut DeploymentStatus, sets: &[Arc<ReplicaSet>], newest: Option<&ReplicaSet>) {
    const KIND: &str = "ReplicaFailure";
    let failure = newest.into_iter().chain(sets.iter().map(Arc::as_ref)).find_map(|set| {
        set.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == KIND)
    });
    let Some(failure) = failure else { return remove_condition(status, KIND) };
    let condition = DeploymentCondition {
        type_: KIND.to_owned(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time.clone(),
    };
    replace_condition(status, condition);
}

/// The deadline of a rollout, where there is one.
fn progress_deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds)?;
    Some(i64::from(seconds)).filter(|_| seconds != i32::MAX)
}

/// Tells that a rollout has begun: its set was made, or it was found where nothing was told of it before.
pub fn note_newest(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    newest: &ReplicaSet,
    made: bool,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_none() || (!made && find(status, PROGRESSING).is_some()) {
        return;
    }
    let name = newest.metadata.name.as_deref().unwrap_or_default();
    let (reason, message) = match made {
        true => ("NewReplicaSetCreated", format!("Created new replica set {name:?}")),
        false => ("FoundNewReplicaSet", format!("Found new replica set {name:?}")),
    };
    set_condition(status, PROGRESSING, "True", reason, message, now);
}

/// Tells that the set of a rollout cannot be made.
pub fn note_create_error(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    message: String,
    now: Timestamp,
) {
    if progress_deadline(deployment).is_some() {
        set_condition(status, PROGRESSING, "False", CREATE_ERROR, message, now);
    }
}

/// Tells that a rollout is paused, or goes on, so that the time in between is no lack of progress.
fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if progress_deadline(deployment).is_none() || reason == Some(TIMED_OUT) {
        return;
    }
    let is_paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let (reason, message) = match (is_paused, reason == Some(PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    set_condition(status, PROGRESSING, "Unknown", reason, message.to_owned(), now);
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Limits::of(deployment).replicas).filter(|replicas| *replicas > 0);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the new status is nearer to the goal than the old one.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |value: Option<i32>| value.unwrap_or_default();
    let old_of_old = count(old.replicas) - count(old.updated_replicas);
    let old_of_new = count(new.replicas) - count(new.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || old_of_new < old_of_old
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// Tells of progress, completion or of none for too long. Gives back in how many seconds to look again.
pub fn progress(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    newest: Option<&ReplicaSet>,
    now: Timestamp,
) -> Option<i64> {
    let Some(deadline) = progress_deadline(deployment) else {
        remove_condition(status, PROGRESSING);
        return None;
    };
    let name = match newest {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let current = find(status, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    // once a rollout is complete, pods that come and go later are no lack of progress
    if reason == Some(COMPLETE) && status.replicas == status.updated_replicas {
        return None;
    }
    if is_complete(deployment, status) {
        let message = format!("{name} has successfully progressed.");
        set_condition(status, PROGRESSING, "True", COMPLETE, message, now);
        return None;
    }
    if has_progressed(&deployment.status.clone().unwrap_or_default(), status) {
        // told anew although the reason is the same: the time of the last progress is what counts
        remove_condition(status, PROGRESSING);
        let message = format!("{name} is progressing.");
        let since = current.filter(|old| old.status == "True").and_then(|old| old.last_transition_time);
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let (Some(since), Some(new)) = (since, status.conditions.iter_mut().flatten().last()) {
            new.last_transition_time = Some(since);
        }
        return Some(deadline);
    }
    if matches!(reason, Some(COMPLETE | TIMED_OUT)) {
        return None;
    }
    let current = current?;
    let since = current.last_update_time.map_or(now, |time| time.0);
    let left = deadline - (now.as_second() - since.as_second());
    if left < 0 {
        let message = format!("{name} has timed out progressing.");
        set_condition(status, PROGRESSING, "False", TIMED_OUT, message, now);
        return None;
    }
    Some(left + 1)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{ReplicaSetSpec, ReplicaSetStatus};

    use super::*;

    fn set(name: &str, replicas: i32, available: i32, age: i64) -> Arc<ReplicaSet> {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some(name.into());
        set.metadata.creation_timestamp = Timestamp::from_second(1000 - age).ok().map(Time);
        set.spec = Some(ReplicaSetSpec { replicas: Some(replicas), ..Default::default() });
        set.status =
            Some(ReplicaSetStatus { replicas, available_replicas: Some(available), ..Default::default() });
        Arc::new(set)
    }

    fn limits(replicas: i32, max_surge: i32, max_unavailable: i32) -> Limits {
        Limits { replicas, max_surge, max_unavailable, recreate: false }
    }

    fn to(name: &str, replicas: i32) -> Scale {
        Scale { name: name.into(), replicas }
    }

    #[test]
    fn an_update_rolls_within_its_limits() {
        // limits, new (replicas, available), old (replicas, available) -> steps
        let cases = [
            (limits(10, 2, 2), (0, 0), (10, 10), vec![to("new", 2)]),
            (limits(10, 2, 2), (2, 0), (10, 10), vec![to("old", 8)]),
            (limits(10, 2, 2), (4, 0), (8, 8), vec![]),
            (limits(10, 2, 2), (4, 4), (8, 8), vec![to("old", 4)]),
            (limits(10, 0, 2), (0, 0), (10, 10), vec![to("old", 8)]),
            (limits(3, 1, 0), (0, 0), (3, 3), vec![to("new", 1)]),
            (limits(3, 1, 0), (1, 0), (3, 3), vec![]),
            (limits(3, 1, 0), (1, 1), (3, 3), vec![to("old", 2)]),
            (limits(3, 1, 0), (3, 3), (0, 0), vec![]),
            (limits(2, 1, 0), (3, 3), (0, 0), vec![to("new", 2)]),
            // broken old pods go first
            (limits(10, 0, 2), (0, 0), (10, 5), vec![to("old", 8)]),
        ];
        for (limits, new, old, steps) in cases {
            let got = roll(&limits, &set("new", new.0, new.1, 0), &[set("old", old.0, old.1, 10)]);
            assert_eq!(got, steps, "{limits:?} new {new:?} old {old:?}");
        }
    }

    #[test]
    fn a_rollout_in_any_state_keeps_its_promises() {
        for replicas in 1..8 {
            for (surge, unavailable) in [(1, 0), (0, 1), (2, 1), (1, 2)] {
                let limits = limits(replicas, surge, unavailable);
                let (mut new, mut old) = ((0, 0), (replicas, replicas));
                for _ in 0..100 {
                    for step in roll(&limits, &set("new", new.0, new.1, 0), &[set("old", old.0, old.1, 9)]) {
                        let of = if step.name == "new" { &mut new } else { &mut old };
                        of.0 = step.replicas;
                        of.1 = of.1.min(of.0);
                    }
                    assert!(new.0 + old.0 <= limits.max_pods(), "{limits:?} {new:?} {old:?}");
                    assert!(new.1 + old.1 >= limits.min_available(), "{limits:?} {new:?} {old:?}");
                    if new.1 < new.0 {
                        new.1 += 1;
                    }
                }
                assert_eq!((new, old), ((replicas, replicas), (0, 0)), "{limits:?}");
            }
        }
    }

    #[test]
    fn shares_are_proportional_and_add_up() {
        let sets = [set("a", 6, 6, 10), set("b", 3, 3, 5)];
        let scaled = proportional(&limits(18, 0, 0), &sets);
        assert_eq!(scaled, [to("a", 12), to("b", 6)]);
        let scaled = proportional(&limits(5, 0, 0), &sets);
        let total: i32 = scaled.iter().map(|scale| scale.replicas).sum();
        assert_eq!(total, 5, "{scaled:?}");
    }

    /// A Deployment of three whose newest set has so many (all, ready) pods, and what its status says then.
    fn rollout(deployment: &mut Deployment, all: i32, ready: i32, second: i64) -> Option<i64> {
        let mut newest = set("new", 3, ready, 0).as_ref().clone();
        let of_set = newest.status.get_or_insert_default();
        (of_set.replicas, of_set.ready_replicas) = (all, Some(ready));
        let now = Timestamp::from_second(second).unwrap();
        let sets = [Arc::new(newest.clone())];
        let mut told = status(deployment, &sets, Some(&newest), now);
        let again = progress(deployment, &mut told, Some(&newest), now);
        replica_failure(&mut told, &sets, Some(&newest));
        deployment.status = Some(told);
        again
    }

    fn deployment() -> Deployment {
        let mut deployment = Deployment::default();
        let spec = deployment.spec.get_or_insert_default();
        (spec.replicas, spec.progress_deadline_seconds) = (Some(3), Some(60));
        deployment
    }

    /// `status reason message @updated/transition` of a condition.
    fn told(deployment: &Deployment, kind: &str) -> String {
        let status = deployment.status.clone().unwrap_or_default();
        let Some(condition) = find(&status, kind) else { return "nothing".into() };
        let second = |time: &Option<Time>| time.as_ref().map_or(0, |time| time.0.as_second());
        format!(
            "{} {} {} @{}/{}",
            condition.status,
            condition.reason.as_deref().unwrap_or_default(),
            condition.message.as_deref().unwrap_or_default(),
            second(&condition.last_update_time),
            second(&condition.last_transition_time),
        )
    }

    #[test]
    fn a_rollout_tells_how_it_goes() {
        let mut web = deployment();
        let newest = set("new", 3, 0, 0);
        let mut made = DeploymentStatus::default();
        note_newest(&web, &mut made, &newest, true, Timestamp::from_second(10).unwrap());
        web.status = Some(made);
        let steps = [
            // second, pods, ready -> what is told, when to look again
            (11, 1, 0, "True ReplicaSetUpdated ReplicaSet \"new\" is progressing. @11/10", Some(60)),
            (20, 3, 1, "True ReplicaSetUpdated ReplicaSet \"new\" is progressing. @20/10", Some(60)),
            (50, 3, 1, "True ReplicaSetUpdated ReplicaSet \"new\" is progressing. @20/10", Some(31)),
            (
                81,
                3,
                1,
                "False ProgressDeadlineExceeded ReplicaSet \"new\" has timed out progressing. @81/81",
                None,
            ),
            (
                90,
                3,
                1,
                "False ProgressDeadlineExceeded ReplicaSet \"new\" has timed out progressing. @81/81",
                None,
            ),
            (
                95,
                3,
                3,
                "True NewReplicaSetAvailable ReplicaSet \"new\" has successfully progressed. @95/95",
                None,
            ),
            // a pod that comes and goes later is no lack of progress
            (
                500,
                3,
                2,
                "True NewReplicaSetAvailable ReplicaSet \"new\" has successfully progressed. @95/95",
                None,
            ),
        ];
        for (second, all, ready, wanted, again) in steps {
            let got = rollout(&mut web, all, ready, second);
            assert_eq!((told(&web, PROGRESSING).as_str(), got), (wanted, again), "at {second}");
        }
        // the next rollout begins anew
        let mut made = web.status.clone().unwrap();
        note_newest(&web, &mut made, &newest, false, Timestamp::from_second(600).unwrap());
        assert_eq!(Some(&made), web.status.as_ref(), "a set that was there already is nothing new");
        note_newest(&web, &mut made, &newest, true, Timestamp::from_second(600).unwrap());
        web.status = Some(made);
        assert_eq!(
            told(&web, PROGRESSING),
            "True NewReplicaSetCreated Created new replica set \"new\" @600/95"
        );
    }

    #[test]
    fn a_pause_is_no_lack_of_progress() {
        let mut web = deployment();
        rollout(&mut web, 1, 0, 10);
        let pause = |web: &mut Deployment, paused: bool, second: i64| {
            web.spec.get_or_insert_default().paused = Some(paused);
            let mut status = web.status.clone().unwrap();
            note_pause(web, &mut status, Timestamp::from_second(second).unwrap());
            web.status = Some(status);
            told(web, PROGRESSING)
        };
        assert_eq!(pause(&mut web, true, 20), "Unknown DeploymentPaused Deployment is paused @20/20");
        assert_eq!(pause(&mut web, true, 30), "Unknown DeploymentPaused Deployment is paused @20/20");
        assert_eq!(pause(&mut web, false, 500), "Unknown DeploymentResumed Deployment is resumed @500/20");
        assert_eq!(rollout(&mut web, 1, 0, 510), Some(51));
        // without a deadline nothing is told at all
        web.spec.get_or_insert_default().progress_deadline_seconds = Some(i32::MAX);
        rollout(&mut web, 1, 0, 600);
        assert_eq!(told(&web, PROGRESSING), "nothing");
    }

    #[test]
    fn failures_of_the_sets_are_taken_over() {
        const KIND: &str = "ReplicaFailure";
        let failing = |name: &str, message: &str, second: i64| {
            let mut set = set(name, 3, 0, 0).as_ref().clone();
            set.status.get_or_insert_default().conditions =
                Some(vec![k8s_openapi::api::apps::v1::ReplicaSetCondition {
                    type_: KIND.into(),
                    status: "True".into(),
                    reason: Some("FailedCreate".into()),
                    message: Some(message.into()),
                    last_transition_time: Timestamp::from_second(second).ok().map(Time),
                }]);
            Arc::new(set)
        };
        let (old, new, fine) = (failing("old", "quota", 5), failing("new", "policy", 7), set("new", 3, 3, 0));
        let mut web = deployment();
        let mut taken = |sets: &[Arc<ReplicaSet>], newest: &ReplicaSet| {
            let mut status = web.status.clone().unwrap_or_default();
            replica_failure(&mut status, sets, Some(newest));
            web.status = Some(status);
            told(&web, KIND)
        };
        assert_eq!(taken(&[old.clone(), fine.clone()], &fine), "True FailedCreate quota @5/5");
        assert_eq!(taken(std::slice::from_ref(&fine), &fine), "nothing");
        assert_eq!(taken(&[old.clone(), new.clone()], &new), "True FailedCreate policy @7/7");
        assert_eq!(taken(std::slice::from_ref(&fine), &fine), "nothing");
    }

    #[test]
    fn percentages_round_apart() {
        let mut deployment = Deployment::default();
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas = Some(3);
        let rolling = spec.strategy.get_or_insert_default().rolling_update.get_or_insert_default();
        rolling.max_surge = Some(IntOrString::String("25%".into()));
        rolling.max_unavailable = Some(IntOrString::String("25%".into()));
        assert_eq!(Limits::of(&deployment), limits(3, 1, 0));
        // all old pods go first, but until the new ones are there the Deployment is not available
        deployment.spec.get_or_insert_default().strategy.get_or_insert_default().type_ =
            Some("Recreate".into());
        let recreate = Limits::of(&deployment);
        assert_eq!((recreate.max_pods(), recreate.min_available()), (3, 3));
    }
}
