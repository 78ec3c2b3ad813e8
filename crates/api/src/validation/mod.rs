//! Validation: what is wrong with an object, all of it at once, in upstream's words and at upstream's paths.

mod config;
mod network;
mod pod;
mod rbac;
mod service;
mod workload;

pub use config::{
    config_map, config_map_update, lease, priority_class, priority_class_update, secret, secret_update,
};
pub use network::{
    endpoint_slice, endpoint_slice_update, ip_address, ip_address_name, ip_address_update, service_cidr,
    service_cidr_update,
};
pub use pod::{pod, pod_update};
pub use rbac::{path_segment_name, role, role_binding, role_binding_update};
pub use service::{service, service_update};
pub use workload::{deployment, deployment_update, replica_set, replica_set_update};

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};

/// The text at a key of a map, empty when there is none.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a key of a map, empty when there is none.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One error per message.
fn invalid(path: &Path, value: impl Into<Value>, messages: Vec<String>) -> ErrorList {
    let value = value.into();
    messages.into_iter().map(|message| Error::invalid(path, value.clone(), message)).collect()
}

fn non_negative(path: &Path, value: Option<i64>) -> ErrorList {
    match value {
        Some(number) if number < 0 => {
            vec![Error::invalid(path, number, "must be greater than or equal to 0")]
        }
        _ => ErrorList::new(),
    }
}

/// The error of a field that changed and may not.
fn immutable(path: &Path, new: &Object, old: &Object, key: &[&str]) -> ErrorList {
    let (new, old) = (new.get(key), old.get(key));
    if new == old {
        return ErrorList::new();
    }
    vec![Error::invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable")]
}
