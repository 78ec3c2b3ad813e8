//! Reading fields of a tree where it does not matter at which path they stand: absent and ill-typed fields read as
//! their zero value. Rules read through [`At`](super::at::At), which knows the path.

use apimachinery::Value;
use apimachinery::quantity::Quantity;

/// The text at a key of a map, empty when there is none.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The text at a key that is there, which may be empty.
pub fn optional<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The list at a key of a map, empty when there is none.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The strings of the list at a key.
pub fn strings<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    list(value, key).iter().map(|entry| entry.as_str().unwrap_or_default()).collect()
}

/// The entries of the map at a key, none when there is no map.
pub fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

pub fn int(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// The number at a key, zero when there is none.
pub fn number(value: &Value, key: &str) -> i64 {
    int(value, key).unwrap_or_default()
}

pub fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// What stands at a key, unless that is nothing.
pub fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|value| !value.is_null())
}

/// Whether something stands at a key.
pub fn has(value: &Value, key: &str) -> bool {
    field(value, key).is_some()
}

/// Whether something other than a zero value stands at a key.
pub fn is_set(value: &Value, key: &str) -> bool {
    match value.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// A quantity as it is shown in a message.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether an amount has no fraction.
pub fn is_whole(amount: &Quantity) -> bool {
    let whole = amount.value();
    whole == i64::MAX || whole == i64::MIN || Quantity::new(whole, amount.format()) == *amount
}

/// A struct as upstream shows its internal types, which have no names of JSON: Go's field names, in Go's order.
pub fn go_struct(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}
