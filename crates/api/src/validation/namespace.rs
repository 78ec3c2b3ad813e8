//! Namespaces, and the finalizers that only a namespace or the system may have.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::at::At;

/// Finalizers without a domain are the system's own.
fn standard(name: &str, path: &Path) -> Option<Error> {
    let known = name.contains('/') || matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    (!known).then(|| Error::invalid(path, name, why))
}

/// What is wrong with the finalizers in an object's metadata, beyond their form.
pub fn finalizer_names(object: &Object) -> ErrorList {
    let path = Path::new("metadata").child("finalizers");
    let all = object.finalizers().into_iter().enumerate();
    all.filter_map(|(index, name)| standard(name, &path.index(index))).collect()
}

fn spec_finalizers(namespace: &Object, indexed: bool) -> ErrorList {
    let finalizers = At::of(namespace, &["spec", "finalizers"]);
    let mut errors = ErrorList::new();
    for name in finalizers.items() {
        let path = if indexed { &name.path } else { &finalizers.path };
        errors.extend(names::validate_finalizer_name(name.str(), path));
        errors.extend(standard(name.str(), path));
    }
    errors
}

pub fn namespace(namespace: &Object) -> ErrorList {
    spec_finalizers(namespace, false)
}

pub fn namespace_finalize(namespace: &Object) -> ErrorList {
    spec_finalizers(namespace, true)
}

pub fn namespace_status_update(namespace: &Object) -> ErrorList {
    let phase = namespace.get_str(&["status", "phase"]);
    let (must, when) = match namespace.deletion_timestamp() {
        None => ("Active", "is empty"),
        Some(_) => ("Terminating", "is not empty"),
    };
    if phase == must {
        return ErrorList::new();
    }
    let why = format!("may only be '{must}' if `deletionTimestamp` {when}");
    vec![Error::invalid(&Path::new("status").child("Phase"), Value::from(phase), why)]
}
