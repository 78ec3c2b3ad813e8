//! What is wrong with roles and bindings.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use crate::validation::forms::{invalid, list};
use crate::validation::text;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn path_segment_name(name: &str) -> Vec<String> {
    names::is_path_segment_name(name)
}

pub fn role(role: &Object, namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, rule) in role.get_array(&["rules"]).iter().enumerate() {
        errors.extend(self::rule(rule, namespaced, &Path::new("rules").index(index)));
    }
    errors
}

fn rule(rule: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if list(rule, "verbs").is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    let urls = list(rule, "nonResourceURLs");
    if !urls.is_empty() {
        let value = Value::Array(urls.to_vec());
        if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&path.child("nonResourceURLs"), value.clone(), why));
        }
        let mixed = ["apiGroups", "resources", "resourceNames"].iter().any(|key| !list(rule, key).is_empty());
        if mixed {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&path.child("nonResourceURLs"), value, why));
        }
        return errors;
    }
    if list(rule, "apiGroups").is_empty() {
        let why = "resource rules must supply at least one api group";
        errors.push(Error::required(&path.child("apiGroups"), why));
    }
    if list(rule, "resources").is_empty() {
        let why = "resource rules must supply at least one resource";
        errors.push(Error::required(&path.child("resources"), why));
    }
    errors
}

pub fn role_binding(binding: &Object) -> ErrorList {
    let namespaced = !binding.namespace().is_empty();
    let path = Path::new("roleRef");
    let of_role = |key: &str| binding.get_str(&["roleRef", key]);
    let mut errors = ErrorList::new();
    if of_role("apiGroup") != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), of_role("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&of_role("kind")) {
        errors.push(Error::not_supported(&path.child("kind"), of_role("kind"), kinds));
    }
    if of_role("name").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.extend(invalid(&path.child("name"), of_role("name"), path_segment_name(of_role("name"))));
    }
    for (index, subject) in binding.get_array(&["subjects"]).iter().enumerate() {
        errors.extend(self::subject(subject, namespaced, &Path::new("subjects").index(index)));
    }
    errors
}

fn subject(subject: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let messages = names::name_is_dns_subdomain(name, false);
                errors.extend(invalid(&path.child("name"), name, messages));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                let why = format!("{} name cannot be empty", kind.to_lowercase());
                errors.push(Error::invalid(&path.child("name"), name, why));
            }
            if group != GROUP {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        kind => {
            let valid = ["ServiceAccount", "User", "Group"];
            errors.push(Error::not_supported(&path.child("kind"), kind, &valid));
        }
    }
    errors
}

pub fn role_binding_update(binding: &Object, old: &Object) -> ErrorList {
    let mut errors = role_binding(binding);
    if binding.get(&["roleRef"]) != old.get(&["roleRef"]) {
        let value = binding.get(&["roleRef"]).cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&Path::new("roleRef"), value, "cannot change roleRef"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_and_subjects_say_what_they_lack() {
        let object = Object::from(json!({"rules": [
            {"verbs": ["get"], "nonResourceURLs": ["/a"]},
            {"apiGroups": [""], "resources": ["pods"]},
        ]}));
        assert!(
            role(&object, false)
                .iter()
                .map(ToString::to_string)
                .eq(["rules[1].verbs: Required value: verbs must contain at least one value".to_owned(),])
        );
        assert_eq!(role(&object, true).len(), 2);
        let binding = Object::from(json!({
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "a"}],
        }));
        let errors: Vec<String> = role_binding(&binding).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ]
        );
    }
}
