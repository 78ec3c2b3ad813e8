//! The v2 document as `openapi.v2.Document`.

use serde_json::Value;

use super::{Message, additional_properties, any, map, named, named_each, security_requirement, wrapped};

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
    out.each(12, of, "security", security_requirement);
    out.one(13, of, "securityDefinitions", |definitions| {
        named_each(definitions, |definition| {
            let mut key = Message::default();
            for (field, member) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                key.string(field, definition, member);
            }
            wrapped(2, key)
        })
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
        named_each(responses, |response| {
            let mut one = Message::default();
            one.string(1, response, "description");
            one.one(2, response, "schema", |body| wrapped(1, schema(body)));
            wrapped(1, one)
        })
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
    named_each(schemas, schema)
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
    out.one(21, of, "additionalProperties", |value| additional_properties(value, schema));
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

    use super::super::tests::fields;
    use super::*;

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
