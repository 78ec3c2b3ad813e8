//! `node.k8s.io/v1`: runtime classes.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use apimachinery::validation as names;
use serde_json::json;

use crate::catalogue::Resource;
use crate::core::warnings::deprecated_node_label;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::resources;
use crate::validation::value::go_struct;

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
        if let Some(overhead) = root.field("overhead") {
            // the amounts are judged as limits of a container
            let limits = json!({"limits": overhead.child("podFixed").value});
            let limits = At::new(&limits, overhead.path);
            errors.extend(resources::requirements(&limits, resources::container_resource_name, &[], false));
        }
        let scheduling = root.child("scheduling");
        let selector = scheduling.child("nodeSelector");
        if let Some(labels) = selector.value.as_object() {
            errors.extend(names::validate_labels(labels, &selector.path));
        }
        let tolerations = scheduling.child("tolerations");
        errors.extend(crate::validation::pod::tolerations(&tolerations));
        let mut seen = Vec::new();
        for toleration in tolerations.items() {
            let key = ["key", "operator", "value", "effect"].map(|part| toleration.text(part));
            if seen.contains(&key) {
                errors.push(toleration.duplicate().showing(shown(&toleration)));
            }
            seen.push(key);
        }
        errors
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        let mut errors = self.validate(class);
        errors.extend(unchanged(&At::root(class).child("handler"), &At::root(old).child("handler")));
        errors
    }

    fn warnings_on_create(&self, class: &Object) -> Vec<String> {
        let selector = At::of(class, &["scheduling", "nodeSelector"]);
        let keys = selector.value.as_object().into_iter().flatten().map(|(key, _)| key);
        let messages = keys.filter_map(|key| deprecated_node_label(key));
        messages.map(|message| format!("scheduling.nodeSelector: {message}")).collect()
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// A toleration of the internal version.
fn shown(toleration: &At<'_>) -> String {
    let text = |key: &str| json!(toleration.text(key));
    go_struct(&[
        ("Key", text("key")),
        ("Operator", text("operator")),
        ("Value", text("value")),
        ("Effect", text("effect")),
        ("TolerationSeconds", toleration.child("tolerationSeconds").value.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn runtime_classes() {
        let fine = Object::from(json!({"handler": "runc", "overhead": {"podFixed": {"cpu": "10m"}}}));
        check(RuntimeClasses.validate(&fine), &[]);
        let old = Object::from(json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}));
        assert_eq!(
            RuntimeClasses.warnings_on_create(&old),
            ["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
        );
        let odd = Object::from(json!({
            "handler": "a.b", "overhead": {"podFixed": {"cpu": "-1", "coffee": "1"}},
            "scheduling": {"tolerations": [
                {"operator": "Exists", "effect": "NoExecute"},
                {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            ]},
        }));
        check(
            RuntimeClasses.validate(&odd),
            &[
                "handler: Invalid value: \"a.b\": must not contain dots",
                "overhead.limits[coffee]: Invalid value: \"coffee\": must be a standard resource type or fully qualified",
                "overhead.limits[coffee]: Invalid value: \"coffee\": must be a standard resource for containers",
                "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"\",\"Operator\":\"Exists\",\"Value\":\"\",\"Effect\":\"NoExecute\",\"TolerationSeconds\":5}",
            ],
        );
        let errors = RuntimeClasses.validate_update(&odd, &fine);
        assert_eq!(errors.len(), 6, "all that is wrong, and the handler once more: {errors:?}");
        check(errors[5..].to_vec(), &["handler: Invalid value: \"a.b\": field is immutable"]);
    }
}
