//! Deployments.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use super::template;
use crate::catalogue::Column;
use crate::core::defaults::{child, set};
use crate::printers::{AGE, NAME, column, count, selector, template_containers, wide};
use crate::strategy::{
    Strategy, bump_generation, keep_spec, keep_status, reset_status_for_create, restore_at,
};
use crate::validation::at::At;
use crate::validation::forms::{not_decremented, unchanged};

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
        template::default(spec);
    }

    fn prepare_for_create(&self, deployment: &mut Object) {
        reset_status_for_create(deployment);
        template::drop_gated(deployment, None);
    }

    fn validate(&self, deployment: &Object) -> ErrorList {
        validate(&At::root(deployment).child("spec"), None)
    }

    fn validate_update(&self, deployment: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(deployment).child("spec"), At::root(old).child("spec"));
        let mut errors = validate(&new, Some(&old));
        errors.extend(unchanged(&new.child("selector"), &old.child("selector")));
        errors
    }

    fn validate_status_update(&self, deployment: &Object, old: &Object) -> ErrorList {
        let (status, old) = (At::root(deployment).child("status"), At::root(old).child("status"));
        let all = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        let mut errors =
            template::counters(&status, &all, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
        errors.extend(template::available_of_ready(&status, "readyReplicas"));
        errors.extend(not_decremented(&status.child("collisionCount"), &old.child("collisionCount")));
        errors
    }

    /// A change of annotations counts as a change: the revision history depends on it.
    fn prepare_for_update(&self, deployment: &mut Object, old: &Object) {
        keep_status(deployment, old);
        template::drop_gated(deployment, Some(old));
        bump_generation(deployment, old);
        if deployment.annotations() != old.annotations() {
            deployment.set_generation(old.generation() + 1);
        }
    }

    fn prepare_for_status_update(&self, deployment: &mut Object, old: &Object) {
        keep_spec(deployment, old);
        restore_at(deployment, old, &["metadata", "labels"]);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata", "labels"]],
            _ => &[&["status"]],
        }
    }

    fn warnings_on_create(&self, deployment: &Object) -> Vec<String> {
        let mut warnings = template::name_warning(deployment);
        warnings.extend(template::warnings(deployment));
        warnings
    }

    fn warnings_on_update(&self, deployment: &Object, old: &Object) -> Vec<String> {
        template::warnings_on_update(deployment, old)
    }
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let mut errors = spec.child("replicas").non_negative();
    errors.extend(template::selector(spec, "deployment"));
    errors.extend(super::replica_set::pods(spec, old));
    errors.extend(strategy(&spec.child("strategy")));
    errors.extend(spec.child("minReadySeconds").non_negative());
    errors.extend(spec.child("revisionHistoryLimit").non_negative());
    let deadline = spec.child("progressDeadlineSeconds");
    errors.extend(deadline.non_negative());
    let ready = spec.number("minReadySeconds").unwrap_or_default();
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
    errors
}

fn strategy(strategy: &At<'_>) -> ErrorList {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" if rolling.is_set() => {
            vec![rolling.forbidden("may not be specified when strategy `type` is 'Recreate'")]
        }
        "Recreate" => ErrorList::new(),
        "RollingUpdate" if !rolling.is_set() => {
            vec![rolling.required("this should be defaulted and never be nil")]
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            let mut errors = unavailable.int_or_percent();
            errors.extend(surge.int_or_percent());
            if unavailable.number_of_percent() == 0 && surge.number_of_percent() == 0 {
                errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            errors.extend(unavailable.not_more_than_100_percent());
            errors
        }
        _ => {
            let valid = ["Recreate", "RollingUpdate"];
            let error = Error::not_supported(&strategy.path, "", &valid);
            vec![error.showing(template::strategy_text(strategy))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn deployment() -> Object {
        Object::from(json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                "containers": [{"name": "c", "image": "i"}],
            }},
        }}))
    }

    fn with(change: impl Fn(&mut Object)) -> ErrorList {
        let mut object = deployment();
        change(&mut object);
        Deployments.default(&mut object);
        Deployments.validate(&object)
    }

    #[test]
    fn a_template_is_warned_of_when_it_is_new() {
        let mut object = deployment();
        object.set(&["spec", "template", "spec", "nodeSelector"], json!({"beta.kubernetes.io/os": "linux"}));
        let warning = "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead";
        assert_eq!(Deployments.warnings_on_create(&object), [warning]);
        assert_eq!(Deployments.warnings_on_update(&object, &object), Vec::<String>::new());
        let mut moved = object.clone();
        moved.set_generation(2);
        assert_eq!(Deployments.warnings_on_update(&moved, &object), [warning]);
    }

    #[test]
    fn what_is_wrong_with_a_deployment() {
        check(with(|_| {}), &[]);
        check(
            with(|d| {
                d.set(&["spec", "template", "metadata", "labels", "app"], "b");
                d.set(
                    &["spec", "strategy"],
                    json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
                );
            }),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            with(|d| {
                d.remove(&["spec", "selector"]);
                d.set(&["spec", "replicas"], -1);
                d.set(&["spec", "strategy"], json!({"type": "Odd", "rollingUpdate": {"maxSurge": "25%"}}));
                d.set(&["spec", "minReadySeconds"], 700);
            }),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                "spec.strategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":{\"MaxUnavailable\":0,\"MaxSurge\":\"25%\"}}: supported values: \"Recreate\", \"RollingUpdate\"",
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            ],
        );
        check(
            with(|d| {
                d.set(&["spec", "selector"], json!({}));
                d.set(&["spec", "template", "spec", "restartPolicy"], "Never");
                d.set(&["spec", "strategy"], json!({"type": "Recreate", "rollingUpdate": {}}));
            }),
            &[
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        );
    }

    #[test]
    fn selectors_stay_and_generations_move() {
        let mut old = deployment();
        Deployments.default(&mut old);
        Deployments.prepare_for_create(&mut old);
        let mut new = old.clone();
        new.set(&["spec", "selector", "matchLabels"], json!({"app": "a", "b": "c"}));
        new.set(&["spec", "template", "metadata", "labels"], json!({"app": "a", "b": "c"}));
        Deployments.prepare_for_update(&mut new, &old);
        assert_eq!((old.generation(), new.generation()), (1, 2));
        check(
            Deployments.validate_update(&new, &old),
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable",
            ],
        );
        let mut annotated = old.clone();
        annotated.set(&["metadata", "annotations"], json!({"a": "b"}));
        annotated.set(&["status", "replicas"], 3);
        Deployments.prepare_for_update(&mut annotated, &old);
        assert_eq!((annotated.generation(), annotated.get(&["status"])), (2, None));
    }

    #[test]
    fn statuses_add_up() {
        let old = Object::from(json!({"status": {"collisionCount": 2}}));
        let new =
            Object::from(json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}}));
        check(
            Deployments.validate_status_update(&new, &old),
            &[
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ],
        );
    }
}
