//! What a resource says of itself, wherever it stands in a value: its version, its kind and its metadata.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::schema::Schema;
use apimachinery::validation as names;
use apimachinery::{Object, Value, codec};
use serde_json::json;

use crate::validation::at::At;

/// A name for metadata that has none, where the name is not the point.
const NAMELESS: &str = "fakename";

pub fn is_resource(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

/// What stands below a value, with its schema; the schema is null where nothing is known of it.
fn below<'a>(at: &At<'a>, schema: &'a Value) -> Vec<(At<'a>, &'a Value)> {
    if at.value.is_array() {
        return at.items().map(|item| (item, &schema["items"])).collect();
    }
    let members = at.value.as_object().into_iter().flatten();
    let of = |(key, value): (&String, &'a Value)| match schema["properties"].get(key) {
        Some(schema) => (At::new(value, at.path.child(key)), schema),
        None => (At::new(value, at.path.key(key)), &schema["additionalProperties"]),
    };
    members.map(of).collect()
}

/// The first thing of a wrong type.
pub fn ill_typed(at: &At<'_>, schema: &Value, is_resource: bool) -> Option<Error> {
    for key in ["apiVersion", "kind", "metadata"].iter().filter(|_| is_resource) {
        let field = at.child(key);
        if at.value.get(*key).is_none() {
            continue;
        }
        if *key == "metadata" {
            if let Err(why) = metadata(field.value) {
                return Some(field.invalid(why));
            }
        } else if !field.value.is_string() {
            return Some(field.invalid("must be a string"));
        }
    }
    below(at, schema).iter().find_map(|(inner, schema)| ill_typed(inner, schema, self::is_resource(schema)))
}

/// What is wrong with what is of the right type.
pub fn validate(at: &At<'_>, schema: &Value, is_resource: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if is_resource && at.value.is_object() {
        errors.extend(resource(at));
    }
    for (inner, schema) in below(at, schema) {
        errors.extend(validate(&inner, schema, self::is_resource(schema)));
    }
    errors
}

fn resource(at: &At<'_>) -> ErrorList {
    let (version, kind, meta) = (at.child("apiVersion"), at.child("kind"), at.child("metadata"));
    let mut errors = ErrorList::new();
    for field in [&version, &kind] {
        if !field.is_set() {
            errors.push(field.required(""));
        } else if field.is_empty() {
            errors.push(field.invalid("must not be empty"));
        }
    }
    if version.str().matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.str())));
    }
    let wrong = names::is_dns1035_label(&kind.str().to_lowercase());
    if !kind.is_empty() && !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(kind.invalid(why));
    }
    if meta.is_set()
        && let Ok(metadata) = metadata(meta.value)
    {
        let mut object = Object::from(json!({"metadata": metadata.as_value()}));
        if object.name().is_empty() {
            object.set_name(NAMELESS);
        }
        let namespaced = !object.namespace().is_empty();
        errors.extend(names::validate_object_meta(
            &object,
            namespaced,
            &names::name_is_path_segment,
            &meta.path,
        ));
    }
    errors
}

/// Metadata in normal form, or why it is none.
fn metadata(value: &Value) -> Result<Object, String> {
    let schema = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "ObjectMeta");
    let schema = schema.ok_or("there is no ObjectMeta")?;
    if value.is_null() {
        return Ok(Object::default());
    }
    if !value.is_object() {
        let got = codec::go_kind(value);
        return Err(format!("json: cannot unmarshal {got} into Go value of type v1.ObjectMeta"));
    }
    let mut metadata = Object::from(value.clone());
    codec::normalize(&mut metadata, &schema).map_err(|error| error.to_string())?;
    Ok(metadata)
}

/// A step from a resource to a value within it.
#[derive(Clone)]
pub enum Step {
    Child(String),
    Item,
}

/// What is wrong with a resource that has nothing but a value at a place in what it says of itself.
pub fn alone(value: &Value, steps: &[Step], schema: &Value) -> Option<String> {
    let around = |inner: Value, step: &Step| match step {
        Step::Child(key) => json!({key.as_str(): inner}),
        Step::Item => json!([inner]),
    };
    let mut resource = steps.iter().rev().fold(value.clone(), around);
    for (key, text) in [("apiVersion", "validation/v1"), ("kind", "Validation")] {
        if resource.get(key).is_none() {
            resource[key] = json!(text);
        }
    }
    let at = At::new(&resource, Path::root());
    if let Some(error) = ill_typed(&at, schema, true) {
        return Some(error.to_string());
    }
    let errors = validate(&at, schema, true);
    (!errors.is_empty()).then(|| apimachinery::field::aggregate(&errors))
}
