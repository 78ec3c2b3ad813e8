//! ConfigMaps and Secrets.

use apimachinery::Object;
use apimachinery::Value;
use apimachinery::field::ErrorList;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;

fn len(object: &Object, key: &str) -> usize {
    object.get(&[key]).and_then(Value::as_object).map_or(0, |map| map.len())
}

pub const CONFIG_MAP_COLUMNS: &[Column] = &[
    NAME,
    column("Data", "integer", "How many entries there are.", |map, _| {
        json!(len(map, "data") + len(map, "binaryData"))
    }),
    AGE,
];

pub const SECRET_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "What kind of secret it is.", |secret, _| json!(secret.get_str(&["type"]))),
    column("Data", "integer", "How many entries there are.", |secret, _| json!(len(secret, "data"))),
    AGE,
];

pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn prepare_for_create(&self, _map: &mut Object) {}

    fn prepare_for_update(&self, _map: &mut Object, _old: &Object) {}

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn validate(&self, map: &Object) -> ErrorList {
        crate::validation::config_map(map)
    }

    fn validate_update(&self, map: &Object, old: &Object) -> ErrorList {
        crate::validation::config_map_update(map, old)
    }
}

pub struct Secrets;

impl Strategy for Secrets {
    /// `stringData` is a way in only: it becomes `data`.
    fn default(&self, secret: &mut Object) {
        if let Some(Value::Object(strings)) = secret.remove(&["stringData"]) {
            for (key, value) in strings {
                let bytes = value.as_str().unwrap_or_default().as_bytes();
                secret.set(&["data", &key], BASE64.encode(bytes));
            }
        }
        if secret.get_str(&["type"]).is_empty() {
            secret.set(&["type"], "Opaque");
        }
    }

    fn prepare_for_create(&self, _secret: &mut Object) {}

    fn prepare_for_update(&self, _secret: &mut Object, _old: &Object) {}

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn validate(&self, secret: &Object) -> ErrorList {
        crate::validation::secret(secret)
    }

    fn validate_update(&self, secret: &Object, old: &Object) -> ErrorList {
        crate::validation::secret_update(secret, old)
    }
}
