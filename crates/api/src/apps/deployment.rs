//! Deployments.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::{self, child, set};
use crate::printers::{AGE, NAME, column, count, selector, template_containers, wide};
use crate::strategy::{Strategy, bump_generation, keep_status, restore};
use crate::validation;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Ready replicas of wanted replicas.", |d, _| {
        json!(format!("{}/{}", count(d, &["status", "readyReplicas"]), count(d, &["spec", "replicas"])))
    }),
    column("Up-to-date", "string", "Replicas of the newest template.", |d, _| {
        json!(count(d, &["status", "updatedReplicas"]))
    }),
    column("Available", "string", "Replicas that have been ready long enough.", |d, _| {
        json!(count(d, &["status", "availableReplicas"]))
    }),
    AGE,
    wide("Containers", "string", "Names of the containers.", |d, _| json!(template_containers(d, "name"))),
    wide("Images", "string", "Images of the containers.", |d, _| json!(template_containers(d, "image"))),
    wide("Selector", "string", "Which pods belong.", |d, _| json!(selector(d, &["spec", "selector"]))),
];

pub struct Deployments;

impl Strategy for Deployments {
    fn default(&self, deployment: &mut Object) {
        let Some(spec) = deployment.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else {
            return;
        };
        set(spec, "replicas", 1);
        set(spec, "revisionHistoryLimit", 10);
        set(spec, "progressDeadlineSeconds", 600);
        set(spec, "strategy", json!({}));
        if let Some(strategy) = child(spec, "strategy") {
            set(strategy, "type", "RollingUpdate");
            if strategy.get("type") == Some(&json!("RollingUpdate")) {
                set(strategy, "rollingUpdate", json!({}));
                if let Some(rolling) = child(strategy, "rollingUpdate") {
                    set(rolling, "maxUnavailable", "25%");
                    set(rolling, "maxSurge", "25%");
                }
            }
        }
        if let Some(template) = child(spec, "template").and_then(|template| child(template, "spec")) {
            defaults::pod_spec(template);
        }
    }

    fn validate(&self, deployment: &Object) -> ErrorList {
        validation::deployment(deployment)
    }

    fn validate_update(&self, deployment: &Object, old: &Object) -> ErrorList {
        validation::deployment_update(deployment, old)
    }

    /// A change of annotations counts as a change: the revision history depends on it.
    fn prepare_for_update(&self, deployment: &mut Object, old: &Object) {
        keep_status(deployment, old);
        bump_generation(deployment, old);
        if deployment.annotations() != old.annotations() {
            deployment.set_generation(old.generation() + 1);
        }
    }

    fn prepare_for_status_update(&self, deployment: &mut Object, old: &Object) {
        restore(deployment, old, "spec");
        match old.labels() {
            Some(labels) => deployment.set(&["metadata", "labels"], labels.clone()),
            None => {
                deployment.remove(&["metadata", "labels"]);
            }
        }
    }
}
