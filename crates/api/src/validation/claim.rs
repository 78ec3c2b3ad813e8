//! Persistent volume claims, and the templates of claims that pods and StatefulSets make.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::resources::{self, positive_quantity, quantity_value};
use super::sources::{VOLUME_MODES, access_modes};
use super::value::{
    entries, field, has, invalid, is_set, list, optional, quantity, require, supported, text,
};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE: [&str; 1] = ["storage"];

/// Rules that an old claim is excused from.
#[derive(Clone, Copy, Default)]
struct Excused {
    selector_values: bool,
    source_group: bool,
}

/// What is wrong with a new claim.
pub fn claim(claim: &Object) -> ErrorList {
    claim_spec(claim.get(&["spec"]).unwrap_or(&Value::Null), Excused::default(), &Path::new("spec"))
}

/// What is wrong with a template of claims: its metadata are labels and annotations alone.
pub fn template(template: &Value, path: &Path) -> ErrorList {
    let mut errors = template_metadata(&template["metadata"], &path.child("metadata"));
    errors.extend(claim_spec(&template["spec"], Excused::default(), &path.child("spec")));
    errors
}

/// The spec of a claim anywhere.
pub fn spec(spec: &Value, path: &Path) -> ErrorList {
    claim_spec(spec, Excused::default(), path)
}

/// Metadata of a template whose other fields nobody reads.
pub fn template_metadata(meta: &Value, path: &Path) -> ErrorList {
    const OTHERS: [&str; 13] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let mut errors = ErrorList::new();
    if let Some(Value::Object(annotations)) = meta.get("annotations") {
        errors.extend(names::validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(Value::Object(labels)) = meta.get("labels") {
        errors.extend(names::validate_labels(labels, &path.child("labels")));
    }
    let set = OTHERS.iter().filter(|key| is_set(meta, key));
    errors.extend(set.map(|key| Error::forbidden(&path.child(key), "cannot be set")));
    errors
}

fn claim_spec(spec: &Value, excused: Excused, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if list(spec, "accessModes").is_empty() {
        let why = "at least 1 access mode is required";
        errors.push(Error::required(&path.child("accessModes"), why));
    }
    if let Some(selector) = field(spec, "selector") {
        let mut wrong = names::validate_label_selector(selector, &path.child("selector"));
        if excused.selector_values {
            wrong.retain(|error| !error.field.contains(".values["));
        }
        errors.extend(wrong);
    }
    errors.extend(access_modes(spec, path));
    let at = path.child("resources").key("storage");
    match spec.pointer("/resources/requests/storage") {
        None => errors.push(Error::required(&at, "")),
        Some(size) => {
            let wrong = positive_quantity(size, &at);
            let fine = wrong.is_empty();
            errors.extend(wrong);
            if fine {
                errors.extend(quantity_value("storage", size, &at));
            }
        }
    }
    if let Some(mode) = optional(spec, "volumeMode") {
        errors.extend(supported(mode, &VOLUME_MODES, &path.child("volumeMode")));
    }
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = field(spec, key) {
            errors.extend(data_source(source, excused.source_group, &path.child(key)));
        }
    }
    errors.extend(data_sources_agree(spec, path));
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let name = text(spec, key);
        if !name.is_empty() {
            errors.extend(invalid(&path.child(key), name, names::name_is_dns_subdomain(name, false)));
        }
    }
    errors
}

fn data_source(source: &Value, any_group: bool, path: &Path) -> ErrorList {
    let mut errors = require(source, "name", path);
    errors.extend(require(source, "kind", path));
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(path, kind, why));
    }
    if !group.is_empty() && !any_group {
        errors.extend(invalid(&path.child("apiGroup"), group, names::is_dns1123_subdomain(group)));
    }
    let namespace = text(source, "namespace");
    if !namespace.is_empty() {
        let messages = names::name_is_dns_label(namespace, false);
        errors.extend(invalid(&path.child("namespace"), namespace, messages));
    }
    errors
}

/// The old and the new field for where the data come from say the same.
fn data_sources_agree(spec: &Value, path: &Path) -> Option<Error> {
    let (source, reference) = (field(spec, "dataSource")?, field(spec, "dataSourceRef")?);
    let why = if !text(reference, "namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|key| source.get(key) != reference.get(key)) {
        "must match dataSourceRef"
    } else {
        return None;
    };
    // upstream shows the path itself as the value
    Some(Error::invalid(path, Value::Object(Default::default()), why))
}

pub fn claim_update(new: &Object, old: &Object) -> ErrorList {
    let none = Value::Null;
    let before = old.get(&["spec"]).unwrap_or(&none);
    let root = Path::root();
    let excused = Excused {
        selector_values: field(before, "selector")
            .is_some_and(|selector| !names::validate_label_selector(selector, &root).is_empty()),
        source_group: ["dataSource", "dataSourceRef"]
            .iter()
            .any(|key| before.get(key).is_some_and(|source| has(source, "apiGroup"))),
    };
    let path = Path::new("spec");
    let mut errors = claim_spec(new.get(&["spec"]).unwrap_or(&none), excused, &path);
    let (mut after, mut before) = (new.clone(), old.clone());
    if old.get_str(&["spec", "volumeName"]).is_empty() {
        put(&mut before, &["spec", "volumeName"], new);
    }
    errors.extend(storage_class_update(&mut after, new, old));
    let bound = new.get_str(&["status", "phase"]) == "Bound";
    let requested = &["spec", "resources", "requests", "storage"];
    if bound && new.get(&["spec", "resources", "requests"]).is_some() {
        put(&mut after, requested, old);
    }
    let class = &["spec", "volumeAttributesClassName"];
    if bound && new.get(class).is_some() {
        put(&mut after, class, old);
    }
    if after.get(&["spec"]) != before.get(&["spec"]) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(Error::forbidden(&path, why));
    }
    let amount = |object: &Object, path: &[&str]| object.get(path).and_then(quantity).unwrap_or_default();
    let size = amount(new, requested);
    if size < amount(old, requested) && size <= amount(old, &["status", "capacity", "storage"]) {
        let at = path.child("resources").child("requests").child("storage");
        errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
    }
    errors.extend(super::immutable(&Path::new("volumeMode"), new, old, &["spec", "volumeMode"]));
    if old.get(class).is_some() && old.get(class) != new.get(class) {
        let at = path.child("volumeAttributesClassName");
        match new.get(class).and_then(Value::as_str) {
            None => errors.push(Error::forbidden(&at, "update from non-nil value to nil is forbidden")),
            Some("") => {
                let why = "update from non-nil value to an empty string is forbidden";
                errors.push(Error::forbidden(&at, why));
            }
            Some(_) => {}
        }
    }
    errors
}

fn put(object: &mut Object, path: &[&str], from: &Object) {
    match from.get(path) {
        Some(value) => object.set(path, value.clone()),
        None => {
            object.remove(path);
        }
    }
}

/// The class may move from the annotation of old to the field, and from nothing to something; no further.
fn storage_class_update(after: &mut Object, new: &Object, old: &Object) -> ErrorList {
    let class = &["spec", "storageClassName"];
    let (said, says) = (old.annotation(BETA_CLASS), new.annotation(BETA_CLASS));
    let name = new.get(class).and_then(Value::as_str);
    let unset = old.get(class).is_none();
    if let Some(said) = said
        && unset
        && name == Some(said)
        && says.is_none_or(|says| says == said)
    {
        after.remove(class);
        return ErrorList::new();
    }
    let mut errors = ErrorList::new();
    if said.unwrap_or_default() != says.unwrap_or_default() {
        let at = Path::new("metadata").child("annotations").child(BETA_CLASS);
        errors.push(Error::invalid(&at, says.unwrap_or_default(), "field is immutable"));
    }
    if unset && name.is_some() && (said.is_none() || said == name) {
        after.remove(class);
    }
    errors
}

pub fn claim_status_update(new: &Object) -> ErrorList {
    const RESIZE: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let none = Value::Null;
    let status = new.get(&["status"]).unwrap_or(&none);
    let path = Path::new("status");
    let mut errors = ErrorList::new();
    if new.get_array(&["spec", "accessModes"]).is_empty() {
        errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    for (name, value) in entries(status, "capacity") {
        errors.extend(resources::basic(value, &path.child("capacity").key(name)));
    }
    let at = path.child("allocatedResourceStatus");
    let mut sorted = RESIZE;
    sorted.sort_unstable();
    for (name, value) in entries(status, "allocatedResourceStatuses") {
        errors.extend(resource_key(name, &at));
        if !sorted.contains(&value.as_str().unwrap_or_default()) {
            errors.push(Error::not_supported(&at, name, &sorted));
        }
    }
    let at = path.child("allocatedResources");
    for (name, value) in entries(status, "allocatedResources") {
        let wrong = resource_key(name, &at);
        if !wrong.is_empty() {
            errors.extend(wrong);
            continue;
        }
        let wrong = resources::basic(value, &at.key(name));
        let fine = wrong.is_empty();
        errors.extend(wrong);
        if fine {
            errors.extend(quantity_value("storage", value, &at.key(name)));
        }
    }
    errors
}

fn resource_key(name: &str, path: &Path) -> ErrorList {
    let errors = invalid(path, name, names::is_qualified_name(name));
    if errors.is_empty() && resources::is_native(name) && name != "storage" {
        return vec![Error::not_supported(path, name, &STORAGE)];
    }
    errors
}
