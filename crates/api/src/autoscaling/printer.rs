//! How `kubectl get` shows an autoscaler.

use apimachinery::{Object, Value};
use serde_json::json;

use super::conversion::to_v2;
use crate::catalogue::{Column, Now};
use crate::printers::{AGE, NAME, column, count};

const fn columns(targets: fn(&Object, &Now) -> Value) -> [Column; 7] {
    [
        NAME,
        column("Reference", "string", "What is scaled.", |a, _| {
            let text = |key: &str| a.get_str(&["spec", "scaleTargetRef", key]).to_owned();
            json!(format!("{}/{}", text("kind"), text("name")))
        }),
        column("Targets", "string", "Metrics as they are, of what they should be.", targets),
        column("MinPods", "string", "The fewest replicas.", |a, _| {
            match a.get_i64(&["spec", "minReplicas"]) {
                Some(replicas) => json!(replicas.to_string()),
                None => json!("<unset>"),
            }
        }),
        column("MaxPods", "string", "The most replicas.", |a, _| json!(count(a, &["spec", "maxReplicas"]))),
        column("Replicas", "string", "Replicas there are.", |a, _| {
            json!(count(a, &["status", "currentReplicas"]))
        }),
        AGE,
    ]
}

pub const COLUMNS: &[Column] = &columns(|a, _| json!(targets(a)));
pub const V1_COLUMNS: &[Column] = &columns(|a, _| {
    let mut a = a.clone();
    to_v2(&mut a);
    json!(targets(&a))
});

const SHOWN: usize = 2;

fn targets(autoscaler: &Object) -> String {
    let specs = autoscaler.get_array(&["spec", "metrics"]);
    let statuses = autoscaler.get_array(&["status", "currentMetrics"]);
    if specs.is_empty() {
        return "<none>".into();
    }
    let all: Vec<String> =
        specs.iter().enumerate().map(|(index, spec)| target(spec, statuses.get(index))).collect();
    match all.len() {
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

fn target(spec: &Value, status: Option<&Value>) -> String {
    let field = match spec["type"].as_str().unwrap_or_default() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(percent) => format!("{percent}%"),
        _ => String::new(),
    };
    let wanted = |key: &str| spec[field]["target"].get(key).map(shown);
    let current = |key: &str| {
        status
            .and_then(|status| status.get(field)?.get("current")?.get(key))
            .map_or("<unknown>".into(), shown)
    };
    let name = spec[field]["name"].as_str().unwrap_or_default();
    match (field, wanted("averageValue")) {
        ("pods", average) => format!("{}/{}", current("averageValue"), average.unwrap_or_default()),
        ("external" | "object", Some(average)) => format!("{}/{average} (avg)", current("averageValue")),
        ("external" | "object", None) => {
            format!("{}/{}", current("value"), wanted("value").unwrap_or_default())
        }
        (_, Some(average)) => format!("{name}: {}/{average}", current("averageValue")),
        (_, None) => {
            let wanted = wanted("averageUtilization").unwrap_or_else(|| "<auto>".into());
            format!("{name}: {}/{wanted}", current("averageUtilization"))
        }
    }
}

/// Of a scale, whatever it scales.
pub const SCALE_COLUMNS: &[Column] = &[
    Column { format: "", ..NAME },
    column("Desired", "integer", "Wanted replicas.", |s, _| json!(count(s, &["spec", "replicas"]))),
    column("Available", "integer", "Replicas there are.", |s, _| json!(count(s, &["status", "replicas"]))),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_summed_up() {
        let cpu = |percent: i64| json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": percent}}});
        let external = json!({"type": "External", "external": {"target": {"averageValue": "5"}}});
        let cases = [
            (json!([]), json!([]), "<none>"),
            (json!([cpu(80)]), json!([]), "cpu: <unknown>/80%"),
            (
                json!([cpu(80), external, cpu(1)]),
                json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]),
                "cpu: 7%/80%, <unknown>/5 (avg) + 1 more...",
            ),
        ];
        for (metrics, current, expected) in cases {
            let object =
                Object::from(json!({"spec": {"metrics": metrics}, "status": {"currentMetrics": current}}));
            assert_eq!(targets(&object), expected);
        }
    }
}
