//! Objects from bytes and to bytes: JSON, YAML and protobuf, all driven by a [`Schema`].
//!
//! Whatever comes in leaves here normalised: fields that Go would leave out are gone, structs that Go always
//! writes are there (`status: {loadBalancer: {}}`), quantities, times and base64 are canonical. Two objects that
//! Go would hold as equal values are equal trees.

mod decode;
mod depth;
mod encoded;
mod json;
mod normal;
mod number;
mod path;
mod proto_decode;
mod proto_encode;
mod restore;
mod scalar;
mod strict_any;
mod text;
mod wire;
mod yaml;
mod yaml_encode;

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

pub use encoded::{
    EncodedJson, EncodedProtobuf, ListHeader, encode_json_list, encode_protobuf_list,
    encode_protobuf_watch_event,
};
pub use json::{encode_json, write_any};
pub use proto_decode::{decode_protobuf, decode_protobuf_head, decode_protobuf_raw, peek_type_protobuf};
pub use proto_encode::{encode_protobuf, encode_protobuf_raw};
pub use restore::restore_error;
pub use yaml_encode::encode_yaml;

use crate::object::Object;
use crate::schema::Schema;
use decode::Decoder;

/// How deep maps and lists may nest in each other.
pub const MAX_DEPTH: usize = 128;

/// Bytes that are no object of the type; the texts are those of Go's decoders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, YAML or protobuf at all.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type (`json: cannot unmarshal …`) or text that its type refuses.
    #[error("{0}")]
    Value(String),
    #[error("exceeded max depth")]
    TooDeep,
}

/// An object, and what strict field validation has to say about how it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Object,
    /// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`, in the order of the document.
    pub strict_errors: Vec<String>,
}

pub fn decode_json(body: &[u8], schema: &Schema) -> Result<Decoded, DecodeError> {
    let read = |body: &[u8]| {
        let mut decoder = Decoder::strict();
        let mut source = serde_json::Deserializer::from_slice(body);
        let value = decoder.root(schema).deserialize(&mut source);
        let value = value.map_err(|e| number::syntax_error(body, &e))?;
        source.end().map_err(|e| number::syntax_error(body, &e))?;
        decoder.finish(value, schema).map_err(|error| number::as_written(error, body))
    };
    text::read(body, read)
}

pub fn decode_yaml(body: &[u8], schema: &Schema) -> Result<Decoded, DecodeError> {
    let document = yaml::parse(body)?;
    let mut decoder = Decoder::strict();
    let value = decoder.root(schema).deserialize(document.value).map_err(decode::error_of)?;
    let mut decoded = decoder.finish(value, schema)?;
    decoded.strict_errors.splice(0..0, document.duplicates);
    Ok(decoded)
}

/// Brings an object that was changed by hand (a patch, a webhook, a typed view) back to normal form. Unknown
/// fields go without a word.
pub fn normalize(object: &mut Object, schema: &Schema) -> Result<(), DecodeError> {
    if normal::is_normal(object.as_value(), schema) {
        return Ok(());
    }
    let value = std::mem::take(object).into_value();
    let mut decoder = Decoder::lenient();
    let value = decoder.root(schema).deserialize(value).map_err(decode::error_of)?;
    *object = decoder.finish(value, schema)?.object;
    Ok(())
}

/// Like [`normalize`], reporting unknown fields: for patches under strict field validation.
pub fn normalize_strict(object: Object, schema: &Schema) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::strict();
    let value = decoder.root(schema).deserialize(object.into_value()).map_err(decode::error_of)?;
    decoder.finish(value, schema)
}

/// Any JSON as a tree; numbers in normal form.
pub fn parse_json(body: &[u8]) -> Result<Value, DecodeError> {
    text::read(body, |body| serde_json::from_slice(body).map_err(|e| number::syntax_error(body, &e)))
}

/// Any JSON as a tree, and what strict field validation says of it: `duplicate field "spec.replicas"`.
pub fn parse_json_strict(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    text::read(body, |body| {
        let mut duplicates = Vec::new();
        let mut source = serde_json::Deserializer::from_slice(body);
        let any = strict_any::Any { path: String::new(), duplicates: &mut duplicates };
        let value = any.deserialize(&mut source).map_err(|e| number::syntax_error(body, &e))?;
        source.end().map_err(|e| number::syntax_error(body, &e))?;
        Ok((value, duplicates))
    })
}

/// Any YAML (its first document) as a tree, with YAML 1.1 scalars as upstream's parser reads them.
pub fn parse_yaml(body: &[u8]) -> Result<Value, DecodeError> {
    yaml::parse(body).map(|document| document.value)
}

/// Like [`parse_yaml`], and what upstream's strict parser says of repeated keys; at most one text.
pub fn parse_yaml_strict(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    yaml::parse(body).map(|document| (document.value, document.duplicates))
}

fn no_type(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {error}"))
}

/// What Go's JSON decoder calls a value that is of the wrong type.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The `apiVersion` and `kind` of a tree, empty where it has none.
fn type_of(value: &Value) -> Result<(String, String), DecodeError> {
    const STRUCT: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let wrong = |value: &Value, place: &str| {
        no_type(format_args!("json: cannot unmarshal {} into Go {place}", go_kind(value)))
    };
    let text = |map: &Map<String, Value>, key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(other, &format!("struct field .{key} of type string"))),
    };
    match value {
        Value::Null => Ok(Default::default()),
        Value::Object(map) => Ok((text(map, "apiVersion")?, text(map, "kind")?)),
        other => Err(wrong(other, &format!("value of type {STRUCT}"))),
    }
}

/// The `apiVersion` and `kind` of a body, empty where it has none.
pub fn peek_type_json(body: &[u8]) -> Result<(String, String), DecodeError> {
    type_of(&parse_json(body).map_err(no_type)?)
}

pub fn peek_type_yaml(body: &[u8]) -> Result<(String, String), DecodeError> {
    type_of(&yaml::parse(body)?.value)
}
