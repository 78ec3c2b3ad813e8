//! What a new pod is made of by the server: label keys become selectors, AppArmor's field and annotation say the same.

use apimachinery::field::Path;
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::defaults::{child, each};
use super::warnings;
use crate::validation::pod::APP_ARMOR;
use crate::validation::value::{field, optional, text};

type Tree = Map<String, Value>;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds to the selectors of affinity and spread what `matchLabelKeys` and `mismatchLabelKeys` mean for this pod.
pub fn merge_label_keys(pod: &mut Object) {
    let labels = pod.labels().cloned().unwrap_or_default();
    let Some(spec) = child(pod.as_map_mut(), "spec") else { return };
    if let Some(affinity) = child(spec, "affinity") {
        for key in ["podAffinity", "podAntiAffinity"] {
            let Some(pods) = child(affinity, key) else { continue };
            for term in each(pods, PREFERRED) {
                if let Some(term) = child(term, "podAffinityTerm") {
                    merge(term, &labels);
                }
            }
            for term in each(pods, REQUIRED) {
                merge(term, &labels);
            }
        }
    }
    for constraint in each(spec, "topologySpreadConstraints") {
        merge(constraint, &labels);
    }
}

/// Without a selector there is nothing to add to: it matches no pod as it is.
fn merge(term: &mut Tree, labels: &Tree) {
    let keys = |term: &Tree, key: &str| -> Vec<String> {
        let list = term.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut new = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in keys(term, list) {
            if let Some(value) = labels.get(&key) {
                new.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if new.is_empty() {
        return;
    }
    if let Some(selector) = child(term, "labelSelector") {
        let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(expressions) = expressions.as_array_mut() {
            expressions.extend(new);
        }
    }
}

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn on_windows(pod: &Object) -> bool {
    pod.get_str(&["spec", "os", "name"]) == "windows"
}

fn profile(owner: &Value) -> Option<&Value> {
    field(field(owner, "securityContext")?, "appArmorProfile")
}

/// A profile as the annotation words it.
fn as_annotation(profile: &Value) -> Option<String> {
    match text(profile, "type") {
        "Unconfined" => Some("unconfined".into()),
        "RuntimeDefault" => Some("runtime/default".into()),
        "Localhost" => optional(profile, "localhostProfile").map(|name| format!("localhost/{name}")),
        _ => None,
    }
}

/// What an annotation says, as a profile; nothing where it says what cannot be.
fn as_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let name = other.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// The containers that an annotation gives a profile which no field gives them: list, index, annotation, profile.
fn from_annotations(pod: &Object) -> Vec<(&'static str, usize, String, Value)> {
    let none = Value::Null;
    let of_pod = profile(pod.get(&["spec"]).unwrap_or(&none));
    let mut out = Vec::new();
    if on_windows(pod) {
        return out;
    }
    for list in CONTAINERS {
        for (index, container) in pod.get_array(&["spec", list]).iter().enumerate() {
            let key = format!("{APP_ARMOR}{}", text(container, "name"));
            let said = pod.annotation(&key).and_then(as_profile);
            if let (Some(said), None) = (said, profile(container))
                && of_pod != Some(&said)
            {
                out.push((list, index, key, said));
            }
        }
    }
    out
}

/// Warns of annotations that become fields.
pub fn app_armor_warnings(pod: &Object) -> Vec<String> {
    let path = Path::new("metadata").child("annotations");
    from_annotations(pod).iter().map(|(_, _, key, _)| warnings::app_armor(&path, key)).collect()
}

/// Makes AppArmor's annotations and fields say the same.
pub fn sync_app_armor(pod: &mut Object) {
    if on_windows(pod) {
        return;
    }
    for (list, index, _, said) in from_annotations(pod) {
        let pointer = format!("/spec/{list}/{index}");
        if let Some(container) = pod.as_value_mut().pointer_mut(&pointer).and_then(Value::as_object_mut) {
            let context = container.entry("securityContext").or_insert_with(|| json!({}));
            if let Some(context) = context.as_object_mut() {
                context.insert("appArmorProfile".into(), said);
            }
        }
    }
    let none = Value::Null;
    let of_pod = profile(pod.get(&["spec"]).unwrap_or(&none)).cloned();
    let mut new = Vec::new();
    for list in CONTAINERS {
        for container in pod.get_array(&["spec", list]) {
            let key = format!("{APP_ARMOR}{}", text(container, "name"));
            let said = profile(container).or(of_pod.as_ref()).and_then(as_annotation);
            if let (Some(said), None) = (said, pod.annotation(&key)) {
                new.push((key, said));
            }
        }
    }
    for (key, said) in new {
        pod.set(&["metadata", "annotations", &key], said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_become_expressions() {
        let mut pod = Object::from(json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "affinity": {"podAffinity": {REQUIRED: [
                {"labelSelector": {}, "matchLabelKeys": ["a", "gone"], "mismatchLabelKeys": ["b"]},
                {"matchLabelKeys": ["a"]},
            ]}},
            "topologySpreadConstraints": [{"labelSelector": {"matchLabels": {"x": "y"}}, "matchLabelKeys": ["a"]}],
        }}));
        merge_label_keys(&mut pod);
        let terms = &pod.as_value()["spec"]["affinity"]["podAffinity"][REQUIRED];
        assert_eq!(
            terms[0]["labelSelector"]["matchExpressions"],
            json!([{"key": "a", "operator": "In", "values": ["1"]}, {"key": "b", "operator": "NotIn", "values": ["2"]}])
        );
        assert!(terms[1].get("labelSelector").is_none(), "no selector matches nothing, and goes on doing so");
        let spread = &pod.as_value()["spec"]["topologySpreadConstraints"][0]["labelSelector"];
        assert_eq!(spread["matchExpressions"][0]["key"], "a");
    }

    #[test]
    fn app_armor_says_the_same_twice() {
        let key = format!("{APP_ARMOR}c");
        let mut pod = Object::from(json!({"metadata": {"annotations": {(key.clone()): "localhost/x"}},
            "spec": {"containers": [{"name": "c"}, {"name": "d", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}]}}));
        assert_eq!(
            app_armor_warnings(&pod),
            [format!(
                "metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            )]
        );
        sync_app_armor(&mut pod);
        let first = pod.get_array(&["spec", "containers"])[0].clone();
        assert_eq!(
            first["securityContext"]["appArmorProfile"],
            json!({"type": "Localhost", "localhostProfile": "x"})
        );
        assert_eq!(pod.annotation(&format!("{APP_ARMOR}d")), Some("unconfined"));
        assert!(app_armor_warnings(&pod).is_empty());
    }
}
