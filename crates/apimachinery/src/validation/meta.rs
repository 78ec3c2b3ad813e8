//! `ObjectMeta`: what every object's metadata must be, on creation and from one version to the next.

use serde_json::{Map, Value, json};

use super::names::{self, NameFn, is_qualified_name, is_valid_label_value};
use crate::field::{Error, ErrorList, Path, quote};
use crate::group::{GroupVersion, GroupVersionKind};
use crate::object::Object;

pub const FIELD_IMMUTABLE: &str = "field is immutable";
pub const TOTAL_ANNOTATION_SIZE_LIMIT: usize = 256 * 1024;
const FIELD_MANAGER_MAX_LENGTH: usize = 128;
const MAX_SUBRESOURCE_NAME_LENGTH: usize = 256;

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// Checks the metadata of an object about to be created; its name has been generated.
pub fn validate_object_meta(object: &Object, namespaced: bool, name_fn: NameFn, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let generate_name = object.generate_name();
    if !generate_name.is_empty() {
        let wrong = name_fn(generate_name, true).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(&path.child("generateName"), generate_name, m)));
    }
    let name = object.name();
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        let wrong = name_fn(name, false).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(&path.child("name"), name, m)));
    }
    let namespace = object.namespace();
    let at = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&at, "")),
        (true, false) => {
            let wrong = names::name_is_dns_label(namespace, false).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&at, namespace, m)));
        }
        (false, false) => errors.push(Error::forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    if object.generation() < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(Error::invalid(&path.child("generation"), object.generation(), detail));
    }
    errors.extend(validate_shared(object, path));
    errors.extend(validate_finalizers(&object.finalizers(), &path.child("finalizers")));
    errors.extend(validate_managed_fields(object, path));
    errors
}

/// Checks the metadata of an update against what is stored.
pub fn validate_object_meta_update(new: &Object, old: &Object, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.deletion_timestamp().is_some() {
        let before = old.finalizers();
        let mut extra: Vec<&str> = new.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let list: Vec<String> = extra.into_iter().map(quote).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), detail));
        }
    }
    if new.resource_version().is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if new.generation() < old.generation() {
        errors.push(Error::invalid(&path.child("generation"), new.generation(), "must not be decremented"));
    }
    for (name, zero) in [
        ("name", json!("")),
        ("namespace", json!("")),
        ("uid", json!("")),
        ("creationTimestamp", Value::Null),
        ("deletionTimestamp", Value::Null),
        ("deletionGracePeriodSeconds", Value::Null),
    ] {
        let (new, old) = (new.get(&["metadata", name]), old.get(&["metadata", name]));
        errors.extend(validate_immutable_field(
            new.unwrap_or(&zero),
            old.unwrap_or(&zero),
            &path.child(name),
        ));
    }
    errors.extend(validate_shared(new, path));
    errors.extend(validate_managed_fields(new, path));
    errors
}

fn validate_shared(object: &Object, path: &Path) -> ErrorList {
    let none = Map::new();
    let mut errors = validate_labels(object.labels().unwrap_or(&none), &path.child("labels"));
    errors.extend(validate_annotations(object.annotations().unwrap_or(&none), &path.child("annotations")));
    errors.extend(validate_owner_references(object.owner_references(), &path.child("ownerReferences")));
    errors
}

pub fn validate_immutable_field(new: &Value, old: &Value, path: &Path) -> ErrorList {
    if new == old { ErrorList::new() } else { vec![Error::invalid(path, new.clone(), FIELD_IMMUTABLE)] }
}

pub fn validate_label_name(name: &str, path: &Path) -> ErrorList {
    is_qualified_name(name).into_iter().map(|message| Error::invalid(path, name, message)).collect()
}

pub fn validate_labels(labels: &Map<String, Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        errors.extend(validate_label_name(key, path));
        let value = text(Some(value));
        errors.extend(is_valid_label_value(value).into_iter().map(|m| Error::invalid(path, value, m)));
    }
    errors
}

pub fn validate_annotations(annotations: &Map<String, Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0usize;
    for (key, value) in annotations {
        let wrong = is_qualified_name(&key.to_lowercase()).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(path, key.as_str(), m)));
        size += key.len() + text(Some(value)).len();
    }
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        errors.push(Error::too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT));
    }
    errors
}

pub fn validate_owner_references(references: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller = String::new();
    for reference in references {
        let field = |name: &str| text(reference.get(name));
        let gv = GroupVersion::parse(field("apiVersion")).unwrap_or_default();
        for (name, wrong, detail) in [
            ("apiVersion", gv.version.is_empty(), "version must not be empty"),
            ("kind", field("kind").is_empty(), "must not be empty"),
            ("name", field("name").is_empty(), "must not be empty"),
            ("uid", field("uid").is_empty(), "must not be empty"),
        ] {
            if wrong {
                errors.push(Error::invalid(&path.child(name), field(name), detail));
            }
        }
        let gvk = gv.with_kind(field("kind"));
        if gvk == GroupVersionKind::new("", "v1", "Event") {
            let detail = format!("{gvk} is disallowed from being an owner");
            errors.push(Error::invalid(path, reference.clone(), detail));
        }
        if reference.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", field("kind"), field("name"));
            if controller.is_empty() {
                controller = this;
            } else {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for \
                     {controller} and {this}"
                );
                errors.push(Error::invalid(path, references.to_vec(), detail));
            }
        }
    }
    errors
}

pub fn validate_finalizer_name(name: &str, path: &Path) -> ErrorList {
    is_qualified_name(name).into_iter().map(|message| Error::invalid(path, name, message)).collect()
}

pub fn validate_finalizers(finalizers: &[&str], path: &Path) -> ErrorList {
    let mut errors: ErrorList =
        finalizers.iter().flat_map(|name| validate_finalizer_name(name, path)).collect();
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, json!(finalizers), detail));
    }
    errors
}

/// The name of a field manager, as given with a request.
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > FIELD_MANAGER_MAX_LENGTH {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX_LENGTH));
    }
    for (at, c) in manager.char_indices() {
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            let code = u32::from(c);
            let detail = format!("invalid character U+{code:04X} (at position {at})");
            errors.push(Error::invalid(path, manager, detail));
        }
    }
    errors
}

fn validate_managed_fields(object: &Object, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("managedFields");
    for (index, entry) in object.get_array(&["metadata", "managedFields"]).iter().enumerate() {
        let path = path.index(index);
        let field = |name: &str| text(entry.get(name));
        if !matches!(field("operation"), "Apply" | "Update") {
            let detail = "must be `Apply` or `Update`";
            errors.push(Error::invalid(&path.child("operation"), field("operation"), detail));
        }
        if !matches!(field("fieldsType"), "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), field("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(field("manager"), &path.child("manager")));
        if field("subresource").len() > MAX_SUBRESOURCE_NAME_LENGTH {
            errors.push(Error::too_long(&path.child("subresource"), MAX_SUBRESOURCE_NAME_LENGTH));
        }
    }
    errors
}

/// A `LabelSelector` as it stands in an object.
pub fn validate_label_selector(selector: &Value, path: &Path) -> ErrorList {
    label_selector(selector, path, true)
}

/// As [`validate_label_selector`], but for the form of the values that expressions name: for updates of objects that
/// were stored before it was judged.
pub fn validate_label_selector_with_any_values(selector: &Value, path: &Path) -> ErrorList {
    label_selector(selector, path, false)
}

fn label_selector(selector: &Value, path: &Path, judge_values: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        errors.extend(validate_labels(labels, &path.child("matchLabels")));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for (index, expression) in expressions.into_iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        errors.extend(requirement(expression, UnknownOperator::Refused, judge_values, &path));
    }
    errors
}

/// What becomes of a selector's operator that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownOperator {
    Refused,
    /// Where a selector only narrows, as in access reviews.
    Allowed,
}

fn selector_values(requirement: &Value) -> &[Value] {
    requirement.get("values").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn validate_operator(requirement: &Value, unknown: UnknownOperator, path: &Path) -> Option<Error> {
    let values = selector_values(requirement);
    let operator = text(requirement.get("operator"));
    match operator {
        "In" | "NotIn" if values.is_empty() => Some(Error::required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => Some(Error::forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
        _ if unknown == UnknownOperator::Allowed => None,
        _ => Some(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
}

/// A `LabelSelectorRequirement`.
pub fn validate_label_selector_requirement(
    requirement: &Value,
    unknown: UnknownOperator,
    path: &Path,
) -> ErrorList {
    self::requirement(requirement, unknown, true, path)
}

fn requirement(requirement: &Value, unknown: UnknownOperator, judge_values: bool, path: &Path) -> ErrorList {
    let mut errors: ErrorList = validate_operator(requirement, unknown, path).into_iter().collect();
    errors.extend(validate_label_name(text(requirement.get("key")), &path.child("key")));
    for (at, value) in selector_values(requirement).iter().enumerate().filter(|_| judge_values) {
        let value = text(Some(value));
        let path = path.child("values").index(at);
        errors.extend(is_valid_label_value(value).into_iter().map(|m| Error::invalid(&path, value, m)));
    }
    errors
}

/// A `FieldSelectorRequirement`.
pub fn validate_field_selector_requirement(
    requirement: &Value,
    unknown: UnknownOperator,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(requirement.get("key")).is_empty() {
        errors.push(Error::required(&path.child("key"), "must be specified"));
    }
    errors.extend(validate_operator(requirement, unknown, path));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn creation() {
        let cases = [
            (json!({"name": "a", "namespace": "b"}), true, vec![]),
            (json!({"name": "a"}), true, vec!["metadata.namespace: Required value"]),
            (
                json!({"name": "a", "namespace": "b"}),
                false,
                vec!["metadata.namespace: Forbidden: not allowed on this type"],
            ),
            (
                json!({"namespace": "b"}),
                true,
                vec!["metadata.name: Required value: name or generateName is required"],
            ),
            (
                json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
                false,
                vec![concat!(
                    "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: ",
                    "finalizer orphan and foregroundDeletion cannot be both set"
                )],
            ),
            (
                json!({"name": "a", "managedFields": [{"operation": "X", "manager": "m\n"}]}),
                false,
                vec![
                    "metadata.managedFields[0].operation: Invalid value: \"X\": must be `Apply` or `Update`",
                    "metadata.managedFields[0].manager: Invalid value: \"m\\n\": invalid character U+000A (at position 1)",
                ],
            ),
        ];
        for (meta, namespaced, expected) in cases {
            let object = Object::from(json!({ "metadata": meta }));
            let path = Path::new("metadata");
            let errors = validate_object_meta(&object, namespaced, &names::name_is_dns_subdomain, &path);
            assert_eq!(texts(errors), expected);
        }
    }

    #[test]
    fn update() {
        let old = Object::from(json!({"metadata": {
            "name": "a", "uid": "1", "resourceVersion": "1", "deletionTimestamp": "x", "generation": 2}}));
        let mut new = old.clone();
        new.set(&["metadata", "finalizers"], json!(["a.b/c"]));
        new.set(&["metadata", "uid"], "2");
        new.set_generation(1);
        new.set_resource_version("");
        let errors = validate_object_meta_update(&new, &old, &Path::new("metadata"));
        assert_eq!(
            texts(errors),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
                 found new finalizers []string{\"a.b/c\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    #[test]
    fn owners() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        assert!(validate_owner_references(std::slice::from_ref(&owner), &Path::new("o")).is_empty());
        let errors = texts(validate_owner_references(&[owner.clone(), owner], &Path::new("o")));
        assert!(errors[0].contains("Found \"true\" in references for Pod/p and Pod/p"), "{errors:?}");
        let event = json!({"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "u"});
        let errors = texts(validate_owner_references(&[event], &Path::new("o")));
        assert!(errors[0].ends_with("/v1, Kind=Event is disallowed from being an owner"), "{errors:?}");
    }
}
