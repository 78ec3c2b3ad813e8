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
            return Self { replicas, max_surge: 0, max_unavailable: replicas, recreate: true };
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

/// What the status says of the sets.
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
    let condition = match available >= limits.min_available() {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    set_condition(&mut out, "Available", condition.0, condition.1, condition.2.to_owned(), now);
    out
}

pub fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Sets a condition. Times move only with what they tell of.
pub fn set_condition(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let old = find(status, kind).cloned();
    if old.as_ref().is_some_and(|old| old.status == value && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let transition = match &old {
        Some(old) if old.status == value => old.last_transition_time.clone(),
        _ => Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: transition,
    });
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(Limits::of(deployment).replicas).filter(|replicas| *replicas > 0);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the new status is nearer to the goal than the old one.
pub fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
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
    const NONE: i32 = i32::MAX;
    let deadline = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    if deadline == NONE {
        status.conditions.get_or_insert_default().retain(|condition| condition.type_ != "Progressing");
        return None;
    }
    let name = match newest {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let before = deployment.status.clone().unwrap_or_default();
    let current = find(status, "Progressing").cloned();
    // once a rollout is complete, pods that come and go later are no lack of progress
    let finished = before.replicas == before.updated_replicas
        && current.as_ref().and_then(|c| c.reason.as_deref()) == Some("NewReplicaSetAvailable");
    if finished && !is_complete(deployment, status) && status.updated_replicas == status.replicas {
        return None;
    }
    if is_complete(deployment, status) {
        let message = format!("{name} has successfully progressed.");
        set_condition(status, "Progressing", "True", "NewReplicaSetAvailable", message, now);
        return None;
    }
    if has_progressed(&before, status) {
        let message = format!("{name} is progressing.");
        status.conditions.get_or_insert_default().retain(|condition| condition.type_ != "Progressing");
        set_condition(status, "Progressing", "True", "ReplicaSetUpdated", message, now);
        if let (Some(old), Some(conditions)) =
            (current.filter(|old| old.status == "True"), &mut status.conditions)
            && let Some(new) = conditions.iter_mut().find(|condition| condition.type_ == "Progressing")
        {
            new.last_transition_time = old.last_transition_time;
        }
        return Some(i64::from(deadline));
    }
    let current = current?;
    let since = current.last_update_time.as_ref().map_or(now, |time| time.0);
    let left = i64::from(deadline) - (now.as_second() - since.as_second());
    if left < 0 && current.reason.as_deref() != Some("ProgressDeadlineExceeded") {
        let message = format!("{name} has timed out progressing.");
        set_condition(status, "Progressing", "False", "ProgressDeadlineExceeded", message, now);
        return None;
    }
    (left >= 0).then_some(left + 1)
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

    #[test]
    fn percentages_round_apart() {
        let mut deployment = Deployment::default();
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas = Some(3);
        let rolling = spec.strategy.get_or_insert_default().rolling_update.get_or_insert_default();
        rolling.max_surge = Some(IntOrString::String("25%".into()));
        rolling.max_unavailable = Some(IntOrString::String("25%".into()));
        assert_eq!(Limits::of(&deployment), limits(3, 1, 0));
    }
}
