//! Where a container sees the pod's volumes: mounts for files, devices for blocks.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::sources::{local_path, no_backsteps};
use crate::validation::value::{flag, has, list, optional, supported, text};

/// The mounts of a container and its devices; `volumes` are the pod's.
pub fn mounts_and_devices(container: &Value, volumes: &[(&str, &Value)], path: &Path) -> ErrorList {
    let mut errors = mounts(container, volumes, &path.child("volumeMounts"));
    errors.extend(devices(container, volumes, &path.child("volumeDevices")));
    errors
}

/// Name and place of what is in a list, later entries of one name in the place of earlier ones.
fn places<'a>(container: &'a Value, key: &str, place: &str) -> Vec<(&'a str, &'a str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for entry in list(container, key) {
        let (name, at) = (text(entry, "name"), text(entry, place));
        match out.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = at,
            None => out.push((name, at)),
        }
    }
    out
}

fn mounts(container: &Value, volumes: &[(&str, &Value)], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let devices = places(container, "volumeDevices", "devicePath");
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let at = path.index(index);
        let (name, to) = (text(mount, "name"), text(mount, "mountPath"));
        let (name_path, to_path) = (at.child("name"), at.child("mountPath"));
        let volume = volumes.iter().find(|(volume, _)| *volume == name).map(|(_, volume)| *volume);
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        }
        if volume.is_none() {
            errors.push(Error::not_found(&name_path, name));
        }
        if to.is_empty() {
            errors.push(Error::required(&to_path, ""));
        }
        if seen.contains(&to) {
            errors.push(Error::invalid(&to_path, to, "must be unique"));
        }
        seen.push(to);
        if devices.iter().any(|(device, _)| *device == name) {
            errors.push(Error::invalid(&name_path, name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|(_, place)| *place == to) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&to_path, to, why));
        }
        errors.extend(sub_paths(mount, volume, path, &at));
        if let Some(mode) = optional(mount, "mountPropagation") {
            errors.extend(propagation(mode, container, &path.child("mountPropagation")));
        }
        errors.extend(recursive_read_only(mount, &path.child("recursiveReadOnly")));
    }
    errors
}

/// The part of a volume that is mounted. Some paths in the errors are those of the list, not of its entry.
fn sub_paths(mount: &Value, volume: Option<&Value>, list: &Path, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if volume.is_some_and(|volume| has(volume, "image")) {
        for (key, value) in [("subPath", sub), ("subPathExpr", expression)] {
            if !value.is_empty() {
                let why = "not allowed in image volume sources";
                errors.push(Error::invalid(&path.child(key), value, why));
            }
        }
    }
    if !sub.is_empty() {
        errors.extend(local_path(sub, &list.child("subPath")));
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(&path.child("subPathExpr"), expression, why));
        }
        errors.extend(local_path(expression, &list.child("subPathExpr")));
    }
    errors
}

fn propagation(mode: &str, container: &Value, path: &Path) -> ErrorList {
    let mut errors = supported(mode, &["Bidirectional", "HostToContainer", "None"], path);
    let privileged = container.get("securityContext").is_some_and(|context| flag(context, "privileged"));
    if mode == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(path, why));
    }
    errors
}

fn recursive_read_only(mount: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match optional(mount, "recursiveReadOnly") {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.push(Error::forbidden(path, "may only be specified when readOnly is true"));
            }
            if optional(mount, "mountPropagation").is_some_and(|mode| mode != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(Error::forbidden(path, why));
            }
        }
        Some(other) => errors.extend(supported(other, &["Disabled", "Enabled", "IfPossible"], path)),
    }
    errors
}

fn devices(container: &Value, volumes: &[(&str, &Value)], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mounts = places(container, "volumeMounts", "mountPath");
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let at = path.index(index);
        let (name, to) = (text(device, "name"), text(device, "devicePath"));
        let (name_path, to_path) = (at.child("name"), at.child("devicePath"));
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        }
        if names.contains(&name) {
            errors.push(Error::invalid(&name_path, name, "must be unique"));
        }
        match volumes.iter().find(|(volume, _)| *volume == name) {
            Some((_, volume)) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&name_path, name, why));
            }
            Some(_) => {}
            None => errors.push(Error::not_found(&name_path, name)),
        }
        if to.is_empty() {
            errors.push(Error::required(&to_path, ""));
        }
        if paths.contains(&to) {
            errors.push(Error::invalid(&to_path, to, "must be unique"));
        }
        if no_backsteps(to, &to_path).is_empty() {
            paths.push(to);
        } else {
            errors.push(Error::invalid(&to_path, to, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|(mount, _)| *mount == name) {
            errors.push(Error::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|(_, place)| *place == to) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(Error::invalid(&to_path, to, why));
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
    errors
}
