//! Which writes a webhook's rules are about. Pure.

use apimachinery::Value;

use crate::admission::Operation;

/// One rule of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

impl Rule {
    pub fn parse(rule: &Value) -> Self {
        let texts = |key: &str| {
            let items = rule.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: rule.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
        }
    }

    pub fn matches(&self, write: &Write<'_>) -> bool {
        let any = |items: &[String], value: &str| items.iter().any(|item| item == "*" || item == value);
        // namespaces are of the cluster, whatever namespace a request about one names
        let of_cluster = write.namespace.is_empty()
            || (write.group, write.version, write.resource) == ("", "v1", "namespaces");
        let in_scope = match self.scope.as_str() {
            "*" => true,
            "Namespaced" => !of_cluster,
            "Cluster" => of_cluster,
            _ => false,
        };
        in_scope
            && any(&self.operations, write.operation.name())
            && any(&self.groups, write.group)
            && any(&self.versions, write.version)
            && self.resources.iter().any(|wanted| {
                let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
                (resource == "*" || resource == write.resource)
                    && (subresource == "*" || subresource == write.subresource)
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_match_as_upstream() {
        let rule =
            |operations: &[&str], groups: &[&str], versions: &[&str], resources: &[&str], scope: &str| {
                Rule::parse(&json!({
                    "operations": operations, "apiGroups": groups, "apiVersions": versions,
                    "resources": resources, "scope": scope,
                }))
            };
        let pod = Write {
            operation: Operation::Create,
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            namespace: "a",
        };
        let status = Write { subresource: "status", operation: Operation::Update, ..pod };
        let node = Write { resource: "nodes", namespace: "", ..pod };
        let namespace = Write { resource: "namespaces", namespace: "a", operation: Operation::Delete, ..pod };
        let all = ["*"];
        let cases = [
            (rule(&all, &all, &all, &["*/*"], "*"), [true, true, true, true]),
            (rule(&all, &all, &all, &["*"], "*"), [true, false, true, true]),
            (rule(&all, &all, &all, &["pods"], "*"), [true, false, false, false]),
            (rule(&all, &all, &all, &["pods/*"], "*"), [true, true, false, false]),
            (rule(&all, &all, &all, &["*/status"], "*"), [false, true, false, false]),
            (rule(&["CREATE"], &all, &all, &["*/*"], "*"), [true, false, true, false]),
            (rule(&["UPDATE", "DELETE"], &all, &all, &["*/*"], "*"), [false, true, false, true]),
            (rule(&all, &["apps"], &all, &["*/*"], "*"), [false; 4]),
            (rule(&all, &[""], &["v1beta1"], &["*/*"], "*"), [false; 4]),
            (rule(&all, &all, &all, &["*/*"], "Namespaced"), [true, true, false, false]),
            (rule(&all, &all, &all, &["*/*"], "Cluster"), [false, false, true, true]),
            (rule(&[], &all, &all, &["*/*"], "*"), [false; 4]),
        ];
        for (rule, expected) in cases {
            assert_eq!(
                [pod, status, node, namespace].map(|write| rule.matches(&write)),
                expected,
                "{rule:?}"
            );
        }
    }
}
