//! Protobuf to normalised trees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::decode::settle;
use super::proto_encode::MAGIC;
use super::wire::{Raw, Reader, put_bytes};
use super::{DecodeError, MAX_DEPTH, number, scalar};
use crate::group::GroupVersion;
use crate::object::Object;
use crate::schema::{Field, Kind, Schema, View, Wire};
use crate::{quantity, time};

/// The parts of the envelope of a protobuf body.
pub(super) struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

pub(super) fn open(body: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    if body.is_empty() || body == MAGIC {
        let what = if body.is_empty() { "empty data" } else { "empty body" };
        return Err(DecodeError::Syntax(what.to_owned()));
    }
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| {
        DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned(),
        )
    })?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader::new(rest);
    while let Some((tag, raw)) = reader.field()? {
        match (tag, raw) {
            (1, Raw::Bytes(bytes)) => {
                let mut reader = Reader::new(bytes);
                while let Some((tag, raw)) = reader.field()? {
                    match (tag, raw) {
                        (1, Raw::Bytes(bytes)) => envelope.api_version = text(bytes),
                        (2, Raw::Bytes(bytes)) => envelope.kind = text(bytes),
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(bytes)) => envelope.raw = bytes,
            _ => {}
        }
    }
    Ok(envelope)
}

/// The `apiVersion` and `kind` of a body.
pub fn peek_type_protobuf(body: &[u8]) -> Result<(String, String), DecodeError> {
    open(body).map(|envelope| (envelope.api_version, envelope.kind))
}

/// Decodes a body with its envelope; the type comes from the envelope.
pub fn decode_protobuf(body: &[u8], schema: &Schema) -> Result<Object, DecodeError> {
    let envelope = open(body)?;
    // the kind is known by now
    let known = |error| match error {
        DecodeError::Syntax(why) => DecodeError::Value(why),
        error => error,
    };
    let mut map = decode_message(envelope.raw, schema.view(), 0).map_err(known)?;
    for (name, value) in [("kind", envelope.kind), ("apiVersion", envelope.api_version)] {
        if !value.is_empty() && schema.field(name).is_some() {
            map.insert(name.to_owned(), Value::String(value));
        }
    }
    Ok(Object::from(Value::Object(map)))
}

/// Decodes what an object is found by: its metadata but for the managed fields, which are most of it, and where
/// `whole`, all the rest. A type it does not have.
pub fn decode_protobuf_head(body: &[u8], schema: &Schema, whole: bool) -> Result<Object, DecodeError> {
    let envelope = open(body)?;
    let view = schema.view();
    let mut kept = Vec::with_capacity(envelope.raw.len());
    let mut reader = Reader::new(envelope.raw);
    let mut at = 0;
    while let Some((tag, raw)) = reader.field()? {
        let end = envelope.raw.len() - reader.remaining();
        match (name_of(view, tag), raw) {
            (Some("metadata"), Raw::Bytes(bytes)) => {
                let inner = schema.field("metadata").and_then(|field| view.of(&field.kind));
                let bytes =
                    inner.map_or(Ok(bytes.to_vec()), |inner| without(bytes, inner, "managedFields"))?;
                put_bytes(tag, &bytes, &mut kept);
            }
            _ if whole => kept.extend_from_slice(&envelope.raw[at..end]),
            _ => {}
        }
        at = end;
    }
    decode_message(&kept, view, 0).map(|map| Object::from(Value::Object(map)))
}

fn name_of<'a>(view: View<'a>, tag: u32) -> Option<&'a str> {
    let wires = view.wire();
    match wires.binary_search_by_key(&tag, Wire::tag).ok().map(|at| &wires[at])? {
        Wire::Field { field, .. } => view.fields().get(usize::from(*field)).map(|field| &*field.name),
        Wire::Inline { .. } => None,
    }
}

/// A message without one of its fields.
fn without(bytes: &[u8], view: View<'_>, name: &str) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::with_capacity(bytes.len());
    let (mut reader, mut at) = (Reader::new(bytes), 0);
    while let Some((tag, _)) = reader.field()? {
        let end = bytes.len() - reader.remaining();
        if name_of(view, tag) != Some(name) {
            kept.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    Ok(kept)
}

/// Decodes a bare message.
pub fn decode_protobuf_raw(raw: &[u8], schema: &Schema) -> Result<Object, DecodeError> {
    decode_message(raw, schema.view(), 0).map(|map| Object::from(Value::Object(map)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn decode_message(bytes: &[u8], view: View<'_>, depth: usize) -> Result<Map<String, Value>, DecodeError> {
    if depth >= MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    let mut map = Map::new();
    read_wires(bytes, view, view.wire(), depth, &mut map)?;
    for (index, zero) in view.zeros() {
        let name = &view.fields()[usize::from(*index)].name;
        if !map.contains_key(&**name) {
            map.insert(name.to_string(), zero.clone());
        }
    }
    Ok(map)
}

fn read_wires(
    bytes: &[u8],
    view: View<'_>,
    wires: &[Wire],
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, raw)) = reader.field()? {
        let Ok(at) = wires.binary_search_by_key(&tag, Wire::tag) else { continue };
        match (&wires[at], raw) {
            (Wire::Inline { fields, .. }, Raw::Bytes(bytes)) => read_wires(bytes, view, fields, depth, map)?,
            (Wire::Inline { .. }, _) => return Err(wrong_wire_type("an embedded message")),
            (Wire::Field { field, .. }, raw) => {
                read_field(raw, &view.fields()[usize::from(*field)], view, depth + 1, map)?;
            }
        }
    }
    Ok(())
}

fn wrong_wire_type(field: &str) -> DecodeError {
    DecodeError::Syntax(format!("proto: wrong wireType for field {field}"))
}

fn read_field(
    raw: Raw<'_>,
    field: &Field,
    view: View<'_>,
    depth: usize,
    map: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let wrong = || wrong_wire_type(&field.name);
    match (&field.kind, raw) {
        (Kind::List(list), raw) => {
            let slot = map.entry(&*field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(out) = slot else { return Ok(()) };
            let numbers = matches!(list.element, Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Bool);
            match raw {
                // Numbers may come packed.
                Raw::Bytes(bytes) if numbers => {
                    let mut reader = Reader::new(bytes);
                    while reader.remaining() > 0 {
                        let raw = Raw::Varint(reader.varint()?);
                        out.push(read_value(raw, &list.element, view, depth)?.ok_or_else(wrong)?);
                    }
                }
                raw => out.push(read_value(raw, &list.element, view, depth)?.ok_or_else(wrong)?),
            }
        }
        (Kind::Map(of), Raw::Bytes(bytes)) => {
            let (mut key, mut value) = (String::new(), None);
            let mut reader = Reader::new(bytes);
            while let Some((tag, raw)) = reader.field()? {
                match (tag, raw) {
                    (1, Raw::Bytes(bytes)) => key = text(bytes),
                    (2, raw) => value = Some(read_value(raw, &of.value, view, depth)?.ok_or_else(wrong)?),
                    _ => {}
                }
            }
            let slot = map.entry(&*field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(out) = slot {
                out.insert(key, value.unwrap_or_else(|| view.zero(&of.value)));
            }
        }
        (Kind::Map(_), _) => return Err(wrong()),
        (kind, raw) => {
            let value = read_value(raw, kind, view, depth)?.ok_or_else(wrong)?;
            match settle(view, field, value) {
                Some(value) => map.insert(field.name.to_string(), value),
                None => map.remove(&*field.name),
            };
        }
    }
    Ok(())
}

/// One value; `None` when the wire type does not go with the kind.
fn read_value(raw: Raw<'_>, kind: &Kind, view: View<'_>, depth: usize) -> Result<Option<Value>, DecodeError> {
    let refused = |error: &dyn std::fmt::Display| DecodeError::Value(error.to_string());
    Ok(Some(match (kind, raw) {
        (Kind::Bool, Raw::Varint(n)) => Value::Bool(n != 0),
        (Kind::Int32, Raw::Varint(n)) => Value::from(n as i32),
        (Kind::Int64, Raw::Varint(n)) => Value::from(n as i64),
        (Kind::Uint32, Raw::Varint(n)) => Value::from(n as u32),
        (Kind::Float64, Raw::Fixed64(bits)) => Number::from_f64(f64::from_bits(bits))
            .map_or(Value::Null, |n| Value::Number(number::canonical(n))),
        (Kind::String, Raw::Bytes(bytes)) => Value::String(text(bytes)),
        (Kind::Bytes, Raw::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Kind::Quantity, Raw::Bytes(bytes)) => {
            let inner = text(first(bytes, 1)?);
            if inner.is_empty() {
                return Ok(Some(Value::from("0")));
            }
            Value::String(quantity::canonical(&inner).map_err(|e| refused(&e))?.into_owned())
        }
        (Kind::Time, Raw::Bytes(bytes)) => timestamp(bytes, false)?,
        (Kind::MicroTime, Raw::Bytes(bytes)) => timestamp(bytes, true)?,
        (Kind::Duration, Raw::Bytes(bytes)) => Value::String(time::format_duration(varint(bytes, 1)? as i64)),
        (Kind::IntOrString, Raw::Bytes(bytes)) => match varint(bytes, 1)? {
            0 => Value::from(varint(bytes, 2)? as i32),
            _ => Value::String(text(first(bytes, 3)?)),
        },
        (Kind::RawExtension | Kind::FieldsV1 | Kind::Json | Kind::Any, Raw::Bytes(bytes)) => {
            embedded(first(bytes, 1)?, depth)?
        }
        (Kind::Strings, Raw::Bytes(bytes)) => strings(bytes, 1)?,
        (Kind::SchemaOrBool(schema), Raw::Bytes(bytes)) => match find(bytes, 2)? {
            Some(raw) => return read_value(Raw::Bytes(raw), schema, view, depth + 1),
            None => Value::Bool(varint(bytes, 1)? != 0),
        },
        (Kind::SchemaOrArray(schema), Raw::Bytes(bytes)) => match find(bytes, 1)? {
            Some(raw) => return read_value(Raw::Bytes(raw), schema, view, depth + 1),
            None => {
                let mut list = Vec::new();
                let mut reader = Reader::new(bytes);
                while let Some((tag, raw)) = reader.field()? {
                    if tag == 2 {
                        list.extend(read_value(raw, schema, view, depth + 1)?);
                    }
                }
                if list.is_empty() { Value::Null } else { Value::Array(list) }
            }
        },
        (Kind::SchemaOrStrings(schema), Raw::Bytes(bytes)) => match find(bytes, 1)? {
            Some(raw) => return read_value(Raw::Bytes(raw), schema, view, depth + 1),
            None => strings(bytes, 2)?,
        },
        (Kind::Message(_) | Kind::Foreign(_), Raw::Bytes(bytes)) => match view.of(kind) {
            Some(view) => Value::Object(decode_message(bytes, view, depth)?),
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

/// The last length-delimited field with a number.
fn find(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>, DecodeError> {
    let (mut reader, mut found) = (Reader::new(bytes), None);
    while let Some((tag, raw)) = reader.field()? {
        if let (true, Raw::Bytes(bytes)) = (tag == wanted, raw) {
            found = Some(bytes);
        }
    }
    Ok(found)
}

fn first(bytes: &[u8], wanted: u32) -> Result<&[u8], DecodeError> {
    Ok(find(bytes, wanted)?.unwrap_or_default())
}

fn varint(bytes: &[u8], wanted: u32) -> Result<u64, DecodeError> {
    let (mut reader, mut found) = (Reader::new(bytes), 0);
    while let Some((tag, raw)) = reader.field()? {
        if let (true, Raw::Varint(value)) = (tag == wanted, raw) {
            found = value;
        }
    }
    Ok(found)
}

fn strings(bytes: &[u8], wanted: u32) -> Result<Value, DecodeError> {
    let (mut reader, mut list) = (Reader::new(bytes), Vec::new());
    while let Some((tag, raw)) = reader.field()? {
        if let (true, Raw::Bytes(bytes)) = (tag == wanted, raw) {
            list.push(Value::String(text(bytes)));
        }
    }
    Ok(if list.is_empty() { Value::Null } else { Value::Array(list) })
}

fn timestamp(bytes: &[u8], micros: bool) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (varint(bytes, 1)? as i64, varint(bytes, 2)? as u32);
    let nanos = if micros { nanos / 1000 * 1000 } else { 0 };
    let time = time::from_unix(seconds, nanos)
        .ok_or_else(|| DecodeError::Value("Time.MarshalJSON: year outside of range [0,9999]".to_owned()))?;
    Ok(scalar::stamp(time, if micros { time::format_micro } else { time::format }))
}

/// Raw JSON, or a whole object in its own envelope.
fn embedded(bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if !bytes.starts_with(MAGIC) {
        return super::parse_json(bytes);
    }
    let envelope = open(bytes)?;
    let gv = GroupVersion::parse(&envelope.api_version).unwrap_or_default();
    let schema = Schema::for_kind(&gv.with_kind(&envelope.kind)).ok_or_else(|| {
        DecodeError::Value(format!(
            "no kind {:?} is registered for version {:?}",
            envelope.kind, envelope.api_version
        ))
    })?;
    let mut map = decode_message(envelope.raw, schema.view(), depth + 1)?;
    map.insert("kind".to_owned(), Value::String(envelope.kind));
    map.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
    Ok(Value::Object(map))
}
