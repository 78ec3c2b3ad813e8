//! Defaults in schemas of custom resources: nothing that the schema does not know, and nothing that it refuses.

use apimachinery::Value;
use apimachinery::field::ErrorList;

use super::embedded::{self, Step, is_resource};
use super::schema::META;
use super::value;
use crate::validation::at::At;

/// Where a schema stands.
#[derive(Clone)]
struct Place<'a> {
    is_root: bool,
    /// The schema of the resource that is the nearest around it.
    resource: &'a Value,
    /// The way from there, in what the resource says of itself.
    inside_meta: Option<Vec<Step>>,
}

impl Place<'_> {
    fn inner(&self, step: Step) -> Self {
        let inside_meta = self.inside_meta.clone().map(|mut steps| {
            steps.push(step);
            steps
        });
        Self { is_root: false, inside_meta, ..self.clone() }
    }
}

/// What is wrong with the defaults in a schema that is structural. `pruned` is whether unknown fields are refused.
pub fn validate(schema: &At<'_>, pruned: bool) -> ErrorList {
    of(schema, &Place { is_root: true, resource: schema.value, inside_meta: None }, pruned)
}

fn of<'a>(schema: &At<'a>, place: &Place<'a>, pruned: bool) -> ErrorList {
    let is_resource = place.is_root || is_resource(schema.value);
    let place = match is_resource {
        true => &Place { is_root: place.is_root, resource: schema.value, inside_meta: None },
        false => place,
    };
    let default = schema.child("default");
    let mut errors = ErrorList::new();
    if default.is_set() {
        errors.extend(self::default(&default, schema.value, place, is_resource, pruned));
    }
    let items = schema.child("items");
    if items.value.is_object() {
        errors.extend(of(&items, &place.inner(Step::Item), pruned));
    }
    for (key, property) in schema.child("properties").entries() {
        let mut inner = place.inner(Step::Child(key.to_owned()));
        if is_resource && META.contains(&key) {
            inner.inside_meta = Some(vec![Step::Child(key.to_owned())]);
        }
        errors.extend(of(&property, &inner, pruned));
    }
    errors
}

fn default(
    default: &At<'_>,
    schema: &Value,
    place: &Place<'_>,
    is_resource: bool,
    pruned: bool,
) -> ErrorList {
    let of_value = || value::validate(&default.path, default.value, schema);
    if let Some(steps) = &place.inside_meta {
        return match embedded::alone(default.value, steps, place.resource) {
            Some(why) => vec![default.invalid(format!("must result in valid metadata: {why}"))],
            None => of_value(),
        };
    }
    let mut errors = ErrorList::new();
    if pruned && has_unknown(default.value, schema, is_resource, false) {
        errors.push(default.invalid("must not have unknown fields"));
    }
    if let Some(error) = embedded::ill_typed(default, schema, is_resource) {
        errors.push(error);
        return errors;
    }
    let of_resources = embedded::validate(default, schema, is_resource);
    errors.extend(if of_resources.is_empty() { of_value() } else { of_resources });
    errors
}

/// Whether a value has fields that its schema does not know and does not keep. Items of a list that keeps what is
/// unknown keep it too.
fn has_unknown(value: &Value, schema: &Value, of_resource: bool, keeps: bool) -> bool {
    let keeps = keeps || schema["x-kubernetes-preserve-unknown-fields"] == true;
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| {
            if of_resource && META.contains(&key.as_str()) {
                return false;
            }
            let others = schema.get("additionalProperties");
            match (schema["properties"].get(key), others) {
                (Some(schema), _) => has_unknown(value, schema, is_resource(schema), false),
                (None, Some(schema)) => has_unknown(value, schema, is_resource(schema), false),
                (None, None) => !keeps,
            }
        }),
        Value::Array(items) => {
            let schema = &schema["items"];
            items.iter().any(|item| has_unknown(item, schema, is_resource(schema), keeps))
        }
        _ => false,
    }
}
