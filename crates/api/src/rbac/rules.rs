//! What is wrong with roles and bindings.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use apimachinery::validation as names;

use crate::validation::at::At;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn path_segment_name(name: &str) -> Vec<String> {
    names::is_path_segment_name(name)
}

pub fn role(role: &Object, namespaced: bool) -> ErrorList {
    At::root(role).each("rules").flat_map(|rule| self::rule(&rule, namespaced)).collect()
}

fn rule(rule: &At<'_>, namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = |key: &str| rule.child(key);
    if at("verbs").is_empty() {
        errors.push(at("verbs").required("verbs must contain at least one value"));
    }
    let urls = at("nonResourceURLs");
    if !urls.is_empty() {
        if namespaced {
            errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|key| rule.says(key)) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(urls.invalid(why));
        }
        return errors;
    }
    if at("apiGroups").is_empty() {
        errors.push(at("apiGroups").required("resource rules must supply at least one api group"));
    }
    if at("resources").is_empty() {
        errors.push(at("resources").required("resource rules must supply at least one resource"));
    }
    errors
}

pub fn role_binding(binding: &Object) -> ErrorList {
    let namespaced = !binding.namespace().is_empty();
    let root = At::root(binding);
    let role = root.child("roleRef");
    let mut errors = role.child("apiGroup").among(&[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    errors.extend(role.child("kind").among(kinds));
    errors.extend(role.child("name").required_path_segment());
    errors.extend(root.each("subjects").flat_map(|subject| self::subject(&subject, namespaced)));
    errors
}

fn subject(subject: &At<'_>, namespaced: bool) -> ErrorList {
    let (name, group, kind) = (subject.child("name"), subject.child("apiGroup"), subject.child("kind"));
    let mut errors = name.must_be_set();
    match kind.str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(name.subdomain());
            }
            errors.extend(group.among(&[""]));
            if !namespaced {
                errors.extend(subject.child("namespace").must_be_set());
            }
        }
        one @ ("User" | "Group") => {
            if name.is_empty() {
                errors.push(name.invalid_text(format!("{} name cannot be empty", one.to_lowercase())));
            }
            errors.extend(group.among(&[GROUP]));
        }
        _ => errors.extend(kind.among(&["ServiceAccount", "User", "Group"])),
    }
    errors
}

pub fn role_binding_update(binding: &Object, old: &Object) -> ErrorList {
    let mut errors = role_binding(binding);
    let role = At::of(binding, &["roleRef"]);
    if role.value != At::of(old, &["roleRef"]).value {
        errors.push(role.invalid("cannot change roleRef"));
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
