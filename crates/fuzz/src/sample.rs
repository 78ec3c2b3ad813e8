//! An object of any kind with every field set, made from its descriptor.

use std::path::Path;

use api::Resource;
use api::catalogue::catalogue;
use apimachinery::schema::{Kind, Schema};
use serde_json::{Map, Value, json};

/// Kinds that hold themselves end here.
const DEPTH: usize = 7;

/// The built-in kinds, in an order that stays.
pub fn kinds() -> Vec<&'static Resource> {
    catalogue().all().collect()
}

pub fn schema(resource: &Resource) -> Schema {
    Schema::for_kind(&resource.gvk()).expect("every kind of the catalogue has a schema")
}

/// An object with all its fields.
pub fn full(resource: &Resource) -> Value {
    let mut object = message(&schema(resource), 0);
    object["apiVersion"] = json!(resource.group_version().to_string());
    object["kind"] = json!(resource.kind);
    object
}

fn message(schema: &Schema, depth: usize) -> Value {
    let mut out = Map::new();
    for field in schema.fields() {
        if let Some(value) = value(schema, &field.kind, depth + 1) {
            out.insert(field.name.to_string(), value);
        }
    }
    Value::Object(out)
}

fn value(schema: &Schema, kind: &Kind, depth: usize) -> Option<Value> {
    if depth > DEPTH {
        return None;
    }
    Some(match kind {
        Kind::String => json!("a"),
        Kind::Bool => json!(true),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 => json!(1),
        Kind::Float64 => json!(1.5),
        Kind::Bytes => json!("YQ=="),
        Kind::Quantity => json!("1500m"),
        Kind::Time => json!("2024-05-01T00:00:00Z"),
        Kind::MicroTime => json!("2024-05-01T00:00:00.000001Z"),
        Kind::Duration => json!("1h0m0s"),
        Kind::IntOrString => json!("50%"),
        Kind::RawExtension | Kind::Json | Kind::Any => {
            json!({"kind": "K", "apiVersion": "v1", "a": [1, null, "b"]})
        }
        Kind::FieldsV1 => json!({"f:a": {}}),
        Kind::Strings => json!(["a"]),
        Kind::SchemaOrBool(of) | Kind::SchemaOrStrings(of) => value(schema, of, depth)?,
        Kind::SchemaOrArray(of) => json!([value(schema, of, depth)?]),
        Kind::Message(_) | Kind::Foreign(_) => message(&schema.of(kind)?, depth),
        Kind::List(list) => json!([value(schema, &list.element, depth)?]),
        Kind::Map(map) => json!({"a": value(schema, &map.value, depth)?}),
    })
}

/// Upstream's own vectors, where somebody has put them beside the repository.
pub fn vectors(extension: &str) -> Vec<(usize, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["../../../shared/testdata/api", "../../../../shared/testdata/api"].map(|path| here.join(path));
    let all = kinds();
    let read = |folder: &Path| -> Vec<(usize, Vec<u8>)> {
        let file = |resource: &Resource| {
            let group = if resource.group.is_empty() { "core" } else { resource.group };
            folder.join(format!("{group}.{}.{}.{extension}", resource.version, resource.kind))
        };
        let found = all.iter().enumerate();
        found.filter_map(|(index, resource)| Some((index, std::fs::read(file(resource)).ok()?))).collect()
    };
    folders.iter().map(|folder| read(folder)).find(|found| !found.is_empty()).unwrap_or_default()
}
