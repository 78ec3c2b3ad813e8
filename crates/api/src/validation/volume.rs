//! Persistent volumes.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::pod::node_selector;
use super::resources::{basic, positive_quantity};
use super::sources::{self, VOLUME_MODES, access_modes};
use super::value::{entries, field, has, invalid, list, optional, supported, text};

type Check = fn(&Value, &Path, &str) -> ErrorList;

/// The sources in the order in which they are looked at: key, path of the refusal of a second source, path of
/// the source itself (empty: the key), and the rules. The volume's name is for iSCSI.
const SOURCES: [(&str, &str, &str, Check); 22] = [
    ("hostPath", "", "", |s, p, _| sources::host_path(s, p)),
    ("gcePersistentDisk", "", "persistentDisk", |s, p, _| sources::gce_persistent_disk(s, p)),
    ("awsElasticBlockStore", "", "", |s, p, _| sources::aws_elastic_block_store(s, p)),
    ("glusterfs", "", "", |s, p, _| sources::glusterfs_persistent(s, p)),
    ("flocker", "", "", |s, p, _| sources::flocker(s, p)),
    ("nfs", "", "", |s, p, _| sources::nfs(s, p)),
    ("rbd", "", "", |s, p, _| sources::rbd(s, p)),
    ("quobyte", "", "", |s, p, _| sources::quobyte(s, p)),
    ("cephfs", "cephFS", "", |s, p, _| sources::ceph_fs(s, p)),
    ("iscsi", "", "", |s, p, name| sources::iscsi(s, name, false, p)),
    ("cinder", "", "", |s, p, _| sources::cinder_persistent(s, p)),
    ("fc", "", "", |s, p, _| sources::fc(s, p)),
    ("flexVolume", "", "", |s, p, _| sources::flex_volume(s, p)),
    ("azureFile", "", "", |s, p, _| sources::azure_file_persistent(s, p)),
    ("vsphereVolume", "", "", |s, p, _| sources::vsphere_volume(s, p)),
    ("photonPersistentDisk", "", "", |s, p, _| sources::photon_persistent_disk(s, p)),
    ("portworxVolume", "", "", |s, p, _| sources::portworx_volume(s, p)),
    ("azureDisk", "", "", |s, p, _| sources::azure_disk(s, p)),
    ("scaleIO", "", "", |s, p, _| sources::scale_io(s, p)),
    ("local", "", "", |s, p, _| sources::local(s, p)),
    ("storageos", "", "", |s, p, _| sources::storage_os_persistent(s, p)),
    ("csi", "", "", |s, p, _| sources::csi_persistent(s, p)),
];

pub fn volume(volume: &Object) -> ErrorList {
    let spec = volume.get(&["spec"]).unwrap_or(&Value::Null);
    volume_spec(spec, volume.name(), false, false, &Path::new("spec"))
}

/// A volume spec that stands in another object, as in a `VolumeAttachment`.
pub fn inline_volume_spec(spec: &Value, path: &Path) -> ErrorList {
    volume_spec(spec, "", true, false, path)
}

fn volume_spec(spec: &Value, name: &str, inline: bool, tolerant: bool, path: &Path) -> ErrorList {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    let at = |key: &str| path.child(key);
    let mut errors = ErrorList::new();
    if inline {
        for key in ["claimRef", "capacity"] {
            if has(spec, key) {
                errors.push(Error::forbidden(&at(key), INLINE));
            }
        }
        if !has(spec, "csi") {
            errors.push(Error::required(&at("csi"), "has to be specified in the context of inline volumes"));
        }
    }
    if list(spec, "accessModes").is_empty() {
        errors.push(Error::required(&at("accessModes"), ""));
    }
    errors.extend(access_modes(spec, path));
    if !inline {
        errors.extend(capacity(spec, &at("capacity")));
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    let policy_path = at("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy, "" | "Retain") {
        let why = "may only be Retain in the context of inline volumes";
        errors.push(Error::forbidden(&policy_path, why));
    } else if !inline && !policy.is_empty() {
        errors.extend(supported(policy, &["Delete", "Recycle", "Retain"], &policy_path));
    }
    let affinity = field(spec, "nodeAffinity");
    if let Some(affinity) = affinity {
        let at = at("nodeAffinity");
        match field(affinity, "required") {
            _ if inline => errors.push(Error::forbidden(&at, INLINE)),
            Some(required) => errors.extend(node_selector(required, tolerant, &at.child("required"))),
            None => {
                let why = "must specify required node constraints";
                errors.push(Error::required(&at.child("required"), why));
            }
        }
    }
    errors.extend(source(spec, name, affinity.is_some() && !inline, path));
    let root = clean(spec.pointer("/hostPath/path").and_then(Value::as_str).unwrap_or_default()) == "/";
    if has(spec, "hostPath") && root && policy == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(Error::forbidden(&policy_path, why));
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        if inline {
            errors.push(Error::forbidden(&at("storageClassName"), INLINE));
        } else {
            errors.extend(invalid(
                &at("storageClassName"),
                class,
                names::name_is_dns_subdomain(class, false),
            ));
        }
    }
    if let Some(mode) = optional(spec, "volumeMode") {
        if !inline {
            errors.extend(supported(mode, &VOLUME_MODES, &at("volumeMode")));
        } else if mode != "Filesystem" {
            let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
            errors.push(Error::forbidden(&at("volumeMode"), why));
        }
    }
    if let Some(class) = optional(spec, "volumeAttributesClassName") {
        let path = at("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(Error::required(&path, "an empty string is disallowed"));
        } else {
            errors.extend(invalid(&path, class, names::name_is_dns_subdomain(class, false)));
        }
        if !has(spec, "csi") {
            let why = "has to be specified when using volumeAttributesClassName";
            errors.push(Error::required(&at("csi"), why));
        }
    }
    errors
}

/// Whether a path is the root in the end, by Go's `path.Clean`.
fn clean(path: &str) -> &str {
    if !path.starts_with('/') {
        return path;
    }
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    if depth == 0 { "/" } else { path }
}

fn capacity(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let amounts: Vec<(&str, &Value)> = entries(spec, "capacity").collect();
    if amounts.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if amounts.len() != 1 || amounts.iter().any(|(name, _)| *name != "storage") {
        let shown = field(spec, "capacity").cloned().unwrap_or_default();
        errors.push(Error::not_supported(path, shown, &["storage"]));
    }
    for (name, value) in amounts {
        errors.extend(basic(value, &path.key(name)));
        errors.extend(positive_quantity(value, &path.key(name)));
    }
    errors
}

fn source(spec: &Value, name: &str, has_affinity: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    for (key, second, own, check) in SOURCES {
        let Some(source) = field(spec, key) else { continue };
        let or = |other: &str| path.child(if other.is_empty() { key } else { other });
        // a flexible volume is looked at even as a second source
        if found && key != "flexVolume" {
            errors.push(Error::forbidden(&or(second), "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        errors.extend(check(source, &or(own), name));
        if key == "local" && !has_affinity {
            errors.push(Error::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
    if !found {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors
}

pub fn volume_update(new: &Object, old: &Object) -> ErrorList {
    let none = Value::Null;
    let (after, before) = (new.get(&["spec"]).unwrap_or(&none), old.get(&["spec"]).unwrap_or(&none));
    let tolerant = before.pointer("/nodeAffinity/required").is_some_and(|required| {
        let path = Path::root();
        node_selector(required, true, &path).len() != node_selector(required, false, &path).len()
    });
    let mut errors = volume_spec(after, new.name(), false, tolerant, &Path::new("spec"));
    let expand = "controllerExpandSecretRef";
    for (key, ..) in SOURCES {
        let mut now = after.get(key).cloned();
        let was = before.get(key);
        if key == "csi"
            && was.is_some_and(|csi| !has(csi, expand))
            && let Some(csi) = now.as_mut().and_then(Value::as_object_mut)
        {
            csi.remove(expand);
        }
        if now.as_ref() != was {
            let path = Path::new("spec").child("persistentvolumesource");
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.push(Error::forbidden(&path, why));
            break;
        }
    }
    errors.extend(super::immutable(&Path::new("volumeMode"), new, old, &["spec", "volumeMode"]));
    if let Some(was) = field(before, "nodeAffinity") {
        let now = after.get("nodeAffinity").unwrap_or(&none);
        if !same_but_for_label_names(now, was) {
            let why = "field is immutable, except for updating from beta label to GA";
            errors.push(Error::invalid(&Path::new("nodeAffinity"), now.clone(), why));
        }
    }
    if has(before, "volumeAttributesClassName") && !has(after, "volumeAttributesClassName") {
        let path = Path::new("spec").child("volumeAttributesClassName");
        errors.push(Error::forbidden(&path, "update from non-nil value to nil is forbidden"));
    }
    errors
}

/// Labels of nodes that were renamed when they became stable.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn same_but_for_label_names(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(key, value)| {
                    old.get(key).is_some_and(|was| {
                        let renamed =
                            key == "key" && RENAMED.iter().any(|(from, to)| was == from && value == to);
                        renamed || same_but_for_label_names(value, was)
                    })
                })
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(n, o)| same_but_for_label_names(n, o))
        }
        (new, old) => new == old,
    }
}
