//! ReplicaSets.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::{self, child, set};
use crate::printers::{AGE, NAME, column, count, selector, template_containers, wide};
use crate::strategy::Strategy;
use crate::validation;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Wanted replicas.", |s, _| json!(count(s, &["spec", "replicas"]))),
    column("Current", "integer", "Replicas there are.", |s, _| json!(count(s, &["status", "replicas"]))),
    column("Ready", "integer", "Ready replicas.", |s, _| json!(count(s, &["status", "readyReplicas"]))),
    AGE,
    wide("Containers", "string", "Names of the containers.", |s, _| json!(template_containers(s, "name"))),
    wide("Images", "string", "Images of the containers.", |s, _| json!(template_containers(s, "image"))),
    wide("Selector", "string", "Which pods belong.", |s, _| json!(selector(s, &["spec", "selector"]))),
];

pub struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, set_: &mut Object) {
        let Some(spec) = set_.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "replicas", 1);
        if let Some(template) = child(spec, "template").and_then(|template| child(template, "spec")) {
            defaults::pod_spec(template);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"replicas": 0}));
        object.set_generation(1);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validation::replica_set(object)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        validation::replica_set_update(object, old)
    }
}
