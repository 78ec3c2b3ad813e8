//! `scheduling.k8s.io/v1`: priority classes.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Resource;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;

const GROUP: Resource = Resource {
    namespaced: false,
    ..Resource::in_group("scheduling.k8s.io", "v1", "k8s.io.api.scheduling.v1")
};

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    prefix: "priorityclasses",
    columns: &[
        NAME,
        column("Value", "integer", "The priority.", |class, _| {
            json!(class.get_i64(&["value"]).unwrap_or_default())
        }),
        column("Global-Default", "boolean", "Whether pods without a class get this one.", |class, _| {
            json!(class.get_bool(&["globalDefault"]))
        }),
        AGE,
        column("PreemptionPolicy", "string", "Whether such pods may preempt others.", |class, _| {
            json!(class.get_str(&["preemptionPolicy"]))
        }),
    ],
    strategy: &PriorityClasses,
    ..GROUP
}];

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

struct PriorityClasses;

impl Strategy for PriorityClasses {
    fn default(&self, class: &mut Object) {
        if class.get(&["preemptionPolicy"]).is_none() {
            class.set(&["preemptionPolicy"], "PreemptLowerPriority");
        }
    }

    fn prepare_for_create(&self, class: &mut Object) {
        class.set_generation(1);
    }

    fn prepare_for_update(&self, _class: &mut Object, _old: &Object) {}

    fn validate(&self, class: &Object) -> ErrorList {
        let root = At::root(class);
        let value = root.number("value").unwrap_or_default();
        let mut errors = ErrorList::new();
        if class.name().starts_with("system-") {
            if let Some(why) = not_system(class.name(), value, class.get_bool(&["globalDefault"])) {
                let why = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.push(root.child("metadata").child("name").forbidden(why));
            }
        } else if value > HIGHEST_USER_PRIORITY {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.push(root.child("value").forbidden(why));
        }
        let policy = root.child("preemptionPolicy");
        if policy.is_set() {
            errors.extend(policy.one_of(&["PreemptLowerPriority", "Never"]));
        }
        errors
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(class), At::root(old));
        let mut errors = ErrorList::new();
        if new.number("value").unwrap_or_default() != old.number("value").unwrap_or_default() {
            errors.push(new.child("value").forbidden("may not be changed in an update."));
        }
        errors.extend(unchanged(&new.child("preemptionPolicy"), &old.child("preemptionPolicy")));
        errors
    }

    fn forbids_delete(&self, name: &str) -> Option<&'static str> {
        let known = SYSTEM_CLASSES.iter().any(|(system, _)| *system == name);
        known.then_some("this is a system priority class and cannot be deleted")
    }
}

/// Why a class is none of the system's.
fn not_system(name: &str, value: i64, global_default: bool) -> Option<String> {
    match SYSTEM_CLASSES.iter().find(|(system, _)| *system == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, number)) if *number != value => {
            Some(format!("value of {name} PriorityClass must be {number}"))
        }
        Some(_) if global_default => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn system_priorities_are_the_systems() {
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        let cases = [
            ("high", 1_000_000_000, String::new()),
            (
                "high",
                1_000_000_001,
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000".into(),
            ),
            ("system-x", 1, format!("{reserved}system-x is not a known system priority class")),
            ("system-node-critical", 2_000_001_000, String::new()),
            (
                "system-node-critical",
                1,
                format!("{reserved}value of system-node-critical PriorityClass must be 2000001000"),
            ),
        ];
        for (name, value, expected) in cases {
            let class = Object::from(json!({"metadata": {"name": name}, "value": value}));
            let expected: Vec<&str> =
                [expected.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
            check(PriorityClasses.validate(&class), &expected);
        }
        assert!(PriorityClasses.forbids_delete("system-node-critical").is_some());
        assert!(PriorityClasses.forbids_delete("mine").is_none());
    }

    #[test]
    fn values_stay() {
        let old = Object::from(json!({"value": 1, "preemptionPolicy": "Never"}));
        let new = Object::from(json!({"value": 2, "preemptionPolicy": "PreemptLowerPriority"}));
        check(
            PriorityClasses.validate_update(&new, &old),
            &[
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"PreemptLowerPriority\": field is immutable",
            ],
        );
    }
}
