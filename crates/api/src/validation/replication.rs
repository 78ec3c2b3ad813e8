//! Replication controllers and pod templates as objects of their own.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::selectors::LabelSelector;
use apimachinery::{Object, Value};

use super::value::{int, non_negative, number, supported};
use super::{pod, value};

pub fn replication_controller(controller: &Object) -> ErrorList {
    controller_with(controller, None)
}

pub fn replication_controller_update(controller: &Object, old: &Object) -> ErrorList {
    controller_with(controller, old.get(&["spec", "template"]))
}

fn controller_with(controller: &Object, old_template: Option<&Value>) -> ErrorList {
    let none = Value::Null;
    let spec = controller.get(&["spec"]).unwrap_or(&none);
    let path = Path::new("spec");
    let mut errors = non_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    let selector = spec.get("selector").and_then(Value::as_object).filter(|labels| !labels.is_empty());
    if selector.is_none() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    errors.extend(non_negative(&path.child("replicas"), int(spec, "replicas")));
    let at = path.child("template");
    let Some(template) = value::field(spec, "template") else {
        errors.push(Error::required(&at, ""));
        return errors;
    };
    let template = Object::from(template.clone());
    if let Some(selector) = selector
        && !LabelSelector::from_set(selector).matches_object(&template)
    {
        let labels = template.get(&["metadata", "labels"]).cloned().unwrap_or_default();
        let why = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at.child("metadata").child("labels"), labels, why));
    }
    errors.extend(match old_template {
        Some(old) => pod::template_update(&template, &Object::from(old.clone()), &at),
        None => pod::template(&template, &at),
    });
    let spec_path = at.child("spec");
    let policy = template.get_str(&["spec", "restartPolicy"]);
    errors.extend(supported(policy, &["Always"], &spec_path.child("restartPolicy")));
    if template.get(&["spec", "activeDeadlineSeconds"]).is_some() {
        let why = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.push(Error::forbidden(&spec_path.child("activeDeadlineSeconds"), why));
    }
    errors
}

pub fn replication_controller_status_update(controller: &Object) -> ErrorList {
    const COUNTS: [&str; 4] = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let none = Value::Null;
    let status = controller.get(&["status"]).unwrap_or(&none);
    let path = Path::new("status");
    let mut errors = ErrorList::new();
    for key in COUNTS.iter().chain(&["observedGeneration"]) {
        errors.extend(non_negative(&path.child(key), int(status, key)));
    }
    for key in &COUNTS[1..] {
        if number(status, key) > number(status, "replicas") {
            let why = "cannot be greater than status.replicas";
            errors.push(Error::invalid(&path.child(key), number(status, key), why));
        }
    }
    if number(status, "availableReplicas") > number(status, "readyReplicas") {
        let available = number(status, "availableReplicas");
        let why = "cannot be greater than readyReplicas";
        errors.push(Error::invalid(&path.child("availableReplicas"), available, why));
    }
    errors
}

pub fn pod_template(object: &Object) -> ErrorList {
    let template = Object::from(object.get(&["template"]).cloned().unwrap_or_default());
    pod::template(&template, &Path::new("template"))
}

pub fn pod_template_update(object: &Object, old: &Object) -> ErrorList {
    let of = |object: &Object| Object::from(object.get(&["template"]).cloned().unwrap_or_default());
    pod::template_update(&of(object), &of(old), &Path::new("template"))
}
