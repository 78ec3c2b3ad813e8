//! What an update of a pod may change.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation::inclusive_range_error;
use apimachinery::{Object, Value};
use serde_json::Map;

use super::{MIRROR, Options, annotations, metadata_and_spec, tolerations};
use crate::validation::value::{entries, field, list, text};

/// Where requirements on nodes stand.
const NODE_AFFINITY: [&str; 3] = ["spec", "affinity", "nodeAffinity"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// An update of a pod: images, a nearer deadline, more tolerations, fewer gates; of a pod that is gated also
/// narrower requirements on its node.
pub fn pod_update(new: &Object, old: &Object) -> ErrorList {
    let options = Options::after(old, true);
    let path = Path::new("spec");
    let mut errors = metadata_and_spec(new, &options);
    errors.extend(annotations_update(new, old, &options));
    for key in ["containers", "initContainers"] {
        let at = path.child(key);
        let (after, before) = (new.get_array(&["spec", key]), old.get_array(&["spec", key]));
        if after.len() != before.len() {
            errors.push(Error::forbidden(&at, "pod updates may not add or remove containers"));
            return errors;
        }
        for (index, container) in after.iter().enumerate() {
            let image = text(container, "image");
            if image.is_empty() {
                errors.push(Error::required(&at.index(index).child("image"), ""));
            }
            errors.extend(super::containers::padded_image(container, &at.index(index)));
        }
    }
    match deadline(new, old, &path.child("activeDeadlineSeconds")) {
        Deadline::Fine => {}
        Deadline::Wrong(error) => errors.push(error),
        Deadline::Senseless(error) => {
            errors.push(error);
            return errors;
        }
    }
    errors.extend(only_added_tolerations(new, old, &path.child("tolerations")));
    errors.extend(only_deleted_gates(new, old, &path.child("schedulingGates")));
    if new.get(&["spec"]) == old.get(&["spec"]) {
        return errors;
    }
    let mut munged = new.clone();
    put_back_what_may_change(&mut munged, old);
    if !old.get_array(&["spec", "schedulingGates"]).is_empty() {
        errors.extend(gated_update(&mut munged, old, &path));
    }
    if munged.get(&["spec"]) != old.get(&["spec"]) {
        const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(Error::forbidden(&path, WHY));
    }
    errors
}

/// The annotations of an update, against the old ones and by themselves.
pub fn annotations_update(new: &Object, old: &Object, options: &Options) -> ErrorList {
    let none = Value::Null;
    let path = Path::new("metadata").child("annotations");
    let meta = |object: &'_ Object| object.get(&["metadata"]).cloned().unwrap_or_default();
    let (after, before) = (meta(new), meta(old));
    let mut errors = annotations::update_rules(&after, &before, &path);
    let spec = new.get(&["spec"]).unwrap_or(&none);
    errors.extend(annotations::rules(&after, spec, options.allow_invalid_deletion_cost, &path));
    errors
}

enum Deadline {
    Fine,
    Wrong(Error),
    /// There is no use in looking any further.
    Senseless(Error),
}

fn deadline(new: &Object, old: &Object, path: &Path) -> Deadline {
    let key = &["spec", "activeDeadlineSeconds"];
    let before = old.get_i64(key);
    match new.get_i64(key) {
        Some(after) if !(0..=i64::from(i32::MAX)).contains(&after) => {
            let why = inclusive_range_error(0, i64::from(i32::MAX));
            Deadline::Senseless(Error::invalid(path, after, why))
        }
        Some(after) if before.is_some_and(|before| before < after) => {
            let why = "must be less than or equal to previous value";
            Deadline::Senseless(Error::invalid(path, after, why))
        }
        None if before.is_some() => {
            let why = "must not update from a positive integer to nil value";
            Deadline::Wrong(Error::invalid(path, Value::Null, why))
        }
        _ => Deadline::Fine,
    }
}

/// Tolerations stay, but for how long they tolerate; new ones may come.
fn only_added_tolerations(new: &Object, old: &Object, path: &Path) -> ErrorList {
    let key = &["spec", "tolerations"];
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let after: Vec<Value> = new.get_array(key).iter().map(without_time).collect();
    if old.get_array(key).iter().any(|before| !after.contains(&without_time(before))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return vec![Error::forbidden(path, why)];
    }
    tolerations(new.get_array(key), path)
}

fn only_deleted_gates(new: &Object, old: &Object, path: &Path) -> ErrorList {
    let key = &["spec", "schedulingGates"];
    let before: Vec<&str> = old.get_array(key).iter().map(|gate| text(gate, "name")).collect();
    let added = new.get_array(key).iter().enumerate().map(|(index, gate)| (index, text(gate, "name")));
    added
        .filter(|(_, name)| !before.contains(name))
        .map(|(index, name)| {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            Error::forbidden(&path.index(index).child("name"), why)
        })
        .collect()
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
fn gated_update(munged: &mut Object, old: &Object, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let selector = &["spec", "nodeSelector"];
    if munged.get(selector) != old.get(selector) {
        let none = Value::Object(Map::new());
        let after = munged.get(selector).unwrap_or(&none);
        let before = old.get(&["spec"]).map(|spec| entries(spec, "nodeSelector").collect::<Vec<_>>());
        if before.unwrap_or_default().into_iter().any(|(key, value)| after.get(key) != Some(value)) {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&path.child("nodeSelector"), after.clone(), why));
        }
        put_back(munged, old, selector);
    }
    if munged.get(&NODE_AFFINITY) == old.get(&NODE_AFFINITY) {
        return errors;
    }
    let at = path.child("affinity").child("nodeAffinity");
    errors.extend(node_affinity_update(munged.get(&NODE_AFFINITY), old.get(&NODE_AFFINITY), &at));
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

fn node_affinity_update(new: Option<&Value>, old: Option<&Value>, path: &Path) -> ErrorList {
    let terms = |affinity: Option<&Value>| -> Vec<Value> {
        let required = affinity.and_then(|affinity| affinity.get(REQUIRED));
        required.map(|required| list(required, "nodeSelectorTerms").to_vec()).unwrap_or_default()
    };
    let (before, after) = (terms(old), terms(new));
    let at = path.child(REQUIRED).child("nodeSelectorTerms");
    if before.is_empty() {
        return ErrorList::new();
    }
    if before.len() != after.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![Error::invalid(&at, after, why)];
    }
    let mut errors = ErrorList::new();
    for (index, (after, before)) in after.iter().zip(&before).enumerate() {
        if !only_adds(after, before) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&at.index(index), after.clone(), why));
        }
    }
    errors
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
