//! `node.k8s.io/v1`: runtime classes.

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use serde_json::json;

use crate::catalogue::Resource;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;

const GROUP: Resource =
    Resource { namespaced: false, ..Resource::in_group("node.k8s.io", "v1", "k8s.io.api.node.v1") };

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    prefix: "runtimeclasses",
    columns: &[
        NAME,
        column("Handler", "string", "The handler of the container runtime.", |class, _| {
            json!(class.get_str(&["handler"]))
        }),
        AGE,
    ],
    strategy: &RuntimeClasses,
    ..GROUP
}];

struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn prepare_for_create(&self, _class: &mut Object) {}

    fn prepare_for_update(&self, _class: &mut Object, _old: &Object) {}

    fn validate(&self, class: &Object) -> ErrorList {
        let root = At::root(class);
        let handler = root.child("handler");
        let mut errors = handler.wrong(names::name_is_dns_label(handler.str(), false));
        let overhead = root.child("overhead").child("podFixed");
        // the amounts are judged as limits of a container
        for (name, amount) in overhead.entries() {
            let path = root.child("overhead").path.child("limits").key(name);
            let value = At::new(amount.value, path);
            errors.extend(
                names::is_qualified_name(name).into_iter().map(|why| Error::invalid(&value.path, name, why)),
            );
            errors.extend(value.non_negative_quantity());
        }
        let scheduling = root.child("scheduling");
        let selector = scheduling.child("nodeSelector");
        if let Some(labels) = selector.value.as_object() {
            errors.extend(names::validate_labels(labels, &selector.path));
        }
        let tolerations = scheduling.child("tolerations");
        errors.extend(crate::validation::pod::tolerations(&tolerations));
        for (index, toleration) in tolerations.items().enumerate() {
            if tolerations.list()[..index].contains(toleration.value) {
                errors.push(toleration.duplicate());
            }
        }
        errors
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        unchanged(&At::root(class).child("handler"), &At::root(old).child("handler"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn runtime_classes() {
        let fine = Object::from(json!({"handler": "runc", "overhead": {"podFixed": {"cpu": "10m"}}}));
        check(RuntimeClasses.validate(&fine), &[]);
        let odd = Object::from(json!({
            "handler": "a.b", "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"tolerations": [{"operator": "Exists"}, {"operator": "Exists"}]},
        }));
        check(
            RuntimeClasses.validate(&odd),
            &[
                "handler: Invalid value: \"a.b\": must not contain dots",
                "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "scheduling.tolerations[1]: Duplicate value: {\"operator\":\"Exists\"}",
            ],
        );
        check(
            RuntimeClasses.validate_update(&odd, &fine),
            &["handler: Invalid value: \"a.b\": field is immutable"],
        );
    }
}
