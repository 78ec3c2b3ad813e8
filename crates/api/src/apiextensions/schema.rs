//! What a schema of a custom resource may say at all, beyond that it is structural. Expressions are kept as they are:
//! what they mean is not looked at here.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::options::Options;
use super::structural::is_convertible;
use crate::validation::at::At;
use crate::validation::value::text;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
pub const META: [&str; 3] = ["apiVersion", "kind", "metadata"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where a schema stands in another.
#[derive(Clone, Default)]
struct Place {
    is_root: bool,
    /// In what a resource says of itself: its version, kind or metadata.
    inside_meta: bool,
    /// Why there can be no default here.
    no_default: Option<String>,
}

pub fn validate(schema: &At<'_>, options: &Options) -> ErrorList {
    of(schema, &Place { is_root: true, ..Place::default() }, options)
}

fn of(schema: &At<'_>, place: &Place, options: &Options) -> ErrorList {
    let mut errors = unsupported(schema, place, options);
    errors.extend(combinations(schema));
    let inner = Place { is_root: false, ..place.clone() };
    let additional = schema.child("additionalProperties");
    if additional.value.is_object() {
        let mut inner = inner.clone();
        if place.inside_meta {
            inner.no_default = Some("inside additionalProperties applying to object metadata".into());
        }
        errors.extend(of(&additional, &inner, options));
    }
    let is_resource = place.is_root || schema.is_true("x-kubernetes-embedded-resource");
    for (key, property) in schema.child("properties").entries() {
        let mut inner = inner.clone();
        if is_resource && META.contains(&key) {
            inner.inside_meta = true;
            if place.is_root {
                inner.no_default = Some(format!("in top-level {key}"));
            }
        }
        errors.extend(of(&property, &inner, options));
    }
    for key in ["not", "allOf", "oneOf", "anyOf", "definitions", "items", "dependencies"] {
        let place = schema.child(key);
        let schemas: Vec<At<'_>> = match key {
            "not" => vec![place],
            "definitions" | "dependencies" => place.entries().map(|(_, schema)| schema).collect(),
            "items" if place.value.is_object() => vec![place],
            _ => place.items().collect(),
        };
        let schemas = schemas.iter().filter(|schema| schema.value.is_object());
        errors.extend(schemas.flat_map(|schema| of(schema, &inner, options)));
    }
    let preserves = schema.child("x-kubernetes-preserve-unknown-fields");
    if preserves.is_set() && !preserves.flag() {
        errors.push(preserves.invalid("must be true or undefined"));
    }
    errors.extend(map_type(schema));
    errors.extend(list_type(schema, options));
    if options.map_keys {
        errors.extend(map_keys_and_sets(schema));
    }
    errors.extend(rules(schema));
    errors
}

fn unsupported(schema: &At<'_>, place: &Place, options: &Options) -> ErrorList {
    let kind = schema.child("type");
    let mut errors = ErrorList::new();
    if options.types && !has_known_type(schema.value) {
        errors.push(kind.not_supported(&TYPES));
    }
    let default = schema.child("default");
    if let Some(why) = place.no_default.as_deref().filter(|_| default.is_set()) {
        errors.push(default.forbidden(format!("must not be set {why}")));
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
    let embedded = schema.child("x-kubernetes-embedded-resource");
    if place.inside_meta && embedded.flag() {
        errors.push(embedded.forbidden("must not be used inside of resource meta"));
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

fn list_type(schema: &At<'_>, options: &Options) -> ErrorList {
    let (list, keys) = (schema.child("x-kubernetes-list-type"), schema.child("x-kubernetes-list-map-keys"));
    let items = schema.child("items");
    let mut errors = ErrorList::new();
    if list.is_set() {
        let wrong = wants_type(schema, "array", "x-kubernetes-list-type");
        if wrong.is_none() && options.atomic_sets && !is_atomic_set(schema.value) {
            let key = match items.text("type") {
                "array" => "x-kubernetes-list-type",
                _ => "x-kubernetes-map-type",
            };
            let shown = items.child("x-kubernetes-list-type").value.clone();
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            errors.push(Error::invalid(&items.path.child(key), shown, why));
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

/// Whether a type is one of OpenAPI, or left open.
pub fn has_known_type(schema: &Value) -> bool {
    let kind = text(schema, "type");
    kind.is_empty() || TYPES.contains(&kind)
}

/// Whether the items of a set have no parts that could be changed. Lists are atomic unless they say otherwise,
/// objects are not.
pub fn is_atomic_set(schema: &Value) -> bool {
    let items = &schema["items"];
    if schema["x-kubernetes-list-type"] != "set" || !items.is_object() {
        return true;
    }
    match text(items, "type") {
        "array" => items.get("x-kubernetes-list-type").is_none_or(|list| list == "atomic"),
        "object" => items["x-kubernetes-map-type"] == "atomic",
        _ => true,
    }
}

/// Whether items of sets and maps are there, and so are the keys of maps.
pub fn has_map_keys(schema: &Value) -> bool {
    map_keys_and_sets(&At::new(schema, Path::root())).is_empty()
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

fn rules(schema: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for each in schema.each("x-kubernetes-validations") {
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
        // of a schema that says what none may say, any path will do
        let leads_nowhere =
            || is_convertible(schema.value).is_ok() && find(path.str(), schema.value, true).is_err();
        if !path.is_empty() && leads_nowhere() {
            errors.push(path.invalid("must be a valid path"));
        }
    }
    errors
}

/// The schema of what a path such as `.spec.replicas` names, and the names on the way. `brackets` is whether a name
/// may be written as `['name']`.
pub fn find<'v>(path: &str, schema: &'v Value, brackets: bool) -> Result<(Vec<String>, &'v Value), String> {
    const END: &str = "unexpected end of JSON path";
    let (mut tokens, mut names, mut schema) = (tokens(path).into_iter(), Vec::new(), schema);
    while let Some(token) = tokens.next() {
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = tokens.next().ok_or(END)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                inner
                    .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?
                    .replace("\\'", "'")
            }
            "." => tokens.next().ok_or(END)?.to_owned(),
            _ => return Err(format!("expected [ or . but got: {token}")),
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        schema = match (properties.filter(|properties| !properties.is_empty()), others) {
            (Some(properties), _) => properties.get(&name),
            (None, others) => others,
        }
        .ok_or("does not refer to a valid field")?;
        names.push(name);
        if token == "[" {
            match tokens.next().ok_or(END)? {
                "]" => {}
                other => return Err(format!("expected ] but got {other}")),
            }
        }
    }
    Ok((names, schema))
}

/// A path in parts: dots, brackets, and what is between them; a quoted name is one part.
fn tokens(path: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let closes = |(index, _): &(usize, char)| *index > 0 && !rest[..*index].ends_with('\\');
                let quotes = rest.char_indices().filter(|(_, c)| *c == '\'');
                quotes.filter(closes).map(|(index, _)| index + 1).next().unwrap_or(rest.len())
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after;
    }
    tokens
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
            let options = Options::of_create(&At::new(&Value::Null, Path::root()));
            check(validate(&At::new(&schema, Path::new("s")), &options), &expected);
        }
    }
}
