//! DaemonSets. Their template generation lives on in an annotation.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use super::template;
use crate::catalogue::Column;
use crate::core::defaults::{child, set};
use crate::printers::{AGE, NAME, column, count, labels, selector, template_containers, wide};
use crate::strategy::{Strategy, bump_generation, keep_spec, keep_status, reset_status_for_create};
use crate::validation::at::At;
use crate::validation::forms::{not_decremented, unchanged};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Nodes that should run a pod.", |d, _| {
        json!(count(d, &["status", "desiredNumberScheduled"]))
    }),
    column("Current", "integer", "Nodes that should and do run a pod.", |d, _| {
        json!(count(d, &["status", "currentNumberScheduled"]))
    }),
    column("Ready", "integer", "Nodes whose pod is ready.", |d, _| {
        json!(count(d, &["status", "numberReady"]))
    }),
    column("Up-to-date", "integer", "Nodes with a pod of the newest template.", |d, _| {
        json!(count(d, &["status", "updatedNumberScheduled"]))
    }),
    column("Available", "integer", "Nodes whose pod has been ready long enough.", |d, _| {
        json!(count(d, &["status", "numberAvailable"]))
    }),
    column("Node Selector", "string", "Which nodes are asked for.", |d, _| {
        json!(labels(d, &["spec", "template", "spec", "nodeSelector"]))
    }),
    AGE,
    wide("Containers", "string", "Names of the containers.", |d, _| json!(template_containers(d, "name"))),
    wide("Images", "string", "Images of the containers.", |d, _| json!(template_containers(d, "image"))),
    wide("Selector", "string", "Which pods belong.", |d, _| json!(selector(d, &["spec", "selector"]))),
];

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The status of a new object, as it is written: most counters always are.
fn empty_status() -> Value {
    json!({
        "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
    })
}

fn template_generation(object: &Object) -> i64 {
    object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(object: &mut Object, generation: i64) {
    object.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

pub struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Object) {
        let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "updateStrategy", json!({}));
        if let Some(strategy) = child(spec, "updateStrategy") {
            set(strategy, "type", "RollingUpdate");
            if strategy.get("type") == Some(&json!("RollingUpdate")) {
                set(strategy, "rollingUpdate", json!({}));
                if let Some(rolling) = child(strategy, "rollingUpdate") {
                    set(rolling, "maxUnavailable", 1);
                    set(rolling, "maxSurge", 0);
                }
            }
        }
        set(spec, "revisionHistoryLimit", 10);
        template::default(spec);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        reset_status_for_create(object);
        object.set(&["status"], empty_status());
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
        template::drop_gated(object, None);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validate(&At::root(object).child("spec"), None)
    }

    /// Only the server counts templates.
    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
        template::drop_gated(object, Some(old));
        let moved = object.get(&["spec", "template"]) != old.get(&["spec", "template"]);
        set_template_generation(object, template_generation(old) + i64::from(moved));
        bump_generation(object, old);
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(object).child("spec"), At::root(old).child("spec"));
        let mut errors = unchanged(&new.child("selector"), &old.child("selector"));
        errors.extend(validate(&new, Some(&old)));
        errors
    }

    /// The count of templates is part of the spec within.
    fn prepare_for_status_update(&self, object: &mut Object, old: &Object) {
        keep_spec(object, old);
        set_template_generation(object, template_generation(old));
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> ErrorList {
        let (status, old) = (At::root(object).child("status"), At::root(old).child("status"));
        let all = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let mut errors = template::counters(&status, &all, &[]);
        errors.extend(not_decremented(&status.child("collisionCount"), &old.child("collisionCount")));
        errors
    }

    fn warnings_on_create(&self, object: &Object) -> Vec<String> {
        template::warnings(object)
    }

    fn warnings_on_update(&self, object: &Object, old: &Object) -> Vec<String> {
        let moved = template_generation(object) != template_generation(old);
        if moved { template::warnings(object) } else { Vec::new() }
    }
}

fn validate(spec: &At<'_>, old: Option<&At<'_>>) -> ErrorList {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    let mut errors = selector.label_selector_after(old.map(|old| old.child("selector")).as_ref());
    errors.extend(template::matches(spec).unwrap_or_default());
    let empty = selector.child("matchLabels").len() + selector.child("matchExpressions").len() == 0;
    if selector.is_set() && empty {
        errors.push(selector.invalid("empty selector is invalid for daemonset"));
    }
    errors.extend(template::pods(&template, old.map(|old| old.child("template")).as_ref()));
    errors.extend(template::runs_for_ever(&template, "DaemonSet"));
    errors.extend(spec.child("minReadySeconds").non_negative());
    errors.extend(update_strategy(&spec.child("updateStrategy")));
    errors.extend(spec.child("revisionHistoryLimit").non_negative());
    errors
}

fn update_strategy(strategy: &At<'_>) -> ErrorList {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" if !rolling.is_set() => vec![rolling.required("")],
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            let mut errors = unavailable.int_or_percent();
            errors.extend(surge.int_or_percent());
            errors.extend(unavailable.not_more_than_100_percent());
            errors.extend(surge.not_more_than_100_percent());
            match (unavailable.number_of_percent() != 0, surge.number_of_percent() != 0) {
                (true, true) => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
                (false, false) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                _ => {}
            }
            errors
        }
        _ => {
            let valid = ["RollingUpdate", "OnDelete"];
            let error = Error::not_supported(&strategy.path, "", &valid);
            vec![error.showing(template::strategy_text(strategy))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn daemon_set() -> Object {
        let mut object = Object::from(json!({"spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                "containers": [{"name": "c", "image": "i"}],
            }},
        }}));
        DaemonSets.default(&mut object);
        DaemonSets.prepare_for_create(&mut object);
        object
    }

    #[test]
    fn templates_are_counted() {
        let old = daemon_set();
        assert_eq!(old.annotation(TEMPLATE_GENERATION), Some("1"));
        let mut new = old.clone();
        new.set(&["metadata", "annotations", TEMPLATE_GENERATION], "7");
        new.set(&["spec", "minReadySeconds"], 3);
        DaemonSets.prepare_for_update(&mut new, &old);
        assert_eq!((new.annotation(TEMPLATE_GENERATION), new.generation()), (Some("1"), 2));
        new.set(&["spec", "template", "metadata", "labels", "b"], "c");
        DaemonSets.prepare_for_update(&mut new, &old);
        assert_eq!(new.annotation(TEMPLATE_GENERATION), Some("2"));
        let mut status = new.clone();
        status.set(&["metadata", "annotations"], json!({"mine": "moves"}));
        DaemonSets.prepare_for_status_update(&mut status, &new);
        assert_eq!(
            (status.annotation(TEMPLATE_GENERATION), status.annotation("mine")),
            (Some("2"), Some("moves"))
        );
    }

    #[test]
    fn what_is_wrong_with_a_daemon_set() {
        let cases: [(Value, &[&str]); 5] = [
            (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}), &[]),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": "200%"}}),
                &[
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"200%\": must not be greater than 100%",
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"200%\": may not be set when maxUnavailable is non-zero",
                ],
            ),
            (json!({"type": "OnDelete"}), &[]),
            (
                json!({"type": "Odd"}),
                &[
                    "spec.updateStrategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
        ];
        for (strategy, expected) in cases {
            let mut object = daemon_set();
            object.set(&["spec", "updateStrategy"], strategy);
            check(DaemonSets.validate(&object), expected);
        }
    }
}
