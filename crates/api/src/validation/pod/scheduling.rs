//! What says where a pod may run: affinity, spread, tolerations, gates.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use serde_json::Map;

use super::Options;
use crate::validation::value::{
    entries, field, go_struct, int, invalid, list, number, optional, showing, strings, supported, text,
};

/// Requirements of one kind in an affinity.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn label_name(name: &str, path: &Path) -> ErrorList {
    names::validate_label_name(name, path)
}

/// A label selector; `tolerant` lets pass values that no label can have.
fn label_selector(selector: Option<&Value>, tolerant: bool, path: &Path) -> ErrorList {
    let mut errors = selector.map(|one| names::validate_label_selector(one, path)).unwrap_or_default();
    if tolerant {
        errors.retain(|error| !error.field.contains(".values["));
    }
    errors
}

pub fn affinity(affinity: &Value, options: &Options, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(node) = field(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = field(node, REQUIRED) {
            let tolerant = options.allow_invalid_affinity_values;
            errors.extend(node_selector(required, tolerant, &path.child(REQUIRED)));
        }
        for (index, term) in list(node, PREFERRED).iter().enumerate() {
            let at = path.child(PREFERRED).index(index);
            errors.extend(weight(term, &at));
            errors.extend(node_selector_term(&term["preference"], true, &at.child("preference")));
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = field(affinity, key) else { continue };
        let path = path.child(key);
        let tolerant = options.allow_invalid_selector_values;
        for (index, term) in list(pods, REQUIRED).iter().enumerate() {
            errors.extend(pod_affinity_term(term, tolerant, &path.child(REQUIRED).index(index)));
        }
        for (index, term) in list(pods, PREFERRED).iter().enumerate() {
            let at = path.child(PREFERRED).index(index);
            errors.extend(weight(term, &at));
            errors.extend(pod_affinity_term(
                &term["podAffinityTerm"],
                tolerant,
                &at.child("podAffinityTerm"),
            ));
        }
    }
    errors
}

fn weight(term: &Value, path: &Path) -> ErrorList {
    let weight = number(term, "weight");
    match (1..=100).contains(&weight) {
        true => ErrorList::new(),
        false => vec![Error::invalid(&path.child("weight"), weight, "must be in the range 1-100")],
    }
}

/// A selector of nodes. `tolerant` lets pass values that no label can have.
pub fn node_selector(selector: &Value, tolerant: bool, path: &Path) -> ErrorList {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        return vec![Error::required(&path, "must have at least one node selector term")];
    }
    let check = |(index, term)| node_selector_term(term, tolerant, &path.index(index));
    terms.iter().enumerate().flat_map(check).collect()
}

fn node_selector_term(term: &Value, tolerant: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        errors.extend(node_label(requirement, tolerant, &path.child("matchExpressions").index(index)));
    }
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        errors.extend(node_field(requirement, &path.child("matchFields").index(index)));
    }
    errors
}

fn node_label(requirement: &Value, tolerant: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
    let values = strings(requirement, "values");
    let at = path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&at, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Error::required(&at, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            let why = "not a valid selector operator";
            errors.push(Error::invalid(&path.child("operator"), other, why));
        }
    }
    errors.extend(label_name(key, &path.child("key")));
    if !tolerant {
        for (index, value) in values.iter().enumerate() {
            errors.extend(invalid(&at.index(index), *value, names::is_valid_label_value(value)));
        }
    }
    errors
}

fn node_field(requirement: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
    let values = strings(requirement, "values");
    let at = path.child("values");
    match operator {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&at, why));
        }
        "In" | "NotIn" => {}
        other => {
            let why = "not a valid selector operator";
            errors.push(Error::invalid(&path.child("operator"), other, why));
        }
    }
    if key != "metadata.name" {
        errors.push(Error::invalid(&path.child("key"), key, "not a valid field selector key"));
        return errors;
    }
    for (index, value) in values.iter().enumerate() {
        errors.extend(invalid(&at.index(index), *value, names::name_is_dns_subdomain(value, false)));
    }
    errors
}

fn pod_affinity_term(term: &Value, tolerant: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["labelSelector", "namespaceSelector"] {
        errors.extend(label_selector(field(term, key), tolerant, &path.child(key)));
    }
    for namespace in strings(term, "namespaces") {
        let messages = names::name_is_dns_label(namespace, false);
        errors.extend(invalid(&path.child("namespace"), namespace, messages));
    }
    errors.extend(match_label_keys(term, path));
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    errors.extend(label_name(topology, &path.child("topologyKey")));
    errors
}

/// Keys whose values are taken from the pod's own labels.
fn match_label_keys(term: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let selector = field(term, "labelSelector");
    let (same, other) = (strings(term, "matchLabelKeys"), strings(term, "mismatchLabelKeys"));
    for (key, keys) in [("matchLabelKeys", &same), ("mismatchLabelKeys", &other)] {
        let at = path.child(key);
        if !keys.is_empty() && selector.is_none() {
            errors.push(Error::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, name) in keys.iter().enumerate() {
            errors.extend(label_name(name, &at.index(index)));
        }
    }
    if let Some(selector) = selector {
        // creation has put one expression per key into the selector: a second one is the client's
        let mut seen: Vec<&str> = entries(selector, "matchLabels").map(|(key, _)| key).collect();
        for expression in list(selector, "matchExpressions") {
            let key = text(expression, "key");
            if let Some(index) = same.iter().rposition(|one| *one == key).filter(|_| seen.contains(&key)) {
                let why = "exists in both matchLabelKeys and labelSelector";
                errors.push(Error::invalid(&path.index(index), key, why));
            }
            seen.push(key);
        }
    }
    for (index, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(Error::invalid(&path.child("matchLabelKeys").index(index), *key, why));
    }
    errors
}

pub fn topology_spread(constraints: &[Value], is_pod: bool, tolerant: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = path.index(index);
        let (skew, topology) = (number(constraint, "maxSkew"), text(constraint, "topologyKey"));
        let action = text(constraint, "whenUnsatisfiable");
        if skew <= 0 {
            errors.push(Error::invalid(&at.child("maxSkew"), skew, "must be greater than zero"));
        }
        if topology.is_empty() {
            errors.push(Error::required(&at.child("topologyKey"), "can not be empty"));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        errors.extend(supported(action, &actions, &at.child("whenUnsatisfiable")));
        let repeats = constraints[index + 1..].iter().any(|other| {
            text(other, "topologyKey") == topology && text(other, "whenUnsatisfiable") == action
        });
        if repeats {
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&at, format!("{{{topology}, {action}}}")));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            let at = at.child("minDomains");
            if domains <= 0 {
                errors.push(Error::invalid(&at, domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(Error::invalid(&at, domains, why));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = optional(constraint, key) {
                errors.extend(supported(policy, &["Honor", "Ignore"], &at.child(key)));
            }
        }
        errors.extend(spread_label_keys(constraint, is_pod, &at.child("matchLabelKeys")));
        if !tolerant {
            let selector = field(constraint, "labelSelector");
            errors.extend(label_selector(selector, false, &at.child("labelSelector")));
        }
    }
    errors
}

/// In a pod, creation has put an expression for each key into the selector, so that one is no mistake there.
fn spread_label_keys(constraint: &Value, is_pod: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let keys = strings(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return errors;
    }
    let Some(selector) = field(constraint, "labelSelector") else {
        let why = "must not be specified when labelSelector is not set";
        errors.push(Error::forbidden(path, why));
        errors.extend(keys.iter().enumerate().flat_map(|(i, key)| label_name(key, &path.index(i))));
        return errors;
    };
    let expressions = list(selector, "matchExpressions");
    for (index, key) in keys.iter().enumerate() {
        errors.extend(label_name(key, &path.index(index)));
        let in_labels = selector.get("matchLabels").is_some_and(|labels| labels.get(key).is_some());
        let among = expressions.iter().filter(|one| text(one, "key") == *key);
        let (merged, others): (Vec<&Value>, Vec<&Value>) =
            among.partition(|one| is_pod && text(one, "operator") == "In" && list(one, "values").len() == 1);
        if in_labels || !others.is_empty() || merged.len() > 1 {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&path.index(index), *key, why));
        }
    }
    errors
}

/// A taint's effect.
pub fn taint_effect(effect: &str, path: &Path) -> ErrorList {
    supported(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], path)
}

pub fn tolerations(tolerations: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = path.index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        let operator_path = at.child("operator");
        if !key.is_empty() {
            errors.extend(label_name(key, &at.child("key")));
        }
        if key.is_empty() && operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&operator_path, operator, why));
        }
        if field(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&at.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => {
                let messages = names::is_valid_label_value(value);
                if !messages.is_empty() {
                    errors.push(Error::invalid(&operator_path, value, messages.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                let shown = go_struct(&[
                    ("Key", text(toleration, "key").into()),
                    ("Operator", operator.into()),
                    ("Value", value.into()),
                    ("Effect", text(toleration, "effect").into()),
                    ("TolerationSeconds", int(toleration, "tolerationSeconds").into()),
                ]);
                errors.push(showing(Error::invalid(&operator_path, Value::Null, why), shown));
            }
            other => errors.extend(supported(other, &["Equal", "Exists"], &operator_path)),
        }
        if !effect.is_empty() {
            errors.extend(taint_effect(effect, &at.child("effect")));
        }
    }
    errors
}

pub fn readiness_gates(gates: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, gate) in gates.iter().enumerate() {
        let kind = text(gate, "conditionType");
        errors.extend(invalid(
            &path.index(index).child("conditionType"),
            kind,
            names::is_qualified_name(kind),
        ));
    }
    errors
}

pub fn scheduling_gates(gates: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, gate) in gates.iter().enumerate() {
        let name = text(gate, "name");
        errors.extend(invalid(&path.index(index), name, names::is_qualified_name(name)));
        if seen.contains(&name) {
            errors.push(Error::duplicate(&path.index(index), name));
        }
        seen.push(name);
    }
    errors
}

/// Whether a spec's affinity has values that no label can have: they were let in once, and stay.
pub fn has_invalid_affinity_values(spec: &Value) -> bool {
    let required = spec.pointer(&format!("/affinity/nodeAffinity/{REQUIRED}"));
    let values = required.map(|required| list(required, "nodeSelectorTerms")).unwrap_or_default().iter();
    values
        .flat_map(|term| list(term, "matchExpressions"))
        .flat_map(|expression| strings(expression, "values"))
        .any(|value| !names::is_valid_label_value(value).is_empty())
}

/// Whether selectors in a spec's affinity have values that no label can have.
pub fn has_invalid_selector_values(spec: &Value) -> bool {
    let affinity = spec.get("affinity").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let path = Path::new("affinity");
    let with = |tolerant| {
        let options = Options { allow_invalid_selector_values: tolerant, ..Options::default() };
        self::affinity(&affinity, &options, &path).len()
    };
    with(true) != with(false)
}
