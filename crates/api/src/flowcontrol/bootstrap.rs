//! Flow schemas and priority levels that every cluster has. The mandatory ones cannot be changed; the suggested
//! ones follow what the server suggests until somebody says that they should not.

use apimachinery::{Object, Value};
use serde_json::json;

/// Marks objects whose spec the server keeps as it suggests.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn object(name: &str, spec: Value) -> Object {
    Object::from(json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec}))
}

/// The levels that have to be there: `exempt` and `catch-all`.
pub fn mandatory_levels() -> Vec<Object> {
    vec![
        object(
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        object(
            "catch-all",
            json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
            }}),
        ),
    ]
}

pub fn suggested_levels() -> Vec<Object> {
    // name, shares, percent to lend, queues, size of a hand
    [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ]
    .into_iter()
    .map(|(name, shares, lendable, queues, hand)| {
        object(
            name,
            json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": shares, "lendablePercent": lendable,
                "limitResponse": {"type": "Queue", "queuing": {
                    "queues": queues, "handSize": hand, "queueLengthLimit": 50,
                }},
            }}),
        )
    })
    .collect()
}

fn schema(name: &str, level: &str, precedence: i64, distinguisher: &str, rule: Value) -> Object {
    let mut schema = object(
        name,
        json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
        }),
    );
    if !distinguisher.is_empty() {
        schema.set(&["spec", "distinguisherMethod", "type"], distinguisher);
    }
    schema
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"],
    });
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// Everything that these may ask for.
fn all_of(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];

/// The schemas that have to be there: `exempt` and `catch-all`.
pub fn mandatory_schemas() -> Vec<Object> {
    vec![
        schema("exempt", "exempt", 1, "", all_of(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, "ByUser", all_of(groups(&EVERYBODY))),
    ]
}

pub fn suggested_schemas() -> Vec<Object> {
    let probes = json!({
        "subjects": groups(&EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let mut electors = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    electors.push(system_accounts());
    const LEASES: &str = "coordination.k8s.io";
    let elections = json!({
        "subjects": electors,
        "resourceRules": [resources(&["get", "create", "update"], LEASES, &["leases"], false)],
    });
    let nodes = json!({
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], LEASES, &["leases"], false),
        ],
    });
    let one = |user: &str| all_of(users(&[user]));
    vec![
        schema("system-nodes", "system", 500, "ByUser", all_of(groups(&["system:nodes"]))),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", elections),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            one("system:kube-controller-manager"),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", one("system:kube-scheduler")),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            all_of(vec![system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            all_of(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", all_of(groups(&EVERYBODY))),
    ]
}

/// The fixed spec of a mandatory object.
pub fn fixed_spec(mandatory: Vec<Object>, name: &str) -> Option<Value> {
    mandatory.into_iter().find(|object| object.name() == name)?.get(&["spec"]).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flowcontrol::{flow_schema::FlowSchemas, priority_level::PriorityLevels};
    use crate::strategy::Strategy;
    use crate::validation::forms::check;

    #[test]
    fn what_the_server_makes_passes_its_own_rules() {
        for level in mandatory_levels().into_iter().chain(suggested_levels()) {
            let mut defaulted = level.clone();
            PriorityLevels.default(&mut defaulted);
            assert_eq!(defaulted, level);
            check(PriorityLevels.validate(&level), &[]);
        }
        for schema in mandatory_schemas().into_iter().chain(suggested_schemas()) {
            check(FlowSchemas.validate(&schema), &[]);
        }
    }
}
