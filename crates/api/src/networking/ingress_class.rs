//! Ingress classes: which controller takes care of an ingress.

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, bump_generation, reset_status_for_create};
use crate::validation::at::At;
use crate::validation::forms::unchanged;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "The controller of the class.", |class, _| {
        json!(class.get_str(&["spec", "controller"]))
    }),
    column("Parameters", "string", "A resource with more parameters.", |class, _| {
        let text = |key: &str| class.get_str(&["spec", "parameters", key]);
        if class.get(&["spec", "parameters"]).is_none() {
            return json!("<none>");
        }
        let group = text("apiGroup");
        let kind =
            if group.is_empty() { text("kind").to_owned() } else { format!("{}.{group}", text("kind")) };
        json!(format!("{kind}/{}", text("name")))
    }),
    AGE,
];

const MAX_CONTROLLER: usize = 250;

pub struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, class: &mut Object) {
        if class.get(&["spec", "parameters"]).is_some()
            && class.get(&["spec", "parameters", "scope"]).is_none()
        {
            class.set(&["spec", "parameters", "scope"], "Cluster");
        }
    }

    fn prepare_for_create(&self, class: &mut Object) {
        reset_status_for_create(class);
        class.set_generation(1);
    }

    fn prepare_for_update(&self, class: &mut Object, old: &Object) {
        bump_generation(class, old);
    }

    fn validate(&self, class: &Object) -> ErrorList {
        validate(&At::root(class).child("spec"))
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(class).child("spec"), At::root(old).child("spec"));
        let mut errors = unchanged(&new.child("controller"), &old.child("controller"));
        errors.extend(validate(&new));
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn validate(spec: &At<'_>) -> ErrorList {
    let controller = spec.child("controller");
    let mut errors = ErrorList::new();
    if controller.len() > MAX_CONTROLLER {
        errors.push(controller.too_long(MAX_CONTROLLER));
    }
    errors.extend(controller.domain_prefixed_path());
    let parameters = spec.child("parameters");
    if parameters.is_set() {
        errors.extend(self::parameters(&parameters));
    }
    errors
}

fn parameters(parameters: &At<'_>) -> ErrorList {
    let mut errors = local_reference(parameters);
    let (scope, namespace) = (parameters.child("scope"), parameters.child("namespace"));
    if !scope.is_set() {
        errors.push(scope.required(""));
        return errors;
    }
    match scope.str() {
        "Namespace" if !namespace.is_set() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => {
            errors.extend(namespace.wrong(names::name_is_dns_label(namespace.str(), false)));
        }
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Cluster" => {}
        other => errors.push(Error::not_supported(&scope.path, other, &["Cluster", "Namespace"])),
    }
    errors
}

/// Group, kind and name of an object that somebody else knows.
pub fn local_reference(reference: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let group = reference.child("apiGroup");
    if group.is_set() {
        errors.extend(group.subdomain());
    }
    errors.extend(reference.child("kind").required_path_segment());
    errors.extend(reference.child("name").required_path_segment());
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_class() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({"controller": "example.com/ingress"}), vec![]),
            (
                json!({"parameters": {"kind": "K"}}),
                vec!["spec.controller: Required value", "spec.parameters.name: Required value"],
            ),
            (
                json!({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}),
                vec!["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
            (
                json!({"controller": "a.b/c", "parameters": {"kind": "K", "namespace": "n"}}),
                vec![
                    "spec.parameters.name: Required value",
                    "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
                ],
            ),
            (
                json!({"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "World"}}),
                vec![
                    "spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let mut class = Object::from(json!({"spec": spec}));
            IngressClasses.default(&mut class);
            check(IngressClasses.validate(&class), &expected);
        }
    }
}
