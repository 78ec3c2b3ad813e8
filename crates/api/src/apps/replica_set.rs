//! ReplicaSets.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use super::template;
use crate::catalogue::Column;
use crate::core::defaults::set;
use crate::printers::{AGE, NAME, column, count, selector, template_containers, wide};
use crate::strategy::{Strategy, bump_generation, keep_status};
use crate::validation::at::At;
use crate::validation::forms::unchanged;

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
    fn default(&self, object: &mut Object) {
        let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "replicas", 1);
        template::default(spec);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"replicas": 0}));
        object.set_generation(1);
        template::drop_gated(object, None);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
        template::drop_gated(object, Some(old));
        bump_generation(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validate(&At::root(object).child("spec"), None)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(object).child("spec"), At::root(old).child("spec"));
        let mut errors = validate(&new, Some(&old));
        errors.extend(unchanged(&new.child("selector"), &old.child("selector")));
        errors
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> ErrorList {
        let status = At::root(object).child("status");
        let all = [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ];
        let bounded = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        let mut errors = template::counters(&status, &all, &bounded);
        errors.extend(template::available_of_ready(&status, "readyReplicas"));
        errors
    }

    fn warnings_on_create(&self, object: &Object) -> Vec<String> {
        let mut warnings = template::name_warning(object);
        warnings.extend(template::warnings(object));
        warnings
    }

    fn warnings_on_update(&self, object: &Object, old: &Object) -> Vec<String> {
        template::warnings_on_update(object, old)
    }
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = spec.child("replicas").non_negative();
    errors.extend(spec.child("minReadySeconds").non_negative());
    errors.extend(template::selector(spec, "deployment"));
    errors.extend(pods(spec, old));
    errors
}

/// The template of a ReplicaSet, or of a Deployment, which makes them.
pub fn pods(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let Some(mut errors) = template::matches(spec) else {
        return vec![spec.child("selector").invalid("invalid label selector")];
    };
    let template = spec.child("template");
    errors.extend(template::pods(&template, old.map(|old| old.child("template")).as_ref()));
    errors.extend(template::runs_for_ever(&template, "ReplicaSet"));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn templates_fit_their_selector() {
        let mut set = Object::from(json!({"spec": {
            "minReadySeconds": -1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "c", "image": "i"}]}},
        }}));
        ReplicaSets.default(&mut set);
        check(
            ReplicaSets.validate(&set),
            &[
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        );
    }
}
