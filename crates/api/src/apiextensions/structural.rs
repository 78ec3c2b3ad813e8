//! That a schema is structural: every value has a type that is known without looking into `anyOf`, `allOf`, `oneOf`
//! or `not`, and these only restrict what the structure allows (KEP-1693).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use serde_json::json;

use super::{go_regexp, walk};
use crate::validation::at::At;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why nothing can be said of whether a schema is structural: it, or a schema within it, says what none may say.
pub fn is_convertible(schema: &Value) -> Result<(), String> {
    let mut why = None;
    walk::visit(schema, &mut |schema| {
        let is_filled = |key: &str| match &schema[key] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => key == "additionalItems" || !map.is_empty(),
            _ => true,
        };
        let unsupported =
            ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];
        let found = unsupported.iter().find(|key| is_filled(key)).map(|key| {
            let key = if *key == "$schema" { "schema" } else { *key };
            format!("OpenAPIV3Schema '{key}' is not supported")
        });
        let listed = schema["items"].as_array().is_some_and(|items| !items.is_empty());
        let found = found.or_else(|| {
            listed.then(|| "OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned())
        });
        let opened = schema["x-kubernetes-preserve-unknown-fields"] == false;
        let found = found.or_else(|| {
            opened.then(|| {
                "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned()
            })
        });
        why = why.take().or(found);
    });
    why.map_or(Ok(()), Err)
}

/// All that is wrong, in the order in which upstream shows it: by text.
pub fn validate(schema: &At<'_>) -> ErrorList {
    let mut errors = invariants(schema, Level::Root);
    errors.extend(junctors(schema).flat_map(|nested| completeness(&nested, schema)));
    errors.sort_by_key(ToString::to_string);
    errors
}

/// The schemas under `not`, `allOf`, `anyOf` and `oneOf`.
fn junctors<'a>(schema: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let not = Some(schema.child("not")).filter(At::is_set);
    let lists: Vec<At<'a>> = ["allOf", "anyOf", "oneOf"].iter().flat_map(|key| schema.each(key)).collect();
    not.into_iter().chain(lists)
}

fn is_int_or_string(any_of: &At<'_>) -> bool {
    *any_of.value == json!([{"type": "integer"}, {"type": "string"}])
}

fn invariants(schema: &At<'_>, level: Level) -> ErrorList {
    let mut errors = ErrorList::new();
    let (kind, items) = (schema.child("type"), schema.child("items"));
    let flag = |key: &str| schema.child(key).flag();
    let int_or_string = flag("x-kubernetes-int-or-string");
    let preserves = flag("x-kubernetes-preserve-unknown-fields");
    let embedded = flag("x-kubernetes-embedded-resource");
    if kind.str() == "array" && !items.is_set() {
        errors.push(items.required("must be specified"));
    }
    if items.value.is_object() {
        errors.extend(invariants(&items, Level::Item));
    }
    for (_, property) in schema.child("properties").entries() {
        errors.extend(invariants(&property, Level::Field));
    }
    let additional = schema.child("additionalProperties");
    if additional.is_set() {
        if level == Level::Root {
            errors.push(additional.forbidden("must not be used at the root"));
        }
        if additional.value.is_object() {
            errors.extend(invariants(&additional, Level::Field));
        }
        if embedded {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(additional.forbidden(why));
        }
    }
    for (key, wrong) in
        [("x-kubernetes-preserve-unknown-fields", preserves), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && wrong {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(schema.child(key).invalid(why));
        }
    }
    errors.extend(value_validation(schema));
    errors.extend(types(schema, level, embedded, int_or_string || preserves));
    errors.extend(metadata(schema, level, embedded));
    if embedded && !preserves && schema.child("properties").is_empty() {
        errors.push(schema.child("properties").required(
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
    errors
}

fn types(schema: &At<'_>, level: Level, embedded: bool, may_be_untyped: bool) -> ErrorList {
    let kind = schema.child("type");
    let mut errors = ErrorList::new();
    if embedded && kind.str() != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() { kind.required(why) } else { kind.invalid(why) });
    } else if kind.is_empty() && !may_be_untyped {
        errors.push(kind.required(match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        }));
    }
    if level == Level::Root && !kind.is_empty() && kind.str() != "object" {
        errors.push(kind.invalid("must be object at the root"));
    }
    errors
}

/// What may be said of the metadata that every object has.
fn metadata(schema: &At<'_>, level: Level, embedded: bool) -> ErrorList {
    let properties = schema.child("properties");
    let property = |key: &str| {
        let value = properties.value.get(key)?;
        Some(At::new(value, properties.path.key(key)))
    };
    let mut errors = ErrorList::new();
    let checks = level == Level::Root || embedded;
    for key in ["kind", "apiVersion"] {
        if let Some(property) = property(key).filter(|_| checks)
            && property.text("type") != "string"
        {
            let path = property.path.child("type");
            errors.push(Error::invalid(&path, property.text("type"), "must be string"));
        }
    }
    let Some(metadata) = property("metadata") else { return errors };
    if checks && metadata.text("type") != "object" {
        errors.push(Error::invalid(&metadata.path.child("type"), metadata.text("type"), "must be object"));
    }
    if level == Level::Root {
        let only_names =
            metadata.value.as_object().into_iter().flatten().all(|(key, value)| match key.as_str() {
                "type" | "default" => true,
                "properties" => value
                    .as_object()
                    .is_some_and(|map| map.keys().all(|key| matches!(key.as_str(), "name" | "generateName"))),
                _ => false,
            });
        if !only_names {
            errors.push(metadata.forbidden(
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            ));
        }
    }
    errors
}

/// The restrictions of a schema; the pattern of an int-or-string is the one structure that they may have.
fn value_validation(schema: &At<'_>) -> ErrorList {
    let any_of = schema.child("anyOf");
    let all_of = schema.child("allOf");
    let mut errors = ErrorList::new();
    if !is_int_or_string(&any_of) {
        errors.extend(any_of.items().flat_map(|each| nested(&each, false)));
    }
    for (index, each) in all_of.items().enumerate() {
        let pattern = index == 0 && is_int_or_string(&each.child("anyOf"));
        errors.extend(nested(&each, pattern));
    }
    errors.extend(schema.each("oneOf").flat_map(|each| nested(&each, false)));
    let not = schema.child("not");
    if not.is_set() {
        errors.extend(nested(&not, false));
    }
    errors.extend(pattern(schema));
    errors
}

fn pattern(schema: &At<'_>) -> Option<Error> {
    let pattern = schema.child("pattern");
    let why = go_regexp::check(pattern.str()).err()?;
    Some(pattern.invalid(format!("must be a valid regular expression, but isn't: {why}")))
}

fn nested(schema: &At<'_>, is_pattern: bool) -> ErrorList {
    let mut errors = ErrorList::from_iter(pattern(schema));
    if !is_pattern {
        errors.extend(schema.each("anyOf").flat_map(|each| nested(&each, false)));
    }
    for key in ["allOf", "oneOf"] {
        errors.extend(schema.each(key).flat_map(|each| nested(&each, false)));
    }
    for key in ["not", "items"] {
        let inner = schema.child(key);
        if inner.value.is_object() {
            errors.extend(nested(&inner, false));
        }
    }
    for (_, property) in schema.child("properties").entries() {
        errors.extend(nested(&property, false));
    }
    for (key, state) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        let field = schema.child(key);
        let wrong = match key {
            // what allows nothing more says nothing
            "additionalProperties" => field.is_set() && *field.value != Value::Bool(false),
            _ if state == "undefined" => field.is_set(),
            _ => !field.is_empty(),
        };
        if wrong {
            errors.push(field.forbidden(format!("must be {state} to be structural")));
        }
    }
    if schema.child("properties").has("metadata") {
        let path = schema.child("properties").path.key("metadata");
        errors.push(Error::forbidden(&path, "must not be specified in a nested context"));
    }
    errors
}

/// Everything that a restriction speaks of is there in the structure.
fn completeness(nested: &At<'_>, structure: &At<'_>) -> ErrorList {
    let missing =
        |at: &At<'_>, of: &At<'_>| Error::required(&at.path, format!("because it is defined in {}", of.path));
    let mut errors: ErrorList = junctors(nested).flat_map(|inner| completeness(&inner, structure)).collect();
    let (items, own) = (nested.child("items"), structure.child("items"));
    if items.value.is_object() {
        if own.value.is_object() {
            errors.extend(completeness(&items, &own));
        } else {
            errors.push(missing(&own, &items));
        }
    }
    let properties = structure.child("properties");
    for (key, property) in nested.child("properties").entries() {
        let at = At::new(properties.value.get(key).unwrap_or(&Value::Null), properties.path.key(key));
        if at.is_set() {
            errors.extend(completeness(&property, &at));
        } else {
            errors.push(missing(&at, &property));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use apimachinery::field::Path;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn structural_schemas() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({"type": "object", "properties": {"spec": {"type": "object"}}}), vec![]),
            (
                json!({"type": "object", "properties": {"port": {
                    "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
                }}}),
                vec![],
            ),
            (json!({}), vec!["s.type: Required value: must not be empty at the root"]),
            (
                json!({"type": "object", "properties": {"spec": {}, "list": {"type": "array"}, "items": {"type": "array", "items": {}}}}),
                vec![
                    "s.properties[items].items.type: Required value: must not be empty for specified array items",
                    "s.properties[list].items: Required value: must be specified",
                    "s.properties[spec].type: Required value: must not be empty for specified object fields",
                ],
            ),
            (
                json!({"type": "object", "anyOf": [{"type": "object", "properties": {"a": {"description": "x"}}}]}),
                vec![
                    "s.anyOf[0].properties[a].description: Forbidden: must be empty to be structural",
                    "s.anyOf[0].type: Forbidden: must be empty to be structural",
                    "s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]",
                ],
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=b)", "anyOf": [{"pattern": "("}]}}}),
                vec![
                    "s.properties[a].anyOf[0].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
                    "s.properties[a].pattern: Invalid value: \"(?=b)\": must be a valid regular expression, but isn't: error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
                ],
            ),
            (
                json!({"type": "object", "not": {"additionalProperties": true}, "anyOf": [{"additionalProperties": false}]}),
                vec!["s.not.additionalProperties: Forbidden: must be undefined to be structural"],
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                vec![
                    "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
                ],
            ),
        ];
        for (schema, expected) in cases {
            check(validate(&At::new(&schema, Path::new("s"))), &expected);
        }
    }
}
