//! Replication controllers and pod templates as objects of their own.

use apimachinery::field::{Error, ErrorList};
use apimachinery::selectors::LabelSelector;
use apimachinery::{Object, Value};
use serde_json::Map;

use super::at::At;
use super::pod;

pub fn replication_controller(controller: &Object) -> ErrorList {
    controller_with(controller, None)
}

pub fn replication_controller_update(controller: &Object, old: &Object) -> ErrorList {
    controller_with(controller, old.get(&["spec", "template"]))
}

fn controller_with(controller: &Object, old_template: Option<&Value>) -> ErrorList {
    let spec = At::of(controller, &["spec"]);
    let mut errors = spec.child("minReadySeconds").non_negative();
    errors.extend(spec.child("selector").must_be_set());
    errors.extend(spec.child("replicas").non_negative());
    let template = spec.child("template");
    if !template.is_set() {
        errors.push(template.required(""));
        return errors;
    }
    let selector = spec.child("selector").value.as_object().filter(|labels| !labels.is_empty());
    let labels = template.child("metadata").child("labels");
    if let Some(selector) = selector
        && !LabelSelector::from_set(selector).matches(labels.value.as_object().unwrap_or(&Map::new()))
    {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    errors.extend(match old_template {
        Some(old) => pod::template_update(&template, old),
        None => pod::template(&template),
    });
    let pods = template.child("spec");
    errors.extend(pods.child("restartPolicy").among(&["Always"]));
    if let Some(deadline) = pods.field("activeDeadlineSeconds") {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicationController is not Supported"));
    }
    errors
}

pub fn replication_controller_status_update(controller: &Object) -> ErrorList {
    const COUNTS: [&str; 4] = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let status = At::of(controller, &["status"]);
    let mut errors = ErrorList::new();
    for key in COUNTS.iter().chain(&["observedGeneration"]) {
        errors.extend(status.child(key).non_negative());
    }
    for count in COUNTS[1..].iter().map(|key| status.child(key)) {
        if count.int_or_zero() > status.number_or_zero("replicas") {
            let why = "cannot be greater than status.replicas";
            errors.push(Error::invalid(&count.path, count.int_or_zero(), why));
        }
    }
    let available = status.child("availableReplicas");
    if available.int_or_zero() > status.number_or_zero("readyReplicas") {
        errors.push(available.invalid("cannot be greater than readyReplicas"));
    }
    errors
}

pub fn pod_template(object: &Object) -> ErrorList {
    pod::template(&At::of(object, &["template"]))
}

pub fn pod_template_update(object: &Object, old: &Object) -> ErrorList {
    pod::template_update(&At::of(object, &["template"]), At::of(old, &["template"]).value)
}
