//! Defaults in schemas of custom resources: nothing that the schema does not know, and nothing that it refuses.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Value, field::Path};

use super::schema::META;
use super::value;
use crate::validation::at::At;

/// What is wrong with the defaults in a schema that is structural. `pruned` is whether unknown fields are refused.
pub fn validate(schema: &At<'_>, pruned: bool) -> ErrorList {
    of(schema, true, false, pruned)
}

fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

fn of(schema: &At<'_>, is_root: bool, inside_meta: bool, pruned: bool) -> ErrorList {
    let is_resource = is_root || is_embedded(schema.value);
    let inside_meta = inside_meta && !is_resource;
    let default = schema.child("default");
    let mut errors = ErrorList::new();
    if default.is_set() {
        if !inside_meta && pruned && has_unknown(default.value, schema.value, is_resource, false) {
            errors.push(default.invalid("must not have unknown fields"));
        }
        let of_meta =
            if inside_meta { ErrorList::new() } else { embedded(&default, schema.value, is_resource) };
        if of_meta.is_empty() {
            errors.extend(value::validate(&default.path, default.value, schema.value));
        }
        errors.extend(of_meta);
    }
    let items = schema.child("items");
    if items.value.is_object() {
        errors.extend(of(&items, false, inside_meta, pruned));
    }
    for (key, property) in schema.child("properties").entries() {
        let of_resource = is_resource && META.contains(&key);
        errors.extend(of(&property, false, inside_meta || of_resource, pruned));
    }
    errors
}

/// Whether a value has fields that its schema does not know and does not keep. Items of a list that keeps what is
/// unknown keep it too.
fn has_unknown(value: &Value, schema: &Value, is_resource: bool, keeps: bool) -> bool {
    let keeps = keeps || schema["x-kubernetes-preserve-unknown-fields"] == true;
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            if is_resource && META.contains(&key.as_str()) {
                return false;
            }
            let others = schema.get("additionalProperties");
            match (schema["properties"].get(key), others) {
                (Some(schema), _) => has_unknown(value, schema, is_embedded(schema), false),
                (None, Some(schema)) => has_unknown(value, schema, is_embedded(schema), false),
                (None, None) => !keeps,
            }
        }),
        Value::Array(items) => {
            let schema = &schema["items"];
            items.iter().any(|item| has_unknown(item, schema, is_embedded(schema), keeps))
        }
        _ => false,
    }
}

/// What is wrong with the objects in a value that are resources of their own.
fn embedded(at: &At<'_>, schema: &Value, is_resource: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if at.value.is_array() {
        let schema = &schema["items"];
        errors.extend(at.items().flat_map(|item| embedded(&item, schema, is_embedded(schema))));
    }
    let Some(members) = at.value.as_object() else { return errors };
    if is_resource {
        for key in ["apiVersion", "kind"] {
            let field = at.child(key);
            if !members.contains_key(key) {
                errors.push(Error::required(&field.path, ""));
            } else if !field.value.is_string() {
                errors.push(field.invalid("must be a string"));
            } else if field.is_empty() {
                errors.push(field.invalid("must not be empty"));
            } else {
                errors.extend(well_formed(key, &field));
            }
        }
    }
    for (key, value) in members {
        let others = &schema["additionalProperties"];
        let (path, schema): (Path, &Value) = match schema["properties"].get(key) {
            Some(schema) => (at.path.child(key), schema),
            None => (at.path.key(key), others),
        };
        errors.extend(embedded(&At::new(value, path), schema, is_embedded(schema)));
    }
    errors
}

fn well_formed(key: &str, field: &At<'_>) -> Option<Error> {
    if key == "apiVersion" {
        let wrong = field.str().matches('/').count() > 1;
        return wrong.then(|| field.invalid(format!("unexpected GroupVersion string: {}", field.str())));
    }
    let wrong = names::is_dns1035_label(&field.str().to_lowercase());
    let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
    (!wrong.is_empty()).then(|| field.invalid(why))
}
