//! Forms that fields of several groups have: names, numbers, choices, selectors, conditions.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::at::At;

const NEGATIVE: &str = "must be greater than or equal to 0";

const CONDITION_STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;
const MAX_DRIVER_NAME: usize = 63;

/// What is wrong with `example.com/some/path`.
pub fn domain_prefixed_path(text: &str, path: Path) -> ErrorList {
    At::new(&Value::from(text), path).domain_prefixed_path()
}

impl At<'_> {
    /// What a rule of texts says of the text here.
    pub fn follows(&self, rule: impl FnOnce(&str) -> Vec<String>) -> ErrorList {
        rule(self.str()).into_iter().map(|why| self.invalid_text(why)).collect()
    }

    /// What a rule of numbers says of the number here.
    pub fn number_follows(&self, rule: impl FnOnce(i64) -> Vec<String>) -> ErrorList {
        rule(self.int_or_zero()).into_iter().map(|why| self.invalid_number(why)).collect()
    }

    pub fn in_range(&self, min: i64, max: i64) -> ErrorList {
        self.number_follows(|number| names::is_in_range(number, min, max))
    }

    pub fn port_number(&self) -> ErrorList {
        self.number_follows(names::is_valid_port_num)
    }

    /// An address; `old` are those that were there before this had to be well formed.
    pub fn ip(&self, old: &[&str]) -> ErrorList {
        names::is_valid_ip_for_legacy_field(&self.path, self.str(), old)
    }

    /// A range of addresses; `old` are those that were there before this had to be well formed.
    pub fn cidr(&self, old: &[&str]) -> ErrorList {
        names::is_valid_cidr_for_legacy_field(&self.path, self.str(), old)
    }

    /// Refuses a zero value.
    pub fn must_be_set(&self) -> ErrorList {
        if self.is_empty() { vec![self.required("")] } else { ErrorList::new() }
    }

    pub fn non_negative(&self) -> ErrorList {
        match self.int() {
            Some(number) if number < 0 => vec![self.invalid(NEGATIVE)],
            _ => ErrorList::new(),
        }
    }

    pub fn non_negative_quantity(&self) -> ErrorList {
        match self.quantity() {
            Some(amount) if amount.signum() < 0 => vec![self.invalid_quantity(NEGATIVE)],
            _ => ErrorList::new(),
        }
    }

    pub fn positive_quantity(&self) -> ErrorList {
        match self.quantity() {
            Some(amount) if amount.signum() <= 0 => vec![self.invalid_quantity("must be greater than zero")],
            _ => ErrorList::new(),
        }
    }

    pub fn positive(&self) -> ErrorList {
        match self.int().unwrap_or_default() {
            number if number <= 0 => {
                vec![Error::invalid(&self.path, number, "must be greater than zero")]
            }
            _ => ErrorList::new(),
        }
    }

    /// Refuses a value that is set and none of these.
    pub fn supported(&self, valid: &[&str]) -> ErrorList {
        if !self.is_set() || valid.contains(&self.str()) {
            return ErrorList::new();
        }
        vec![self.not_supported(valid)]
    }

    /// Refuses anything but one of these, nothing too.
    pub fn among(&self, valid: &[&str]) -> ErrorList {
        match valid.contains(&self.str()) {
            true => ErrorList::new(),
            false => vec![Error::not_supported(&self.path, self.str(), valid)],
        }
    }

    /// Refuses anything but one of these; an empty value is missing.
    pub fn one_of(&self, valid: &[&str]) -> ErrorList {
        if self.str().is_empty() { vec![self.required("")] } else { self.among(valid) }
    }

    pub fn qualified_name(&self) -> ErrorList {
        self.follows(names::is_qualified_name)
    }

    pub fn dns_label(&self) -> ErrorList {
        self.follows(names::is_dns1123_label)
    }

    pub fn subdomain(&self) -> ErrorList {
        self.follows(names::is_dns1123_subdomain)
    }

    pub fn path_segment(&self) -> ErrorList {
        self.follows(names::is_path_segment_name)
    }

    /// A path segment that may not be missing.
    pub fn required_path_segment(&self) -> ErrorList {
        if self.str().is_empty() { vec![self.required("")] } else { self.path_segment() }
    }

    pub fn label_selector(&self) -> ErrorList {
        names::validate_label_selector(self.value, &self.path)
    }

    /// The same for a selector that takes the place of another, in which values of labels may have been wrong.
    pub fn label_selector_after(&self, old: Option<&At<'_>>) -> ErrorList {
        let of_value = |error: &Error| error.field.contains(".values[");
        let mut errors = self.label_selector();
        if old.is_some_and(|old| old.label_selector().iter().any(of_value)) {
            errors.retain(|error| !of_value(error));
        }
        errors
    }

    /// A selector of labels, which on an update may have `any_values`.
    pub fn label_selector_with(&self, any_values: bool) -> ErrorList {
        if any_values {
            return names::validate_label_selector_with_any_values(self.value, &self.path);
        }
        self.label_selector()
    }

    /// `example.com/some/path`.
    pub fn domain_prefixed_path(&self) -> ErrorList {
        const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
        let text = self.str();
        if text.is_empty() {
            return vec![self.required("")];
        }
        let (host, path) = match text.split_once('/') {
            Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
            _ => return vec![self.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")")],
        };
        let mut errors = At::new(&Value::from(host), self.path.clone()).subdomain();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
        if !path.bytes().all(fits) {
            let why = names::regex_error("Invalid path", HTTP_PATH, &[]);
            errors.push(Error::invalid(&self.path, path, why));
        }
        errors
    }

    /// A domain of at least three segments.
    pub fn fully_qualified_name(&self) -> ErrorList {
        let name = self.str();
        if name.is_empty() {
            return vec![self.required("")];
        }
        let wrong = names::is_dns1123_subdomain(name);
        if !wrong.is_empty() {
            return vec![Error::invalid(&self.path, name, wrong.join(","))];
        }
        if name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            return vec![Error::invalid(&self.path, name, why)];
        }
        ErrorList::new()
    }

    /// The name of a storage or device driver.
    pub fn driver_name(&self) -> ErrorList {
        let name = self.str();
        if name.is_empty() {
            return vec![self.required("")];
        }
        let mut errors = ErrorList::new();
        if name.len() > MAX_DRIVER_NAME {
            errors.push(self.too_long(MAX_DRIVER_NAME));
        }
        errors.extend(self.follows(|name| names::is_dns1123_subdomain(&name.to_lowercase())));
        errors
    }

    /// A whole number, or a percentage.
    pub fn int_or_percent(&self) -> ErrorList {
        match self.value {
            Value::String(_) => self.follows(names::is_valid_percent),
            _ => self.non_negative(),
        }
    }

    /// The number of an [`At::int_or_percent`], whichever it is; 0 for what is neither.
    pub fn number_of_percent(&self) -> i64 {
        let percent = |text: &str| text.strip_suffix('%').and_then(|digits| digits.parse().ok());
        self.int().or_else(|| percent(self.str())).unwrap_or_default()
    }

    pub fn not_more_than_100_percent(&self) -> ErrorList {
        if self.value.is_string() && self.number_of_percent() > 100 {
            return vec![self.invalid("must not be greater than 100%")];
        }
        ErrorList::new()
    }

    /// Conditions of the common form, `metav1.Condition`.
    pub fn conditions(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut seen: Vec<&str> = Vec::new();
        for condition in self.items() {
            let kind = condition.child("type");
            if seen.contains(&kind.str()) {
                errors.push(Error::duplicate(&kind.path, kind.str()));
            }
            seen.push(kind.str());
            errors.extend(self::condition(&condition));
        }
        errors
    }
}

fn condition(condition: &At<'_>) -> ErrorList {
    let mut errors = condition.child("type").qualified_name();
    errors.extend(condition.child("status").among(&CONDITION_STATUSES));
    let generation = condition.child("observedGeneration");
    if generation.int().is_some_and(|number| number < 0) {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    errors.extend(condition.child("lastTransitionTime").must_be_set());
    let reason = condition.child("reason");
    if reason.str().is_empty() {
        errors.push(reason.required(""));
    } else {
        errors.extend(reason.follows(is_condition_reason));
        if reason.len() > MAX_REASON {
            errors.push(reason.too_long(MAX_REASON));
        }
    }
    let message = condition.child("message");
    if message.len() > MAX_MESSAGE {
        errors.push(message.too_long(MAX_MESSAGE));
    }
    errors
}

fn is_condition_reason(reason: &str) -> Vec<String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let fits = reason.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && reason.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && reason.bytes().all(inner);
    if fits {
        return Vec::new();
    }
    const MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string \
         of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![names::regex_error(MESSAGE, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}

/// Whether one condition of a list is true.
pub(crate) fn condition_is_true(conditions: &[Value], kind: &str) -> bool {
    conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// A counter of a status that may only grow.
pub(crate) fn not_decremented(new: &At<'_>, old: &At<'_>) -> ErrorList {
    let (now, before) = (new.int(), old.int());
    if before.is_some() && now.unwrap_or_default() < before.unwrap_or_default() {
        return vec![Error::invalid(&new.path, now.unwrap_or_default(), "cannot be decremented")];
    }
    ErrorList::new()
}

/// The error of a field that changed and may not.
pub(crate) fn unchanged(new: &At<'_>, old: &At<'_>) -> ErrorList {
    names::validate_immutable_field(new.value, old.value, &new.path)
}

/// Compares what rules say with what upstream says, error by error.
#[cfg(test)]
pub(crate) fn check(errors: ErrorList, expected: &[&str]) {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[cfg(test)]
mod tests {
    use apimachinery::field::Path;
    use serde_json::json;

    use super::*;

    #[test]
    fn forms_of_names() {
        let value = json!({"short": "a", "path": "a.b/c d", "host": "A/x", "name": "a.b", "fine": "a.b.c"});
        let at = At::new(&value, Path::new("at"));
        check(
            at.child("short").domain_prefixed_path(),
            &["at.short: Invalid value: \"a\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        );
        assert_eq!(at.child("path").domain_prefixed_path().len(), 1);
        assert_eq!(at.child("host").domain_prefixed_path().len(), 1);
        check(
            at.child("name").fully_qualified_name(),
            &[
                "at.name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(at.child("fine").fully_qualified_name(), &[]);
        check(at.child("none").fully_qualified_name(), &["at.none: Required value"]);
    }

    #[test]
    fn conditions_are_complete() {
        let value = json!([
            {"type": "Ready", "status": "True", "reason": "Fine", "lastTransitionTime": "2024-01-01T00:00:00Z"},
            {"type": "Ready", "status": "Maybe", "reason": "not fine"},
        ]);
        let errors = At::new(&value, Path::new("c")).conditions();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["c[1].type", "c[1].status", "c[1].lastTransitionTime", "c[1].reason"]);
    }
}
