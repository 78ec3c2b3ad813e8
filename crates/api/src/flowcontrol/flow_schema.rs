//! Flow schemas: which requests belong to which priority level.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::bootstrap;
use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column, or_none};
use crate::strategy::{
    Strategy, bump_generation, keep_all_metadata, keep_spec, keep_status, reset_metadata_too,
    reset_status_for_create,
};
use crate::validation::at::At;
use crate::validation::internal;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("PriorityLevel", "string", "The level of requests that match.", |s, _| {
        json!(s.get_str(&["spec", "priorityLevelConfiguration", "name"]))
    }),
    column("MatchingPrecedence", "string", "Lower numbers are tried first.", |s, _| {
        json!(s.get_i64(&["spec", "matchingPrecedence"]).unwrap_or_default())
    }),
    column("DistinguisherMethod", "string", "What tells flows apart.", |s, _| {
        or_none(s.get_str(&["spec", "distinguisherMethod", "type"]))
    }),
    AGE,
    column("MissingPL", "string", "Whether the level is missing.", |s, _| {
        let conditions = s.get_array(&["status", "conditions"]);
        let dangling = conditions.iter().find(|condition| condition["type"] == "Dangling");
        json!(dangling.and_then(|condition| condition["status"].as_str()).unwrap_or("?"))
    }),
];

pub(super) const PACKAGE: &str = "k8s.io.api.flowcontrol.v1";
const DEFAULT_PRECEDENCE: i64 = 1000;
const MAX_PRECEDENCE: i64 = 10_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub struct FlowSchemas;

impl Strategy for FlowSchemas {
    fn default(&self, schema: &mut Object) {
        if schema.get(&["spec"]).is_some()
            && schema.get_i64(&["spec", "matchingPrecedence"]).unwrap_or_default() == 0
        {
            schema.set(&["spec", "matchingPrecedence"], DEFAULT_PRECEDENCE);
        }
    }

    fn prepare_for_create(&self, schema: &mut Object) {
        reset_status_for_create(schema);
        schema.set_generation(1);
    }

    fn prepare_for_update(&self, schema: &mut Object, old: &Object) {
        keep_status(schema, old);
        bump_generation(schema, old);
    }

    fn validate(&self, schema: &Object) -> ErrorList {
        let root = At::root(schema);
        let spec = root.child("spec");
        let mut errors = validate(schema.name(), &spec);
        let fixed = bootstrap::fixed_spec(bootstrap::mandatory_schemas(), schema.name());
        if fixed.is_some_and(|fixed| fixed != *spec.value) {
            let why = format!("spec of '{}' must equal the fixed value", schema.name());
            let shown = internal::of(PACKAGE, "FlowSchemaSpec", spec.value).line();
            errors.push(spec.invalid(why).showing(shown));
        }
        errors.extend(conditions(&root.child("status").child("conditions")));
        errors
    }

    fn prepare_for_status_update(&self, schema: &mut Object, old: &Object) {
        keep_spec(schema, old);
        keep_all_metadata(schema, old);
    }

    fn validate_status_update(&self, schema: &Object, _old: &Object) -> ErrorList {
        conditions(&At::root(schema).child("status").child("conditions"))
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }
}

/// Conditions have types, each once.
pub fn conditions(conditions: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let kind = condition.child("type");
        if seen.contains(&kind.str()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.str());
        if kind.is_empty() {
            errors.push(kind.required(""));
        }
    }
    errors
}

fn validate(name: &str, spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let precedence = spec.child("matchingPrecedence");
    let number = precedence.int().unwrap_or_default();
    if number <= 0 {
        errors.push(Error::invalid(&precedence.path, number, "must be a positive value"));
    }
    if number > MAX_PRECEDENCE {
        errors.push(precedence.invalid(format!("must not be greater than {MAX_PRECEDENCE}")));
    }
    if number == 1 && name != "exempt" {
        errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
    }
    let method = spec.child("distinguisherMethod");
    if method.is_set() && !matches!(method.text("type"), "ByNamespace" | "ByUser") {
        let shown = format!("{{\"Type\":{}}}", apimachinery::field::quote(method.text("type")));
        let valid = ["ByNamespace", "ByUser"];
        errors.push(Error::not_supported(&method.path.child("type"), "", &valid).showing(shown));
    }
    let level = spec.child("priorityLevelConfiguration").child("name");
    if level.is_empty() {
        errors.push(level.required("must reference a priority level"));
    } else {
        errors.extend(level.subdomain());
    }
    for rule in spec.each("rules") {
        errors.extend(self::rule(&rule));
    }
    errors
}

fn rule(rule: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let subjects = rule.child("subjects");
    if subjects.is_empty() {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for subject in subjects.items() {
        errors.extend(self::subject(&subject));
    }
    let (resources, others) = (rule.child("resourceRules"), rule.child("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(rule.required(why));
    }
    for resource in resources.items() {
        errors.extend(resource_rule(&resource));
    }
    for other in others.items() {
        errors.extend(verbs(&other.child("verbs")));
        errors.extend(urls(&other.child("nonResourceURLs")));
    }
    errors
}

const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(subject: &At<'_>) -> ErrorList {
    let kind = subject.child("kind");
    let Some((name, field)) = SUBJECTS.iter().find(|(name, _)| *name == kind.str()) else {
        return vec![Error::not_supported(&kind.path, kind.str(), &["Group", "ServiceAccount", "User"])];
    };
    let of_kind = subject.child(field);
    let mut errors = ErrorList::new();
    if !of_kind.is_set() {
        errors.push(of_kind.required(format!("{field} is required when subject kind is '{name}'")));
    } else {
        errors.extend(named(&of_kind, *name == "ServiceAccount"));
    }
    for (other, field) in SUBJECTS.iter().filter(|(other, _)| other != name) {
        if subject.has(field) {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            errors.push(subject.child(field).forbidden(why));
        }
    }
    errors
}

fn named(subject: &At<'_>, is_account: bool) -> ErrorList {
    let name = subject.child("name");
    let mut errors = ErrorList::new();
    if name.is_empty() {
        errors.push(name.required(""));
    } else if is_account && name.str() != "*" {
        errors.extend(name.subdomain());
    }
    if is_account {
        let namespace = subject.child("namespace");
        if namespace.is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            errors.extend(namespace.dns_label());
        }
    }
    errors
}

fn has_wildcard(list: &At<'_>) -> bool {
    list.list().iter().any(|value| value == "*")
}

fn verbs(verbs: &At<'_>) -> ErrorList {
    if verbs.is_empty() {
        return vec![verbs.required("verbs must contain at least one value")];
    }
    if has_wildcard(verbs) {
        return alone(verbs, "verbs");
    }
    let known = |verb: &Value| verb.as_str().is_some_and(|verb| VERBS.contains(&verb));
    if verbs.list().iter().all(known) { ErrorList::new() } else { vec![verbs.not_supported(&VERBS)] }
}

/// A wildcard stands alone.
fn alone(list: &At<'_>, what: &str) -> ErrorList {
    if list.len() > 1 && has_wildcard(list) {
        return vec![list.invalid(format!("if '*' is present, must not specify other {what}"))];
    }
    ErrorList::new()
}

fn resource_rule(rule: &At<'_>) -> ErrorList {
    let mut errors = verbs(&rule.child("verbs"));
    for (key, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        let list = rule.child(key);
        if list.is_empty() {
            errors.push(list.required(format!("resource rules must supply at least one {one}")));
        } else {
            errors.extend(alone(&list, many));
        }
    }
    let namespaces = rule.child("namespaces");
    if namespaces.is_empty() && !rule.child("clusterScope").flag() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(namespaces.required(why));
    } else if has_wildcard(&namespaces) {
        errors.extend(alone(&namespaces, "namespaces"));
    } else {
        for namespace in namespaces.items() {
            let wrong = names::name_is_dns_label(namespace.str(), false);
            errors.extend(wrong.into_iter().map(|why| {
                namespace.invalid(format!("each member of this list must be '*' or a DNS-1123 label; {why}"))
            }));
        }
    }
    errors
}

fn urls(urls: &At<'_>) -> ErrorList {
    if urls.is_empty() {
        return vec![urls.required("nonResourceURLs must contain at least one value")];
    }
    if has_wildcard(urls) {
        return alone(urls, "non-resource URLs");
    }
    urls.items().filter_map(|url| Some(url.invalid(wrong_url(url.str())?))).collect()
}

fn wrong_url(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("must not be empty");
    }
    if url == "/" {
        return None;
    }
    let wildcards = url.matches('*').count();
    if !url.starts_with('/') {
        Some("must start with slash")
    } else if url.contains(' ') {
        Some("must not contain white-space")
    } else if url.contains("//") {
        Some("must not contain double slash")
    } else if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_schema() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "Odd"}}),
                vec![
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                    "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"Odd\"}: supported values: \"ByNamespace\", \"ByUser\"",
                    "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                ],
            ),
            (
                json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [{}]}),
                vec![
                    "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
            (
                json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [{
                    "subjects": [
                        {"kind": "User", "group": {"name": "g"}}, {"kind": "Odd"},
                        {"kind": "ServiceAccount", "serviceAccount": {"name": "*"}},
                    ],
                    "resourceRules": [{"verbs": ["fly"], "apiGroups": ["*", "a"], "resources": ["r"], "namespaces": ["A"]}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["a", "/b c", "/d//e", "/f*"]}],
                }]}),
                vec![
                    "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                    "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                    "spec.rules[0].subjects[1].kind: Unsupported value: \"Odd\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                    "spec.rules[0].subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account",
                    "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"fly\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                    "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other api groups",
                    "spec.rules[0].resourceRules[0].namespaces[0]: Invalid value: \"A\": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/b c\": must not contain white-space",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/d//e\": must not contain double slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: \"/f*\": wildcard can only do suffix matching",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let mut schema = Object::from(json!({"metadata": {"name": "s"}, "spec": spec}));
            FlowSchemas.default(&mut schema);
            check(FlowSchemas.validate(&schema), &expected);
        }
    }

    #[test]
    fn mandatory_schemas_stay() {
        let mut schema = bootstrap::mandatory_schemas().remove(0);
        schema.set(&["spec", "matchingPrecedence"], 5);
        let errors = FlowSchemas.validate(&schema);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].detail, "spec of 'exempt' must equal the fixed value");
    }
}
