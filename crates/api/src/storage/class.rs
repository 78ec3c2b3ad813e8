//! Storage classes and volume attributes classes.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::warnings::deprecated_node_label;
use crate::printers::{AGE, NAME, column};
use crate::strategy::Strategy;
use crate::validation::at::At;
use crate::validation::forms::unchanged;

pub const STORAGE_COLUMNS: &[Column] = &[
    Column { cell: |class, _| json!(name_and_default(class)), ..NAME },
    column("Provisioner", "string", "Who makes volumes of the class.", |class, _| {
        json!(class.get_str(&["provisioner"]))
    }),
    column("ReclaimPolicy", "string", "What becomes of released volumes.", |class, _| {
        json!(text_or(class, "reclaimPolicy", "Delete"))
    }),
    column("VolumeBindingMode", "string", "When volumes are made and bound.", |class, _| {
        json!(text_or(class, "volumeBindingMode", "Immediate"))
    }),
    column("AllowVolumeExpansion", "string", "Whether volumes may grow.", |class, _| {
        json!(class.get_bool(&["allowVolumeExpansion"]))
    }),
    AGE,
];

pub const ATTRIBUTES_COLUMNS: &[Column] = &[
    Column { cell: |class, _| json!(name_and_default(class)), ..NAME },
    column("DriverName", "string", "The driver the class is for.", |class, _| {
        json!(class.get_str(&["driverName"]))
    }),
    AGE,
];

fn text_or(class: &Object, key: &str, default: &str) -> String {
    class.get(&[key]).and_then(Value::as_str).unwrap_or(default).to_owned()
}

/// Names of default classes say so.
fn name_and_default(class: &Object) -> String {
    let marks: &[&str] = match class.kind() {
        "VolumeAttributesClass" => &["volumeattributesclass.alpha.kubernetes.io/is-default-class"],
        _ => &[
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ],
    };
    let default = marks.iter().any(|mark| class.annotation(mark) == Some("true"));
    if default { format!("{} (default)", class.name()) } else { class.name().to_owned() }
}

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

/// The name of who makes volumes.
fn provisioner(name: &At<'_>) -> ErrorList {
    if name.is_empty() {
        return vec![name.required("")];
    }
    let lower = name.str().to_lowercase();
    let wrong = apimachinery::validation::is_qualified_name(&lower);
    wrong.into_iter().map(|why| Error::invalid(&name.path, lower.as_str(), why)).collect()
}

fn parameters(parameters: &At<'_>, may_be_empty: bool) -> ErrorList {
    if parameters.len() > MAX_PARAMETERS {
        return vec![parameters.too_long(MAX_PARAMETERS)];
    }
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(Error::invalid(&parameters.path, key, "field can not be empty."));
        }
        size += key.len() + value.len();
    }
    if size > MAX_PARAMETERS_SIZE {
        errors.push(parameters.too_long(MAX_PARAMETERS_SIZE));
    }
    if !may_be_empty && parameters.is_empty() {
        errors.push(parameters.required("must contain at least one key/value pair"));
    }
    errors
}

/// Refuses a change of a field in upstream's words for classes.
fn fixed(new: &At<'_>, old: &At<'_>, key: &str) -> ErrorList {
    let (now, before) = (new.child(key), old.child(key));
    if now.value == before.value || (now.is_empty() && before.is_empty()) {
        return ErrorList::new();
    }
    vec![now.forbidden(format!("updates to {key} are forbidden."))]
}

pub struct StorageClasses;

impl Strategy for StorageClasses {
    fn default(&self, class: &mut Object) {
        for (key, value) in [("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")] {
            if class.get(&[key]).is_none() {
                class.set(&[key], value);
            }
        }
    }

    fn prepare_for_create(&self, _class: &mut Object) {}

    fn prepare_for_update(&self, _class: &mut Object, _old: &Object) {}

    fn validate(&self, class: &Object) -> ErrorList {
        let root = At::root(class);
        let mut errors = provisioner(&root.child("provisioner"));
        errors.extend(parameters(&root.child("parameters"), true));
        let policy = root.child("reclaimPolicy");
        if !policy.is_empty() {
            errors.extend(policy.supported(&["Delete", "Retain"]));
        }
        let mode = root.child("volumeBindingMode");
        if mode.is_set() {
            errors.extend(mode.supported(&["Immediate", "WaitForFirstConsumer"]));
        } else {
            errors.push(mode.required(""));
        }
        errors.extend(topologies(&root.child("allowedTopologies")));
        errors
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        let (new, old) = (At::root(class), At::root(old));
        let mut errors = self.validate(class);
        let keys = ["parameters", "provisioner", "reclaimPolicy"];
        errors.extend(keys.iter().flat_map(|key| fixed(&new, &old, key)));
        errors.extend(unchanged(&new.child("volumeBindingMode"), &old.child("volumeBindingMode")));
        errors
    }

    fn warnings_on_create(&self, class: &Object) -> Vec<String> {
        let terms = At::root(class).child("allowedTopologies");
        let expressions = terms.items().flat_map(|term| term.each("matchLabelExpressions"));
        let keys = expressions.map(|expression| expression.child("key"));
        keys.filter_map(|key| Some(format!("{}: {}", key.path, deprecated_node_label(key.str())?))).collect()
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// What a term asks of the labels of a node: values by key.
type Topology<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn topologies(topologies: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    // upstream starts with as many empty terms as there are terms, of which a term that asks nothing is a duplicate
    let mut before: Vec<Topology<'_>> = vec![Topology::new(); topologies.len()];
    for term in topologies.items() {
        let expressions = term.child("matchLabelExpressions");
        let mut topology = Topology::new();
        for expression in expressions.items() {
            let (key, values) = (expression.child("key"), expression.child("values"));
            if values.is_empty() {
                errors.push(values.required(""));
            }
            for (at, value) in values.items().enumerate() {
                if values.list()[..at].contains(value.value) {
                    errors.push(value.duplicate());
                }
            }
            errors.extend(key.qualified_name());
            if topology.insert(key.str(), expression.strings("values").into_iter().collect()).is_some() {
                errors.push(key.duplicate());
            }
        }
        let same = before.iter().filter(|other| **other == topology).count();
        errors.extend((0..same).map(|_| Error::duplicate(&expressions.path, "")));
        before.push(topology);
    }
    errors
}

pub struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn prepare_for_create(&self, _class: &mut Object) {}

    fn prepare_for_update(&self, _class: &mut Object, _old: &Object) {}

    fn validate(&self, class: &Object) -> ErrorList {
        let root = At::root(class);
        let mut errors = provisioner(&root.child("driverName"));
        errors.extend(parameters(&root.child("parameters"), false));
        errors
    }

    fn validate_update(&self, class: &Object, old: &Object) -> ErrorList {
        let (new, before) = (At::root(class), At::root(old));
        let mut errors = fixed(&new, &before, "driverName");
        errors.extend(fixed(&new, &before, "parameters"));
        errors.extend(self.validate(class));
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn class(fields: Value) -> Object {
        let mut class = Object::from(fields);
        StorageClasses.default(&mut class);
        class
    }

    #[test]
    fn what_is_wrong_with_a_class() {
        check(StorageClasses.validate(&class(json!({"provisioner": "Example.com/nfs"}))), &[]);
        check(
            StorageClasses.validate(&class(json!({
                "reclaimPolicy": "Recycle", "volumeBindingMode": "Odd", "parameters": {"": "x"},
                "allowedTopologies": [
                    {"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}]},
                    {"matchLabelExpressions": [{"key": "zone", "values": []}, {"key": "zone", "values": ["b"]}]},
                ],
            }))),
            &[
                "provisioner: Required value",
                "parameters: Invalid value: \"\": field can not be empty.",
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Unsupported value: \"Odd\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                "allowedTopologies[1].matchLabelExpressions[0].values: Required value",
                "allowedTopologies[1].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
            ],
        );
    }

    #[test]
    fn terms_of_a_class_differ() {
        let of = |terms: Value| {
            StorageClasses.validate(&class(json!({"provisioner": "a.b/c", "allowedTopologies": terms})))
        };
        let zones = |zones: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": zones}]});
        const DUPLICATE: &str = "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"";
        check(of(json!([zones(json!(["a", "b"])), zones(json!(["a"]))])), &[]);
        check(of(json!([zones(json!(["a", "b"])), zones(json!(["b", "a"]))])), &[DUPLICATE]);
        check(of(json!([zones(json!(["a"])), {}])), &[DUPLICATE, DUPLICATE]);
    }

    #[test]
    fn labels_that_nodes_no_longer_have_are_said() {
        let class = class(json!({"provisioner": "a.b/c", "allowedTopologies": [{"matchLabelExpressions": [
            {"key": "topology.kubernetes.io/zone", "values": ["a"]},
            {"key": "failure-domain.beta.kubernetes.io/zone", "values": ["a"]},
        ]}]}));
        let expected = [
            "allowedTopologies[0].matchLabelExpressions[1].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        ];
        assert_eq!(StorageClasses.warnings_on_create(&class), expected);
        assert_eq!(StorageClasses.warnings_on_update(&class, &class), expected);
    }

    #[test]
    fn classes_do_not_change() {
        let old = class(json!({"provisioner": "a.b/c", "parameters": {"a": "b"}}));
        let new = class(json!({
            "provisioner": "a.b/d", "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone"}]}],
        }));
        check(
            StorageClasses.validate_update(&new, &old),
            &[
                "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ],
        );
    }

    #[test]
    fn attributes_classes_have_parameters() {
        let class = Object::from(json!({"driverName": "a.b"}));
        check(
            VolumeAttributesClasses.validate(&class),
            &["parameters: Required value: must contain at least one key/value pair"],
        );
    }
}
