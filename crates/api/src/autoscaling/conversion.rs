//! HorizontalPodAutoscalers of `autoscaling/v1` and back. What v1 has no fields for travels in annotations, as
//! upstream writes them, so that nothing is lost on the way.

use apimachinery::{Object, Value};
use serde_json::{Map, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];

/// The utilization that is meant when nobody says what to scale on.
pub const DEFAULT_CPU_UTILIZATION: i64 = 80;

/// The metric that stands for a wanted utilization of processors.
pub fn cpu_metric(utilization: &Value) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": utilization},
    }})
}

/// Turns an object of v1 into one of v2.
pub fn to_v2(object: &mut Object) {
    object.set(&["apiVersion"], "autoscaling/v2");
    let cpu = object.remove(&["spec", "targetCPUUtilizationPercentage"]);
    let current_cpu = object.remove(&["status", "currentCPUUtilizationPercentage"]);
    let mut metrics = annotated_list(object, METRICS, spec_to_v2);
    metrics.extend(cpu.as_ref().map(cpu_metric));
    if metrics.is_empty() {
        metrics.push(cpu_metric(&json!(DEFAULT_CPU_UTILIZATION)));
    }
    if object.get(&["spec"]).is_some() {
        object.set(&["spec", "metrics"], metrics);
        if let Some(behavior) = annotated(object, BEHAVIOR).filter(Value::is_object) {
            object.set(&["spec", "behavior"], behavior);
        }
    }
    let mut statuses = annotated_list(object, CURRENT_METRICS, status_to_v2);
    if let Some(cpu) =
        current_cpu.filter(|_| !statuses.iter().any(|status| cpu_utilization(status, "current").is_some()))
    {
        statuses.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": cpu},
        }}));
    }
    if !statuses.is_empty() {
        object.set(&["status", "currentMetrics"], statuses);
    }
    if let Some(conditions) = annotated(object, CONDITIONS).filter(Value::is_array) {
        object.set(&["status", "conditions"], conditions);
    }
    drop_annotations(object);
}

/// Turns an object of v2 into one of v1.
pub fn to_v1(object: &mut Object) {
    object.set(&["apiVersion"], "autoscaling/v1");
    drop_annotations(object);
    let mut annotate = Vec::new();
    let metrics = take_list(object, &["spec", "metrics"]);
    if let Some(utilization) = metrics.iter().find_map(|metric| cpu_utilization(metric, "target")) {
        object.set(&["spec", "targetCPUUtilizationPercentage"], utilization);
    }
    let others: Vec<Value> =
        metrics.iter().filter(|metric| cpu_utilization(metric, "target").is_none()).map(spec_to_v1).collect();
    if !others.is_empty() {
        annotate.push((METRICS, json!(others)));
    }
    let statuses = take_list(object, &["status", "currentMetrics"]);
    if let Some(utilization) = statuses.iter().find_map(|status| cpu_utilization(status, "current")) {
        object.set(&["status", "currentCPUUtilizationPercentage"], utilization);
    }
    if !statuses.is_empty() {
        let statuses: Vec<Value> = statuses.iter().map(status_to_v1).collect();
        annotate.push((CURRENT_METRICS, json!(statuses)));
    }
    if let Some(behavior) = object.remove(&["spec", "behavior"]) {
        annotate.push((BEHAVIOR, behavior));
    }
    let conditions = take_list(object, &["status", "conditions"]);
    if !conditions.is_empty() {
        annotate.push((CONDITIONS, json!(conditions)));
    }
    for (key, value) in annotate {
        object.set(&["metadata", "annotations", key], value.to_string());
    }
}

fn annotated(object: &Object, key: &str) -> Option<Value> {
    serde_json::from_str(object.annotation(key)?).ok()
}

fn annotated_list(object: &Object, key: &str, convert: fn(&Value) -> Value) -> Vec<Value> {
    let list = annotated(object, key);
    list.as_ref().and_then(Value::as_array).into_iter().flatten().map(convert).collect()
}

fn drop_annotations(object: &mut Object) {
    for key in ANNOTATIONS {
        object.remove(&["metadata", "annotations", key]);
    }
    if object.annotations().is_some_and(Map::is_empty) {
        object.remove(&["metadata", "annotations"]);
    }
}

fn take_list(object: &mut Object, path: &[&str]) -> Vec<Value> {
    match object.remove(path) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The utilization of processors that a metric or a status is about.
fn cpu_utilization(metric: &Value, side: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|_| metric["type"] == "Resource")?;
    let utilization = resource.get(side)?.get("averageUtilization")?;
    (resource["name"] == "cpu").then(|| utilization.clone())
}

/// Builds a map of what there is.
fn build<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(present.filter(|(_, value)| !value.is_null()).collect())
}

/// A quantity that v1 writes even when there is none.
fn always(value: Option<Value>) -> Option<Value> {
    Some(value.unwrap_or(json!("0")))
}

/// Converts the one source that a metric or status has, by a function for each kind of source.
fn sources(metric: &Value, convert: impl Fn(&str, &Value) -> Value) -> Value {
    let mut out = Map::new();
    for (key, value) in metric.as_object().into_iter().flatten() {
        let value = if key == "type" { value.clone() } else { convert(key, value) };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn spec_to_v2(metric: &Value) -> Value {
    sources(metric, |kind, source| {
        let get = |key: &str| source.get(key).cloned();
        let target = |kind: &str, fields: [(&str, Option<Value>); 3]| {
            let [a, b, c] = fields;
            build([("type", Some(json!(kind))), a, b, c])
        };
        let (value, average) = (get("targetValue"), get("targetAverageValue"));
        match kind {
            "object" => {
                let average = get("averageValue");
                let kind = if average.is_some() { "AverageValue" } else { "Value" };
                build([
                    ("describedObject", get("target")),
                    ("metric", Some(build([("name", get("metricName")), ("selector", get("selector"))]))),
                    ("target", Some(target(kind, [("value", value), ("averageValue", average), ("", None)]))),
                ])
            }
            "pods" => build([
                ("metric", Some(build([("name", get("metricName")), ("selector", get("selector"))]))),
                ("target", Some(target("AverageValue", [("averageValue", average), ("", None), ("", None)]))),
            ]),
            "resource" | "containerResource" => {
                let utilization = get("targetAverageUtilization");
                let kind = if utilization.is_some() { "Utilization" } else { "AverageValue" };
                build([
                    ("name", get("name")),
                    ("container", get("container")),
                    (
                        "target",
                        Some(target(
                            kind,
                            [("averageUtilization", utilization), ("averageValue", average), ("", None)],
                        )),
                    ),
                ])
            }
            _ => {
                let kind = if value.is_some() { "Value" } else { "AverageValue" };
                build([
                    (
                        "metric",
                        Some(build([("name", get("metricName")), ("selector", get("metricSelector"))])),
                    ),
                    ("target", Some(target(kind, [("value", value), ("averageValue", average), ("", None)]))),
                ])
            }
        }
    })
}

fn spec_to_v1(metric: &Value) -> Value {
    sources(metric, |kind, source| {
        let get = |key: &str| source.get(key).cloned();
        let name = || source.pointer("/metric/name").cloned();
        let selector = || source.pointer("/metric/selector").cloned();
        let target = |key: &str| source.get("target").and_then(|target| target.get(key)).cloned();
        match kind {
            "object" => build([
                ("target", get("describedObject")),
                ("metricName", name()),
                ("targetValue", always(target("value"))),
                ("selector", selector()),
                ("averageValue", target("averageValue")),
            ]),
            "pods" => build([
                ("metricName", name()),
                ("targetAverageValue", always(target("averageValue"))),
                ("selector", selector()),
            ]),
            "resource" | "containerResource" => build([
                ("name", get("name")),
                ("targetAverageUtilization", target("averageUtilization")),
                ("targetAverageValue", target("averageValue")),
                ("container", get("container")),
            ]),
            _ => build([
                ("metricName", name()),
                ("metricSelector", selector()),
                ("targetValue", target("value")),
                ("targetAverageValue", target("averageValue")),
            ]),
        }
    })
}

fn status_to_v2(status: &Value) -> Value {
    sources(status, |kind, source| {
        let get = |key: &str| source.get(key).cloned();
        let metric = |selector: &str| Some(build([("name", get("metricName")), ("selector", get(selector))]));
        let (value, average) = (get("currentValue"), get("currentAverageValue"));
        match kind {
            "object" => build([
                ("describedObject", get("target")),
                ("metric", metric("selector")),
                ("current", Some(build([("value", value), ("averageValue", get("averageValue"))]))),
            ]),
            "pods" => {
                build([("metric", metric("selector")), ("current", Some(build([("averageValue", average)])))])
            }
            "resource" | "containerResource" => build([
                ("name", get("name")),
                ("container", get("container")),
                (
                    "current",
                    Some(build([
                        ("averageUtilization", get("currentAverageUtilization")),
                        ("averageValue", average),
                    ])),
                ),
            ]),
            _ => build([
                ("metric", metric("metricSelector")),
                ("current", Some(build([("value", value), ("averageValue", average)]))),
            ]),
        }
    })
}

fn status_to_v1(status: &Value) -> Value {
    sources(status, |kind, source| {
        let get = |key: &str| source.get(key).cloned();
        let name = || source.pointer("/metric/name").cloned();
        let selector = || source.pointer("/metric/selector").cloned();
        let current = |key: &str| source.get("current").and_then(|current| current.get(key)).cloned();
        match kind {
            "object" => build([
                ("target", get("describedObject")),
                ("metricName", name()),
                ("currentValue", always(current("value"))),
                ("selector", selector()),
                ("averageValue", current("averageValue")),
            ]),
            "pods" => build([
                ("metricName", name()),
                ("currentAverageValue", always(current("averageValue"))),
                ("selector", selector()),
            ]),
            "resource" | "containerResource" => build([
                ("name", get("name")),
                ("currentAverageUtilization", current("averageUtilization")),
                ("currentAverageValue", always(current("averageValue"))),
                ("container", get("container")),
            ]),
            _ => build([
                ("metricName", name()),
                ("metricSelector", selector()),
                ("currentValue", always(current("value"))),
                ("currentAverageValue", current("averageValue")),
            ]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(spec: Value) -> (Object, Object) {
        let v2 = Object::from(json!({
            "apiVersion": "autoscaling/v2", "metadata": {"annotations": {"mine": "stays"}}, "spec": spec,
            "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]},
        }));
        let mut v1 = v2.clone();
        to_v1(&mut v1);
        let mut back = v1.clone();
        to_v2(&mut back);
        assert_eq!(back, v2);
        (v1, back)
    }

    #[test]
    fn what_v1_has_no_fields_for_comes_back() {
        let (v1, _) = there_and_back(json!({
            "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "behavior": {"scaleDown": {"selectPolicy": "Min"}},
            "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {
                    "describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "Value", "value": "7"},
                }},
                {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                {"type": "ContainerResource", "containerResource": {
                    "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50},
                }},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            ],
        }));
        assert_eq!(v1.get_i64(&["spec", "targetCPUUtilizationPercentage"]), Some(60));
        assert_eq!(v1.annotation("mine"), Some("stays"));
        let metrics: Value = serde_json::from_str(v1.annotation(METRICS).unwrap_or_default()).unwrap();
        assert_eq!(
            metrics[0],
            json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
        );
        assert_eq!(metrics[1]["pods"], json!({"metricName": "rps", "targetAverageValue": "5"}));
        assert_eq!(v1.annotation(BEHAVIOR), Some("{\"scaleDown\":{\"selectPolicy\":\"Min\"}}"));
    }

    #[test]
    fn v1_alone_means_processors() {
        for (spec, utilization) in
            [(json!({"maxReplicas": 2}), 80), (json!({"targetCPUUtilizationPercentage": 30}), 30)]
        {
            let mut object = Object::from(json!({"apiVersion": "autoscaling/v1", "spec": spec}));
            to_v2(&mut object);
            assert_eq!(object.get(&["spec", "metrics"]), Some(&json!([cpu_metric(&json!(utilization))])));
        }
    }

    #[test]
    fn odd_annotations_are_passed_over() {
        let mut object = Object::from(json!({
            "metadata": {"annotations": {METRICS: "{", CONDITIONS: "3", BEHAVIOR: "[]", CURRENT_METRICS: "[1, null]"}},
            "spec": {},
        }));
        to_v2(&mut object);
        assert_eq!(object.annotations(), None);
        assert_eq!(object.get(&["spec", "behavior"]), None);
    }

    #[test]
    fn statuses_come_back() {
        let status = json!({"currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "100m"}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "3"}}},
        ]});
        let v2 = Object::from(json!({
            "apiVersion": "autoscaling/v2", "spec": {"metrics": [cpu_metric(&json!(5))]}, "status": status,
        }));
        let mut object = v2.clone();
        to_v1(&mut object);
        assert_eq!(object.get_i64(&["status", "currentCPUUtilizationPercentage"]), Some(12));
        to_v2(&mut object);
        object.remove(&["metadata"]);
        assert_eq!(object, v2);
    }
}
