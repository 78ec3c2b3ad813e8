//! Resource quotas and limit ranges.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::{Map, json};

use super::defaults::{child, each, set};
use super::pod_resources::round;
use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, keep_status};
use crate::validation;
use crate::validation::value::shown;

/// `resource: used/hard` of all limits, or of everything else.
fn used_of_hard(quota: &Object, limits: bool) -> String {
    let amount =
        |part: &str, name: &str| quota.get(&["status", part, name]).map_or_else(|| "0".to_owned(), shown);
    let mut names: Vec<&str> = quota
        .get(&["status", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|hard| hard.keys())
        .map(String::as_str)
        .filter(|name| name.starts_with("limits.") == limits)
        .collect();
    names.sort_unstable();
    let parts: Vec<String> = names
        .iter()
        .map(|name| format!("{name}: {}/{}", amount("used", name), amount("hard", name)))
        .collect();
    parts.join(", ")
}

pub const QUOTA_COLUMNS: &[Column] = &[
    NAME,
    column("Request", "string", "What may be asked for, or be there, and how much of it is.", |quota, _| {
        json!(used_of_hard(quota, false))
    }),
    column("Limit", "string", "What limits may add up to, and what they do.", |quota, _| {
        json!(used_of_hard(quota, true))
    }),
    AGE,
];

pub struct Quotas;

impl Strategy for Quotas {
    fn default(&self, quota: &mut Object) {
        for (part, lists) in [("spec", &["hard"][..]), ("status", &["hard", "used"])] {
            let Some(part) = child(quota.as_map_mut(), part) else { continue };
            for list in lists {
                if let Some(amounts) = child(part, list) {
                    round(amounts);
                }
            }
        }
    }

    fn prepare_for_create(&self, quota: &mut Object) {
        quota.remove(&["status"]);
    }

    fn validate(&self, quota: &Object) -> ErrorList {
        validation::resource_quota(quota)
    }

    fn prepare_for_update(&self, quota: &mut Object, old: &Object) {
        keep_status(quota, old);
    }

    fn validate_update(&self, quota: &Object, old: &Object) -> ErrorList {
        validation::resource_quota_update(quota, old)
    }

    fn validate_status_update(&self, quota: &Object, _old: &Object) -> ErrorList {
        validation::resource_quota_status_update(quota)
    }
}

pub struct LimitRanges;

/// What a container gets that says nothing: its limit is the most there may be, its request that limit.
fn complete(item: &mut Map<String, Value>) {
    const FILLS: [(&str, &str); 3] =
        [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")];
    for (from, into) in FILLS {
        let Some(from) = item.get(from).and_then(Value::as_object).cloned() else { continue };
        if from.is_empty() {
            continue;
        }
        if let Some(into) = item.entry(into).or_insert_with(|| json!({})).as_object_mut() {
            for (name, amount) in from {
                set(into, &name, amount);
            }
        }
    }
}

impl Strategy for LimitRanges {
    fn default(&self, range: &mut Object) {
        let Some(spec) = child(range.as_map_mut(), "spec") else { return };
        for item in each(spec, "limits") {
            if item.get("type").and_then(Value::as_str) == Some("Container") {
                complete(item);
            }
            for list in ["default", "defaultRequest", "max", "maxLimitRequestRatio", "min"] {
                if let Some(amounts) = child(item, list) {
                    round(amounts);
                }
            }
        }
    }

    fn prepare_for_create(&self, _range: &mut Object) {}

    fn validate(&self, range: &Object) -> ErrorList {
        validation::limit_range(range)
    }

    fn prepare_for_update(&self, _range: &mut Object, _old: &Object) {}

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_completes_its_defaults() {
        let mut range = Object::from(json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m", "memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "4"}},
        ]}}));
        LimitRanges.default(&mut range);
        assert_eq!(
            range.get_array(&["spec", "limits"]),
            [
                json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m", "memory": "1Mi"},
                "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}),
                json!({"type": "Pod", "max": {"cpu": "4"}}),
            ]
        );
    }

    #[test]
    fn a_quota_shows_limits_apart() {
        let quota = Object::from(json!({"status": {
            "hard": {"pods": "4", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1", "cpu": "500m"}}}));
        assert_eq!(used_of_hard(&quota, false), "cpu: 500m/1, pods: 1/4");
        assert_eq!(used_of_hard(&quota, true), "limits.cpu: 0/2");
    }
}
