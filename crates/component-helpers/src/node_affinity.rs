//! Whether a node is one that a pod wants: its node selector and node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

/// What a node shows to a selector.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl<'a> From<&'a Node> for NodeView<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            labels: node.metadata.labels.as_ref().unwrap_or(&NO_LABELS),
        }
    }
}

/// A term that cannot be read (validation keeps such terms out of stored pods).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTerm(pub String);

impl std::fmt::Display for BadTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadTerm {}

/// Whether node selector and required node affinity of a pod allow a node.
pub fn matches_required(pod: &Pod, node: NodeView<'_>) -> Result<bool, BadTerm> {
    let Some(spec) = &pod.spec else { return Ok(true) };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| node.labels.get(key).is_some_and(|v| v == value));
    if !selected {
        return Ok(false);
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(Ok(true), |selector| matches_selector(selector, node))
}

/// Terms are alternatives; an empty term matches nothing. A term that cannot be read is reported only when no
/// other term matches.
pub fn matches_selector(selector: &NodeSelector, node: NodeView<'_>) -> Result<bool, BadTerm> {
    let mut bad = None;
    for term in &selector.node_selector_terms {
        match matches_term(term, node) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => bad = bad.or(Some(error)),
        }
    }
    bad.map_or(Ok(false), Err)
}

/// The sum of the weights of the preferred terms that match.
pub fn preferred_score(terms: &[PreferredSchedulingTerm], node: NodeView<'_>) -> i64 {
    terms
        .iter()
        .filter(|term| term.weight != 0 && matches_term(&term.preference, node) == Ok(true))
        .map(|term| i64::from(term.weight))
        .sum()
}

fn matches_term(term: &NodeSelectorTerm, node: NodeView<'_>) -> Result<bool, BadTerm> {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return Ok(false);
    }
    let mut all = true;
    for requirement in expressions {
        all &= matches_label(requirement, node.labels)?;
    }
    for requirement in fields {
        all &= matches_field(requirement, node)?;
    }
    Ok(all)
}

fn matches_label(
    requirement: &NodeSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> Result<bool, BadTerm> {
    let actual = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || actual.is_some_and(|actual| values.contains(actual));
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            Err(BadTerm("for 'in', 'notin' operators, values set can't be empty".into()))
        }
        "In" => Ok(listed()),
        "NotIn" => Ok(!listed()),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            Err(BadTerm("values set must be empty for exists and does not exist".into()))
        }
        "Exists" => Ok(actual.is_some()),
        "DoesNotExist" => Ok(actual.is_none()),
        operator @ ("Gt" | "Lt") => {
            let [wanted] = values else {
                return Err(BadTerm("for 'Gt', 'Lt' operators, exactly one value is required".into()));
            };
            let Ok(wanted) = wanted.parse::<i64>() else {
                return Err(BadTerm("for 'Gt', 'Lt' operators, the value must be an integer".into()));
            };
            let Some(actual) = actual.and_then(|a| a.parse::<i64>().ok()) else { return Ok(false) };
            Ok(if operator == "Gt" { actual > wanted } else { actual < wanted })
        }
        other => Err(BadTerm(format!("{other:?} is not a valid label selector operator"))),
    }
}

fn matches_field(requirement: &NodeSelectorRequirement, node: NodeView<'_>) -> Result<bool, BadTerm> {
    let [wanted] = requirement.values.as_deref().unwrap_or_default() else {
        return Err(BadTerm("values: Invalid value: must have one element".into()));
    };
    let actual = if requirement.key == "metadata.name" { node.name } else { "" };
    match requirement.operator.as_str() {
        "In" => Ok(actual == wanted),
        "NotIn" => Ok(actual != wanted),
        other => Err(BadTerm(format!(
            "operator: Unsupported value: {other:?}: supported values: \"In\", \"NotIn\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn labels() -> BTreeMap<String, String> {
        [("zone", "a"), ("cores", "8")].into_iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    fn check(terms: Value, want: Result<bool, ()>) {
        let labels = labels();
        let node = NodeView { name: "n1", labels: &labels };
        let selector: NodeSelector =
            serde_json::from_value(json!({"nodeSelectorTerms": terms})).expect("a selector");
        assert_eq!(matches_selector(&selector, node).map_err(|_| ()), want, "{terms}");
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}])
    }

    #[test]
    fn terms_match_labels_and_names() {
        check(expression("zone", "In", &["a", "b"]), Ok(true));
        check(expression("zone", "In", &["b"]), Ok(false));
        check(expression("zone", "In", &[]), Err(()));
        check(expression("zone", "NotIn", &["b"]), Ok(true));
        check(expression("none", "NotIn", &["b"]), Ok(true));
        check(expression("zone", "Exists", &[]), Ok(true));
        check(expression("none", "DoesNotExist", &[]), Ok(true));
        check(expression("cores", "Gt", &["7"]), Ok(true));
        check(expression("cores", "Lt", &["8"]), Ok(false));
        check(expression("zone", "Gt", &["1"]), Ok(false));
        check(expression("cores", "Gt", &["x"]), Err(()));
        check(json!([{}]), Ok(false));
        check(json!([]), Ok(false));
        check(
            json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
            Ok(true),
        );
        check(
            json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}]),
            Ok(false),
        );
        // alternatives: one bad term does not hide one that matches
        let mut both = expression("zone", "Weird", &["a"]);
        both.as_array_mut().expect("a list").push(expression("zone", "In", &["a"])[0].clone());
        check(both, Ok(true));
        check(
            json!([{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a"]}, {"key": "none", "operator": "Exists"}]}]),
            Ok(false),
        );
    }

    #[test]
    fn selector_and_affinity_must_both_match() {
        let labels = labels();
        let node = NodeView { name: "n1", labels: &labels };
        let pod = |selector: Value, terms: Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "nodeSelector": selector, "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}}))
            .expect("a pod")
        };
        let yes = expression("zone", "In", &["a"]);
        let no = expression("zone", "In", &["b"]);
        assert_eq!(matches_required(&pod(json!({"zone": "a"}), yes.clone()), node), Ok(true));
        assert_eq!(matches_required(&pod(json!({"zone": "a"}), no), node), Ok(false));
        assert_eq!(matches_required(&pod(json!({"zone": "b"}), yes), node), Ok(false));
        assert_eq!(matches_required(&Pod::default(), node), Ok(true));
    }

    #[test]
    fn preferred_terms_add_their_weights() {
        let labels = labels();
        let node = NodeView { name: "n1", labels: &labels };
        let terms: Vec<PreferredSchedulingTerm> = serde_json::from_value(json!([
            {"weight": 5, "preference": expression("zone", "In", &["a"])[0]},
            {"weight": 7, "preference": expression("zone", "In", &["b"])[0]},
            {"weight": 11, "preference": expression("cores", "Gt", &["1"])[0]},
            {"weight": 13, "preference": {}},
        ]))
        .expect("terms");
        assert_eq!(preferred_score(&terms, node), 16);
    }
}
