//! Trees to protobuf, byte for byte as gogo-protobuf writes the Go structs: value fields always, zero or not,
//! pointers when set, fields by number, map entries by key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::json::write_any;
use super::wire::{FIXED64, put_bytes, put_int, put_key, put_nested};
use crate::object::Object;
use crate::schema::{Field, GoKind, Kind, Schema, View, Wire};
use crate::time;

/// What every protobuf body starts with.
pub(super) const MAGIC: &[u8; 4] = b"k8s\0";

/// Appends the object in its envelope, as it is stored and sent.
pub fn encode_protobuf(object: &Object, schema: &Schema, out: &mut Vec<u8>) {
    put_envelope(object.api_version(), object.kind(), out, |out| encode_protobuf_raw(object, schema, out));
}

/// Appends the bare message, without an envelope.
pub fn encode_protobuf_raw(object: &Object, schema: &Schema, out: &mut Vec<u8>) {
    put_message(object.as_map(), schema.view(), out);
}

/// Appends an envelope around a message that `write` appends.
pub(super) fn put_envelope(
    api_version: &str,
    kind: &str,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    put_envelope_head(api_version, kind, out);
    put_nested(2, out, write);
    put_envelope_tail(out);
}

pub(super) fn put_envelope_head(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    put_nested(1, out, |out| {
        put_bytes(1, api_version.as_bytes(), out);
        put_bytes(2, kind.as_bytes(), out);
    });
}

/// Content encoding and type, always empty.
pub(super) const ENVELOPE_TAIL: [u8; 4] = [0x1a, 0, 0x22, 0];

fn put_envelope_tail(out: &mut Vec<u8>) {
    out.extend_from_slice(&ENVELOPE_TAIL);
}

fn put_message(map: &Map<String, Value>, view: View<'_>, out: &mut Vec<u8>) {
    put_wires(map, view, view.wire(), out);
}

fn put_wires(map: &Map<String, Value>, view: View<'_>, wires: &[Wire], out: &mut Vec<u8>) {
    for wire in wires {
        match wire {
            Wire::Inline { tag, fields } => put_nested(*tag, out, |out| put_wires(map, view, fields, out)),
            Wire::Field { tag, field } => {
                let field = &view.fields()[usize::from(*field)];
                put_field(*tag, field, map.get(&*field.name).unwrap_or(&Value::Null), view, out);
            }
        }
    }
}

fn put_field(tag: u32, field: &Field, value: &Value, view: View<'_>, out: &mut Vec<u8>) {
    match (&field.kind, value) {
        (_, Value::Null) if field.go_kind != GoKind::Value => {}
        (Kind::List(list), Value::Array(values)) => {
            for value in values {
                put_value(tag, &list.element, value, view, out);
            }
        }
        (Kind::Map(of), Value::Object(entries)) => {
            let mut entries: Vec<_> = entries.iter().collect();
            // Trees are sorted already; protobuf must be whatever the map is.
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                put_nested(tag, out, |out| {
                    put_bytes(1, key.as_bytes(), out);
                    let empty =
                        matches!(of.value, Kind::Bytes) && value.as_str().unwrap_or_default().is_empty();
                    if !empty {
                        put_value(2, &of.value, value, view, out);
                    }
                });
            }
        }
        (Kind::List(_) | Kind::Map(_), _) => {}
        (kind, value) => put_value(tag, kind, value, view, out),
    }
}

/// Writes one value; anything that is not of the kind counts as its zero, since normal form rules it out.
fn put_value(tag: u32, kind: &Kind, value: &Value, view: View<'_>, out: &mut Vec<u8>) {
    let text = || value.as_str().unwrap_or_default();
    match kind {
        Kind::String => put_bytes(tag, text().as_bytes(), out),
        Kind::Bool => put_int(tag, value.as_bool().unwrap_or_default().into(), out),
        // Negative numbers are sign-extended to 64 bits.
        Kind::Int32 | Kind::Int64 => put_int(tag, value.as_i64().unwrap_or_default() as u64, out),
        Kind::Uint32 => put_int(tag, value.as_u64().unwrap_or_default(), out),
        Kind::Float64 => {
            put_key(tag, FIXED64, out);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Kind::Bytes => put_bytes(tag, &STANDARD.decode(text()).unwrap_or_default(), out),
        Kind::Quantity => {
            let text = if text().is_empty() { "0" } else { text() };
            put_nested(tag, out, |out| put_bytes(1, text.as_bytes(), out));
        }
        Kind::Time => put_time(tag, time::parse(text()).ok(), out),
        Kind::MicroTime => put_time(tag, time::parse_micro(text()).ok(), out),
        Kind::Duration => {
            let nanos = time::parse_duration(text()).unwrap_or_default();
            put_nested(tag, out, |out| put_int(1, nanos as u64, out));
        }
        Kind::IntOrString => put_nested(tag, out, |out| {
            put_int(1, value.is_string().into(), out);
            put_int(2, value.as_i64().unwrap_or_default() as u64, out);
            put_bytes(3, text().as_bytes(), out);
        }),
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json | Kind::Any => put_nested(tag, out, |out| {
            if !value.is_null() {
                let mut json = Vec::new();
                write_any(value, &mut json);
                put_bytes(1, &json, out);
            }
        }),
        Kind::Strings => put_nested(tag, out, |out| put_strings(1, value, out)),
        Kind::SchemaOrBool(schema) => put_nested(tag, out, |out| {
            put_int(1, (value.as_bool().unwrap_or_default() || value.is_object()).into(), out);
            if value.is_object() {
                put_value(2, schema, value, view, out);
            }
        }),
        Kind::SchemaOrArray(schema) => put_nested(tag, out, |out| match value {
            Value::Object(_) => put_value(1, schema, value, view, out),
            Value::Array(list) => list.iter().for_each(|value| put_value(2, schema, value, view, out)),
            _ => {}
        }),
        Kind::SchemaOrStrings(schema) => put_nested(tag, out, |out| match value {
            Value::Object(_) => put_value(1, schema, value, view, out),
            _ => put_strings(2, value, out),
        }),
        Kind::Message(_) | Kind::Foreign(_) => put_nested(tag, out, |out| {
            let empty = Map::new();
            if let Some(view) = view.of(kind) {
                put_message(value.as_object().unwrap_or(&empty), view, out);
            }
        }),
        // Lists of lists and maps of maps have no protobuf form.
        Kind::List(_) | Kind::Map(_) => {}
    }
}

fn put_strings(tag: u32, value: &Value, out: &mut Vec<u8>) {
    for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
        put_bytes(tag, text.as_bytes(), out);
    }
}

fn put_time(tag: u32, time: Option<time::Time>, out: &mut Vec<u8>) {
    put_nested(tag, out, |out| {
        if let Some(time) = time.filter(|time| !time::is_zero(*time)) {
            put_int(1, time.timestamp() as u64, out);
            put_int(2, time.timestamp_subsec_nanos().into(), out);
        }
    });
}
