//! The v2 document as a protobuf message, `openapi.v2.Document`, which client-go asks for. Encodes what the JSON
//! document can hold; field numbers are those of the published `OpenAPIv2.proto`.

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
            self.varint(field << 3);
            self.varint(1);
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
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A value of any shape: its YAML, of which JSON is one form.
    fn any(&mut self, field: u64, of: &Value, key: &str) {
        if let Some(value) = of.get(key) {
            self.message(field, any(value));
        }
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

/// The whole document.
pub fn document(of: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, of, "swagger");
    out.one(2, of, "info", |info| {
        let mut out = Message::default();
        out.string(1, info, "title");
        out.string(2, info, "version");
        out
    });
    out.strings(5, of, "schemes");
    out.strings(6, of, "consumes");
    out.strings(7, of, "produces");
    out.one(8, of, "paths", |paths| {
        let mut out = Message::default();
        for (path, item) in map(paths) {
            out.message(2, named(path, path_item(item)));
        }
        out
    });
    out.one(9, of, "definitions", named_schemas);
    out.each(12, of, "security", |requirement| {
        let mut out = Message::default();
        for (name, scopes) in map(requirement) {
            let mut values = Message::default();
            for scope in scopes.as_array().into_iter().flatten().filter_map(Value::as_str) {
                values.bytes(1, scope.as_bytes());
            }
            out.message(1, named(name, values));
        }
        out
    });
    out.one(13, of, "securityDefinitions", |definitions| {
        let mut out = Message::default();
        for (name, definition) in map(definitions) {
            let mut key = Message::default();
            for (field, member) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                key.string(field, definition, member);
            }
            out.message(1, named(name, wrapped(2, key)));
        }
        out
    });
    out.extensions(16, of);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        out.one(field, item, method, operation);
    }
    out.each(9, item, "parameters", parameter);
    out.extensions(10, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.strings(1, operation, "tags");
    out.string(2, operation, "summary");
    out.string(3, operation, "description");
    out.string(5, operation, "operationId");
    out.strings(6, operation, "produces");
    out.strings(7, operation, "consumes");
    out.each(8, operation, "parameters", parameter);
    out.one(9, operation, "responses", |responses| {
        let mut out = Message::default();
        for (code, response) in map(responses) {
            let mut one = Message::default();
            one.string(1, response, "description");
            one.one(2, response, "schema", |body| wrapped(1, schema(body)));
            out.message(1, named(code, wrapped(1, one)));
        }
        out
    });
    out.strings(10, operation, "schemes");
    out.bool(11, operation, "deprecated");
    out.extensions(13, operation);
    out
}

/// A `ParametersItem`: of the body, of the path or of the query.
fn parameter(parameter: &Value) -> Message {
    let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
    let mut out = Message::default();
    if place == "body" {
        for (field, member) in [(1, "description"), (2, "name"), (3, "in")] {
            out.string(field, parameter, member);
        }
        out.bool(4, parameter, "required");
        out.one(5, parameter, "schema", schema);
        return wrapped(1, wrapped(1, out));
    }
    out.bool(1, parameter, "required");
    for (field, member) in [(2, "in"), (3, "description"), (4, "name")] {
        out.string(field, parameter, member);
    }
    // those of the query have one field more, so that all after it are shifted
    let (branch, shift) = if place == "query" { (3, 1) } else { (4, 0) };
    out.string(5 + shift, parameter, "type");
    out.string(6 + shift, parameter, "format");
    out.bool(19 + shift, parameter, "uniqueItems");
    wrapped(1, wrapped(2, wrapped(branch, out)))
}

fn named_schemas(schemas: &Value) -> Message {
    let mut out = Message::default();
    for (name, of) in map(schemas) {
        out.message(1, named(name, schema(of)));
    }
    out
}

fn schema(of: &Value) -> Message {
    let mut out = Message::default();
    for (field, member) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        out.string(field, of, member);
    }
    out.any(5, of, "default");
    out.double(7, of, "maximum");
    out.double(9, of, "minimum");
    out.int(11, of, "maxLength");
    out.int(12, of, "minLength");
    out.string(13, of, "pattern");
    out.int(14, of, "maxItems");
    out.int(15, of, "minItems");
    out.bool(16, of, "uniqueItems");
    out.strings(19, of, "required");
    out.each(20, of, "enum", any);
    out.one(21, of, "additionalProperties", |value| match value.as_bool() {
        Some(true) => {
            let mut out = Message::default();
            out.varint(2 << 3);
            out.varint(1);
            out
        }
        Some(false) => Message::default(),
        None => wrapped(1, schema(value)),
    });
    if let Some(name) = of.get("type").and_then(Value::as_str) {
        let mut types = Message::default();
        types.bytes(1, name.as_bytes());
        out.message(22, types);
    }
    out.one(23, of, "items", |items| wrapped(1, schema(items)));
    out.each(24, of, "allOf", schema);
    out.one(25, of, "properties", named_schemas);
    out.extensions(31, of);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fields of a message by number, for comparison by eye.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
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

    #[test]
    fn a_definition_is_found_where_clients_look() {
        let bytes = document(&json!({
            "swagger": "2.0",
            "definitions": {"a.B": {
                "type": "object", "description": "d", "required": ["x"],
                "properties": {"x": {"$ref": "#/definitions/c"}},
                "x-kubernetes-group-version-kind": [{"kind": "B"}],
            }},
        }));
        let top = fields(&bytes);
        assert_eq!(top[0], (1, b"2.0".to_vec()));
        assert_eq!(top[1].0, 9);
        let definition = fields(&fields(&top[1].1)[0].1);
        assert_eq!(definition[0], (1, b"a.B".to_vec()));
        let schema = fields(&definition[1].1);
        let numbers: Vec<u64> = schema.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [4, 19, 22, 25, 31]);
        let extension = fields(&schema[4].1);
        assert_eq!(extension[0].1, b"x-kubernetes-group-version-kind");
        assert_eq!(fields(&extension[1].1)[0], (2, b"[{\"kind\":\"B\"}]\n".to_vec()));
    }

    #[test]
    fn parameters_take_the_branch_of_their_place() {
        let of = |place: &str| {
            let bytes =
                parameter(&json!({"in": place, "name": "n", "type": "string", "uniqueItems": true})).0;
            let inner = fields(&fields(&bytes)[0].1)[0].clone();
            (inner.0, fields(&inner.1)[0].clone())
        };
        let (kind, (branch, query)) = of("query");
        assert_eq!((kind, branch), (2, 3));
        assert_eq!(fields(&query).iter().map(|f| f.0).collect::<Vec<_>>(), [2, 4, 6, 20]);
        let (_, (branch, path)) = of("path");
        assert_eq!(branch, 4);
        assert_eq!(fields(&path).iter().map(|f| f.0).collect::<Vec<_>>(), [2, 4, 5, 19]);
    }
}
