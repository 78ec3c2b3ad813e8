//! What an update of a pod may change.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation::inclusive_range_error;
use apimachinery::{Object, Value};
use serde_json::Map;

use super::{MIRROR, Options, annotations, metadata_and_spec, tolerations};
use crate::validation::at::At;
use crate::validation::internal;
use crate::validation::value::{field, list, text};

/// Where requirements on nodes stand.
const NODE_AFFINITY: [&str; 3] = ["spec", "affinity", "nodeAffinity"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// An update of a pod: images, a nearer deadline, more tolerations, fewer gates; of a pod that is gated also
/// narrower requirements on its node.
pub fn pod_update(new: &Object, old: &Object) -> ErrorList {
    let options = Options::after(old, true);
    let (spec, before) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let mut errors = metadata_and_spec(new, &options);
    errors.extend(annotations_update(new, old, &options));
    for key in ["containers", "initContainers"] {
        let containers = spec.child(key);
        if containers.len() != before.child(key).len() {
            errors.push(containers.forbidden("pod updates may not add or remove containers"));
            return errors;
        }
        for container in containers.items() {
            errors.extend(container.child("image").must_be_set());
            errors.extend(super::containers::padded_image(&container));
        }
    }
    let deadline = "activeDeadlineSeconds";
    match self::deadline(&spec.child(deadline), before.number(deadline)) {
        Deadline::Fine => {}
        Deadline::Wrong(error) => errors.push(error),
        Deadline::Senseless(error) => {
            errors.push(error);
            return errors;
        }
    }
    errors.extend(only_added_tolerations(&spec.child("tolerations"), before.child("tolerations").list()));
    errors.extend(only_deleted_gates(&spec.child("schedulingGates"), before.child("schedulingGates").list()));
    if new.get(&["spec"]) == old.get(&["spec"]) {
        return errors;
    }
    let mut munged = new.clone();
    put_back_what_may_change(&mut munged, old);
    if !old.get_array(&["spec", "schedulingGates"]).is_empty() {
        errors.extend(gated_update(&mut munged, old));
    }
    if munged.get(&["spec"]) != old.get(&["spec"]) {
        const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        let munged = At::of(&munged, &["spec"]);
        let difference = internal::difference(internal::CORE, "PodSpec", before.value, munged.value);
        errors.push(spec.forbidden(format!("{WHY}\n{difference}")));
    }
    errors
}

/// The annotations of an update, against the old ones and by themselves.
pub fn annotations_update(new: &Object, old: &Object, options: &Options) -> ErrorList {
    let (after, before) = (At::of(new, &["metadata"]), At::of(old, &["metadata"]));
    let path = after.path.child("annotations");
    let mut errors = annotations::update_rules(after.value, before.value, &path);
    let (spec, tolerant) = (At::of(new, &["spec"]), options.allow_invalid_deletion_cost);
    errors.extend(annotations::rules(after.value, &spec, tolerant, &path));
    errors
}

enum Deadline {
    Fine,
    Wrong(Error),
    /// There is no use in looking any further.
    Senseless(Error),
}

fn deadline(new: &At<'_>, before: Option<i64>) -> Deadline {
    const MAX: i64 = i32::MAX as i64;
    match new.int() {
        Some(after) if !(0..=MAX).contains(&after) => {
            Deadline::Senseless(new.invalid(inclusive_range_error(0, MAX)))
        }
        Some(after) if before.is_some_and(|before| before < after) => {
            Deadline::Senseless(new.invalid("must be less than or equal to previous value"))
        }
        None if before.is_some() => {
            Deadline::Wrong(new.invalid("must not update from a positive integer to nil value"))
        }
        _ => Deadline::Fine,
    }
}

/// Tolerations stay, but for how long they tolerate; new ones may come.
fn only_added_tolerations(new: &At<'_>, old: &[Value]) -> ErrorList {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let after: Vec<Value> = new.list().iter().map(without_time).collect();
    if old.iter().any(|before| !after.contains(&without_time(before))) {
        return vec![new.forbidden("existing toleration can not be modified except its tolerationSeconds")];
    }
    tolerations(new)
}

fn only_deleted_gates(new: &At<'_>, old: &[Value]) -> ErrorList {
    let names = new.items().map(|gate| gate.child("name"));
    let added = names.filter(|name| !old.iter().any(|gate| text(gate, "name") == name.str()));
    let why = |name: &str| format!("only deletion is allowed, but found new scheduling gate '{name}'");
    added.map(|name| name.forbidden(why(name.str()))).collect()
}

/// Makes what an update may change what it was, so that what is left tells what it may not.
fn put_back_what_may_change(munged: &mut Object, old: &Object) {
    for key in ["containers", "initContainers"] {
        let images: Vec<Option<Value>> =
            old.get_array(&["spec", key]).iter().map(|container| container.get("image").cloned()).collect();
        let containers = munged.as_value_mut().pointer_mut(&format!("/spec/{key}"));
        let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.filter_map(Value::as_object_mut).zip(images) {
            match image {
                Some(image) => container.insert("image".into(), image),
                None => container.remove("image"),
            };
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(munged, old, &["spec", key]);
    }
    let grace = &["spec", "terminationGracePeriodSeconds"];
    if old.get_i64(grace).is_some_and(|seconds| seconds < 0) && munged.get_i64(grace) == Some(1) {
        put_back(munged, old, grace);
    }
}

fn put_back(munged: &mut Object, old: &Object, path: &[&str]) {
    match old.get(path) {
        Some(value) => munged.set(path, value.clone()),
        None => {
            munged.remove(path);
        }
    }
}

/// A gated pod's node selector and node affinity may get narrower.
fn gated_update(munged: &mut Object, old: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let selector = &["spec", "nodeSelector"];
    if munged.get(selector) != old.get(selector) {
        let none = Value::Object(Map::new());
        let (after, before) = (At::of(munged, selector), At::of(old, selector));
        if before.entries().any(|(key, was)| after.value.get(key) != Some(was.value)) {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            let shown = if after.is_set() { after.value } else { &none };
            errors.push(Error::invalid(&after.path, shown.clone(), why));
        }
        put_back(munged, old, selector);
    }
    if munged.get(&NODE_AFFINITY) == old.get(&NODE_AFFINITY) {
        return errors;
    }
    errors.extend(node_affinity_update(&At::of(munged, &NODE_AFFINITY), &At::of(old, &NODE_AFFINITY)));
    let others = munged
        .get(&["spec", "affinity"])
        .is_some_and(|a| field(a, "podAffinity").is_some() || field(a, "podAntiAffinity").is_some());
    if old.get(&["spec", "affinity"]).is_none() && !others {
        munged.remove(&["spec", "affinity"]);
    } else {
        put_back(munged, old, &NODE_AFFINITY);
    }
    errors
}

fn node_affinity_update(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let [after, before] = [new, old].map(|affinity| affinity.child(REQUIRED).child("nodeSelectorTerms"));
    if before.is_empty() {
        return ErrorList::new();
    }
    if before.len() != after.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![Error::invalid(&after.path, after.list().to_vec(), why)];
    }
    let terms = after.items().zip(before.list());
    let changed = terms.filter(|(after, before)| !only_adds(after.value, before));
    changed
        .map(|(after, _)| after.invalid("only additions are allowed (no mutations or deletions)"))
        .collect()
}

/// Whether a term keeps all requirements of another one, in their places.
fn only_adds(after: &Value, before: &Value) -> bool {
    const KEYS: [&str; 2] = ["matchExpressions", "matchFields"];
    // a term that matches nothing cannot be made to match something
    if KEYS.iter().all(|key| list(before, key).is_empty()) {
        return KEYS.iter().all(|key| list(after, key).is_empty());
    }
    KEYS.iter().all(|key| list(after, key).starts_with(list(before, key)))
}

/// An update through `ephemeralcontainers`: containers come, and those that are there stay as they are.
pub fn pod_ephemeral_containers_update(new: &Object, old: &Object) -> ErrorList {
    if old.annotation(MIRROR).is_some() {
        let why = "static pods do not support ephemeral containers";
        return vec![Error::forbidden(&Path::new("[]"), why)];
    }
    let options = Options::after(old, true);
    let mut errors = metadata_and_spec(new, &options);
    errors.extend(annotations_update(new, old, &options));
    let key = &["spec", "ephemeralContainers"];
    let path = Path::new("spec").child("ephemeralContainers");
    for before in old.get_array(key) {
        let name = text(before, "name");
        match new.get_array(key).iter().rev().find(|after| text(after, "name") == name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(Error::forbidden(&path, why));
            }
            Some(after) if after != before => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(Error::forbidden(&path, why));
            }
            Some(_) => {}
        }
    }
    errors
}
