//! Cells of `kubectl get` that several kinds share.

use apimachinery::{Object, Value};
use chrono::DateTime;
use serde_json::json;

use crate::catalogue::{Column, Now};

pub const fn column(
    name: &'static str,
    r#type: &'static str,
    description: &'static str,
    cell: fn(&Object, &Now) -> Value,
) -> Column {
    Column { name, r#type, format: "", description, priority: 0, cell }
}

/// A column that only `-o wide` shows.
pub const fn wide(
    name: &'static str,
    r#type: &'static str,
    description: &'static str,
    cell: fn(&Object, &Now) -> Value,
) -> Column {
    Column { name, r#type, format: "", description, priority: 1, cell }
}

pub const NAME: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
    cell: |object, _| json!(object.name()),
};

pub const AGE: Column = column("Age", "string", "Time since the object was created.", |object, now| {
    json!(since(object.creation_timestamp(), now))
});

/// The columns of a kind that has no printer of its own.
pub const DEFAULT: &[Column] = &[
    NAME,
    column("Created At", "date", "When the object was created.", |object, _| {
        json!(object.creation_timestamp())
    }),
];

pub fn seconds(rfc3339: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(rfc3339).ok().map(|time| time.timestamp())
}

/// The age since a timestamp, or `<unknown>`.
pub fn since(rfc3339: &str, now: &Now) -> String {
    match seconds(rfc3339) {
        Some(then) => human_duration(now.0 - then),
        None => "<unknown>".into(),
    }
}

/// A duration as `kubectl` shows it: two units at most, fewer the longer it is.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// `text`, or `<none>` when empty.
pub fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// `True`, `False`, or `<unset>`.
pub fn bool_or_unset(value: Option<&Value>) -> Value {
    match value.and_then(Value::as_bool) {
        Some(true) => json!("True"),
        Some(false) => json!("False"),
        None => json!("<unset>"),
    }
}

pub fn count(object: &Object, path: &[&str]) -> i64 {
    object.get_i64(path).unwrap_or_default()
}

/// Names and images of a pod template's containers, each joined by commas.
pub fn template_containers(object: &Object, key: &str) -> String {
    join(object.get_array(&["spec", "template", "spec", "containers"]), key)
}

pub fn join(items: &[Value], key: &str) -> String {
    let texts: Vec<&str> = items.iter().filter_map(|item| item.get(key)?.as_str()).collect();
    texts.join(",")
}

/// `kind.group/name` of the owner that controls an object, `<none>` when there is none.
pub fn controller(object: &Object) -> String {
    let owners = object.owner_references();
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else { return "<none>".into() };
    let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("kind").to_lowercase();
    match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text("name")),
        None => format!("{kind}/{}", text("name")),
    }
}

/// A label selector as one line, `<none>` when it selects nothing in particular.
pub fn selector(object: &Object, path: &[&str]) -> String {
    let Some(selector) = object.get(path) else { return "<none>".into() };
    let mut parts: Vec<String> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        parts.extend(labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut values: Vec<&str> = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let key = text("key");
        parts.push(match text("operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

/// A map of labels as `a=b,c=d`, `<none>` when empty.
pub fn labels(object: &Object, path: &[&str]) -> String {
    match object.get(path).and_then(Value::as_object) {
        Some(map) if !map.is_empty() => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            pairs.join(",")
        }
        _ => "<none>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_shorten_as_they_grow() {
        let cases = [
            (-2, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (9 * 86400, "9d"),
            (800 * 86400, "2y70d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
