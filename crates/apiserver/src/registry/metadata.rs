//! Metadata that the server owns: names it makes up, identities, and what every update must leave alone.

use api::Resource;
use apimachinery::field::{self, ErrorList, Path};
use apimachinery::{GroupKind, Object, Reason, Status, Value, validation};
use rand::Rng;
use storage::Revision;

use super::{Registry, list};
use crate::context::Context;
use crate::kinds::Kind;

/// Upstream's alphabet of generated suffixes: no vowels, nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const MAX_GENERATED: usize = 63 - SUFFIX;

/// A name from a prefix.
pub fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(MAX_GENERATED);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix: String = (0..SUFFIX).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect();
    format!("{}{suffix}", &prefix[..end])
}

/// Fills in what a new object gets from the server.
pub fn fill_new(object: &mut Object, ctx: &Context) {
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.remove(&["metadata", key]);
    }
    object.set(&["metadata", "creationTimestamp"], ctx.timestamp());
    object.set_uid(&uuid::Uuid::new_v4().to_string());
    if object.name().is_empty() && !object.generate_name().is_empty() {
        let name = generate_name(object.generate_name());
        object.set_name(&name);
    }
}

/// Takes back what admission may have done to what the server fills in.
pub fn keep_new(object: &mut Object, uid: &str, ctx: &Context) {
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        object.remove(&["metadata", key]);
    }
    object.set(&["metadata", "creationTimestamp"], ctx.timestamp());
    object.set_uid(uid);
}

/// The namespace of the path and that of the body are the same, or the body leaves it out.
pub fn match_namespace(resource: &Resource, namespace: &str, object: &mut Object) -> Result<(), Status> {
    if !resource.namespaced {
        object.set_namespace("");
        return Ok(());
    }
    if object.namespace().is_empty() {
        object.set_namespace(namespace);
    }
    if object.namespace() != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// What is wrong with a new object.
pub fn validate_new(resource: &Resource, object: &Object) -> ErrorList {
    let mut errors = validation::validate_object_meta(
        object,
        resource.namespaced,
        &|name, prefix| resource.strategy.validate_name(name, prefix),
        &Path::new("metadata"),
    );
    errors.extend(api::validation::finalizer_names(object));
    errors.extend(resource.strategy.validate(object));
    errors
}

/// Whether the namespace allows what is written, for what only some namespaces allow.
pub fn validate_namespace(
    registry: &Registry,
    kind: &Kind,
    object: &Object,
    old: Option<&Object>,
) -> Option<field::Error> {
    let needed = kind.resource.strategy.needs_namespace_label(object, old)?;
    let namespace = registry.peek(registry.core("namespaces"), "", object.namespace());
    let allows = namespace.is_some_and(|namespace| namespace.label(needed.label) == Some("true"));
    (!allows).then_some(needed.error)
}

/// Leaves out owners that are named more than once, and warns of them: those that a client sends, or those that are
/// there once all who may change the object have.
pub fn drop_repeated_owners(ctx: &Context, object: &mut Object, after_admission: bool) {
    let owners = object.get_array(&["metadata", "ownerReferences"]);
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated = Vec::new();
    for owner in owners {
        match kept.contains(owner) {
            true => repeated.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned()),
            false => kept.push(owner.clone()),
        }
    }
    if repeated.is_empty() {
        return;
    }
    let when = if after_admission { " after mutating admission happens" } else { "" };
    ctx.warn(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    ));
    object.set(&["metadata", "ownerReferences"], kept);
}

/// When an object goes is not for an update to say.
pub fn keep_deletion(object: &mut Object, old: &Object) {
    match old.get(&["metadata", "deletionTimestamp"]) {
        Some(time) => object.set(&["metadata", "deletionTimestamp"], time.clone()),
        None => drop(object.remove(&["metadata", "deletionTimestamp"])),
    }
}

/// Carries over what an update may leave out.
pub fn carry_over(object: &mut Object, old: &Object) {
    object.set_generation(old.generation());
    if object.uid().is_empty() {
        object.set_uid(old.uid());
    }
    if object.name().is_empty() {
        object.set_name(old.name());
    }
    for key in ["creationTimestamp", "selfLink"] {
        match old.get(&["metadata", key]).cloned() {
            Some(value) => object.set(&["metadata", key], value),
            None => {
                object.remove(&["metadata", key]);
            }
        }
    }
    if let (None, Some(seconds)) =
        (object.deletion_grace_period_seconds(), old.deletion_grace_period_seconds())
    {
        object.set(&["metadata", "deletionGracePeriodSeconds"], seconds);
    }
}

/// The version that an object of a client is of; 0 for none. What is no number is an error that upstream has no reason for.
pub fn version_of(object: &Object) -> Result<Revision, Status> {
    match object.resource_version() {
        "" => Ok(0),
        version => list::parse_u64(version).map_err(|why| Status::new(500, Reason::Unknown, why)),
    }
}

/// An update of an object names the object as it is, or leaves the question open where the kind allows that.
pub fn check_version(resource: &Resource, object: &Object, old: &Object) -> Result<(), Status> {
    let version = version_of(object)?;
    if version == 0 {
        if resource.strategy.allow_unconditional_update() {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let error = field::Error::invalid(&path, 0, "must be specified for an update");
        // upstream has but the resource at hand there
        let resource = resource.group_resource();
        return Err(Status::invalid(
            &GroupKind::new(resource.group, resource.resource),
            old.name(),
            &[error],
        ));
    }
    if version != version_of(old)? {
        return Err(Status::modified(&resource.group_resource(), object.name()));
    }
    Ok(())
}

/// A precondition on the uid that an update's body carries.
pub fn check_uid(resource: &Resource, key: &str, asked: &str, old: &Object) -> Result<(), Status> {
    if asked.is_empty() || asked == old.uid() {
        return Ok(());
    }
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {asked}, UID in object meta: {}",
        old.uid()
    );
    Err(Status::conflict(&resource.group_resource(), old.name(), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"a".repeat(100));
        assert_eq!(name.len(), 63);
        let short = generate_name("web-");
        assert!(short.starts_with("web-") && short.len() == 9);
        assert!(short[4..].bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
