//! Objects as JSON, YAML and protobuf. Two bytes choose the kind, the rest is the document. Whatever is let in has one
//! meaning: every form of it gives it back; and every rule can judge it.

use api::Resource;
use api::catalogue::Now;
use apimachinery::codec::{self, EncodedJson, EncodedProtobuf};
use apimachinery::schema::{Kind, Schema};
use apimachinery::{GroupVersion, Object, Value};

use crate::sample;

/// The kind and the document of an input.
pub fn split(input: &[u8]) -> Option<(&'static Resource, Schema, &[u8])> {
    let [high, low, document @ ..] = input else { return None };
    let kinds = sample::kinds();
    let resource = kinds[usize::from(u16::from_be_bytes([*high, *low])) % kinds.len()];
    Some((resource, sample::schema(resource), document))
}

/// The input of a kind and a document.
pub fn join(index: usize, document: &[u8]) -> Vec<u8> {
    let index = u16::try_from(index).expect("there are not that many kinds");
    [&index.to_be_bytes(), document].concat()
}

fn json_of(object: &Object, schema: &Schema) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode_json(object, schema, &mut out);
    out
}

/// Fails with the place where two texts part.
fn same(way: &str, left: &[u8], right: &[u8]) {
    if left == right {
        return;
    }
    let at = left.iter().zip(right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len()));
    let around = |text: &[u8]| {
        let part = text.get(at.saturating_sub(60)..text.len().min(at + 60)).unwrap_or_default();
        String::from_utf8_lossy(part).into_owned()
    };
    panic!("through {way}:\n  {}\n  {}", around(left), around(right));
}

/// Takes away what protobuf has no place for, which is the type of objects within objects.
fn drop_untagged(value: &mut Value, schema: &Schema) {
    let Value::Object(map) = value else { return };
    for field in schema.fields() {
        let Some(value) = map.get_mut(&*field.name) else { continue };
        let nested = |value: &mut Value, kind: &Kind| {
            let Some(schema) = schema.of(kind) else { return };
            if let Value::Object(map) = value {
                map.retain(|key, _| schema.field(key).is_none_or(|field| !field.tags.is_empty()));
            }
            drop_untagged(value, &schema);
        };
        match (&field.kind, value) {
            (Kind::List(list), Value::Array(items)) => {
                items.iter_mut().for_each(|it| nested(it, &list.element))
            }
            (Kind::Map(map), Value::Object(values)) => {
                values.values_mut().for_each(|it| nested(it, &map.value))
            }
            (kind, value) => nested(value, kind),
        }
    }
}

/// What must hold of an object that was let in.
fn check(resource: &Resource, schema: &Schema, mut object: Object) {
    object.set_type(&resource.gvk());
    let json = json_of(&object, schema);
    let again = codec::decode_json(&json, schema).expect("what was written is read").object;
    same("JSON", &json_of(&again, schema), &json);
    assert_eq!(again, object, "through JSON");
    let mut yaml = Vec::new();
    codec::encode_yaml(&object, &mut yaml);
    let again = codec::decode_yaml(&yaml, schema).expect("what was written is read").object;
    same("YAML", &json_of(&again, schema), &json);
    let mut value = object.clone().into_value();
    drop_untagged(&mut value, schema);
    let lasting = Object::from(value);
    let mut protobuf = Vec::new();
    codec::encode_protobuf(&object, schema, &mut protobuf);
    let again = codec::decode_protobuf(&protobuf, schema).expect("what was written is read");
    same("protobuf", &json_of(&again, schema), &json_of(&lasting, schema));
    frames(&object, schema);
    judge(resource, schema, object);
}

/// Encoded once and sent to many: with the version that is asked for, whole.
fn frames(object: &Object, schema: &Schema) {
    let mut out = Vec::new();
    EncodedJson::new(object, schema).append(7, &mut out);
    let shown = codec::decode_json(&out, schema).expect("what is sent is read").object;
    assert_eq!(shown.resource_version(), "7");
    let encoded = EncodedProtobuf::new(object, schema);
    out.clear();
    encoded.append(7, &mut out);
    let shown = codec::decode_protobuf(&out, schema).expect("what is sent is read");
    assert_eq!(shown.resource_version(), "7");
    out.clear();
    encoded.append_watch_event("ADDED", 7, &mut out);
    let event = GroupVersion::new("", "v1").with_kind("WatchEvent");
    let event = Schema::for_kind(&event).expect("the frame of watches has a schema");
    let event = codec::decode_protobuf_raw(&out, &event).expect("what is sent is read");
    assert_eq!(event.get_str(&["type"]), "ADDED");
}

/// All that is done with an object on its way in and out.
fn judge(resource: &Resource, schema: &Schema, mut object: Object) {
    let strategy = resource.strategy;
    let old = object.clone();
    strategy.default(&mut object);
    let _ = codec::normalize(&mut object, schema);
    let mut again = object.clone();
    strategy.default(&mut again);
    let _ = codec::normalize(&mut again, schema);
    assert_eq!(again, object, "defaults stay what they are");
    let _ = strategy.warnings_before_create(&object);
    let mut created = object.clone();
    strategy.prepare_for_create(&mut created);
    let _ = (strategy.validate(&created), strategy.warnings_on_create(&created));
    let mut updated = object.clone();
    strategy.prepare_for_update(&mut updated, &old);
    let _ = (strategy.validate_update(&updated, &old), strategy.warnings_on_update(&updated, &old));
    let mut updated = object.clone();
    strategy.prepare_for_status_update(&mut updated, &old);
    let _ = strategy.validate_status_update(&updated, &old);
    let _ = resource.selectable_fields(&object);
    for column in resource.columns {
        let _ = (column.cell)(&object, &Now(1_800_000_000));
    }
}

pub fn json(input: &[u8]) {
    let Some((resource, schema, document)) = split(input) else { return };
    let _ = codec::peek_type_json(document);
    if let Ok(decoded) = codec::decode_json(document, &schema) {
        check(resource, &schema, decoded.object);
    }
    if let Ok(value) = codec::parse_json(document) {
        let mut object = Object::from(value);
        if codec::normalize(&mut object, &schema).is_ok() {
            check(resource, &schema, object);
        }
    }
}

pub fn yaml(input: &[u8]) {
    let Some((resource, schema, document)) = split(input) else { return };
    let _ = codec::peek_type_yaml(document);
    if let Ok(decoded) = codec::decode_yaml(document, &schema) {
        check(resource, &schema, decoded.object);
    }
}

pub fn protobuf(input: &[u8]) {
    let Some((resource, schema, document)) = split(input) else { return };
    let _ = codec::peek_type_protobuf(document);
    if let Ok(object) = codec::decode_protobuf(document, &schema) {
        check(resource, &schema, object);
    }
    let _ = codec::decode_protobuf_raw(document, &schema);
    if let Ok(encoded) = EncodedProtobuf::from_stored(document.to_vec().into()) {
        let mut out = Vec::new();
        encoded.append(7, &mut out);
        encoded.append_watch_event("MODIFIED", 7, &mut out);
    }
}

/// Each kind as the table describes it, and as upstream's vectors have it.
fn seeds(extension: &str, write: fn(&Object, &Schema) -> Vec<u8>) -> Vec<Vec<u8>> {
    let full = sample::kinds().into_iter().enumerate().map(|(index, resource)| {
        let schema = sample::schema(resource);
        let text = sample::full(resource).to_string();
        let decoded = codec::decode_json(text.as_bytes(), &schema).expect("a sample is good");
        join(index, &write(&decoded.object, &schema))
    });
    let vectors = sample::vectors(extension).into_iter().map(|(index, document)| join(index, &document));
    full.chain(vectors).collect()
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    seeds("json", json_of)
}

pub fn yaml_seeds() -> Vec<Vec<u8>> {
    seeds("yaml", |object, _| {
        let mut out = Vec::new();
        codec::encode_yaml(object, &mut out);
        out
    })
}

pub fn protobuf_seeds() -> Vec<Vec<u8>> {
    seeds("pb", |object, schema| {
        let mut out = Vec::new();
        codec::encode_protobuf(object, schema, &mut out);
        out
    })
}
