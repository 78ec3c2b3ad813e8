//! Persistent volume claims, and the templates of claims that pods and StatefulSets make.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::at::At;
use super::forms::unchanged;
use super::internal;
use super::resources::{self, quantity_value};
use super::sources::{VOLUME_MODES, access_modes};
use super::value::quantity;

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
    claim_spec(&At::of(claim, &["spec"]), Excused::default())
}

/// What is wrong with a template of claims: its metadata are labels and annotations alone.
pub(crate) fn template(template: &At<'_>) -> ErrorList {
    let mut errors = template_metadata(&template.child("metadata"));
    errors.extend(spec(&template.child("spec")));
    errors
}

/// The spec of a claim anywhere.
pub(crate) fn spec(spec: &At<'_>) -> ErrorList {
    claim_spec(spec, Excused::default())
}

/// Metadata of a template whose other fields nobody reads.
pub(crate) fn template_metadata(meta: &At<'_>) -> ErrorList {
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
    let (annotations, labels) = (meta.child("annotations"), meta.child("labels"));
    if let Value::Object(map) = annotations.value {
        errors.extend(names::validate_annotations(map, &annotations.path));
    }
    if let Value::Object(map) = labels.value {
        errors.extend(names::validate_labels(map, &labels.path));
    }
    let set = OTHERS.iter().filter(|key| meta.says(key));
    errors.extend(set.map(|key| meta.child(key).forbidden("cannot be set")));
    errors
}

fn claim_spec(spec: &At<'_>, excused: Excused) -> ErrorList {
    let mut errors = ErrorList::new();
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    if let Some(selector) = spec.field("selector") {
        errors.extend(selector.label_selector_with(excused.selector_values));
    }
    errors.extend(access_modes(&modes));
    let resources = spec.child("resources");
    let size = At::new(resources.child("requests").child("storage").value, resources.path.key("storage"));
    if !size.is_set() {
        errors.push(size.required(""));
    } else {
        let wrong = size.positive_quantity();
        errors.extend(if wrong.is_empty() { quantity_value("storage", &size) } else { wrong });
    }
    errors.extend(spec.child("volumeMode").supported(&VOLUME_MODES));
    for source in ["dataSource", "dataSourceRef"].iter().filter_map(|key| spec.field(key)) {
        errors.extend(data_source(&source, excused.source_group));
    }
    errors.extend(data_sources_agree(spec));
    for name in ["storageClassName", "volumeAttributesClassName"].map(|key| spec.child(key)) {
        if !name.is_empty() {
            errors.extend(name.subdomain());
        }
    }
    errors
}

fn data_source(source: &At<'_>, any_group: bool) -> ErrorList {
    let mut errors = source.child("name").must_be_set();
    errors.extend(source.child("kind").must_be_set());
    let (group, kind) = (source.child("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(&source.path, kind, why));
    }
    if !group.is_empty() && !any_group {
        errors.extend(group.subdomain());
    }
    let namespace = source.child("namespace");
    if !namespace.is_empty() {
        errors.extend(namespace.dns_label());
    }
    errors
}

/// The old and the new field for where the data come from say the same.
fn data_sources_agree(spec: &At<'_>) -> Option<Error> {
    let (source, reference) = (spec.field("dataSource")?, spec.field("dataSourceRef")?);
    let differs = |key: &&str| source.value.get(key) != reference.value.get(key);
    let why = if reference.says("namespace") {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(differs) {
        "must match dataSourceRef"
    } else {
        return None;
    };
    // upstream shows the path itself as the value
    Some(Error::invalid(&spec.path, Value::Object(Default::default()), why))
}

pub fn claim_update(new: &Object, old: &Object) -> ErrorList {
    let (spec, was) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let excused = Excused {
        selector_values: was.field("selector").is_some_and(|selector| !selector.label_selector().is_empty()),
        source_group: ["dataSource", "dataSourceRef"].iter().any(|key| was.child(key).has("apiGroup")),
    };
    let mut errors = claim_spec(&spec, excused);
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
        let [was, now] = [&before, &after].map(|claim| At::of(claim, &["spec"]));
        let difference =
            internal::difference(internal::CORE, "PersistentVolumeClaimSpec", was.value, now.value);
        errors.push(spec.forbidden(format!("{why}\n{difference}")));
    }
    let amount = |object: &Object, path: &[&str]| object.get(path).and_then(quantity).unwrap_or_default();
    let size = amount(new, requested);
    if size < amount(old, requested) && size <= amount(old, &["status", "capacity", "storage"]) {
        let at = spec.child("resources").child("requests").child("storage");
        errors.push(at.forbidden("field can not be less than status.capacity"));
    }
    let mode = At::new(spec.child("volumeMode").value, Path::new("volumeMode"));
    errors.extend(unchanged(&mode, &was.child("volumeMode")));
    let class = spec.child("volumeAttributesClassName");
    if was.has("volumeAttributesClassName") && !class.is_set() {
        errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
    } else if was.says("volumeAttributesClassName") && class.is_empty() {
        errors.push(class.forbidden("update from non-nil value to an empty string is forbidden"));
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
    let status = At::of(new, &["status"]);
    let mut errors = ErrorList::new();
    if new.get_array(&["spec", "accessModes"]).is_empty() {
        errors.push(Error::required(&Path::new("Spec").child("accessModes"), ""));
    }
    errors.extend(status.child("capacity").entries().flat_map(|(_, amount)| resources::basic(&amount)));
    let at = status.path.child("allocatedResourceStatus");
    let mut sorted = RESIZE;
    sorted.sort_unstable();
    for (name, state) in status.child("allocatedResourceStatuses").entries() {
        errors.extend(resource_key(name, &at));
        if !sorted.contains(&state.str()) {
            errors.push(Error::not_supported(&at, name, &sorted));
        }
    }
    let allocated = status.child("allocatedResources");
    for (name, amount) in allocated.entries() {
        let mut wrong = resource_key(name, &allocated.path);
        if wrong.is_empty() {
            wrong = resources::basic(&amount);
        }
        errors.extend(if wrong.is_empty() { quantity_value("storage", &amount) } else { wrong });
    }
    errors
}

fn resource_key(name: &str, path: &Path) -> ErrorList {
    let errors = names::validate_label_name(name, path);
    if errors.is_empty() && resources::is_native(name) && name != "storage" {
        return vec![Error::not_supported(path, name, &STORAGE)];
    }
    errors
}
