//! Which objects a node's pods refer to: what a kubelet may read, and nothing else.
//!
//! A pod refers to secrets, config maps, claims and its service account; a claim's volume refers to secrets.
//! References are counted per node, so that an answer is a lookup however many pods there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use apimachinery::Object;
use serde_json::Value;

const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What pods refer to in their own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Referent {
    ConfigMap,
    PersistentVolumeClaim,
    ResourceClaim,
    Secret,
    ServiceAccount,
}

/// An object in a namespace.
type Key = (String, String);

#[derive(Debug, PartialEq, Eq)]
struct PodEntry {
    node: Arc<str>,
    references: BTreeSet<(Referent, String)>,
}

struct VolumeEntry {
    claim: Key,
    secrets: BTreeSet<Key>,
}

#[derive(Default)]
pub struct Graph {
    pods: HashMap<Key, PodEntry>,
    /// How many pods of a node refer to an object.
    references: HashMap<(Referent, Key), HashMap<Arc<str>, usize>>,
    volumes: HashMap<String, VolumeEntry>,
    /// The claims whose volumes use a secret, once per volume.
    secret_claims: HashMap<Key, Vec<Key>>,
    attachments: HashMap<String, String>,
    slices: HashMap<String, String>,
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

impl Graph {
    pub fn upsert_pod(&mut self, pod: &Object) {
        let node = pod.get_str(&["spec", "nodeName"]);
        if node.is_empty() {
            return;
        }
        // What a node's own static pods name must not open anything to it.
        let mirror = pod.annotation(MIRROR_POD_ANNOTATION).is_some();
        let references = if mirror { BTreeSet::new() } else { references(pod) };
        let entry = PodEntry { node: node.into(), references };
        let key = key(pod.namespace(), pod.name());
        if self.pods.get(&key) == Some(&entry) {
            return;
        }
        self.remove_pod(&key.0, &key.1);
        for (kind, name) in &entry.references {
            let nodes = self.references.entry((*kind, (key.0.clone(), name.clone()))).or_default();
            *nodes.entry(entry.node.clone()).or_default() += 1;
        }
        self.pods.insert(key, entry);
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.pods.remove(&key(namespace, name)) else { return };
        for (kind, name) in entry.references {
            let referent = (kind, key(namespace, &name));
            let Some(nodes) = self.references.get_mut(&referent) else { continue };
            if let Some(count) = nodes.get_mut(&entry.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&entry.node);
                }
            }
            if nodes.is_empty() {
                self.references.remove(&referent);
            }
        }
    }

    pub fn upsert_volume(&mut self, volume: &Object) {
        self.remove_volume(volume.name());
        let claim = ["namespace", "name"].map(|field| volume.get_str(&["spec", "claimRef", field]));
        if claim[1].is_empty() {
            return;
        }
        let claim = key(claim[0], claim[1]);
        let secrets = volume_secrets(volume, &claim.0);
        for secret in &secrets {
            self.secret_claims.entry(secret.clone()).or_default().push(claim.clone());
        }
        self.volumes.insert(volume.name().to_owned(), VolumeEntry { claim, secrets });
    }

    pub fn remove_volume(&mut self, name: &str) {
        let Some(entry) = self.volumes.remove(name) else { return };
        for secret in entry.secrets {
            let Some(claims) = self.secret_claims.get_mut(&secret) else { continue };
            if let Some(at) = claims.iter().position(|claim| *claim == entry.claim) {
                claims.swap_remove(at);
            }
            if claims.is_empty() {
                self.secret_claims.remove(&secret);
            }
        }
    }

    pub fn upsert_attachment(&mut self, attachment: &Object) {
        let node = attachment.get_str(&["spec", "nodeName"]);
        self.attachments.insert(attachment.name().to_owned(), node.to_owned());
    }

    pub fn remove_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    pub fn upsert_slice(&mut self, slice: &Object) {
        match slice.get_str(&["spec", "nodeName"]) {
            "" => self.slices.remove(slice.name()),
            node => self.slices.insert(slice.name().to_owned(), node.to_owned()),
        };
    }

    pub fn remove_slice(&mut self, name: &str) {
        self.slices.remove(name);
    }

    /// Whether a pod of the node refers to the object, itself or by a volume.
    pub fn refers(&self, node: &str, kind: Referent, namespace: &str, name: &str) -> bool {
        let object = key(namespace, name);
        let refers = |kind: Referent, object: Key| {
            self.references.get(&(kind, object)).is_some_and(|nodes| nodes.contains_key(node))
        };
        if kind == Referent::Secret {
            let claims = self.secret_claims.get(&object).map(Vec::as_slice).unwrap_or_default();
            if claims.iter().any(|claim| refers(Referent::PersistentVolumeClaim, claim.clone())) {
                return true;
            }
        }
        refers(kind, object)
    }

    pub fn runs(&self, node: &str, namespace: &str, pod: &str) -> bool {
        self.pods.get(&key(namespace, pod)).is_some_and(|entry| &*entry.node == node)
    }

    pub fn uses_volume(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|entry| {
            self.refers(node, Referent::PersistentVolumeClaim, &entry.claim.0, &entry.claim.1)
        })
    }

    pub fn has_attachment(&self, node: &str, attachment: &str) -> bool {
        self.attachments.get(attachment).is_some_and(|of| of == node)
    }

    pub fn has_slice(&self, node: &str, slice: &str) -> bool {
        self.slices.get(slice).is_some_and(|of| of == node)
    }
}

fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    let found = path.iter().try_fold(value, |at, field| at.get(field))?;
    found.as_str().filter(|text| !text.is_empty())
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Where a pod's volume names a secret of the pod's namespace.
const VOLUME_SECRETS: &[&[&str]] = &[
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["secret", "secretName"],
    &["storageos", "secretRef", "name"],
];

/// What a pod refers to in its namespace.
pub fn references(pod: &Object) -> BTreeSet<(Referent, String)> {
    let mut found = BTreeSet::new();
    let mut note = |kind: Referent, name: Option<&str>| {
        if let Some(name) = name {
            found.insert((kind, name.to_owned()));
        }
    };
    note(
        Referent::ServiceAccount,
        Some(pod.get_str(&["spec", "serviceAccountName"])).filter(|n| !n.is_empty()),
    );
    for secret in pod.get_array(&["spec", "imagePullSecrets"]) {
        note(Referent::Secret, text(secret, &["name"]));
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod.get_array(&["spec", containers]) {
            for env in list(container, "env") {
                note(Referent::Secret, text(env, &["valueFrom", "secretKeyRef", "name"]));
                note(Referent::ConfigMap, text(env, &["valueFrom", "configMapKeyRef", "name"]));
            }
            for source in list(container, "envFrom") {
                note(Referent::Secret, text(source, &["secretRef", "name"]));
                note(Referent::ConfigMap, text(source, &["configMapRef", "name"]));
            }
        }
    }
    for volume in pod.get_array(&["spec", "volumes"]) {
        for path in VOLUME_SECRETS {
            note(Referent::Secret, text(volume, path));
        }
        note(Referent::ConfigMap, text(volume, &["configMap", "name"]));
        for source in volume.get("projected").map(|p| list(p, "sources")).unwrap_or_default() {
            note(Referent::Secret, text(source, &["secret", "name"]));
            note(Referent::ConfigMap, text(source, &["configMap", "name"]));
        }
        note(Referent::PersistentVolumeClaim, text(volume, &["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some()
            && let Some(name) = text(volume, &["name"])
        {
            let claim = format!("{}-{name}", pod.name());
            note(Referent::PersistentVolumeClaim, Some(&claim));
        }
    }
    let made = pod.get_array(&["status", "resourceClaimStatuses"]);
    for claim in pod.get_array(&["spec", "resourceClaims"]) {
        let name = text(claim, &["resourceClaimName"]).or_else(|| {
            // Made from a template, under a name that the status tells.
            let status = made.iter().find(|status| text(status, &["name"]) == text(claim, &["name"]))?;
            text(status, &["resourceClaimName"])
        });
        note(Referent::ResourceClaim, name);
    }
    let extended = pod.get_str(&["status", "extendedResourceClaimStatus", "resourceClaimName"]);
    note(Referent::ResourceClaim, Some(extended).filter(|name| !name.is_empty()));
    found
}

/// The secrets of a volume that a kubelet needs; without a namespace of their own they are in the claim's.
fn volume_secrets(volume: &Object, claim_namespace: &str) -> BTreeSet<Key> {
    const REFERENCES: &[&[&str]] = &[
        &["cephfs", "secretRef"],
        &["cinder", "secretRef"],
        &["csi", "nodeExpandSecretRef"],
        &["csi", "nodePublishSecretRef"],
        &["csi", "nodeStageSecretRef"],
        &["flexVolume", "secretRef"],
        &["iscsi", "secretRef"],
        &["rbd", "secretRef"],
        &["scaleIO", "secretRef"],
        &["storageos", "secretRef"],
    ];
    let spec = volume.get(&["spec"]).unwrap_or(&Value::Null);
    let mut found = BTreeSet::new();
    for path in REFERENCES {
        let Some(reference) = path.iter().try_fold(spec, |at, field| at.get(field)) else { continue };
        if let Some(name) = text(reference, &["name"]) {
            found.insert(key(text(reference, &["namespace"]).unwrap_or(claim_namespace), name));
        }
    }
    if let Some(name) = text(spec, &["azureFile", "secretName"]) {
        let namespace = text(spec, &["azureFile", "secretNamespace"]).unwrap_or(claim_namespace);
        found.insert(key(namespace, name));
    }
    found
}
