//! `scheduling.k8s.io/v1`: priority classes.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::json;

use crate::catalogue::{Access, Resource};
use crate::printers::{self, AGE, NAME, column};
use crate::strategy::{Plain, Strategy};
use crate::validation;

const GROUP: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: false,
    short_names: &[],
    categories: &[],
    access: Access::Stored,
    package: "k8s.io.api.scheduling.v1",
    prefix: "",
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
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
        validation::priority_class(class)
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        validation::priority_class_update(class, old)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
