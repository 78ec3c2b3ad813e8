//! Pod disruption budgets.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::value::{field, go_struct, int, invalid, list, non_negative, optional, showing, supported, text};

const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub fn pod_disruption_budget(budget: &Object) -> ErrorList {
    let none = Value::Null;
    let spec = budget.get(&["spec"]).unwrap_or(&none);
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let both = ["minAvailable", "maxUnavailable"];
    if both.iter().all(|key| field(spec, key).is_some()) {
        let why = "minAvailable and maxUnavailable cannot be both set";
        let of = |key: &str| spec.get(key).cloned().unwrap_or_default();
        let shown = go_struct(&[
            ("MinAvailable", of("minAvailable")),
            ("Selector", of("selector")),
            ("MaxUnavailable", of("maxUnavailable")),
            ("UnhealthyPodEvictionPolicy", of("unhealthyPodEvictionPolicy")),
        ]);
        errors.push(showing(Error::invalid(&path, Value::Null, why), shown));
    }
    for key in both {
        if let Some(value) = field(spec, key) {
            errors.extend(int_or_percent(value, &path.child(key)));
        }
    }
    if let Some(selector) = field(spec, "selector") {
        errors.extend(names::validate_label_selector(selector, &path.child("selector")));
    }
    if let Some(policy) = optional(spec, "unhealthyPodEvictionPolicy") {
        errors.extend(supported(policy, &POLICIES, &path.child("unhealthyPodEvictionPolicy")));
    }
    errors
}

/// A number, or a share of at most all.
fn int_or_percent(value: &Value, path: &Path) -> ErrorList {
    let Some(text) = value.as_str() else { return non_negative(path, value.as_i64()) };
    let mut errors = invalid(path, text, names::is_valid_percent(text));
    let share = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
    if share.is_some_and(|share| share > 100) {
        errors.push(Error::invalid(path, text, "must not be greater than 100%"));
    }
    errors
}

pub fn pod_disruption_budget_status_update(budget: &Object) -> ErrorList {
    let none = Value::Null;
    let status = budget.get(&["status"]).unwrap_or(&none);
    let path = Path::new("status");
    let mut errors = conditions(list(status, "conditions"), &path.child("conditions"));
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        errors.extend(non_negative(&path.child(key), int(status, key)));
    }
    errors
}

/// Conditions of the form that all newer kinds share.
pub fn conditions(conditions: &[Value], path: &Path) -> ErrorList {
    const MAX_REASON: usize = 1024;
    const MAX_MESSAGE: usize = 32 * 1024;
    let mut errors = ErrorList::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index);
        let kind = text(condition, "type");
        if seen.contains(&kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
        seen.push(kind);
        errors.extend(invalid(&at.child("type"), kind, names::is_qualified_name(kind)));
        let statuses = ["False", "True", "Unknown"];
        errors.extend(supported(text(condition, "status"), &statuses, &at.child("status")));
        if let Some(generation) = int(condition, "observedGeneration").filter(|generation| *generation < 0) {
            let why = "must be greater than or equal to zero";
            errors.push(Error::invalid(&at.child("observedGeneration"), generation, why));
        }
        if text(condition, "lastTransitionTime").is_empty() {
            errors.push(Error::required(&at.child("lastTransitionTime"), ""));
        }
        let reason = text(condition, "reason");
        if reason.is_empty() {
            errors.push(Error::required(&at.child("reason"), ""));
        } else {
            errors.extend(invalid(&at.child("reason"), reason, condition_reason(reason)));
            if reason.len() > MAX_REASON {
                errors.push(Error::too_long(&at.child("reason"), MAX_REASON));
            }
        }
        if text(condition, "message").len() > MAX_MESSAGE {
            errors.push(Error::too_long(&at.child("message"), MAX_MESSAGE));
        }
    }
    errors
}

fn condition_reason(reason: &str) -> Vec<String> {
    const REGEX: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    const MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let bytes = reason.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let fine = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'));
    match fine {
        true => Vec::new(),
        false => vec![names::regex_error(
            MESSAGE,
            REGEX,
            &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
        )],
    }
}
