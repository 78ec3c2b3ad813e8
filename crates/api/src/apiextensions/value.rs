//! Whether a value is one that a schema allows, judged and worded as upstream's validator of OpenAPI schemas does.

use super::{formats, go_regexp};
use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path, quote};

/// The types of `x-kubernetes-int-or-string`.
const INT_OR_STRING: &str = "integer,string";

/// What is wrong with a value at a path.
pub fn validate(path: &Path, value: &Value, schema: &Value) -> ErrorList {
    Validator { base: path }.value("", value, schema).errors
}

/// What came of a value, and how many of its checks held: of alternatives that all fail, the one that came furthest
/// is shown.
#[derive(Default)]
struct Outcome {
    errors: ErrorList,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }
}

struct Validator<'a> {
    base: &'a Path,
}

/// The name of a member, below a name that may be empty.
fn member(name: &str, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") }
}

fn list<'v>(schema: &'v Value, key: &str) -> &'v [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
    }
}

/// A number as Go prints one.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e21 { format!("{value:.0}") } else { value.to_string() }
}

impl Validator<'_> {
    fn at(&self, name: &str) -> Path {
        match name.trim_start_matches('.') {
            "" => self.base.clone(),
            name => self.base.child(name),
        }
    }

    fn invalid(&self, name: &str, value: impl Into<Value>, why: &str) -> Error {
        Error::invalid(&self.at(name), value, format!("{name} in body {why}"))
    }

    fn value(&self, name: &str, value: &Value, schema: &Value) -> Outcome {
        let mut outcome = Outcome::default();
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let kind = if int_or_string { INT_OR_STRING } else { text("type") };
        let format = text("format");
        if !kind.is_empty() || (!format.is_empty() && !value.is_null()) {
            outcome.errors.extend(self.kind(name, value, kind, format, schema));
        }
        if value.is_null() {
            outcome.errors.extend(self.one_of_values(name, value, schema));
            return outcome;
        }
        outcome.merge(self.combined(name, value, schema));
        match value {
            Value::String(text) => {
                outcome.errors.extend(self.string(name, text, schema));
                if !format.is_empty() && !formats::has(text, format) {
                    let why = format!("{name} in body must be of type {format}: {}", quote(text));
                    outcome.errors.push(Error::type_invalid(&self.at(name), text.as_str(), why));
                }
            }
            Value::Number(_) => outcome.errors.extend(self.number(name, value, kind, format, schema)),
            Value::Array(items) => outcome.merge(self.items(name, items, schema)),
            _ => {}
        }
        outcome.errors.extend(self.one_of_values(name, value, schema));
        if let Value::Object(members) = value {
            outcome.merge(self.members(name, members, schema));
        }
        outcome.matches += 1;
        outcome
    }

    fn kind(&self, name: &str, value: &Value, kind: &str, format: &str, schema: &Value) -> Option<Error> {
        let actual = type_of(value);
        let wrong = |wanted: &str| {
            let why = format!("{name} in body must be of type {wanted}: \"{actual}\"");
            Some(Error::type_invalid(&self.at(name), actual, why))
        };
        if value.is_null() {
            return if schema["nullable"] == true { None } else { wrong(kind) };
        }
        let is_number = matches!(kind, "integer" | "number" | INT_OR_STRING);
        if !is_number && !format.is_empty() && (value.is_string() || value.is_array()) {
            return None;
        }
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let fits = match kind {
            "number" => value.is_number(),
            "integer" => value.is_number() && whole,
            INT_OR_STRING => value.is_string() || (value.is_number() && whole),
            _ => kind == actual,
        };
        if fits { None } else { wrong(kind) }
    }

    fn one_of_values(&self, name: &str, value: &Value, schema: &Value) -> Option<Error> {
        let allowed = list(schema, "enum");
        if allowed.is_empty() || allowed.contains(value) {
            return None;
        }
        let shown: Vec<String> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        Some(Error::not_supported(&self.at(name), value.clone(), &shown))
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combined(&self, name: &str, value: &Value, schema: &Value) -> Outcome {
        let mut outcome = Outcome { matches: 1, ..Outcome::default() };
        let quoted = quote(name);
        let refuse =
            |outcome: &mut Outcome, why: String| outcome.errors.push(Error::invalid(self.base, "", why));
        let all = |key: &str| -> Vec<Outcome> {
            list(schema, key).iter().map(|one| self.value(name, value, one)).collect()
        };
        for (key, only_one) in [("anyOf", false), ("oneOf", true)] {
            let outcomes = all(key);
            if outcomes.is_empty() {
                continue;
            }
            let valid = outcomes.iter().filter(|one| one.errors.is_empty()).count();
            match (valid, only_one) {
                (0, false) => {
                    refuse(&mut outcome, format!("{quoted} must validate at least one schema (anyOf)"));
                }
                (0, true) => refuse(
                    &mut outcome,
                    format!("{quoted} must validate one and only one schema (oneOf). Found none valid"),
                ),
                (2.., true) => refuse(
                    &mut outcome,
                    format!(
                        "{quoted} must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                    ),
                ),
                _ => {}
            }
            if valid == 0 {
                let best = outcomes
                    .into_iter()
                    .reduce(|best, one| if one.matches > best.matches { one } else { best });
                outcome.merge(best.unwrap_or_default());
            } else if let Some(first) = outcomes.into_iter().find(|one| one.errors.is_empty()) {
                outcome.matches += first.matches;
            }
        }
        let outcomes = all("allOf");
        let valid = outcomes.iter().filter(|one| one.errors.is_empty()).count();
        if valid != outcomes.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcomes.into_iter().for_each(|one| outcome.merge(one));
            refuse(&mut outcome, format!("{quoted} must validate all the schemas (allOf){none}"));
        }
        if schema.get("not").is_some_and(|not| self.value(name, value, not).errors.is_empty()) {
            refuse(&mut outcome, format!("{quoted} must not validate the schema (not)"));
        }
        outcome
    }

    fn string(&self, name: &str, text: &str, schema: &Value) -> Option<Error> {
        let limit = |key: &str| schema.get(key).and_then(Value::as_u64);
        let length = text.chars().count() as u64;
        if let Some(max) = limit("maxLength").filter(|max| length > *max) {
            return Some(Error::too_long(&self.at(name), usize::try_from(max).unwrap_or(usize::MAX)));
        }
        if let Some(min) = limit("minLength").filter(|min| length < *min) {
            return Some(self.invalid(name, text, &format!("should be at least {min} chars long")));
        }
        let pattern = schema.get("pattern").and_then(Value::as_str).filter(|pattern| !pattern.is_empty())?;
        match go_regexp::compile(pattern) {
            Ok(pattern) if pattern.is_match(text) => None,
            Ok(_) => Some(self.invalid(name, text, &format!("should match '{pattern}'"))),
            Err(error) => {
                let why = format!("should match '{pattern}, but pattern is invalid: {error}'");
                Some(self.invalid(name, text, &why))
            }
        }
    }

    fn number(&self, name: &str, value: &Value, kind: &str, format: &str, schema: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(amount) = value.as_f64() else { return errors };
        let in_range = match (kind, format) {
            ("integer", "int32") => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            ("integer", _) => value.is_i64() || amount.abs() < 9.3e18,
            ("number", "float") => amount.abs() <= f64::from(f32::MAX),
            _ => true,
        };
        if !in_range {
            let of_format = match format {
                "" => "(default format)".to_owned(),
                format => format!("with format {format}"),
            };
            let why = format!("Checked value must be of type {kind} {of_format} in {name}");
            errors.push(Error::invalid(self.base, "", why));
        }
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(factor) = bound("multipleOf").filter(|factor| *factor > 0.0) {
            let times = if factor < 1.0 { 1.0 / factor * amount } else { amount / factor };
            if (times - times.round()).abs() > 1e-9 {
                errors.push(self.invalid(
                    name,
                    value.clone(),
                    &format!("should be a multiple of {}", number(factor)),
                ));
            }
        }
        for (key, exclusive, than, or_equal) in
            [("minimum", "exclusiveMinimum", "greater", 1.0), ("maximum", "exclusiveMaximum", "less", -1.0)]
        {
            let Some(limit) = bound(key) else { continue };
            let exclusive = schema[exclusive] == true;
            let beyond = (limit - amount) * or_equal;
            if beyond > 0.0 || (exclusive && beyond == 0.0) {
                let or_equal = if exclusive { "" } else { " or equal to" };
                let than = format!("should be {than} than{or_equal} {}", number(limit));
                errors.push(self.invalid(name, value.clone(), &than));
            }
        }
        errors
    }

    fn items(&self, name: &str, items: &[Value], schema: &Value) -> Outcome {
        let mut outcome = Outcome { matches: 1, ..Outcome::default() };
        if let Some(of_item) = schema.get("items").filter(|items| items.is_object()) {
            for (index, item) in items.iter().enumerate() {
                outcome.merge(self.value(&format!("{name}[{index}]"), item, of_item));
            }
        }
        let limit =
            |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        if let Some(min) = limit("minItems").filter(|min| items.len() < *min) {
            outcome.errors.push(self.invalid(
                name,
                items.len(),
                &format!("should have at least {min} items"),
            ));
        }
        if let Some(max) = limit("maxItems").filter(|max| items.len() > *max) {
            outcome.errors.push(Error::too_many(&self.at(name), items.len(), max));
        }
        outcome
    }

    fn members(&self, name: &str, members: &serde_json::Map<String, Value>, schema: &Value) -> Outcome {
        let mut outcome = Outcome::default();
        let limit =
            |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        let size = members.len();
        if let Some(min) = limit("minProperties").filter(|min| size < *min) {
            outcome.errors.push(self.invalid(name, size, &format!("should have at least {min} properties")));
        }
        if let Some(max) = limit("maxProperties").filter(|max| size > *max) {
            outcome.errors.push(Error::too_many(&self.at(name), size, max));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let property = |key: &str| properties.and_then(|properties| properties.get(key));
        let others = schema.get("additionalProperties");
        for (key, value) in members {
            match (property(key), others) {
                (Some(schema), _) => outcome.merge(self.value(&member(name, key), value, schema)),
                (None, Some(Value::Bool(false))) => {
                    let why = format!("{name}.{key} in body is a forbidden property");
                    outcome.errors.push(Error::invalid(&self.at(name), key.as_str(), why));
                }
                (None, Some(schema)) if schema.is_object() => {
                    outcome.merge(self.value(&format!("{name}.{key}"), value, schema));
                }
                _ => {}
            }
        }
        for key in list(schema, "required").iter().filter_map(Value::as_str) {
            if !members.contains_key(key) {
                outcome.errors.push(Error::required(&self.at(&format!("{name}.{key}")), ""));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn values_against_schemas() {
        let cases: Vec<(Value, Value, &[&str])> = vec![
            (
                json!({"type": "string", "maxLength": 2}),
                json!("äöü"),
                &["at: Too long: may not be more than 2 bytes"],
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                &["at: Invalid value: \"a\":  in body should be at least 2 chars long"],
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                &["at: Invalid value: \"b\":  in body should match '^a+$'"],
            ),
            (
                json!({"type": "string", "format": "ipv4"}),
                json!("1.2.3"),
                &["at: Invalid value: \"1.2.3\":  in body must be of type ipv4: \"1.2.3\""],
            ),
            (
                json!({"type": "integer", "minimum": 3}),
                json!(2),
                &["at: Invalid value: 2:  in body should be greater than or equal to 3"],
            ),
            (
                json!({"type": "integer", "maximum": 3, "exclusiveMaximum": true}),
                json!(3),
                &["at: Invalid value: 3:  in body should be less than 3"],
            ),
            (
                json!({"type": "integer", "multipleOf": 5}),
                json!(7),
                &["at: Invalid value: 7:  in body should be a multiple of 5"],
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(1_i64 << 40),
                &["at: Invalid value: \"\": Checked value must be of type integer with format int32 in "],
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                &["at: Invalid value: \"number\":  in body must be of type integer: \"number\""],
            ),
            (json!({"type": "integer"}), json!(2.0), &[]),
            (json!({"type": "number"}), json!(1), &[]),
            (json!({"type": "string", "nullable": true}), json!(null), &[]),
            (
                json!({"type": "string"}),
                json!(null),
                &["at: Invalid value: \"null\":  in body must be of type string: \"null\""],
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 3}),
                json!(["a", 1]),
                &[
                    "at.[1]: Invalid value: \"integer\": [1] in body must be of type string: \"integer\"",
                    "at: Invalid value: 2:  in body should have at least 3 items",
                ],
            ),
            (
                json!({"type": "array", "maxItems": 1}),
                json!([1, 2]),
                &["at: Too many: 2: must have at most 1 item"],
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 1}),
                json!({"a": true, "b": 1}),
                &[
                    "at: Too many: 2: must have at most 1 item",
                    "at.b: Invalid value: \"integer\": .b in body must be of type boolean: \"integer\"",
                ],
            ),
            (
                json!({"properties": {"a": {"properties": {"b": {"type": "string"}}}}}),
                json!({"a": {"b": 1}}),
                &["at.a.b: Invalid value: \"integer\": a.b in body must be of type string: \"integer\""],
            ),
            (
                json!({"anyOf": [{"minimum": 5}, {"enum": [1]}]}),
                json!(2),
                &[
                    "at: Invalid value: \"\": \"\" must validate at least one schema (anyOf)",
                    "at: Invalid value: 2:  in body should be greater than or equal to 5",
                ],
            ),
            (
                json!({"oneOf": [{"minimum": 1}, {"minimum": 2}]}),
                json!(2),
                &[
                    "at: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
                ],
            ),
            (
                json!({"allOf": [{"minimum": 1}, {"minimum": 3}], "not": {"maximum": 9}}),
                json!(2),
                &[
                    "at: Invalid value: 2:  in body should be greater than or equal to 3",
                    "at: Invalid value: \"\": \"\" must validate all the schemas (allOf)",
                    "at: Invalid value: \"\": \"\" must not validate the schema (not)",
                ],
            ),
        ];
        for (schema, value, expected) in cases {
            check(validate(&Path::new("at"), &value, &schema), expected);
        }
    }
}
