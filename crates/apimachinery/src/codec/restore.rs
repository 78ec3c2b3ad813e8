//! What Go says of a tree that does not fit a struct. It takes trees into structs (strategic merge patches alone) by
//! another way than bodies, which is more lenient and has words of its own.

use serde_json::Value;

use crate::schema::{Kind, Schema, View};

/// What keeps a tree from being an object of the type; `None` where nothing does that this way has words for.
pub fn restore_error(value: &Value, schema: &Schema) -> Option<String> {
    walk(value, &Kind::Foreign(schema.clone()), "", schema.view())
}

fn walk(value: &Value, kind: &Kind, go_type: &str, view: View<'_>) -> Option<String> {
    let got = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    match (kind, value) {
        (Kind::Message(_) | Kind::Foreign(_), value) => {
            let view = view.of(kind)?;
            let Value::Object(map) = value else { return Some(format!("cannot restore struct from: {got}")) };
            let mut fields = view.fields().iter();
            fields.find_map(|field| walk(map.get(&*field.name)?, &field.kind, &field.go_type, view))
        }
        (Kind::Map(of), Value::Object(map)) => {
            map.values().find_map(|value| walk(value, &of.value, go_type, view))
        }
        (Kind::Map(_), _) => Some(format!("cannot restore map from {got}")),
        (Kind::List(of), Value::Array(list)) => {
            list.iter().find_map(|value| walk(value, &of.element, go_type, view))
        }
        (Kind::Strings, Value::Array(list)) => {
            list.iter().find_map(|value| walk(value, &Kind::String, "", view))
        }
        (Kind::Bytes, Value::String(_)) => None,
        (Kind::List(_) | Kind::Strings | Kind::Bytes, _) => Some(format!("cannot restore slice from {got}")),
        (Kind::String, Value::Number(_)) if got == "int64" => {
            let wanted = if go_type.is_empty() { "string" } else { go_type };
            Some(format!("cannot convert int64 to {wanted}"))
        }
        (Kind::String, Value::String(_)) | (Kind::Bool, Value::Bool(_)) => None,
        (Kind::String, _) => Some("unrecognized type: string".to_owned()),
        (Kind::Bool, _) => Some("unrecognized type: bool".to_owned()),
        (Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float64, value) => {
            let wanted = match kind {
                Kind::Int32 => "int32",
                Kind::Int64 => "int64",
                Kind::Uint32 => "uint32",
                _ => "float64",
            };
            match value {
                Value::Number(number)
                    if wanted != "float64" && number.as_f64().is_some_and(|n| n.fract() != 0.0) =>
                {
                    Some(format!("cannot convert float64 to {wanted}"))
                }
                Value::Number(_) => None,
                _ => Some(format!("unrecognized type: {wanted}")),
            }
        }
        // these read themselves
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_that_are_no_objects() {
        let schema = Schema::builtin("k8s.io.api.apps.v1", "Deployment").unwrap();
        for (tree, expected) in [
            (json!({"spec": {"replicas": 1, "paused": true, "selector": null}}), None),
            (json!({"spec": {"replicas": "abc"}}), Some("unrecognized type: int32")),
            (json!({"spec": {"replicas": 1.5}}), Some("cannot convert float64 to int32")),
            (json!({"spec": {"paused": "yes"}}), Some("unrecognized type: bool")),
            (json!({"spec": "x"}), Some("cannot restore struct from: string")),
            (json!({"metadata": {"labels": {"a": 1}}}), Some("cannot convert int64 to string")),
            (json!({"metadata": {"labels": {"a": true}}}), Some("unrecognized type: string")),
            (json!({"metadata": {"labels": []}}), Some("cannot restore map from slice")),
            (json!({"metadata": {"finalizers": "x"}}), Some("cannot restore slice from string")),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": 1}}}}),
                Some("cannot convert int64 to v1.RestartPolicy"),
            ),
        ] {
            assert_eq!(restore_error(&tree, &schema).as_deref(), expected, "{tree}");
        }
    }
}
