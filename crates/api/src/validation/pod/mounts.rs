//! Where a container sees the pod's volumes: mounts for files, devices for blocks.

use apimachinery::Value;
use apimachinery::field::ErrorList;

use crate::validation::at::At;
use crate::validation::sources::{local_path, no_backsteps};
use crate::validation::value::{has, list, text};

/// The mounts of a container and its devices; `volumes` are the pod's.
pub fn mounts_and_devices(container: &At<'_>, volumes: &[(&str, &Value)]) -> ErrorList {
    let mut errors = mounts(container, volumes);
    errors.extend(devices(container, volumes));
    errors
}

/// Name and place of what is in a list, later entries of one name in the place of earlier ones.
fn places<'a>(container: &At<'a>, key: &str, place: &str) -> Vec<(&'a str, &'a str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for entry in list(container.value, key) {
        let (name, at) = (text(entry, "name"), text(entry, place));
        match out.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = at,
            None => out.push((name, at)),
        }
    }
    out
}

fn mounts(container: &At<'_>, volumes: &[(&str, &Value)]) -> ErrorList {
    let mut errors = ErrorList::new();
    let devices = places(container, "volumeDevices", "devicePath");
    let mounts = container.child("volumeMounts");
    let mut seen: Vec<&str> = Vec::new();
    for mount in mounts.items() {
        let (name, to) = (mount.child("name"), mount.child("mountPath"));
        errors.extend(name.must_be_set());
        if !volumes.iter().any(|(volume, _)| *volume == name.str()) {
            errors.push(name.not_found());
        }
        errors.extend(to.must_be_set());
        if seen.contains(&to.str()) {
            errors.push(to.invalid_text("must be unique"));
        }
        seen.push(to.str());
        if devices.iter().any(|(device, _)| *device == name.str()) {
            errors.push(name.invalid_text("must not already exist in volumeDevices"));
        }
        if devices.iter().any(|(_, place)| *place == to.str()) {
            errors.push(to.invalid_text("must not already exist as a path in volumeDevices"));
        }
        errors.extend(sub_paths(&mount, &mounts));
        errors.extend(propagation(&of_list(&mounts, &mount, "mountPropagation"), container));
        errors.extend(recursive_read_only(&of_list(&mounts, &mount, "recursiveReadOnly"), &mount));
    }
    errors
}

/// A field of an entry whose errors stand at the list, as upstream has them.
fn of_list<'a>(list: &At<'_>, entry: &At<'a>, key: &str) -> At<'a> {
    At::new(entry.child(key).value, list.path.child(key))
}

/// The part of a volume that is mounted.
fn sub_paths(mount: &At<'_>, mounts: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let (sub, expression) = (mount.child("subPath"), mount.child("subPathExpr"));
    if !sub.is_empty() {
        errors.extend(local_path(&of_list(mounts, mount, "subPath")));
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        errors.extend(local_path(&of_list(mounts, mount, "subPathExpr")));
    }
    errors
}

fn propagation(mode: &At<'_>, container: &At<'_>) -> ErrorList {
    let mut errors = mode.supported(&["Bidirectional", "HostToContainer", "None"]);
    if mode.str() == "Bidirectional" && !container.child("securityContext").is_true("privileged") {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(mode.forbidden(why));
    }
    errors
}

fn recursive_read_only(mode: &At<'_>, mount: &At<'_>) -> ErrorList {
    let mut errors = mode.supported(&["Disabled", "Enabled", "IfPossible"]);
    if matches!(mode.str(), "Enabled" | "IfPossible") {
        if !mount.is_true("readOnly") {
            errors.push(mode.forbidden("may only be specified when readOnly is true"));
        }
        if mount.optional("mountPropagation").is_some_and(|mode| mode != "None") {
            let why = "may only be specified when mountPropagation is None or not specified";
            errors.push(mode.forbidden(why));
        }
    }
    errors
}

fn devices(container: &At<'_>, volumes: &[(&str, &Value)]) -> ErrorList {
    let mut errors = ErrorList::new();
    let mounts = places(container, "volumeMounts", "mountPath");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for device in container.each("volumeDevices") {
        let (name, to) = (device.child("name"), device.child("devicePath"));
        errors.extend(name.must_be_set());
        if names.contains(&name.str()) {
            errors.push(name.invalid_text("must be unique"));
        }
        match volumes.iter().find(|(volume, _)| *volume == name.str()) {
            Some((_, volume)) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(name.invalid_text(why));
            }
            Some(_) => {}
            None => errors.push(name.not_found()),
        }
        errors.extend(to.must_be_set());
        if paths.contains(&to.str()) {
            errors.push(to.invalid_text("must be unique"));
        }
        if no_backsteps(&to).is_empty() {
            paths.push(to.str());
        } else {
            errors.push(to.invalid_text("can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|(mount, _)| *mount == name.str()) {
            errors.push(name.invalid_text("must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|(_, place)| *place == to.str()) {
            errors.push(to.invalid_text("must not already exist as a path in volumeMounts"));
        }
        if !name.is_empty() {
            names.push(name.str());
        }
    }
    errors
}
