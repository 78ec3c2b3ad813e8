//! HorizontalPodAutoscalers. The rules are those of `autoscaling/v2`; objects of v1 are judged as what they convert to.

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::conversion::{DEFAULT_CPU_UTILIZATION, cpu_metric, to_v2};
use super::metrics::{self, Versions};
use crate::core::defaults::{child, set};
use crate::strategy::{Strategy, keep_status};
use crate::validation::at::At;

pub struct Autoscalers;

impl Strategy for Autoscalers {
    fn default(&self, object: &mut Object) {
        let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        set(spec, "minReplicas", 1);
        let metrics = spec.get("metrics").and_then(Value::as_array);
        if metrics.is_none_or(Vec::is_empty) {
            spec.insert("metrics".into(), json!([cpu_metric(&json!(DEFAULT_CPU_UTILIZATION))]));
        }
        if let Some(behavior) = child(spec, "behavior") {
            default_rules(
                behavior,
                "scaleUp",
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            default_rules(
                behavior,
                "scaleDown",
                json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
            );
            if let Some(up) = child(behavior, "scaleUp") {
                set(up, "stabilizationWindowSeconds", 0);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.remove(&["status"]);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validate(object, None)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        validate(object, Some(old))
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> ErrorList {
        let status = At::root(object).child("status");
        let mut errors = status.child("currentReplicas").non_negative();
        errors.extend(status.child("desiredReplicas").non_negative());
        errors
    }
}

fn default_rules(behavior: &mut Map<String, Value>, key: &str, policies: Value) {
    set(behavior, key, json!({}));
    let Some(rules) = child(behavior, key) else { return };
    set(rules, "selectPolicy", "Max");
    set(rules, "policies", policies);
}

/// An autoscaler that could go down to nothing still may, and versions that were not judged once are not now.
fn validate(object: &Object, old: Option<&Object>) -> ErrorList {
    let spec = At::root(object).child("spec");
    let before = old.map(|old| At::of(old, &["spec"]));
    let was_zero = before.as_ref().is_some_and(|old| old.number("minReplicas") == Some(0));
    let least = i64::from(!was_zero);
    let target = spec.child("scaleTargetRef");
    let same = before
        .as_ref()
        .map(|old| old.child("scaleTargetRef"))
        .is_some_and(|old| ["apiVersion", "kind"].iter().all(|key| old.text(key) == target.text(key)));
    let of_target = match target.text("kind") {
        _ if same => Versions::Whatever,
        "ReplicationController" => Versions::Readable,
        _ => Versions::OfAGroup,
    };
    let of_metrics = before.as_ref().map_or(Versions::Readable, Versions::of_metrics_after);
    let (low, high) = (spec.child("minReplicas"), spec.child("maxReplicas"));
    let max = high.int().unwrap_or_default();
    let mut errors = ErrorList::new();
    if low.int().is_some_and(|replicas| replicas < least) {
        errors.push(low.invalid(format!("must be greater than or equal to {least}")));
    }
    if max < 1 {
        errors.push(Error::invalid(&high.path, max, "must be greater than 0"));
    }
    if low.int().is_some_and(|low| max < low) {
        errors.push(Error::invalid(&high.path, max, "must be greater than or equal to `minReplicas`"));
    }
    errors.extend(metrics::reference(&target, of_target));
    let all = spec.child("metrics");
    for metric in all.items() {
        errors.extend(metrics::metric(&metric, of_metrics));
    }
    let from_outside = all.items().any(|metric| matches!(metric.text("type"), "Object" | "External"));
    if low.int() == Some(0) && !from_outside {
        errors.push(all.forbidden(
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    errors.extend(metrics::behavior(&spec.child("behavior")));
    errors
}

/// The same for `autoscaling/v1`.
pub struct AutoscalersV1;

fn converted(object: &Object) -> Object {
    let mut object = object.clone();
    to_v2(&mut object);
    object
}

impl Strategy for AutoscalersV1 {
    /// The default for processors comes with the conversion, which knows the annotations.
    fn default(&self, object: &mut Object) {
        if let Some(spec) = object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) {
            set(spec, "minReplicas", 1);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        Autoscalers.prepare_for_create(object);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        Autoscalers.validate(&converted(object))
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        Autoscalers.validate_update(&converted(object), &converted(old))
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> ErrorList {
        Autoscalers.validate_status_update(object, old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn autoscaler(spec: Value) -> Object {
        let mut object = Object::from(json!({"spec": {
            "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
        }}));
        for (key, value) in spec.as_object().into_iter().flatten() {
            object.set(&["spec", key], value.clone());
        }
        Autoscalers.default(&mut object);
        object
    }

    #[test]
    fn defaults() {
        let object = autoscaler(json!({"behavior": {"scaleUp": {"selectPolicy": "Min"}}}));
        assert_eq!(object.get(&["spec", "metrics"]), Some(&json!([cpu_metric(&json!(80))])));
        assert_eq!(
            object.get(&["spec", "behavior"]),
            Some(&json!({
                "scaleUp": {"selectPolicy": "Min", "stabilizationWindowSeconds": 0, "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]},
                "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
            }))
        );
        check(Autoscalers.validate(&object), &[]);
    }

    #[test]
    fn what_is_wrong_with_an_autoscaler() {
        let metric = |metric: Value| json!({"metrics": [metric]});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"minReplicas": 0, "maxReplicas": 0, "scaleTargetRef": {"name": "a/b"}}),
                vec![
                    "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                    "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                    "spec.scaleTargetRef.kind: Required value",
                    "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                json!({"minReplicas": 5}),
                vec!["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
            ),
            (
                metric(json!({"type": "Resource"})),
                vec![
                    "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                ],
            ),
            (
                metric(
                    json!({"type": "Pods", "pods": {"metric": {}, "target": {"type": "Odd", "averageValue": "-1"}}, "resource": {}}),
                ),
                vec![
                    "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
                    "spec.metrics[0].pods.target.type: Invalid value: \"Odd\": must be either Utilization, Value, or AverageValue",
                    "spec.metrics[0].pods.target.averageValue: Invalid value: \"-1\": must be positive",
                    "spec.metrics[0].resource: Forbidden: must populate the given metric source only",
                ],
            ),
            (
                metric(json!({"type": "ContainerResource", "containerResource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0, "averageValue": "1"},
                }})),
                vec![
                    "spec.metrics[0].containerResource.container: Required value: must specify a container",
                    "spec.metrics[0].containerResource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                    "spec.metrics[0].containerResource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
                ],
            ),
            (
                json!({"behavior": {"scaleDown": {
                    "stabilizationWindowSeconds": 4000, "selectPolicy": "Odd",
                    "policies": [{"type": "Odd", "value": 0, "periodSeconds": 2000}],
                }}}),
                vec![
                    "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
                    "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"",
                    "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Odd\": supported values: \"Percent\", \"Pods\"",
                    "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 2000: must be less than or equal to 1800",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(Autoscalers.validate(&autoscaler(spec)), &expected);
        }
    }

    #[test]
    fn v1_is_judged_by_the_same_rules() {
        let mut object = Object::from(json!({"spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}, "targetCPUUtilizationPercentage": 0,
        }}));
        AutoscalersV1.default(&mut object);
        check(
            AutoscalersV1.validate(&object),
            &[
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ],
        );
    }

    #[test]
    fn versions_of_references() {
        let target = |kind: &str, version: &str| {
            autoscaler(json!({"scaleTargetRef": {"kind": kind, "name": "web", "apiVersion": version}}))
        };
        let missing =
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group";
        let unreadable =
            "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c";
        for (kind, version, expected) in [
            ("Deployment", "apps/v1", None),
            ("Deployment", "v1", Some(missing)),
            ("Deployment", "a/b/c", Some(unreadable)),
            ("ReplicationController", "v1", None),
            ("ReplicationController", "", None),
            ("ReplicationController", "a/b/c", Some(unreadable)),
        ] {
            let expected: Vec<&str> = expected.into_iter().collect();
            check(Autoscalers.validate(&target(kind, version)), &expected);
            check(Autoscalers.validate_update(&target(kind, version), &target(kind, version)), &[]);
            check(Autoscalers.validate_update(&target(kind, version), &target("Other", version)), &expected);
        }
        let metric = |version: &str| {
            autoscaler(json!({"metrics": [{"type": "Object", "object": {
                "describedObject": {"kind": "Service", "name": "s", "apiVersion": version},
                "metric": {"name": "m"}, "target": {"type": "Value", "value": "1"},
            }}]}))
        };
        let unreadable = "spec.metrics[0].object.describedObject.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c";
        check(Autoscalers.validate(&metric("v1")), &[]);
        check(Autoscalers.validate(&metric("a/b/c")), &[unreadable]);
        check(Autoscalers.validate_update(&metric("a/b/c"), &metric("v1")), &[unreadable]);
        check(Autoscalers.validate_update(&metric("a/b/c"), &metric("d/e/f")), &[]);
    }
}
