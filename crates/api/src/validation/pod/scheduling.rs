//! What says where a pod may run: affinity, spread, tolerations, gates.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;

use super::Options;
use crate::validation::at::At;
use crate::validation::value::{list, strings, text};

/// Requirements of one kind in an affinity.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// A label selector; `tolerant` lets pass values that no label can have.
fn label_selector(selector: &At<'_>, tolerant: bool) -> ErrorList {
    let mut errors = if selector.is_set() { selector.label_selector() } else { ErrorList::new() };
    if tolerant {
        errors.retain(|error| !error.field.contains(".values["));
    }
    errors
}

pub fn affinity(affinity: &At<'_>, options: &Options) -> ErrorList {
    let mut errors = ErrorList::new();
    let node = affinity.child("nodeAffinity");
    if let Some(required) = node.field(REQUIRED) {
        errors.extend(node_selector(&required, options.allow_invalid_affinity_values));
    }
    for term in node.each(PREFERRED) {
        errors.extend(weight(&term));
        errors.extend(node_selector_term(&term.child("preference"), true));
    }
    let tolerant = options.allow_invalid_selector_values;
    for pods in ["podAffinity", "podAntiAffinity"].map(|key| affinity.child(key)) {
        for term in pods.each(REQUIRED) {
            errors.extend(pod_affinity_term(&term, tolerant));
        }
        for term in pods.each(PREFERRED) {
            errors.extend(weight(&term));
            errors.extend(pod_affinity_term(&term.child("podAffinityTerm"), tolerant));
        }
    }
    errors
}

fn weight(term: &At<'_>) -> Option<Error> {
    let weight = term.child("weight");
    let fits = (1..=100).contains(&weight.int_or_zero());
    (!fits).then(|| weight.invalid_number("must be in the range 1-100"))
}

/// A selector of nodes. `tolerant` lets pass values that no label can have.
pub fn node_selector(selector: &At<'_>, tolerant: bool) -> ErrorList {
    let terms = selector.child("nodeSelectorTerms");
    if terms.is_empty() {
        return vec![terms.required("must have at least one node selector term")];
    }
    terms.items().flat_map(|term| node_selector_term(&term, tolerant)).collect()
}

fn node_selector_term(term: &At<'_>, tolerant: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for requirement in term.each("matchExpressions") {
        errors.extend(node_label(&requirement, tolerant));
    }
    errors.extend(term.each("matchFields").flat_map(|requirement| node_field(&requirement)));
    errors
}

fn node_label(requirement: &At<'_>, tolerant: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let (operator, values) = (requirement.child("operator"), requirement.child("values"));
    match operator.str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(values.forbidden(why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.push(operator.invalid_text("not a valid selector operator")),
    }
    errors.extend(requirement.child("key").qualified_name());
    if !tolerant {
        errors.extend(values.items().flat_map(|value| value.follows(names::is_valid_label_value)));
    }
    errors
}

fn node_field(requirement: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (operator, values) = (requirement.child("operator"), requirement.child("values"));
    match operator.str() {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(values.required(why));
        }
        "In" | "NotIn" => {}
        _ => errors.push(operator.invalid_text("not a valid selector operator")),
    }
    let key = requirement.child("key");
    if key.str() != "metadata.name" {
        errors.push(key.invalid_text("not a valid field selector key"));
        return errors;
    }
    errors.extend(values.items().flat_map(|value| value.subdomain()));
    errors
}

fn pod_affinity_term(term: &At<'_>, tolerant: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["labelSelector", "namespaceSelector"] {
        errors.extend(label_selector(&term.child(key), tolerant));
    }
    for namespace in term.each("namespaces") {
        // the error stands at a field that there is not
        errors.extend(At::new(namespace.value, term.path.child("namespace")).dns_label());
    }
    errors.extend(match_label_keys(term));
    let topology = term.child("topologyKey");
    if topology.is_empty() {
        errors.push(topology.required("can not be empty"));
    }
    errors.extend(topology.qualified_name());
    errors
}

/// Keys whose values are taken from the pod's own labels.
fn match_label_keys(term: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let selector = term.child("labelSelector");
    let (same, other) = (term.strings("matchLabelKeys"), term.strings("mismatchLabelKeys"));
    for keys in ["matchLabelKeys", "mismatchLabelKeys"].map(|key| term.child(key)) {
        if !keys.is_empty() && !selector.is_set() {
            errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
            continue;
        }
        errors.extend(keys.items().flat_map(|key| key.qualified_name()));
    }
    // creation has put one expression per key into the selector: a second one is the client's
    let mut seen: Vec<&str> = selector.child("matchLabels").entries().map(|(key, _)| key).collect();
    for expression in list(selector.value, "matchExpressions") {
        let key = text(expression, "key");
        if let Some(index) = same.iter().rposition(|one| *one == key).filter(|_| seen.contains(&key)) {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&term.path.index(index), key, why));
        }
        seen.push(key);
    }
    for key in term.each("matchLabelKeys").filter(|key| other.contains(&key.str())) {
        errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
    }
    errors
}

pub fn topology_spread(constraints: &At<'_>, is_pod: bool, tolerant: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, constraint) in constraints.items().enumerate() {
        let (skew, topology) = (constraint.child("maxSkew"), constraint.child("topologyKey"));
        let action = constraint.child("whenUnsatisfiable");
        if skew.int_or_zero() <= 0 {
            errors.push(skew.invalid_number("must be greater than zero"));
        }
        if topology.is_empty() {
            errors.push(topology.required("can not be empty"));
        }
        errors.extend(action.among(&["DoNotSchedule", "ScheduleAnyway"]));
        let repeats = constraints.list()[index + 1..].iter().any(|other| {
            text(other, "topologyKey") == topology.str() && text(other, "whenUnsatisfiable") == action.str()
        });
        if repeats {
            let at = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&at, format!("{{{}, {}}}", topology.str(), action.str())));
        }
        if let Some(domains) = constraint.field("minDomains") {
            if domains.int_or_zero() <= 0 {
                errors.push(domains.invalid("must be greater than zero"));
            }
            if action.str() != "DoNotSchedule" {
                let action = action.str();
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(domains.invalid(why));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.extend(constraint.child(key).supported(&["Honor", "Ignore"]));
        }
        errors.extend(spread_label_keys(&constraint, is_pod));
        if !tolerant {
            errors.extend(label_selector(&constraint.child("labelSelector"), false));
        }
    }
    errors
}

/// In a pod, creation has put an expression for each key into the selector, so that one is no mistake there.
fn spread_label_keys(constraint: &At<'_>, is_pod: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let keys = constraint.child("matchLabelKeys");
    if keys.is_empty() {
        return errors;
    }
    let Some(selector) = constraint.field("labelSelector") else {
        errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
        errors.extend(keys.items().flat_map(|key| key.qualified_name()));
        return errors;
    };
    let expressions = list(selector.value, "matchExpressions");
    for key in keys.items() {
        errors.extend(key.qualified_name());
        let in_labels = selector.child("matchLabels").has(key.str());
        let among = expressions.iter().filter(|one| text(one, "key") == key.str());
        let (merged, others): (Vec<&Value>, Vec<&Value>) =
            among.partition(|one| is_pod && text(one, "operator") == "In" && list(one, "values").len() == 1);
        if in_labels || !others.is_empty() || merged.len() > 1 {
            errors.push(key.invalid("exists in both matchLabelKeys and labelSelector"));
        }
    }
    errors
}

/// A taint's effect.
pub fn taint_effect(effect: &At<'_>) -> ErrorList {
    effect.among(&["NoSchedule", "PreferNoSchedule", "NoExecute"])
}

pub fn tolerations(tolerations: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.child("key"), toleration.child("operator"));
        let (value, effect) = (toleration.text("value"), toleration.child("effect"));
        if !key.is_empty() {
            errors.extend(key.qualified_name());
        }
        if key.is_empty() && operator.str() != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(operator.invalid_text(why));
        }
        if toleration.has("tolerationSeconds") && effect.str() != "NoExecute" {
            errors.push(effect.invalid_text("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator.str() {
            "" | "Equal" => {
                let messages = names::is_valid_label_value(value);
                if !messages.is_empty() {
                    errors.push(Error::invalid(&operator.path, value, messages.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&operator.path, value, why));
            }
            // named among what is supported, though `TaintTolerationComparisonOperators` is off
            "Lt" | "Gt" => errors.push(operator.not_supported(&["Equal", "Exists", "Lt", "Gt"])),
            _ => errors.extend(operator.among(&["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            errors.extend(taint_effect(&effect));
        }
    }
    errors
}

pub fn readiness_gates(gates: &At<'_>) -> ErrorList {
    gates.items().flat_map(|gate| gate.child("conditionType").qualified_name()).collect()
}

/// Errors stand at the gate, not at its name.
pub fn scheduling_gates(gates: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for gate in gates.items() {
        let name = At::new(gate.child("name").value, gate.path);
        errors.extend(name.qualified_name());
        if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        }
        seen.push(name.str());
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
pub fn has_invalid_selector_values(spec: &At<'_>) -> bool {
    let affinity = spec.child("affinity");
    let with = |tolerant| {
        let options = Options { allow_invalid_selector_values: tolerant, ..Options::default() };
        self::affinity(&affinity, &options).len()
    };
    with(true) != with(false)
}
