//! ControllerRevisions: the history of StatefulSets and DaemonSets.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column, controller};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "Whose history it is part of.", |r, _| json!(controller(r))),
    column("Revision", "string", "Which revision it is.", |r, _| {
        json!(r.get_i64(&["revision"]).unwrap_or_default())
    }),
    AGE,
];

pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn prepare_for_create(&self, _revision: &mut Object) {}

    fn prepare_for_update(&self, _revision: &mut Object, _old: &Object) {}

    fn validate(&self, revision: &Object) -> ErrorList {
        let root = At::root(revision);
        let mut errors = root.child("revision").non_negative();
        let data = root.child("data");
        if !data.is_set() {
            errors.push(data.required("data is mandatory"));
        } else if !data.value.is_object() {
            errors.push(data.required("data must be a valid JSON object"));
        }
        errors
    }

    fn validate_update(&self, revision: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(revision), At::root(old));
        let mut errors = new.child("revision").non_negative();
        errors.extend(unchanged(&new.child("data"), &old.child("data")));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn data_is_there_and_stays() {
        let fine = Object::from(json!({"revision": 1, "data": {"spec": {}}}));
        check(ControllerRevisions.validate(&fine), &[]);
        let none = Object::from(json!({"revision": -1}));
        check(
            ControllerRevisions.validate(&none),
            &[
                "revision: Invalid value: -1: must be greater than or equal to 0",
                "data: Required value: data is mandatory",
            ],
        );
        let other = Object::from(json!({"revision": 2, "data": {"spec": {"a": 1}}}));
        check(
            ControllerRevisions.validate_update(&other, &fine),
            &["data: Invalid value: {\"spec\":{\"a\":1}}: field is immutable"],
        );
    }
}
