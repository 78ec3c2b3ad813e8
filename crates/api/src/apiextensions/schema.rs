//! What a schema of a custom resource may say at all, beyond that it is structural. Expressions are kept as they are:
//! what they mean is not looked at here.

use crate::validation::at::At;
use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub fn validate(schema: &At<'_>) -> ErrorList {
    let mut errors = unsupported(schema);
    errors.extend(combinations(schema));
    let additional = schema.child("additionalProperties");
    if additional.value.is_object() {
        errors.extend(validate(&additional));
    }
    for (_, property) in schema.child("properties").entries() {
        errors.extend(validate(&property));
    }
    for key in ["not", "items"] {
        let inner = schema.child(key);
        if inner.value.is_object() {
            errors.extend(validate(&inner));
        }
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        errors.extend(schema.each(key).flat_map(|each| validate(&each)));
    }
    let preserves = schema.child("x-kubernetes-preserve-unknown-fields");
    if preserves.is_set() && !preserves.flag() {
        errors.push(preserves.invalid("must be true or undefined"));
    }
    errors.extend(map_type(schema));
    errors.extend(list_type(schema));
    errors.extend(map_keys_and_sets(schema));
    errors.extend(rules(&schema.child("x-kubernetes-validations")));
    errors
}

fn unsupported(schema: &At<'_>) -> ErrorList {
    let kind = schema.child("type");
    let mut errors = ErrorList::new();
    if !kind.is_empty() && !TYPES.contains(&kind.str()) {
        errors.push(kind.not_supported(&TYPES));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let field = schema.child(key);
        let there = if matches!(key, "$ref" | "additionalItems" | "dependencies") {
            field.is_set()
        } else {
            !field.is_empty()
        };
        if there {
            errors.push(field.forbidden(format!("{key} is not supported")));
        }
    }
    if kind.str() == "null" {
        errors.push(kind.forbidden("type cannot be set to null, use nullable as an alternative"));
    }
    let items = schema.child("items");
    if items.value.is_array() && !items.is_empty() {
        errors.push(items.forbidden("items must be a schema object and not an array"));
    }
    errors
}

/// Fields that exclude each other.
fn combinations(schema: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let unique = schema.child("uniqueItems");
    if unique.flag() {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(unique.forbidden(why));
    }
    let (additional, properties) = (schema.child("additionalProperties"), schema.child("properties"));
    if additional.is_set() && !properties.is_empty() && *additional.value != Value::Bool(true) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(additional.forbidden(why));
    }
    errors
}

/// A type that has to be one particular one for an extension.
fn wants_type(schema: &At<'_>, wanted: &str, extension: &str) -> Option<Error> {
    let kind = schema.child("type");
    let why = format!("must be {wanted} if {extension} is specified");
    match kind.str() {
        text if text == wanted => None,
        "" => Some(kind.required(why)),
        _ => Some(kind.invalid(why)),
    }
}

fn map_type(schema: &At<'_>) -> ErrorList {
    let map = schema.child("x-kubernetes-map-type");
    if !map.is_set() {
        return ErrorList::new();
    }
    let mut errors: ErrorList = wants_type(schema, "object", "x-kubernetes-map-type").into_iter().collect();
    errors.extend(map.supported(&["atomic", "granular"]));
    errors
}

fn list_type(schema: &At<'_>) -> ErrorList {
    let (list, keys) = (schema.child("x-kubernetes-list-type"), schema.child("x-kubernetes-list-map-keys"));
    let items = schema.child("items");
    let mut errors = ErrorList::new();
    if list.is_set() {
        let wrong = wants_type(schema, "array", "x-kubernetes-list-type");
        if wrong.is_none() && list.str() == "set" {
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let (inner_list, inner_map) =
                (items.child("x-kubernetes-list-type"), items.child("x-kubernetes-map-type"));
            match items.text("type") {
                "array" if inner_list.is_set() && inner_list.str() != "atomic" => {
                    errors.push(inner_list.invalid(why));
                }
                "object" if inner_map.str() != "atomic" => {
                    errors.push(Error::invalid(&inner_map.path, inner_list.value.clone(), why));
                }
                _ => {}
            }
        }
        errors.extend(wrong);
        errors.extend(list.supported(&["atomic", "set", "map"]));
    }
    if !keys.is_empty() && list.str() != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list.is_set() { list.invalid(why) } else { list.required(why) });
    }
    if list.str() == "map" {
        errors.extend(list_map(&keys, &items));
    }
    errors
}

fn list_map(keys: &At<'_>, items: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if keys.is_empty() {
        errors.push(keys.required("must not be empty if x-kubernetes-list-type is map"));
    }
    if !items.is_set() {
        errors.push(items.required("must have a schema if x-kubernetes-list-type is map"));
        return errors;
    }
    if !items.value.is_object() {
        errors.push(items.invalid("must only have a single schema if x-kubernetes-list-type is map"));
        return errors;
    }
    let kind = items.child("type");
    if kind.str() != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&kind.path, kind.str(), why));
        return errors;
    }
    let properties = items.child("properties");
    for (index, key) in keys.items().enumerate() {
        match properties.value.get(key.str()) {
            Some(property) if matches!(property["type"].as_str(), Some("array" | "object")) => {
                let path = properties.path.key(key.str()).child("type");
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&path, kind.str(), why));
            }
            Some(_) => {}
            None => errors.push(keys.invalid("entries must all be names of item properties")),
        }
        if keys.list()[..index].contains(key.value) {
            errors.push(keys.invalid("must not contain duplicate entries"));
        }
    }
    errors
}

/// Items of sets and maps are there, and so are the keys of maps.
fn map_keys_and_sets(schema: &At<'_>) -> ErrorList {
    let list = schema.child("x-kubernetes-list-type");
    let items = schema.child("items");
    let mut errors = ErrorList::new();
    if !matches!(list.str(), "map" | "set") || !items.value.is_object() {
        return errors;
    }
    let nullable = items.child("nullable");
    if nullable.flag() {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list.str());
        errors.push(nullable.forbidden(why));
    }
    if list.str() != "map" {
        return errors;
    }
    let required = items.child("required");
    let properties = items.child("properties");
    for key in schema.each("x-kubernetes-list-map-keys") {
        let Some(property) = properties.value.get(key.str()) else { continue };
        let path = properties.path.key(key.str());
        let is_required = required.list().contains(key.value);
        if !is_required && property.get("default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&path.child("default"), why));
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&path.child("nullable"), why));
        }
    }
    errors
}

fn rules(rules: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for each in rules.items() {
        let (rule, message) = (each.child("rule"), each.child("message"));
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (trimmed_rule, trimmed_message) = (rule.str().trim(), message.str().trim());
        if trimmed_rule.is_empty() {
            errors.push(rule.required("rule is not specified"));
        } else if !message.is_empty() && trimmed_message.is_empty() {
            errors.push(message.invalid("must be non-empty if specified"));
        } else if breaks(trimmed_message) {
            errors.push(message.invalid("must not contain line breaks"));
        } else if breaks(trimmed_rule) && trimmed_message.is_empty() {
            errors.push(message.required("message must be specified if rule contains line breaks"));
        }
        let expression = each.child("messageExpression");
        if !expression.is_empty() && expression.str().trim().is_empty() {
            errors.push(expression.required("messageExpression must be non-empty if specified"));
        }
        errors.extend(each.child("reason").supported(&REASONS));
        let path = each.child("fieldPath");
        if !path.is_empty() && path.str().trim().is_empty() {
            errors.push(path.invalid("must be non-empty if specified"));
        }
        if breaks(path.str()) {
            errors.push(path.invalid("must not contain line breaks"));
        }
    }
    errors
}

/// What a schema may have at its root when `status` is a subresource, in the names of upstream's message.
const AT_ROOT: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// The root of a schema: an object, there for certain, with nothing that would hide `status`.
pub fn root(schema: &At<'_>, has_status: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if has_status {
        let kind = schema.text("type");
        let fields = schema.value.as_object().into_iter().flatten().filter(|(_, value)| !is_zero(value));
        let odd = fields.map(|(key, _)| key).find(|key| !AT_ROOT.iter().any(|(_, json)| json == key));
        if !kind.is_empty() && kind != "object" {
            let path = schema.path.child("type");
            let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.push(Error::invalid(&path, kind, why));
        } else if odd.is_some() {
            let names: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
            errors.push(schema.invalid(format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            )));
        }
    }
    let nullable = schema.child("nullable");
    if nullable.flag() {
        errors.push(nullable.forbidden("nullable cannot be true at the root"));
    }
    errors
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::field::Path;
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_a_schema_may_not_say() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"type": "null", "uniqueItems": true, "$ref": "x"}),
                vec![
                    "s.type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                    "s.$ref: Forbidden: $ref is not supported",
                    "s.type: Forbidden: type cannot be set to null, use nullable as an alternative",
                    "s.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                ],
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                    "x-kubernetes-list-map-keys": ["a", "b"]}),
                vec![
                    "s.x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\"]: entries must all be names of item properties",
                    "s.items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ],
            ),
            (
                json!({"type": "object", "x-kubernetes-list-type": "odd", "x-kubernetes-map-type": "odd",
                    "x-kubernetes-validations": [{"rule": " "}, {"rule": "a\nb"}, {"rule": "x", "reason": "Odd"}]}),
                vec![
                    "s.x-kubernetes-map-type: Unsupported value: \"odd\": supported values: \"atomic\", \"granular\"",
                    "s.type: Invalid value: \"object\": must be array if x-kubernetes-list-type is specified",
                    "s.x-kubernetes-list-type: Unsupported value: \"odd\": supported values: \"atomic\", \"set\", \"map\"",
                    "s.x-kubernetes-validations[0].rule: Required value: rule is not specified",
                    "s.x-kubernetes-validations[1].message: Required value: message must be specified if rule contains line breaks",
                    "s.x-kubernetes-validations[2].reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
                ],
            ),
        ];
        for (schema, expected) in cases {
            check(validate(&At::new(&schema, Path::new("s"))), &expected);
        }
    }
}
