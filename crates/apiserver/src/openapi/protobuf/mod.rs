//! OpenAPI documents as the protobuf messages of gnostic that client-go asks for. Encodes what the JSON documents can
//! hold; field numbers are those of the published `OpenAPIv2.proto` and `OpenAPIv3.proto`.

pub mod v2;
pub mod v3;

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: Message) {
        self.bytes(field, &message.0);
    }

    /// A string; the empty one is the default and left out.
    fn string(&mut self, field: u64, of: &Value, key: &str) {
        if let Some(text) = of.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn strings(&mut self, field: u64, of: &Value, key: &str) {
        for text in list(of, key).iter().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn bool(&mut self, field: u64, of: &Value, key: &str) {
        if of.get(key).and_then(Value::as_bool) == Some(true) {
            self.set_bool(field, true);
        }
    }

    fn int(&mut self, field: u64, of: &Value, key: &str) {
        if let Some(number) = of.get(key).and_then(Value::as_i64).filter(|number| *number != 0) {
            self.varint(field << 3);
            self.varint(number.cast_unsigned());
        }
    }

    fn double(&mut self, field: u64, of: &Value, key: &str) {
        if let Some(number) = of.get(key).and_then(Value::as_f64).filter(|number| *number != 0.0) {
            self.set_double(field, number);
        }
    }

    /// A value of any shape: its YAML, of which JSON is one form.
    fn any(&mut self, field: u64, of: &Value, key: &str) {
        if let Some(value) = of.get(key) {
            self.message(field, any(value));
        }
    }

    fn set_double(&mut self, field: u64, number: f64) {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn set_bool(&mut self, field: u64, value: bool) {
        self.varint(field << 3);
        self.varint(value.into());
    }

    fn each(&mut self, field: u64, of: &Value, key: &str, encode: fn(&Value) -> Message) {
        for item in list(of, key) {
            self.message(field, encode(item));
        }
    }

    fn one(&mut self, field: u64, of: &Value, key: &str, encode: fn(&Value) -> Message) {
        if let Some(value) = of.get(key) {
            self.message(field, encode(value));
        }
    }

    /// The `x-…` members of a map.
    fn extensions(&mut self, field: u64, of: &Value) {
        for (name, value) in map(of).filter(|(name, _)| name.starts_with("x-")) {
            self.message(field, named(name, any(value)));
        }
    }
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn map(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flat_map(Map::iter)
}

fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out
}

/// `Named…`: a member of a map.
fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// A message that only holds another: a branch of a `oneof`.
fn wrapped(field: u64, message: Message) -> Message {
    let mut out = Message::default();
    out.message(field, message);
    out
}

/// A map of `NamedSchema` or the like.
fn named_each(of: &Value, encode: fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    for (name, value) in map(of) {
        out.message(1, named(name, encode(value)));
    }
    out
}

/// A `SecurityRequirement`: names of schemes with their scopes.
fn security_requirement(of: &Value) -> Message {
    named_each(of, |scopes| {
        let mut out = Message::default();
        for scope in scopes.as_array().into_iter().flatten().filter_map(Value::as_str) {
            out.bytes(1, scope.as_bytes());
        }
        out
    })
}

/// What the members of a map may be that are not named: anything, nothing more, or what a schema says.
fn additional_properties(of: &Value, schema: fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    match of.as_bool() {
        None => out.message(1, schema(of)),
        Some(allowed) => out.set_bool(2, allowed),
    }
    out
}

#[cfg(test)]
mod tests {
    /// Fields of a message by number, for comparison by eye.
    pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = bytes.split_first().expect("a byte");
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let content = match key & 7 {
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).expect("a length");
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    content.to_vec()
                }
                0 => varint(&mut bytes).to_string().into_bytes(),
                other => panic!("wire type {other}"),
            };
            out.push((key >> 3, content));
        }
        out
    }
}
