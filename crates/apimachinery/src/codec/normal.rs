//! Whether a tree is in normal form already, told without making a new one: most objects that admission and strategies
//! have looked at are.

use serde_json::{Map, Value};

use super::decode::{is_settled, is_zero_of_other_form};
use super::{MAX_DEPTH, number, scalar};
use crate::schema::{Kind, Schema, Unknown, View};

/// Whether decoding the tree anew would change nothing. `false` where that would take some work to find out.
pub(super) fn is_normal(value: &Value, schema: &Schema) -> bool {
    match value {
        // objects of custom resources keep what their schemas do not know: see `Seed` for their rules
        Value::Object(map) if !schema.is_unstructured() => is_normal_message(map, schema.view(), 1),
        _ => false,
    }
}

fn is_normal_message(map: &Map<String, Value>, view: View<'_>, depth: usize) -> bool {
    let message = view.message();
    let fields = map.iter().all(|(key, value)| match view.field(key) {
        Some(field) if value.is_null() => is_settled(view, field, value),
        Some(field) => is_settled(view, field, value) && is_normal_value(value, &field.kind, view, depth),
        None => match &message.unknown {
            Unknown::Prune => false,
            Unknown::Keep => is_normal_value(value, &Kind::Any, view, depth),
            Unknown::Typed(kind) => is_normal_value(value, kind, view, depth),
        },
    });
    let is_there = |(index, _): &(u16, Value)| map.contains_key(&*message.fields[usize::from(*index)].name);
    fields && depth <= MAX_DEPTH && view.zeros().iter().all(is_there)
}

fn is_normal_value(value: &Value, kind: &Kind, view: View<'_>, depth: usize) -> bool {
    if matches!(kind, Kind::Any | Kind::Json | Kind::RawExtension | Kind::FieldsV1) {
        return is_normal_any(value, depth);
    }
    match value {
        Value::Null => true,
        Value::Bool(_) => matches!(kind, Kind::Bool | Kind::SchemaOrBool(_)),
        Value::Number(number) => {
            let in_range = match kind {
                Kind::Int32 | Kind::IntOrString => {
                    number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
                }
                Kind::Uint32 => number.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
                Kind::Int64 => number.as_i64().is_some(),
                Kind::Float64 => true,
                _ => false,
            };
            in_range && number::canonical(number.clone()) == *number
        }
        Value::String(text) => match kind {
            Kind::String | Kind::IntOrString => true,
            _ => {
                matches!(scalar::from_string(kind, text.clone()), Some(Ok(canonical)) if canonical == *value)
            }
        },
        Value::Array(list) => {
            let element = match kind {
                Kind::List(list) => &list.element,
                Kind::Strings | Kind::SchemaOrStrings(_) => &Kind::String,
                Kind::SchemaOrArray(schema) => schema,
                _ => return false,
            };
            depth < MAX_DEPTH && list.iter().all(|item| is_normal_part(item, element, view, depth + 1))
        }
        Value::Object(map) => match (view.of(kind), kind) {
            (Some(view), _) => depth < MAX_DEPTH && is_normal_message(map, view, depth + 1),
            (None, Kind::Map(of)) => {
                depth < MAX_DEPTH
                    && map.values().all(|value| is_normal_part(value, &of.value, view, depth + 1))
            }
            _ => false,
        },
    }
}

/// An item of a list or a value of a map.
fn is_normal_part(value: &Value, kind: &Kind, view: View<'_>, depth: usize) -> bool {
    !is_zero_of_other_form(view, kind, value) && is_normal_value(value, kind, view, depth)
}

fn is_normal_any(value: &Value, depth: usize) -> bool {
    match value {
        Value::Number(number) => number::canonical(number.clone()) == *number,
        Value::Array(list) => depth < MAX_DEPTH && list.iter().all(|item| is_normal_any(item, depth + 1)),
        Value::Object(map) => depth < MAX_DEPTH && map.values().all(|value| is_normal_any(value, depth + 1)),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::Decoder;
    use super::*;
    use proptest::prelude::*;
    use serde::de::DeserializeSeed;
    use serde_json::json;

    /// What decoding makes of a tree, where it does.
    fn decoded(value: &Value, schema: &Schema) -> Option<Value> {
        let mut decoder = Decoder::lenient();
        let read = decoder.root(schema).deserialize(value.clone()).ok()?;
        Some(decoder.finish(read, schema).ok()?.object.into_value())
    }

    /// Trees of a schema, right and wrong in all ways, as bytes decide.
    struct Whims<'b>(std::slice::Iter<'b, u8>);

    impl Whims<'_> {
        fn next(&mut self) -> u8 {
            self.0.next().copied().unwrap_or_default()
        }

        fn message(&mut self, view: View<'_>, depth: usize) -> Value {
            let mut map = Map::new();
            for (index, zero) in view.zeros() {
                map.insert(view.fields()[usize::from(*index)].name.to_string(), zero.clone());
            }
            for _ in 0..self.next() % 4 {
                let fields = view.fields();
                let Some(field) = fields.get(usize::from(self.next()) % fields.len().max(1)) else { break };
                map.insert(field.name.to_string(), self.value(&field.kind, view, depth + 1));
            }
            match self.next() {
                255 => _ = map.insert("nobodyKnowsThis".into(), json!(1)),
                254 => map.retain(|key, _| key.len().is_multiple_of(2)),
                _ => {}
            }
            Value::Object(map)
        }

        fn value(&mut self, kind: &Kind, view: View<'_>, depth: usize) -> Value {
            let odd =
                [json!(null), json!(""), json!(0), json!({}), json!([]), json!(true), json!(2.0), json!("x")];
            let byte = self.next();
            if byte >= 240 || depth > 6 {
                return odd[usize::from(byte) % odd.len()].clone();
            }
            let of = |texts: &[&str]| json!(texts[usize::from(byte) % texts.len()]);
            match kind {
                Kind::Bool | Kind::SchemaOrBool(_) if byte < 120 => json!(!byte.is_multiple_of(4)),
                Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float64 => {
                    [json!(byte), json!(-1), json!(0), json!(1u64 << 40), json!(1.5)][usize::from(byte) % 5]
                        .clone()
                }
                Kind::IntOrString => [json!(byte), json!("50%"), json!(0)][usize::from(byte) % 3].clone(),
                Kind::Bytes => of(&["YQ==", "", "YQ=\n=", "?"]),
                Kind::Quantity => of(&["1", "1000m", "0.5", "1Ki", "", "x"]),
                Kind::Time => {
                    of(&["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "0001-01-01T00:00:00Z"])
                }
                Kind::MicroTime => of(&["2024-01-01T00:00:00.000001Z", "2024-01-01T00:00:00Z"]),
                Kind::Duration => of(&["1s", "1000ms", "1m0s"]),
                Kind::List(list) => {
                    (0..byte % 3).map(|_| self.value(&list.element, view, depth + 1)).collect()
                }
                Kind::Map(map) => {
                    let entry = |n| (format!("k{n}"), self.value(&map.value, view, depth + 1));
                    Value::Object((0..byte % 3).map(entry).collect())
                }
                _ => match view.of(kind) {
                    Some(view) => self.message(view, depth),
                    None => of(&["a", "b", ""]),
                },
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn normal_is_what_decoding_leaves_alone(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..6usize) {
            let (package, kind) = [
                ("k8s.io.api.core.v1", "Pod"), ("k8s.io.api.core.v1", "Secret"), ("k8s.io.api.apps.v1", "Deployment"),
                ("k8s.io.api.core.v1", "PersistentVolumeClaim"), ("k8s.io.api.coordination.v1", "Lease"),
                ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1", "CustomResourceDefinition"),
            ][kind];
            let schema = Schema::builtin(package, kind).unwrap();
            let tree = Whims(bytes.iter()).message(schema.view(), 0);
            let after = decoded(&tree, &schema);
            prop_assert_eq!(is_normal(&tree, &schema), after.as_ref() == Some(&tree), "{}", tree);
            if let Some(after) = after {
                prop_assert!(is_normal(&after, &schema), "{}", after);
            }
        }
    }
}
