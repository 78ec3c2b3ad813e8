//! Trees to JSON as Go's encoder writes it: fields in the order of the struct, map keys sorted, HTML escaped.

use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::number::write_number;
use crate::object::Object;
use crate::schema::{Kind, Schema, View};

/// Appends the object as JSON, without a newline. Fields that the schema does not know come last.
pub fn encode_json(object: &Object, schema: &Schema, out: &mut Vec<u8>) {
    write_map(object.as_map(), schema.view(), out);
}

/// Appends any tree as JSON with sorted keys.
pub fn write_any(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(list) => write_list(list, out, write_any),
        Value::Object(map) => write_entries(map.iter(), out, write_any),
    }
}

/// Appends one value of a kind, as in [`encode_json`].
pub(super) fn write_value(value: &Value, kind: &Kind, view: View<'_>, out: &mut Vec<u8>) {
    match (value, kind) {
        (Value::Object(map), _) if let Some(view) = view.of(kind) => write_map(map, view, out),
        (Value::Object(map), Kind::Map(of)) => {
            write_entries(map.iter(), out, |value, out| write_value(value, &of.value, view, out));
        }
        (Value::Array(list), Kind::List(of)) => {
            write_list(list, out, |value, out| write_value(value, &of.element, view, out));
        }
        (Value::Array(list), Kind::SchemaOrArray(element)) => {
            write_list(list, out, |value, out| write_value(value, element, view, out));
        }
        (value, _) => write_any(value, out),
    }
}

fn write_map(map: &Map<String, Value>, view: View<'_>, out: &mut Vec<u8>) {
    if view.unstructured() {
        return write_entries(map.iter(), out, write_any);
    }
    let mut known: SmallVec<[(usize, &Value); 16]> = SmallVec::new();
    let mut unknown = Vec::new();
    for (key, value) in map {
        match view.position(key) {
            Some(position) => known.push((position, value)),
            None => unknown.push((key, value)),
        }
    }
    known.sort_unstable_by_key(|(position, _)| *position);
    out.push(b'{');
    for (at, (position, value)) in known.iter().enumerate() {
        let field = &view.fields()[*position];
        write_key(&field.name, at == 0, out);
        write_value(value, &field.kind, view, out);
    }
    for (at, (key, value)) in unknown.into_iter().enumerate() {
        write_key(key, known.is_empty() && at == 0, out);
        write_any(value, out);
    }
    out.push(b'}');
}

fn write_entries<'a>(
    entries: impl Iterator<Item = (&'a String, &'a Value)>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&Value, &mut Vec<u8>),
) {
    out.push(b'{');
    for (at, (key, value)) in entries.enumerate() {
        write_key(key, at == 0, out);
        write(value, out);
    }
    out.push(b'}');
}

fn write_list(list: &[Value], out: &mut Vec<u8>, mut write: impl FnMut(&Value, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, value) in list.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(value, out);
    }
    out.push(b']');
}

fn write_key(key: &str, first: bool, out: &mut Vec<u8>) {
    if !first {
        out.push(b',');
    }
    write_string(key, out);
    out.push(b':');
}

/// Escapes as `encoding/json` does by default: also `<`, `>`, `&` and the JavaScript line separators.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().copied().enumerate() {
        let separator = byte == 0xe2 && matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
        if byte >= 0x20 && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&') && !separator {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                plain = at + 3;
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_in_go() {
        let mut out = Vec::new();
        write_string("a\"\\\n\u{1}<&>\u{2028}é\u{7f}\u{8}", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"a\\\"\\\\\\n\\u0001\\u003c\\u0026\\u003e\\u2028é\u{7f}\\b\""
        );
    }
}
