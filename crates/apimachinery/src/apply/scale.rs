//! Who manages `spec.replicas`, told between an object and its scale: a scale has no managed fields of its own.

use super::managed::{Entry, Manager, Managers, Operation, decode, encode};
use super::set::{FieldSet, PathElement};
use crate::object::Object;

fn replicas() -> (Vec<PathElement>, FieldSet) {
    let path = ["spec", "replicas"].map(|name| PathElement::Field(name.to_owned()));
    (path.to_vec(), FieldSet::of_fields(&[&["spec", "replicas"]]))
}

/// A manager as it is called in an object of another version.
fn of_version(manager: &Manager, api_version: &str) -> Manager {
    Manager::new(&manager.name, manager.operation, api_version, &manager.subresource)
}

/// Gives a scale the managers of its object's replicas.
pub fn managers_to_scale(object: &Object, scale: &mut Object) -> Result<(), String> {
    let (path, replicas) = replicas();
    let version = scale.api_version().to_owned();
    let own = decode(object)?.into_iter().filter(|(_, entry)| entry.set().has(&path));
    let own = own.map(|(manager, entry)| {
        (of_version(&manager, &version), Entry::new(replicas.clone(), &version, entry.time))
    });
    let own: Managers = own.collect();
    encode(scale, &own);
    Ok(())
}

/// Gives an object the managers that its replicas have after a write to its scale. Of those that come anew, no time
/// is noted.
pub fn managers_from_scale(scale: &Object, object: &mut Object) -> Result<(), String> {
    let (path, replicas) = replicas();
    let (of_scale, version) = (scale.api_version().to_owned(), object.api_version().to_owned());
    let mut own = decode(scale)?;
    own.retain(|_, entry| entry.set().has(&path));
    let mut managers = decode(object)?;
    managers.retain(|manager, entry| {
        if entry.set().has(&path) && own.remove(&of_version(manager, &of_scale)).is_none() {
            entry.replace(entry.set().clone().difference(&replicas));
        }
        !entry.set().is_empty()
    });
    for manager in own.into_keys() {
        let manager = match manager.operation {
            Operation::Apply => manager,
            Operation::Update => of_version(&manager, &version),
        };
        managers.insert(manager, Entry::new(replicas.clone(), &version, None));
    }
    encode(object, &managers);
    Ok(())
}
