//! Keeping the built-in policy whole without taking from what an administrator added, and aggregated roles.

use apimachinery::Object;
use serde_json::Value;

use super::rbac::Kind;
use super::rules::{Rule, uncovered};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What has to happen to an existing object of the built-in policy.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    Unchanged,
    Update(Object),
    /// The role of a binding cannot be changed: delete the old one and create this.
    Recreate(Object),
}

/// Compares an existing object with the built-in one. Only what is missing is added; what is annotated with
/// `autoupdate: "false"` is left alone.
pub fn reconcile(kind: Kind, existing: &Object, expected: &Object) -> Reconciled {
    if existing.annotation(AUTO_UPDATE) == Some("false") {
        return Reconciled::Unchanged;
    }
    let mut result = existing.clone();
    let mut changed = add_missing(&mut result, expected, "labels");
    changed |= add_missing(&mut result, expected, "annotations");
    match kind {
        Kind::ClusterRole | Kind::Role => {
            changed |= match expected.get(&["aggregationRule"]) {
                // Its rules are the business of aggregation.
                Some(rule) => add_selectors(&mut result, rule),
                None => add_rules(&mut result, expected),
            };
        }
        Kind::ClusterRoleBinding | Kind::RoleBinding => {
            if existing.get(&["roleRef"]) != expected.get(&["roleRef"]) {
                return Reconciled::Recreate(expected.clone());
            }
            changed |= add_all(&mut result, &["subjects"], expected.get_array(&["subjects"]));
        }
    }
    if changed { Reconciled::Update(result) } else { Reconciled::Unchanged }
}

fn add_missing(object: &mut Object, expected: &Object, field: &str) -> bool {
    let wanted = expected.get(&["metadata", field]).and_then(Value::as_object);
    let mut changed = false;
    for (key, value) in wanted.into_iter().flatten() {
        if object.get(&["metadata", field, key]).is_none() {
            object.set(&["metadata", field, key], value.clone());
            changed = true;
        }
    }
    changed
}

fn add_all(object: &mut Object, path: &[&str], wanted: &[Value]) -> bool {
    let mut list = object.get_array(path).to_vec();
    let before = list.len();
    for one in wanted {
        if !list.contains(one) {
            list.push(one.clone());
        }
    }
    let changed = list.len() != before;
    if changed {
        object.set(path, list);
    }
    changed
}

fn add_selectors(object: &mut Object, rule: &Value) -> bool {
    let wanted = rule.get("clusterRoleSelectors").and_then(Value::as_array);
    let wanted = wanted.map(Vec::as_slice).unwrap_or_default();
    add_all(object, &["aggregationRule", "clusterRoleSelectors"], wanted)
}

fn add_rules(object: &mut Object, expected: &Object) -> bool {
    let own = Rule::list(object.get(&["rules"]));
    let missing = uncovered(&own, &Rule::list(expected.get(&["rules"])));
    if missing.is_empty() {
        return false;
    }
    let mut list = object.get_array(&["rules"]).to_vec();
    list.extend(missing.iter().map(Rule::to_value));
    object.set(&["rules"], list);
    true
}

/// The rules of an aggregated cluster role: those of all roles that its selectors choose, by name, each once.
/// `None` for a role that does not aggregate.
pub fn aggregated_rules<'a>(role: &Object, all: impl Iterator<Item = &'a Object>) -> Option<Vec<Rule>> {
    let selectors = role.get(&["aggregationRule"])?.get("clusterRoleSelectors");
    let selectors = selectors.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut chosen: Vec<&Object> = all
        .filter(|other| other.name() != role.name() && selectors.iter().any(|s| selects(s, other)))
        .collect();
    chosen.sort_by_key(|other| other.name());
    let mut rules: Vec<Rule> = Vec::new();
    for rule in chosen.iter().flat_map(|other| Rule::list(other.get(&["rules"]))) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

/// Whether a `LabelSelector` chooses the object.
fn selects(selector: &Value, object: &Object) -> bool {
    let by_labels = selector.get("matchLabels").and_then(Value::as_object);
    let labels_match =
        by_labels.into_iter().flatten().all(|(key, value)| object.label(key) == value.as_str());
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    let expressions_match = expressions.into_iter().flatten().all(|expression| {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array);
        let label = object.label(text("key"));
        let listed =
            || label.is_some_and(|label| values.into_iter().flatten().any(|v| v.as_str() == Some(label)));
        match text("operator") {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            _ => false,
        }
    });
    labels_match && expressions_match
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(rules: Value) -> Object {
        Object::from(json!({
            "metadata": {"name": "r", "labels": {"a": "b"}},
            "rules": rules,
        }))
    }

    fn binding(role: &str, subjects: Value) -> Object {
        Object::from(json!({
            "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects,
        }))
    }

    #[test]
    fn what_is_missing_is_added() {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        let expected = role(json!([pods]));
        let kind = Kind::ClusterRole;
        assert_eq!(reconcile(kind, &role(json!([pods])), &expected), Reconciled::Unchanged);
        assert_eq!(reconcile(kind, &role(json!([all])), &expected), Reconciled::Unchanged, "covered");
        assert_eq!(reconcile(kind, &role(json!([])), &expected), Reconciled::Update(expected.clone()));
        let unlabelled = Object::from(json!({"metadata": {"name": "r"}, "rules": [all]}));
        match reconcile(kind, &unlabelled, &expected) {
            Reconciled::Update(object) => {
                assert_eq!(object.label("a"), Some("b"));
                assert_eq!(object.get(&["rules"]), Some(&json!([all])));
            }
            other => panic!("{other:?}"),
        }
        let mut left_alone = role(json!([]));
        left_alone.set(&["metadata", "annotations", AUTO_UPDATE], "false");
        assert_eq!(reconcile(kind, &left_alone, &expected), Reconciled::Unchanged);

        let jane = json!({"kind": "User", "name": "jane"});
        let joe = json!({"kind": "User", "name": "joe"});
        let kind = Kind::ClusterRoleBinding;
        let expected = binding("r", json!([jane]));
        assert_eq!(reconcile(kind, &binding("r", json!([jane, joe])), &expected), Reconciled::Unchanged);
        let both = binding("r", json!([joe, jane]));
        assert_eq!(reconcile(kind, &binding("r", json!([joe])), &expected), Reconciled::Update(both));
        let other = binding("other", json!([jane]));
        assert_eq!(reconcile(kind, &other, &expected), Reconciled::Recreate(expected.clone()));
    }

    #[test]
    fn roles_aggregate_by_label() {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let named = |name: &str, labels: Value, rules: Value| {
            Object::from(json!({"metadata": {"name": name, "labels": labels}, "rules": rules}))
        };
        let all = [
            named("z", json!({"k": "v"}), json!([pods])),
            named("a", json!({"k": "w"}), json!([pods])),
            named("n", json!({}), json!([{"apiGroups": ["x"], "resources": ["x"], "verbs": ["x"]}])),
        ];
        let aggregated = |selectors: Value| {
            let role = Object::from(json!({
                "metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": selectors},
            }));
            aggregated_rules(&role, all.iter()).map(|rules| rules.len())
        };
        assert_eq!(aggregated_rules(&all[0], all.iter()), None);
        assert_eq!(aggregated(json!([])), Some(0));
        assert_eq!(aggregated(json!([{"matchLabels": {"k": "v"}}])), Some(1));
        assert_eq!(
            aggregated(json!([{"matchLabels": {"k": "v"}}, {"matchLabels": {"k": "w"}}])),
            Some(1),
            "each once"
        );
        let exists = json!([{"matchExpressions": [{"key": "k", "operator": "DoesNotExist"}]}]);
        assert_eq!(aggregated(exists), Some(1));
        let not_in = json!([{"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v", "w"]}]}]);
        assert_eq!(aggregated(not_in), Some(1));
    }
}
