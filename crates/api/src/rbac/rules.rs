//! What is wrong with roles and bindings.

use apimachinery::field::{Error, ErrorList};
use apimachinery::selectors::LabelSelector;
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use crate::validation::at::At;
use crate::validation::value::go_struct;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn path_segment_name(name: &str) -> Vec<String> {
    names::is_path_segment_name(name)
}

pub fn role(role: &Object) -> ErrorList {
    At::root(role).each("rules").flat_map(|rule| self::rule(&rule, true)).collect()
}

/// The rules of a cluster role, and which others it takes its own from.
pub fn cluster_role(role: &Object) -> ErrorList {
    let root = At::root(role);
    let mut errors: ErrorList = root.each("rules").flat_map(|rule| self::rule(&rule, false)).collect();
    let Some(aggregation) = root.field("aggregationRule") else { return errors };
    let selectors = aggregation.child("clusterRoleSelectors");
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(selectors.required(why));
    }
    for selector in selectors.items() {
        errors.extend(selector.label_selector());
        if LabelSelector::from_label_selector(selector.value).is_err() {
            // upstream shows what came of reading it
            errors.push(Error::invalid(&selector.path, Value::Null, "invalid label selector."));
        }
    }
    errors
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
        let text = |key: &str| Value::from(role.text(key));
        let shown = [("APIGroup", text("apiGroup")), ("Kind", text("kind")), ("Name", text("name"))];
        errors.push(role.invalid("cannot change roleRef").showing(go_struct(&shown)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn rules_and_subjects_say_what_they_lack() {
        let object = Object::from(json!({"rules": [
            {"verbs": ["get"], "nonResourceURLs": ["/a"]},
            {"apiGroups": [""], "resources": ["pods"]},
        ]}));
        assert!(
            cluster_role(&object)
                .iter()
                .map(ToString::to_string)
                .eq(["rules[1].verbs: Required value: verbs must contain at least one value".to_owned(),])
        );
        assert_eq!(role(&object).len(), 2);
        let aggregated = Object::from(json!({"aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "a", "operator": "Odd"}]},
        ]}}));
        check(
            cluster_role(&aggregated),
            &[
                "aggregationRule.clusterRoleSelectors[1].matchExpressions[0].operator: Invalid value: \"Odd\": not a valid selector operator",
                "aggregationRule.clusterRoleSelectors[1]: Invalid value: null: invalid label selector.",
            ],
        );
        check(
            cluster_role(&Object::from(json!({"aggregationRule": {}}))),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        );
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
        let role = |name: &str| json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}});
        check(
            role_binding_update(&Object::from(role("b")), &Object::from(role("a"))),
            &[
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"b\"}: cannot change roleRef",
            ],
        );
    }
}
