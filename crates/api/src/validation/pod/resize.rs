//! What an update through `resize` may change: cpu and memory, of containers, sidecars and the pod.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};
use serde_json::Map;

use super::{MIRROR, Options, metadata_and_spec};
use crate::core::pod::qos_class;
use crate::validation::at::At;
use crate::validation::value::{has, list, text};

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
    errors.extend(nothing_removed(&spec, &old_spec));
    for key in ["initContainers", "containers"] {
        for (before, after) in old_spec.each(key).zip(spec.each(key)) {
            if key == "containers" || is_sidecar(before.value) {
                errors.extend(nothing_removed(&after, &before));
            }
        }
    }
    let mut munged = new.clone();
    errors.extend(put_back(&mut munged, old, &spec.path));
    if errors.is_empty() && munged.get(&["spec"]) != old.get(&["spec"]) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
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

/// Of the `resources` of a pod's spec or a container.
fn nothing_removed(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (part, why) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let [after, before] = [new, old].map(|owner| owner.child("resources").child(part));
        if before.entries().any(|(name, _)| !after.has(name)) {
            errors.push(after.forbidden(why));
        }
    }
    errors
}

/// Makes cpu and memory what they were, and says where something else has changed.
fn put_back(munged: &mut Object, old: &Object, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if munged.get(&["spec", "resources"]).is_some()
        && let Some(before) = old.get(&["spec", "resources"])
    {
        let mut pod = munged.get(&["spec"]).cloned().unwrap_or_default();
        restore_amounts(&mut pod, before);
        munged.set(&["spec"], pod);
    }
    for key in ["containers", "initContainers"] {
        let before = old.get_array(&["spec", key]).to_vec();
        let containers = munged.as_value_mut().pointer_mut(&format!("/spec/{key}"));
        let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(&before) {
            let why = match (key, is_sidecar(container)) {
                ("containers", _) => "only cpu and memory resources are mutable",
                (_, true) => "only cpu and memory resources for sidecar containers are mutable",
                (_, false) => "resources for non-sidecar init containers are immutable",
            };
            if key == "containers" || is_sidecar(container) {
                restore_amounts(container, &before["resources"]);
            }
            if container != before {
                errors.push(Error::forbidden(path, why));
            }
        }
    }
    errors
}

/// Requests and limits of cpu and memory as they were. Where there were none of a sort at all, none are left.
fn restore_amounts(owner: &mut Value, before: &Value) {
    let Some(owner) = owner.as_object_mut() else { return };
    let mut resources = Map::new();
    for part in ["limits", "requests"] {
        let Some(old) = before.get(part).and_then(Value::as_object) else { continue };
        let now = owner.get("resources").and_then(|resources| resources.get(part));
        let mut amounts = now.and_then(Value::as_object).cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match old.get(name) {
                Some(amount) => amounts.insert(name.into(), amount.clone()),
                None => amounts.remove(name),
            };
        }
        resources.insert(part.into(), Value::Object(amounts));
    }
    if let Some(claims) = owner.get("resources").map(|resources| list(resources, "claims").to_vec())
        && !claims.is_empty()
    {
        resources.insert("claims".into(), Value::Array(claims));
    }
    if owner.contains_key("resources") || before.is_object() {
        owner.insert("resources".into(), Value::Object(resources));
    }
}
