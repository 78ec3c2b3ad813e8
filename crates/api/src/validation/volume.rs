//! Persistent volumes.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value};

use super::at::At;
use super::forms::unchanged;
use super::internal;
use super::pod::node_selector;
use super::resources::basic;
use super::sources::{self, VOLUME_MODES, access_modes};
use super::value::has;

type Check = fn(&At<'_>, &str) -> ErrorList;

/// The sources in the order in which they are looked at: key, path of the refusal of a second source, path of
/// the source itself (empty: the key), and the rules. The volume's name is for iSCSI.
const SOURCES: [(&str, &str, &str, Check); 22] = [
    ("hostPath", "", "", |s, _| sources::host_path(s)),
    ("gcePersistentDisk", "", "persistentDisk", |s, _| sources::gce_persistent_disk(s)),
    ("awsElasticBlockStore", "", "", |s, _| sources::aws_elastic_block_store(s)),
    ("glusterfs", "", "", |s, _| sources::glusterfs_persistent(s)),
    ("flocker", "", "", |s, _| sources::flocker(s)),
    ("nfs", "", "", |s, _| sources::nfs(s)),
    ("rbd", "", "", |s, _| sources::rbd(s)),
    ("quobyte", "", "", |s, _| sources::quobyte(s)),
    ("cephfs", "cephFS", "", |s, _| sources::ceph_fs(s)),
    ("iscsi", "", "", |s, name| sources::iscsi(s, name, false)),
    ("cinder", "", "", |s, _| sources::cinder_persistent(s)),
    ("fc", "", "", |s, _| sources::fc(s)),
    ("flexVolume", "", "", |s, _| sources::flex_volume(s)),
    ("azureFile", "", "", |s, _| sources::azure_file_persistent(s)),
    ("vsphereVolume", "", "", |s, _| sources::vsphere_volume(s)),
    ("photonPersistentDisk", "", "", |s, _| sources::photon_persistent_disk(s)),
    ("portworxVolume", "", "", |s, _| sources::portworx_volume(s)),
    ("azureDisk", "", "", |s, _| sources::azure_disk(s)),
    ("scaleIO", "", "", |s, _| sources::scale_io(s)),
    ("local", "", "", |s, _| sources::local(s)),
    ("storageos", "", "", |s, _| sources::storage_os_persistent(s)),
    ("csi", "", "", |s, _| sources::csi_persistent(s)),
];

pub fn volume(volume: &Object) -> ErrorList {
    volume_spec(&At::of(volume, &["spec"]), volume.name(), false, false)
}

/// A volume spec that stands in another object, as in a `VolumeAttachment`.
pub(crate) fn inline_volume_spec(spec: &At<'_>) -> ErrorList {
    volume_spec(spec, "", true, false)
}

fn volume_spec(spec: &At<'_>, name: &str, inline: bool, tolerant: bool) -> ErrorList {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    let mut errors = ErrorList::new();
    let csi = spec.child("csi");
    if inline {
        let said = ["claimRef", "capacity"].iter().filter_map(|key| spec.field(key));
        errors.extend(said.map(|field| field.forbidden(INLINE)));
        if !csi.is_set() {
            errors.push(csi.required("has to be specified in the context of inline volumes"));
        }
    }
    let modes = spec.child("accessModes");
    errors.extend(modes.must_be_set());
    errors.extend(access_modes(&modes));
    if !inline {
        errors.extend(capacity(&spec.child("capacity")));
    }
    let policy = spec.child("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy.str(), "" | "Retain") {
        errors.push(policy.forbidden("may only be Retain in the context of inline volumes"));
    } else if !inline && !policy.is_empty() {
        errors.extend(policy.among(&["Delete", "Recycle", "Retain"]));
    }
    let affinity = spec.child("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.child("required");
        if inline {
            errors.push(affinity.forbidden(INLINE));
        } else if required.is_set() {
            errors.extend(node_selector(&required, tolerant));
        } else {
            errors.push(required.required("must specify required node constraints"));
        }
    }
    errors.extend(source(spec, name, affinity.is_set() && !inline));
    if spec.has("hostPath") && is_root(spec.child("hostPath").text("path")) && policy.str() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = spec.child("storageClassName");
    if !class.is_empty() {
        errors.extend(if inline { vec![class.forbidden(INLINE)] } else { class.subdomain() });
    }
    let mode = spec.child("volumeMode");
    if !inline {
        errors.extend(mode.supported(&VOLUME_MODES));
    } else if mode.is_set() && mode.str() != "Filesystem" {
        let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(mode.forbidden(why));
    }
    if let Some(class) = spec.field("volumeAttributesClassName") {
        if class.is_empty() {
            errors.push(class.required("an empty string is disallowed"));
        } else {
            errors.extend(class.subdomain());
        }
        if !csi.is_set() {
            errors.push(csi.required("has to be specified when using volumeAttributesClassName"));
        }
    }
    errors
}

/// Whether a path is the root in the end, by Go's `path.Clean`.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

fn capacity(capacity: &At<'_>) -> ErrorList {
    let mut errors = capacity.must_be_set();
    if capacity.len() != 1 || !capacity.has("storage") {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, amount) in capacity.entries() {
        errors.extend(basic(&amount));
        errors.extend(amount.positive_quantity());
    }
    errors
}

fn source(spec: &At<'_>, name: &str, has_affinity: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    for (key, second, own, check) in SOURCES {
        let Some(source) = spec.field(key) else { continue };
        let or = |other: &str| spec.path.child(if other.is_empty() { key } else { other });
        // a flexible volume is looked at even as a second source
        if found && key != "flexVolume" {
            errors.push(Error::forbidden(&or(second), "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        errors.extend(check(&At::new(source.value, or(own)), name));
        if key == "local" && !has_affinity {
            errors.push(spec.child("nodeAffinity").required("Local volume requires node affinity"));
        }
    }
    if !found {
        errors.push(spec.required("must specify a volume type"));
    }
    errors
}

pub fn volume_update(new: &Object, old: &Object) -> ErrorList {
    let (after, before) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let tolerant = before.child("nodeAffinity").field("required").is_some_and(|required| {
        node_selector(&required, true).len() != node_selector(&required, false).len()
    });
    let mut errors = volume_spec(&after, new.name(), false, tolerant);
    let source = |spec: &At<'_>| {
        let set =
            SOURCES.iter().filter_map(|(key, ..)| Some(((*key).to_owned(), spec.field(key)?.value.clone())));
        Value::Object(set.collect())
    };
    let (mut now, was) = (source(&after), source(&before));
    let expand = "controllerExpandSecretRef";
    if was.get("csi").is_some_and(|csi| !has(csi, expand))
        && let Some(csi) = now.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.remove(expand);
    }
    if now != was {
        let why = "spec.persistentvolumesource is immutable after creation";
        let difference = internal::difference(internal::CORE, "PersistentVolumeSource", &was, &now);
        errors.push(after.child("persistentvolumesource").forbidden(format!("{why}\n{difference}")));
    }
    let at_the_root = |key: &str| At::new(after.child(key).value, Path::new(key));
    errors.extend(unchanged(&at_the_root("volumeMode"), &before.child("volumeMode")));
    if let Some(was) = before.field("nodeAffinity") {
        let now = at_the_root("nodeAffinity");
        if !same_but_for_label_names(now.value, was.value) {
            errors.push(now.invalid("field is immutable, except for updating from beta label to GA"));
        }
    }
    let class = after.child("volumeAttributesClassName");
    if before.has("volumeAttributesClassName") && !class.is_set() {
        errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
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
