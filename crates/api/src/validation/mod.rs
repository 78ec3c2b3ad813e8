//! Validation: what is wrong with an object, all of it at once, in upstream's words and at upstream's paths.

pub(crate) mod at;
mod config;
#[allow(dead_code)]
pub(crate) mod forms;
pub mod pod;
mod service;

pub use config::{config_map, config_map_update, secret, secret_update};
pub use pod::{pod, pod_update};
pub use service::{service, service_update};

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};

/// The text at a key of a map, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a key of a map, empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One error per message.
pub(crate) fn invalid(path: &Path, value: impl Into<Value>, messages: Vec<String>) -> ErrorList {
    let value = value.into();
    messages.into_iter().map(|message| Error::invalid(path, value.clone(), message)).collect()
}

pub(crate) fn non_negative(path: &Path, value: Option<i64>) -> ErrorList {
    match value {
        Some(number) if number < 0 => {
            vec![Error::invalid(path, number, "must be greater than or equal to 0")]
        }
        _ => ErrorList::new(),
    }
}

/// The error of a field that changed and may not.
pub(crate) fn immutable(path: &Path, new: &Object, old: &Object, key: &[&str]) -> ErrorList {
    let (new, old) = (new.get(key), old.get(key));
    if new == old {
        return ErrorList::new();
    }
    vec![Error::invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable")]
}
