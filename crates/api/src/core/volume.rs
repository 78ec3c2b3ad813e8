//! Persistent volumes and claims to them.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use super::defaults::{child, set, volume_source};
use super::{gates, warnings};
use crate::catalogue::{Column, Selectable};
use crate::printers::{AGE, NAME, column, wide};
use crate::strategy::{Requester, Strategy, keep_spec, keep_status};
use crate::validation;
use crate::validation::at::At;
use crate::validation::value::shown;

/// When a volume's phase last moved.
const MOVED: &[&str] = &["status", "lastPhaseTransitionTime"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A bug of old that clients may rely on: `name` selects as `metadata.name` does.
pub const SELECTABLE: &[Selectable] = &[Selectable { name: "name", read: |o| o.name().to_owned() }];

/// Access modes in short, each once, in the order in which they are always shown.
fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let there: Vec<&str> =
        SHORT.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode)).map(|(_, short)| *short).collect();
    there.join(",")
}

fn phase(object: &Object) -> Value {
    json!(if object.deletion_timestamp().is_some() {
        "Terminating"
    } else {
        object.get_str(&["status", "phase"])
    })
}

/// The storage class, which old objects name in an annotation.
fn class(object: &Object) -> Value {
    let old = object.annotation(BETA_CLASS);
    json!(old.unwrap_or_else(|| object.get_str(&["spec", "storageClassName"])))
}

fn or_unset(object: &Object, key: &str) -> Value {
    object.get(&["spec", key]).cloned().unwrap_or_else(|| json!("<unset>"))
}

fn amount(value: Option<&Value>) -> Value {
    json!(value.map_or_else(|| "0".to_owned(), shown))
}

pub const VOLUME_COLUMNS: &[Column] = &[
    NAME,
    column("Capacity", "string", "How much the volume holds.", |volume, _| {
        amount(volume.get(&["spec", "capacity", "storage"]))
    }),
    column("Access Modes", "string", "All ways in which the volume can be mounted.", |volume, _| {
        json!(access_modes(volume.get_array(&["spec", "accessModes"])))
    }),
    column(
        "Reclaim Policy",
        "string",
        "What happens to the volume when its claim lets it go.",
        |volume, _| json!(volume.get_str(&["spec", "persistentVolumeReclaimPolicy"])),
    ),
    column(
        "Status",
        "string",
        "Whether the volume is free, bound to a claim, or let go by one.",
        |volume, _| phase(volume),
    ),
    column("Claim", "string", "The claim that the volume is bound to.", |volume, _| {
        json!(match volume.get(&["spec", "claimRef"]) {
            None => String::new(),
            Some(_) => format!(
                "{}/{}",
                volume.get_str(&["spec", "claimRef", "namespace"]),
                volume.get_str(&["spec", "claimRef", "name"])
            ),
        })
    }),
    column("StorageClass", "string", "The class that the volume belongs to.", |volume, _| class(volume)),
    column("VolumeAttributesClass", "string", "The class of the volume's attributes.", |volume, _| {
        or_unset(volume, "volumeAttributesClassName")
    }),
    column("Reason", "string", "Why the volume is in its state, in a word.", |volume, _| {
        json!(volume.get_str(&["status", "reason"]))
    }),
    AGE,
    wide("VolumeMode", "string", "Whether the volume is a filesystem or a block device.", |volume, _| {
        or_unset(volume, "volumeMode")
    }),
];

pub const CLAIM_COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the claim waits, is bound, or has lost its volume.", |claim, _| {
        phase(claim)
    }),
    column("Volume", "string", "The volume that the claim is bound to.", |claim, _| {
        json!(claim.get_str(&["spec", "volumeName"]))
    }),
    column("Capacity", "string", "How much the bound volume holds.", |claim, _| {
        match claim.get_str(&["spec", "volumeName"]) {
            "" => json!(""),
            _ => amount(claim.get(&["status", "capacity", "storage"])),
        }
    }),
    column("Access Modes", "string", "The ways in which the bound volume can be mounted.", |claim, _| {
        json!(match claim.get_str(&["spec", "volumeName"]) {
            "" => String::new(),
            _ => access_modes(claim.get_array(&["status", "accessModes"])),
        })
    }),
    column("StorageClass", "string", "The class that the claim asks for.", |claim, _| class(claim)),
    column(
        "VolumeAttributesClass",
        "string",
        "The class of attributes that the claim asks for.",
        |claim, _| or_unset(claim, "volumeAttributesClassName"),
    ),
    AGE,
    wide("VolumeMode", "string", "Whether a filesystem or a block device is asked for.", |claim, _| {
        or_unset(claim, "volumeMode")
    }),
];

pub struct Volumes;

impl Strategy for Volumes {
    fn default(&self, volume: &mut Object) {
        if volume.get_str(&["status", "phase"]).is_empty() {
            volume.set(&["status", "phase"], "Pending");
        }
        let Some(spec) = child(volume.as_map_mut(), "spec") else { return };
        set(spec, "persistentVolumeReclaimPolicy", "Retain");
        set(spec, "volumeMode", "Filesystem");
        volume_source(spec);
    }

    fn prepare_for_create(&self, volume: &mut Object) {
        let moved = volume.get(MOVED).cloned();
        volume.set(&["status"], json!({"phase": "Pending"}));
        if let Some(moved) = moved {
            volume.set(MOVED, moved);
        }
    }

    fn validate(&self, volume: &Object) -> ErrorList {
        validation::volume(volume)
    }

    fn prepare_for_update(&self, volume: &mut Object, old: &Object) {
        keep_status(volume, old);
    }

    fn validate_update(&self, volume: &Object, old: &Object) -> ErrorList {
        validation::volume_update(volume, old)
    }

    /// The server notes when the phase last moved, unless the writer knows better.
    fn note_requester(&self, volume: &mut Object, old: Option<&Object>, requester: &Requester) {
        let phase = |volume: &Object| volume.get_str(&["status", "phase"]).to_owned();
        let moved = old.is_none_or(|old| phase(volume) != phase(old) && volume.get(MOVED) == old.get(MOVED));
        if moved {
            volume.set(MOVED, requester.time.as_str());
        }
    }

    fn prepare_for_status_update(&self, volume: &mut Object, old: &Object) {
        keep_spec(volume, old);
        if volume.get(MOVED).is_none()
            && let Some(time) = old.get(MOVED)
        {
            volume.set(MOVED, time.clone());
        }
    }

    fn warnings_on_create(&self, volume: &Object) -> Vec<String> {
        volume_warnings(volume)
    }
}

fn beta_class(object: &Object) -> Option<String> {
    object.annotation(BETA_CLASS)?;
    Some(format!(
        "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
    ))
}

fn volume_warnings(volume: &Object) -> Vec<String> {
    const GONE: [(&str, &str, &str); 7] = [
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ];
    let mut out: Vec<String> = beta_class(volume).into_iter().collect();
    if volume.get_str(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    for term in At::of(volume, &["spec", "nodeAffinity", "required", "nodeSelectorTerms"]).items() {
        out.extend(warnings::node_selector_term(&term, false));
    }
    let gone = GONE.iter().filter(|(key, ..)| volume.get(&["spec", key]).is_some());
    out.extend(gone.map(|(_, name, what)| format!("spec.{name}: {what}")));
    out
}

pub struct Claims;

/// What can be a source in `dataSource` by itself.
fn is_old_source(source: &Value) -> bool {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    matches!(
        (text("kind"), text("apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    )
}

/// Either of the two fields for a source fills in the other; the old one knows no other namespaces.
fn same_sources(claim: &mut Object) {
    let (source, reference) = (&["spec", "dataSource"], &["spec", "dataSourceRef"]);
    let is_empty = |namespace: &Value| namespace.as_str().unwrap_or_default().is_empty();
    match (claim.get(source).cloned(), claim.get(reference).cloned()) {
        (Some(source), None) => claim.set(reference, source),
        (None, Some(Value::Object(mut wanted))) if wanted.get("namespace").is_none_or(is_empty) => {
            wanted.remove("namespace");
            claim.set(source, wanted);
        }
        _ => {}
    }
}

/// A source of an unknown kind was ignored before there was another field for it, and still is.
fn drop_odd_source(claim: &mut Object, old: Option<&Object>) {
    let (source, reference) = (&["spec", "dataSource"], &["spec", "dataSourceRef"]);
    let had = old.is_some_and(|old| old.get(source).is_some() || old.get(reference).is_some());
    if had || claim.get(reference).is_some() {
        return;
    }
    if claim.get(source).is_some_and(|source| !is_old_source(source)) {
        claim.remove(source);
    }
}

impl Strategy for Claims {
    fn default(&self, claim: &mut Object) {
        if claim.get_str(&["status", "phase"]).is_empty() {
            claim.set(&["status", "phase"], "Pending");
        }
        let Some(spec) = child(claim.as_map_mut(), "spec") else { return };
        set(spec, "volumeMode", "Filesystem");
    }

    fn prepare_for_create(&self, claim: &mut Object) {
        claim.set(&["status"], json!({"phase": "Pending"}));
        gates::claim_spec(claim, None);
        drop_odd_source(claim, None);
        same_sources(claim);
    }

    fn validate(&self, claim: &Object) -> ErrorList {
        validation::claim(claim)
    }

    fn prepare_for_update(&self, claim: &mut Object, old: &Object) {
        keep_status(claim, old);
        gates::claim_spec(claim, Some(old));
        drop_odd_source(claim, Some(old));
        same_sources(claim);
    }

    fn validate_update(&self, claim: &Object, old: &Object) -> ErrorList {
        let mut old = old.clone();
        same_sources(&mut old);
        validation::claim_update(claim, &old)
    }

    fn validate_status_update(&self, claim: &Object, _old: &Object) -> ErrorList {
        validation::claim_status_update(claim)
    }

    fn warnings_on_create(&self, claim: &Object) -> Vec<String> {
        let mut out: Vec<String> = beta_class(claim).into_iter().collect();
        out.extend(warnings::claim_spec(&At::of(claim, &["spec"])));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_once_and_in_order() {
        assert_eq!(
            access_modes(&[json!("ReadWriteMany"), json!("ReadWriteOnce"), json!("ReadWriteOnce")]),
            "RWO,RWX"
        );
    }

    #[test]
    fn a_volume_says_when_its_phase_moved() {
        let requester = |time: &str| Requester { time: time.to_owned(), ..Requester::default() };
        let mut old = Object::from(json!({"spec": {}}));
        Volumes.note_requester(&mut old, None, &requester("then"));
        Volumes.prepare_for_create(&mut old);
        assert_eq!(
            old.get(&["status"]),
            Some(&json!({"phase": "Pending", "lastPhaseTransitionTime": "then"}))
        );
        let mut new = old.clone();
        Volumes.note_requester(&mut new, Some(&old), &requester("now"));
        assert_eq!(new, old, "nothing moved");
        new.set(&["status", "phase"], "Bound");
        Volumes.note_requester(&mut new, Some(&old), &requester("now"));
        assert_eq!(new.get_str(MOVED), "now");
    }

    #[test]
    fn sources_fill_in_each_other() {
        let claim = |spec: Value| Object::from(json!({"spec": spec}));
        let snapshot = json!({"kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io", "name": "s"});
        let mut one = claim(json!({"dataSource": snapshot}));
        Claims.prepare_for_create(&mut one);
        assert_eq!(one.get(&["spec", "dataSourceRef"]), Some(&snapshot));
        let mut odd = claim(json!({"dataSource": {"kind": "X", "apiGroup": "y", "name": "z"}}));
        Claims.prepare_for_create(&mut odd);
        assert!(odd.get(&["spec", "dataSource"]).is_none());
        let mut other = claim(json!({"dataSourceRef": {"kind": "X", "apiGroup": "y", "name": "z"}}));
        Claims.prepare_for_create(&mut other);
        assert_eq!(other.get(&["spec", "dataSource"]), other.get(&["spec", "dataSourceRef"]));
        let old = other.clone();
        Claims.prepare_for_update(&mut other, &old);
        assert_eq!(other, old);
        let mut elsewhere =
            claim(json!({"dataSourceRef": {"kind": "X", "apiGroup": "y", "name": "z", "namespace": "n"}}));
        same_sources(&mut elsewhere);
        assert!(elsewhere.get(&["spec", "dataSource"]).is_none());
    }

    #[test]
    fn old_ways_are_warned_of() {
        let volume = Object::from(json!({"metadata": {"annotations": {BETA_CLASS: "x"}}, "spec": {
            "persistentVolumeReclaimPolicy": "Recycle", "rbd": {},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]}]}}}}));
        assert_eq!(
            Volumes.warnings_on_create(&volume),
            [
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
            ]
        );
    }
}
