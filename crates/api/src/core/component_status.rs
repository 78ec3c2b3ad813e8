//! ComponentStatus: what upstream still answers about the parts of its control plane. Nothing is stored.

use apimachinery::Object;
use serde_json::{Value, json};

use crate::catalogue::Column;
use crate::printers::{NAME, column};
use crate::strategy::Strategy;

fn healthy<'a>(object: &'a Object, key: &str) -> &'a str {
    let conditions = object.get_array(&["conditions"]);
    let found = conditions.iter().find(|condition| condition["type"] == "Healthy");
    found.and_then(|condition| condition.get(key)?.as_str()).unwrap_or_default()
}

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the component is well.", |object, _| {
        json!(match healthy(object, "status") {
            "" => "Unknown",
            "True" => "Healthy",
            _ => "Unhealthy",
        })
    }),
    column("Message", "string", "What the component says of itself.", |object, _| -> Value {
        json!(healthy(object, "message"))
    }),
    column("Error", "string", "What went wrong when it was asked.", |object, _| {
        json!(healthy(object, "error"))
    }),
];

pub struct ComponentStatuses;

impl Strategy for ComponentStatuses {
    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }
}
