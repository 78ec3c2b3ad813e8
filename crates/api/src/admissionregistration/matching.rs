//! Which requests a webhook or a policy is about: rules, selectors, conditions.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use serde_json::{Map, json};

use crate::core::defaults::{each, set};
use crate::validation::at::At;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MAX_CONDITIONS: usize = 64;
pub const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];

/// Rules in a list are about everything unless they say otherwise.
pub fn default_rules(owner: &mut Map<String, Value>, key: &str) {
    for rule in each(owner, key) {
        set(rule, "scope", "*");
    }
}

/// Defaults that webhooks and `matchConstraints` share.
pub fn default_match(owner: &mut Map<String, Value>) {
    set(owner, "matchPolicy", "Equivalent");
    set(owner, "namespaceSelector", json!({}));
    set(owner, "objectSelector", json!({}));
}

fn has_wildcard(list: &At<'_>) -> bool {
    list.list().iter().any(|value| value == "*")
}

/// Operations, groups, versions and resources of a rule.
pub fn rule(rule: &At<'_>) -> ErrorList {
    let operations = rule.child("operations");
    let mut errors = ErrorList::new();
    if operations.is_empty() {
        errors.push(operations.required(""));
    }
    errors.extend(alone(&operations, "operations"));
    for operation in operations.items() {
        errors.extend(operation.supported(&OPERATIONS));
    }
    let (groups, versions) = (rule.child("apiGroups"), rule.child("apiVersions"));
    if groups.is_empty() {
        errors.push(groups.required(""));
    }
    errors.extend(alone(&groups, "API groups"));
    if versions.is_empty() {
        errors.push(versions.required(""));
    }
    errors.extend(alone(&versions, "API versions"));
    errors.extend(versions.items().filter(At::is_empty).map(|version| version.required("")));
    errors.extend(resources(&rule.child("resources")));
    errors.extend(rule.child("scope").supported(&SCOPES));
    errors
}

fn alone(list: &At<'_>, what: &str) -> ErrorList {
    if list.len() > 1 && has_wildcard(list) {
        return vec![list.invalid(format!("if '*' is present, must not specify other {what}"))];
    }
    ErrorList::new()
}

fn resources(resources: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if resources.is_empty() {
        errors.push(resources.required(""));
    }
    let mut whole: Vec<&str> = Vec::new();
    let mut everywhere: Vec<&str> = Vec::new();
    let mut plain = false;
    for resource in resources.items() {
        let name = resource.str();
        if name.is_empty() {
            errors.push(resource.required(""));
            continue;
        }
        let Some((of, sub)) = name.split_once('/') else {
            plain = name != "*";
            continue;
        };
        if whole.contains(&of) {
            errors.push(resource.invalid(format!("if '{of}/*' is present, must not specify {name}")));
        }
        if everywhere.contains(&sub) {
            errors.push(resource.invalid(format!("if '*/{sub}' is present, must not specify {name}")));
        }
        if sub == "*" {
            whole.push(of);
        }
        if of == "*" {
            everywhere.push(sub);
        }
    }
    let has = |name: &str| resources.list().iter().any(|value| value == name);
    if resources.len() > 1 && has("*/*") {
        errors.push(resources.invalid("if '*/*' is present, must not specify other resources"));
    }
    if has("*") && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(why));
    }
    errors
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub fn match_resources(matching: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let policy = matching.child("matchPolicy");
    if policy.is_set() {
        errors.extend(policy.supported(&MATCH_POLICIES));
    } else {
        errors.push(policy.required(""));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        let selector = matching.child(key);
        if selector.is_set() {
            errors.extend(selector.label_selector());
        } else {
            errors.push(selector.required(""));
        }
    }
    for named in ["resourceRules", "excludeResourceRules"].iter().flat_map(|key| matching.each(key)) {
        let names = named.child("resourceNames");
        for (index, name) in names.items().enumerate() {
            errors.extend(name.path_segment());
            if names.list()[..index].contains(name.value) {
                errors.push(name.duplicate());
            }
        }
        errors.extend(rule(&named));
    }
    errors
}

/// Named expressions, all of which have to hold.
pub fn match_conditions(conditions: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(conditions.too_many(MAX_CONDITIONS));
    }
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (name, expression) = (condition.child("name"), condition.child("expression"));
        if expression.str().trim().is_empty() {
            errors.push(expression.required(""));
        }
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        errors.extend(name.qualified_name());
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&name.path, name.str()));
        }
        seen.push(name.str());
    }
    errors
}

#[cfg(test)]
mod tests {
    use apimachinery::field::Path;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_rule() {
        let value = json!({
            "operations": ["*", "CREATE", "ODD"], "apiGroups": [], "apiVersions": ["v1", ""], "scope": "Odd",
            "resources": ["pods/*", "pods/log", "*/status", "nodes/status", "*", "services"],
        });
        check(
            rule(&At::new(&value, Path::new("r"))),
            &[
                "r.operations: Invalid value: [\"*\",\"CREATE\",\"ODD\"]: if '*' is present, must not specify other operations",
                "r.operations[2]: Unsupported value: \"ODD\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "r.apiGroups: Required value",
                "r.apiVersions[1]: Required value",
                "r.resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
                "r.resources[3]: Invalid value: \"nodes/status\": if '*/status' is present, must not specify nodes/status",
                "r.resources: Invalid value: [\"pods/*\",\"pods/log\",\"*/status\",\"nodes/status\",\"*\",\"services\"]: if '*' is present, must not specify other resources without subresources",
                "r.scope: Unsupported value: \"Odd\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ],
        );
    }

    #[test]
    fn conditions_have_names() {
        let value = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}, {"expression": "x"}]);
        check(
            match_conditions(&At::new(&value, Path::new("c"))),
            &[
                "c[1].expression: Required value",
                "c[1].name: Duplicate value: \"a\"",
                "c[2].name: Required value",
            ],
        );
    }
}
