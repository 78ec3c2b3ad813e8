//! The documents of v3 as `openapi.v3.Document`.

use serde_json::Value;

use super::{Message, additional_properties, any, map, named, named_each, security_requirement, wrapped};

/// The whole document.
pub fn document(of: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, of, "openapi");
    out.one(2, of, "info", |info| {
        let mut out = Message::default();
        out.string(1, info, "title");
        out.string(2, info, "description");
        out.string(6, info, "version");
        out
    });
    out.one(4, of, "paths", |paths| {
        let mut out = Message::default();
        for (path, item) in map(paths).filter(|(path, _)| path.starts_with('/')) {
            out.message(1, named(path, path_item(item)));
        }
        out.extensions(2, paths);
        out
    });
    out.one(5, of, "components", |components| {
        let mut out = Message::default();
        out.one(1, components, "schemas", |schemas| named_each(schemas, schema_or_reference));
        out.one(7, components, "securitySchemes", |schemes| named_each(schemes, security_scheme));
        out
    });
    out.each(6, of, "security", security_requirement);
    out.extensions(9, of);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    out.string(2, item, "summary");
    out.string(3, item, "description");
    let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    for (field, method) in (4..).zip(methods) {
        out.one(field, item, method, operation);
    }
    out.each(13, item, "parameters", parameter);
    out.extensions(14, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.strings(1, operation, "tags");
    out.string(2, operation, "summary");
    out.string(3, operation, "description");
    out.string(5, operation, "operationId");
    out.each(6, operation, "parameters", parameter);
    out.one(7, operation, "requestBody", |body| {
        let mut out = Message::default();
        out.string(1, body, "description");
        out.one(2, body, "content", media_types);
        out.bool(3, body, "required");
        wrapped(1, out)
    });
    out.one(8, operation, "responses", |responses| {
        let mut out = Message::default();
        out.one(1, responses, "default", response);
        for (code, one) in map(responses).filter(|(code, _)| *code != "default") {
            out.message(2, named(code, response(one)));
        }
        out
    });
    out.bool(10, operation, "deprecated");
    out.extensions(13, operation);
    out
}

fn response(of: &Value) -> Message {
    let mut out = Message::default();
    out.string(1, of, "description");
    out.one(3, of, "content", media_types);
    wrapped(1, out)
}

fn media_types(of: &Value) -> Message {
    named_each(of, |media_type| {
        let mut out = Message::default();
        out.one(1, media_type, "schema", schema_or_reference);
        out
    })
}

fn parameter(parameter: &Value) -> Message {
    let mut out = Message::default();
    for (field, member) in [(1, "name"), (2, "in"), (3, "description")] {
        out.string(field, parameter, member);
    }
    out.bool(4, parameter, "required");
    out.one(10, parameter, "schema", schema_or_reference);
    out.extensions(14, parameter);
    wrapped(1, out)
}

fn security_scheme(of: &Value) -> Message {
    let mut out = Message::default();
    for (field, member) in [(1, "type"), (2, "description"), (3, "name"), (4, "in"), (5, "scheme")] {
        out.string(field, of, member);
    }
    wrapped(1, out)
}

fn schema_or_reference(of: &Value) -> Message {
    if of.get("$ref").is_none() {
        return wrapped(1, schema(of));
    }
    let mut reference = Message::default();
    for (field, member) in [(1, "$ref"), (2, "summary"), (3, "description")] {
        reference.string(field, of, member);
    }
    wrapped(2, reference)
}

fn schema(of: &Value) -> Message {
    let mut out = Message::default();
    out.bool(1, of, "nullable");
    out.bool(3, of, "readOnly");
    out.bool(4, of, "writeOnly");
    out.any(7, of, "example");
    out.bool(8, of, "deprecated");
    out.string(9, of, "title");
    out.double(10, of, "multipleOf");
    out.double(11, of, "maximum");
    out.bool(12, of, "exclusiveMaximum");
    out.double(13, of, "minimum");
    out.bool(14, of, "exclusiveMinimum");
    out.int(15, of, "maxLength");
    out.int(16, of, "minLength");
    out.string(17, of, "pattern");
    out.int(18, of, "maxItems");
    out.int(19, of, "minItems");
    out.bool(20, of, "uniqueItems");
    out.int(21, of, "maxProperties");
    out.int(22, of, "minProperties");
    out.strings(23, of, "required");
    out.each(24, of, "enum", any);
    out.string(25, of, "type");
    for (field, member) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        out.each(field, of, member, schema_or_reference);
    }
    out.one(29, of, "not", schema);
    out.one(30, of, "items", |items| wrapped(1, schema_or_reference(items)));
    out.one(31, of, "properties", |properties| named_each(properties, schema_or_reference));
    out.one(32, of, "additionalProperties", |value| additional_properties(value, schema_or_reference));
    out.one(33, of, "default", default_value);
    out.string(34, of, "description");
    out.string(35, of, "format");
    out.extensions(36, of);
    out
}

/// A `DefaultType`, which has no place for lists and maps: of those it says only that they are there.
fn default_value(of: &Value) -> Message {
    let mut out = Message::default();
    match of {
        Value::Number(number) => out.set_double(1, number.as_f64().unwrap_or_default()),
        Value::Bool(value) => out.set_bool(2, *value),
        Value::String(text) => out.bytes(3, text.as_bytes()),
        Value::Null | Value::Array(_) | Value::Object(_) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::fields;
    use super::*;

    fn numbers(bytes: &[u8]) -> Vec<u64> {
        fields(bytes).iter().map(|(number, _)| *number).collect()
    }

    /// What lies at the end of a path of field numbers, the first of each.
    fn at(bytes: &[u8], path: &[u64]) -> Vec<u8> {
        path.iter().fold(bytes.to_vec(), |bytes, wanted| {
            fields(&bytes).into_iter().find(|(number, _)| number == wanted).expect("the field").1
        })
    }

    #[test]
    fn a_schema_is_found_where_clients_look() {
        let bytes = document(&json!({
            "openapi": "3.0.0", "info": {"title": "t", "version": "v"},
            "components": {"schemas": {"a.B": {
                "type": "object", "description": "d", "required": ["x"],
                "properties": {"x": {"$ref": "#/components/schemas/c", "description": "e"}},
                "x-kubernetes-group-version-kind": [{"kind": "B"}],
            }}},
        }));
        assert_eq!(numbers(&bytes), [1, 2, 5]);
        assert_eq!(numbers(&at(&bytes, &[2])), [1, 6]);
        let named = at(&bytes, &[5, 1, 1]);
        assert_eq!(at(&named, &[1]), b"a.B");
        let schema = at(&named, &[2, 1]);
        assert_eq!(numbers(&schema), [23, 25, 31, 34, 36]);
        let reference = at(&schema, &[31, 1, 2, 2]);
        assert_eq!(at(&reference, &[1]), b"#/components/schemas/c");
        assert_eq!(at(&reference, &[3]), b"e");
        assert_eq!(at(&schema, &[36, 2, 2]), b"[{\"kind\":\"B\"}]\n");
    }

    #[test]
    fn an_operation_is_found_where_clients_look() {
        let content = json!({"application/json": {"schema": {"type": "string"}}});
        let bytes = document(&json!({"paths": {"/a": {
            "parameters": [{"name": "n", "in": "path", "required": true, "schema": {"type": "string"}}],
            "patch": {
                "operationId": "p", "x-kubernetes-action": "patch",
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "requestBody": {"content": content},
                "responses": {"200": {"description": "OK", "content": content}},
            },
        }}}));
        let item = at(&bytes, &[4, 1, 2]);
        assert_eq!(numbers(&item), [10, 13]);
        assert_eq!(numbers(&at(&item, &[13, 1])), [1, 2, 4, 10]);
        let operation = at(&item, &[10]);
        assert_eq!(numbers(&operation), [5, 6, 7, 8, 13]);
        assert_eq!(at(&operation, &[6, 1, 1]), b"fieldValidation");
        assert_eq!(at(&operation, &[7, 1, 2, 1, 1]), b"application/json");
        assert_eq!(at(&operation, &[8, 2, 1]), b"200");
        assert_eq!(at(&operation, &[8, 2, 2, 1, 3, 1, 2, 1, 1, 25]), b"string");
    }

    #[test]
    fn defaults_keep_what_they_can() {
        let of = |value: Value| default_value(&value).0;
        assert_eq!(of(json!({})), b"");
        assert_eq!(of(json!(false)), [2 << 3, 0]);
        assert_eq!(of(json!("")), [3 << 3 | 2, 0]);
        assert_eq!(of(json!(0)), [1 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fields(&schema(&json!({"default": {}})).0), [(33, Vec::new())]);
    }
}
