//! What an update through `resize` may change: cpu and memory, of containers, sidecars and the pod.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::Map;

use super::{MIRROR, Options, metadata_and_spec};
use crate::core::pod::qos_class;
use crate::validation::at::At;
use crate::validation::value::{has, text};

pub fn pod_resize(new: &Object, old: &Object) -> ErrorList {
    let refuse = |why: &str| vec![Error::forbidden(&Path::new("[]"), why)];
    if old.annotation(MIRROR).is_some() {
        return refuse("static pods cannot be resized");
    }
    if old.get_str(&["spec", "os", "name"]) == "windows" {
        return refuse("windows pods cannot be resized");
    }
    let mut errors = metadata_and_spec(new, &Options::after(old, true));
    let (spec, old_spec) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let before = match old.get_str(&["status", "qosClass"]) {
        "" => qos_class(old),
        class => class,
    };
    if before != qos_class(new) {
        let class = new.get_str(&["status", "qosClass"]);
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&spec.path, class, why));
    }
    if !node_can_resize(old) {
        errors.push(spec.forbidden("Pod running on node without support for resize"));
    }
    let mut munged = new.clone();
    errors.extend(pod_level(&mut munged, &spec, &old_spec));
    if old.get(&["status", "nodeAllocatableResourceClaimStatuses"]).is_some() {
        errors.push(spec.forbidden("pods with node allocatable resource claims cannot be resized"));
    }
    let moved = other_containers(&spec, &old_spec);
    if !moved.is_empty() {
        errors.extend(moved);
        return errors;
    }
    for key in ["initContainers", "containers"] {
        for (before, after) in old_spec.each(key).zip(spec.each(key)) {
            if key == "containers" || is_sidecar(before.value) {
                errors.extend(nothing_removed(&after, &before, ""));
            }
        }
    }
    errors.extend(put_back(&mut munged, old, &spec));
    if errors.is_empty() && munged.get(&["spec"]) != old.get(&["spec"]) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
    errors
}

/// The resources of the pod as a whole; they are put back in `munged`.
fn pod_level(munged: &mut Object, spec: &At<'_>, old: &At<'_>) -> ErrorList {
    let set = |spec: &At<'_>| {
        let resources = spec.child("resources");
        resources.says("requests") || resources.says("limits")
    };
    if !set(spec) && !set(old) {
        return ErrorList::new();
    }
    let (now, before) = (spec.child("resources"), old.child("resources"));
    if before.is_set() && !now.is_set() {
        return vec![now.forbidden("pod-level resources cannot be removed")];
    }
    let mut errors = nothing_removed(spec, old, "pod-level ");
    if let Some(munged) = munged.as_value_mut().get_mut("spec") {
        restore_amounts(munged, before.value);
        if munged.get("resources") != old.value.get("resources") {
            errors.push(spec.forbidden("only cpu and memory resources are mutable at pod-level"));
        }
    }
    errors
}

/// Containers that a resize adds, removes, renames or moves.
fn other_containers(spec: &At<'_>, old: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["containers", "initContainers"] {
        let (after, before) = (spec.child(key), old.child(key));
        if after.len() != before.len() {
            errors.push(after.forbidden(format!("{key} may not be added or removed on resize")));
            continue;
        }
        for (after, before) in after.items().zip(before.items()) {
            if after.text("name") != before.text("name") {
                let why = format!("{key} may not be renamed or reordered on resize");
                errors.push(after.child("name").forbidden(why));
            }
        }
    }
    errors
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// A running container whose resources the kubelet reports shows that its node can resize; where none runs,
/// nobody can tell.
fn node_can_resize(pod: &Object) -> bool {
    pod.get_array(&["status", "containerStatuses"])
        .iter()
        .find(|status| status.get("state").is_some_and(|state| has(state, "running")))
        .is_none_or(|status| has(status, "resources"))
}

/// Of the `resources` of a pod's spec or a container, as `what` says.
fn nothing_removed(new: &At<'_>, old: &At<'_>, what: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    for (part, name) in [("requests", "resource requests"), ("limits", "resource limits")] {
        let [after, before] = [new, old].map(|owner| owner.child("resources").child(part));
        if before.entries().any(|(name, _)| !after.has(name)) {
            errors.push(after.forbidden(format!("{what}{name} cannot be removed")));
        }
    }
    errors
}

/// Makes cpu and memory of containers what they were, and says where something else has changed.
fn put_back(munged: &mut Object, old: &Object, spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["containers", "initContainers"] {
        let before = old.get_array(&["spec", key]).to_vec();
        let containers = munged.as_value_mut().pointer_mut(&format!("/spec/{key}"));
        let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
        for ((container, before), at) in containers.zip(&before).zip(spec.each(key)) {
            let (at, why) = match (key, is_sidecar(container)) {
                ("containers", _) => (spec, "only cpu and memory resources are mutable"),
                (_, true) => {
                    (&at, "only cpu and memory resources for init or sidecar containers are mutable")
                }
                (_, false) => (spec, "resources for non-sidecar init containers are immutable"),
            };
            if key == "containers" || is_sidecar(container) {
                restore_amounts(container, &before["resources"]);
            }
            if container != before {
                errors.push(at.forbidden(why));
            }
        }
    }
    errors
}

/// Requests and limits of cpu and memory as they were.
fn restore_amounts(owner: &mut Value, before: &Value) {
    let Some(owner) = owner.as_object_mut() else { return };
    let now = owner.get("resources").cloned().unwrap_or_default();
    let mut resources = Map::new();
    for part in ["limits", "requests"] {
        let mut amounts = now.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match before.get(part).and_then(|part| part.get(name)) {
                Some(amount) => amounts.insert(name.into(), amount.clone()),
                None => amounts.remove(name),
            };
        }
        if !amounts.is_empty() {
            resources.insert(part.into(), Value::Object(amounts));
        }
    }
    if let Some(claims) = now.get("claims") {
        resources.insert("claims".into(), claims.clone());
    }
    if before.is_object() || !resources.is_empty() {
        owner.insert("resources".into(), Value::Object(resources));
    } else {
        owner.remove("resources");
    }
}
