//! Replication controllers, and pod templates that stand by themselves.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use super::defaults::{self, child, set};
use super::{gates, warnings};
use crate::catalogue::{Column, Selectable};
use crate::printers::{AGE, NAME, column, count, join, labels, template_containers, wide};
use crate::strategy::{Dependents, Strategy, bump_generation, keep_status, reset_status_for_create};
use crate::validation;
use crate::validation::at::At;

pub const CONTROLLER_SELECTABLE: &[Selectable] =
    &[Selectable { name: "status.replicas", read: |o| count(o, &["status", "replicas"]).to_string() }];

pub const CONTROLLER_COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "How many replicas there should be.", |rc, _| {
        json!(count(rc, &["spec", "replicas"]))
    }),
    column("Current", "integer", "How many replicas there are.", |rc, _| {
        json!(count(rc, &["status", "replicas"]))
    }),
    column("Ready", "integer", "How many of them are ready.", |rc, _| {
        json!(count(rc, &["status", "readyReplicas"]))
    }),
    AGE,
    wide("Containers", "string", "Names of each container in the template.", |rc, _| {
        json!(template_containers(rc, "name"))
    }),
    wide("Images", "string", "Images referenced by each container in the template.", |rc, _| {
        json!(template_containers(rc, "image"))
    }),
    wide("Selector", "string", "Labels of the pods that count.", |rc, _| {
        json!(labels(rc, &["spec", "selector"]))
    }),
];

pub const TEMPLATE_COLUMNS: &[Column] = &[
    NAME,
    column("Containers", "string", "Names of each container in the template.", |template, _| {
        json!(join(template.get_array(&["template", "spec", "containers"]), "name"))
    }),
    column("Images", "string", "Images referenced by each container in the template.", |template, _| {
        json!(join(template.get_array(&["template", "spec", "containers"]), "image"))
    }),
    column("Pod Labels", "string", "The labels for the pod template.", |template, _| {
        json!(labels(template, &["template", "metadata", "labels"]))
    }),
];

pub struct Controllers;

impl Strategy for Controllers {
    fn default(&self, rc: &mut Object) {
        let of_template = rc.get(&["spec", "template", "metadata", "labels"]).cloned();
        let empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(|map| map.is_empty());
        if let Some(labels) = of_template.filter(|labels| !empty(Some(labels))) {
            for path in [&["spec", "selector"], &["metadata", "labels"]] {
                if empty(rc.get(path)) {
                    rc.set(path, labels.clone());
                }
            }
        }
        let Some(spec) = child(rc.as_map_mut(), "spec") else { return };
        set(spec, "replicas", 1);
        if let Some(pod) = child(spec, "template").and_then(|template| child(template, "spec")) {
            defaults::pod_spec(pod);
        }
    }

    fn prepare_for_create(&self, rc: &mut Object) {
        reset_status_for_create(rc);
        gates::pod_spec_at(rc, None, &["spec", "template", "spec"]);
    }

    fn validate(&self, rc: &Object) -> ErrorList {
        validation::replication_controller(rc)
    }

    fn prepare_for_update(&self, rc: &mut Object, old: &Object) {
        keep_status(rc, old);
        gates::pod_spec_at(rc, Some(old), &["spec", "template", "spec"]);
        bump_generation(rc, old);
    }

    fn validate_update(&self, rc: &Object, old: &Object) -> ErrorList {
        validation::replication_controller_update(rc, old)
    }

    fn validate_status_update(&self, rc: &Object, _old: &Object) -> ErrorList {
        validation::replication_controller_status_update(rc)
    }

    fn warnings_on_create(&self, rc: &Object) -> Vec<String> {
        warnings::template(&At::of(rc, &["spec", "template"]))
    }

    /// Of an old template that stays nothing new can be said.
    fn warnings_on_update(&self, rc: &Object, old: &Object) -> Vec<String> {
        if rc.generation() == old.generation() { Vec::new() } else { self.warnings_on_create(rc) }
    }

    fn dependents(&self) -> Dependents {
        Dependents::Orphaned
    }
}

pub struct Templates;

impl Strategy for Templates {
    fn default(&self, template: &mut Object) {
        let spec = child(template.as_map_mut(), "template").and_then(|template| child(template, "spec"));
        if let Some(spec) = spec {
            defaults::pod_spec(spec);
        }
    }

    fn prepare_for_create(&self, template: &mut Object) {
        template.set_generation(1);
        gates::pod_spec_at(template, None, &["template", "spec"]);
    }

    fn validate(&self, template: &Object) -> ErrorList {
        validation::pod_template(template)
    }

    fn prepare_for_update(&self, template: &mut Object, old: &Object) {
        gates::pod_spec_at(template, Some(old), &["template", "spec"]);
        let moved = template.get(&["template"]) != old.get(&["template"]);
        template.set_generation(old.generation() + i64::from(moved));
    }

    fn validate_update(&self, template: &Object, old: &Object) -> ErrorList {
        validation::pod_template_update(template, old)
    }

    fn warnings_on_create(&self, template: &Object) -> Vec<String> {
        warnings::template(&At::of(template, &["template"]))
    }

    fn warnings_on_update(&self, template: &Object, old: &Object) -> Vec<String> {
        if template.generation() == old.generation() { Vec::new() } else { self.warnings_on_create(template) }
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_takes_its_labels_from_its_template() {
        let mut rc =
            Object::from(json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}}));
        Controllers.default(&mut rc);
        assert_eq!(rc.get(&["spec", "selector"]), Some(&json!({"a": "b"})));
        assert_eq!(rc.get(&["metadata", "labels"]), Some(&json!({"a": "b"})));
        assert_eq!(rc.get_i64(&["spec", "replicas"]), Some(1));
    }
}
