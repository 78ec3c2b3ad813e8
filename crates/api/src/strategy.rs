//! The contract of a resource's rules, one hook per step of a write. The generic registry calls them in
//! upstream's order; a hook that is not overridden has nothing to add.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::{Object, Value};

/// How long an object lives on after a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// It goes at once.
    None,
    /// It gets a `deletionTimestamp` and goes when its owner confirms, or after so many seconds.
    Seconds(i64),
}

/// What happens to what an object owns when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// They are deleted after it.
    Deleted,
    /// They are left behind.
    Orphaned,
    /// There are none, whatever the client says: the object waits for nothing.
    None,
}

/// Who asks for a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Vec<(String, Vec<String>)>,
    /// When, in RFC 3339.
    pub time: String,
}

/// What a namespace has to allow by a label that is `true`.
pub struct NamespaceLabel {
    pub label: &'static str,
    /// What is wrong where the namespace does not.
    pub error: field::Error,
}

/// A right that a change takes besides the one to the write itself.
pub struct Right {
    /// Stands for the part that changes; the resource has no subresource of the name.
    pub subresource: &'static str,
    /// Verbs of which one will do.
    pub verbs: Vec<String>,
    /// Empty: for all names.
    pub name: String,
    /// In the namespace of the object, or in the whole cluster.
    pub namespaced: bool,
    /// Where a refusal is noted, and what it says before the authorizer's own words.
    pub path: Path,
    pub deed: String,
}

/// Rules of one resource. Hooks that take `&mut` change the object and never refuse; hooks that return errors
/// never change it.
pub trait Strategy: Send + Sync {
    /// Fills in defaults; runs after every decode, on stored objects too, so it must be idempotent.
    fn default(&self, _object: &mut Object) {}

    /// Messages why a name is refused; empty when it is fine. `prefix` is true for a `generateName`.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        validation::name_is_dns_subdomain(name, prefix)
    }

    /// Warnings about a new object as its client sent it, before [`Strategy::prepare_for_create`] makes one form of it
    /// out of several.
    fn warnings_before_create(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Clears what a client may not set and puts the object into its first state.
    fn prepare_for_create(&self, object: &mut Object) {
        reset_status_for_create(object);
    }

    fn validate(&self, _object: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// Brings an object that is valid into the one form in which it is stored.
    fn canonicalize(&self, _object: &mut Object) {}

    /// Puts back what an update of the main resource may not change; moves `generation`.
    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
        bump_generation(object, old);
    }

    /// Runs after the metadata rules that hold for every kind.
    fn validate_update(&self, object: &Object, _old: &Object) -> ErrorList {
        self.validate(object)
    }

    /// Puts back what an update through `status` may not change.
    fn prepare_for_status_update(&self, object: &mut Object, old: &Object) {
        keep_spec(object, old);
    }

    fn validate_status_update(&self, _object: &Object, _old: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// Puts back what an update through a subresource of the kind's own, such as `resize`, may not change.
    fn prepare_for_subresource(&self, _subresource: &str, _object: &mut Object, _old: &Object) {}

    fn validate_subresource(&self, _subresource: &str, _object: &Object, _old: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// A label that the namespace has to have as `true` for what is written, and what is wrong when it does not.
    fn needs_namespace_label(&self, _object: &Object, _old: Option<&Object>) -> Option<NamespaceLabel> {
        None
    }

    /// Rights that a change of the status takes besides the one to `status`; `verb` is the request's.
    fn rights_for_status_update(
        &self,
        _object: &Object,
        _old: &Object,
        _verb: &str,
        _requester: &Requester,
    ) -> Vec<Right> {
        Vec::new()
    }

    /// Notes who writes and when, for kinds that keep that; runs before the `prepare_for_…` of the write. `old` is
    /// what an update starts from.
    fn note_requester(&self, _object: &mut Object, _old: Option<&Object>, _requester: &Requester) {}

    fn warnings_on_create(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    fn warnings_on_update(&self, object: &Object, _old: &Object) -> Vec<String> {
        self.warnings_on_create(object)
    }

    fn warnings_on_status_update(&self, _object: &Object, _old: &Object) -> Vec<String> {
        Vec::new()
    }

    /// What is said to whoever asks for the resource at all, since it is on its way out.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// What a client should know that deletes without saying what becomes of dependents.
    fn warnings_on_delete(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether PUT and apply may make an object that does not exist.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion is taken.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How long a deleted object stays; `asked` is the client's `gracePeriodSeconds`.
    fn grace(&self, _object: &Object, _asked: Option<i64>) -> Grace {
        Grace::None
    }

    /// Why an object of this name is never deleted.
    fn forbids_delete(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// What happens to dependents when the client does not say.
    fn dependents(&self) -> Dependents {
        Dependents::Deleted
    }

    /// Fields that server-side apply takes from a manager's set, since a write through the named subresource
    /// (empty: the main one) cannot change them.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"]],
            _ => &[&["status"]],
        }
    }

    /// The fields that alone server-side apply leaves in a manager's set, for a subresource that changes nothing
    /// else; `*` is any item. Takes the place of [`Strategy::reset_fields`].
    fn only_fields(&self, _subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        None
    }
}

/// The strategy of kinds that have no rules beyond their schema and metadata.
pub struct Plain;

impl Strategy for Plain {}

/// As [`Plain`], for kinds that PUT may create.
pub struct Creatable;

impl Strategy for Creatable {
    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// A new object starts without status.
pub fn reset_status_for_create(object: &mut Object) {
    object.remove(&["status"]);
    if object.get(&["spec"]).is_some() {
        object.set_generation(1);
    }
}

/// The main resource leaves `status` as it was.
pub fn keep_status(object: &mut Object, old: &Object) {
    restore(object, old, "status");
}

/// `status` leaves `spec` as it was, and may move what metadata any update may.
pub fn keep_spec(object: &mut Object, old: &Object) {
    restore(object, old, "spec");
}

/// What a kind resets whose status does not change metadata either ([`Strategy::reset_fields`]).
pub fn reset_metadata_too(subresource: &str) -> &'static [&'static [&'static str]] {
    match subresource {
        "status" => &[&["metadata"], &["spec"]],
        _ => &[&["status"]],
    }
}

/// Puts back metadata that `status` may not move (`ResetObjectMetaForStatus`).
pub fn keep_metadata(object: &mut Object, old: &Object) {
    const KEYS: [&str; 6] =
        ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"];
    for key in KEYS {
        restore_at(object, old, &["metadata", key]);
    }
}

/// Makes metadata what it was, but for who manages what.
pub fn keep_all_metadata(object: &mut Object, old: &Object) {
    let managed = object.get(&["metadata", "managedFields"]).cloned();
    restore(object, old, "metadata");
    match managed {
        Some(managed) => object.set(&["metadata", "managedFields"], managed),
        None => drop(object.remove(&["metadata", "managedFields"])),
    }
}

/// Makes a top-level field what it was.
pub fn restore(object: &mut Object, old: &Object, key: &str) {
    restore_at(object, old, &[key]);
}

/// Makes what stands at a path what it was.
pub fn restore_at(object: &mut Object, old: &Object, path: &[&str]) {
    match old.get(path) {
        Some(value) => object.set(path, value.clone()),
        None => drop(object.remove(path)),
    }
}

/// `generation` counts changes of `spec`.
pub fn bump_generation(object: &mut Object, old: &Object) {
    let moved = object.get(&["spec"]) != old.get(&["spec"]);
    object.set_generation(old.generation() + i64::from(moved));
}

/// The error of a field that may not change; none when it did not.
pub fn immutable(path: &Path, new: Option<&Value>, old: Option<&Value>) -> ErrorList {
    if new == old {
        return ErrorList::new();
    }
    vec![apimachinery::field::Error::invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::catalogue;

    const METADATA_AND_SPEC: &[&[&str]] = &[&["metadata"], &["spec"]];
    const METADATA: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

    /// What of the metadata `status` leaves as it was, and what server-side apply resets through it.
    #[test]
    fn status_moves_what_upstream_lets_it_move() {
        let exceptions: [(&str, &[&str], &[&[&str]]); 11] = [
            ("APIService", &METADATA, METADATA_AND_SPEC),
            ("CertificateSigningRequest", &[], &[&["spec"], &["status", "conditions"]]),
            ("Deployment", &["labels"], &[&["spec"], &["metadata", "labels"]]),
            ("FlowSchema", &METADATA, METADATA_AND_SPEC),
            (
                "Pod",
                &["ownerReferences"],
                &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            ),
            ("PriorityLevelConfiguration", &METADATA, METADATA_AND_SPEC),
            ("ResourceClaim", &METADATA, METADATA_AND_SPEC),
            ("ServiceCIDR", &METADATA, METADATA_AND_SPEC),
            ("ValidatingAdmissionPolicy", &METADATA, METADATA_AND_SPEC),
            ("VolumeAttachment", &METADATA, METADATA_AND_SPEC),
            ("", &[], &[&["spec"]]),
        ];
        let mut wrong = Vec::new();
        for resource in catalogue().all() {
            if resource.subresource("status").is_none() {
                continue;
            }
            let old = Object::from(json!({"metadata": {"name": "o"}, "spec": {}, "status": {}}));
            let mut new = old.clone();
            for key in METADATA {
                new.set(&["metadata", key], json!({"a": "b"}));
            }
            new.set(&["spec", "replicas"], 7);
            resource.strategy.prepare_for_status_update(&mut new, &old);
            let kept: Vec<&str> =
                METADATA.into_iter().filter(|key| new.get(&["metadata", key]).is_none()).collect();
            let of_kind =
                |(kind, ..): &&(&str, &[&str], &[&[&str]])| *kind == resource.kind || kind.is_empty();
            let (_, metadata, reset) = exceptions.iter().find(of_kind).expect("the last one fits all");
            let outcome = (kept.as_slice(), resource.strategy.reset_fields("status"), new.get(&["spec"]));
            if outcome != (*metadata, *reset, old.get(&["spec"])) {
                wrong.push(format!("{}: {outcome:?}", resource.kind));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
