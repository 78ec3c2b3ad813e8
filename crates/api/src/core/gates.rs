//! What is dropped from pods and claims because its feature is off: alpha features, and beta ones that are off
//! by default. Something that the old object has already is kept.

use apimachinery::{Object, Value};
use serde_json::Map;

use super::defaults::{child, each};

type Tree = Map<String, Value>;

fn any(spec: Option<&Value>, test: &dyn Fn(&Value) -> bool) -> bool {
    spec.is_some_and(test)
}

fn projections(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("projected")?.get("sources")?.as_array())
        .flatten()
}

fn stop_signals(spec: &Value) -> bool {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .filter_map(|key| spec.get(*key)?.as_array())
        .flatten()
        .any(|container| container.pointer("/lifecycle/stopSignal").is_some())
}

/// Drops from a pod spec what is off. `old` is the spec before an update.
pub fn pod_spec(spec: &mut Tree, old: Option<&Value>) {
    // GenericWorkload
    if !any(old, &|old| old.get("schedulingGroup").is_some()) {
        spec.remove("schedulingGroup");
    }
    for key in ["clusterTrustBundle", "podCertificate"] {
        // ClusterTrustBundleProjection, PodCertificateProjection
        if any(old, &|old| projections(old).any(|source| source.get(key).is_some())) {
            continue;
        }
        for volume in each(spec, "volumes") {
            if let Some(projected) = child(volume, "projected") {
                for source in each(projected, "sources") {
                    source.remove(key);
                }
            }
        }
    }
    // ContainerStopSignals
    if !any(old, &stop_signals) {
        for key in ["initContainers", "containers", "ephemeralContainers"] {
            for container in each(spec, key) {
                if let Some(lifecycle) = child(container, "lifecycle") {
                    lifecycle.remove("stopSignal");
                }
            }
        }
    }
    // claims of a claim were taken once, and never meant anything
    for volume in each(spec, "volumes") {
        let claim = child(volume, "ephemeral")
            .and_then(|ephemeral| child(ephemeral, "volumeClaimTemplate"))
            .and_then(|template| child(template, "spec"))
            .and_then(|spec| child(spec, "resources"));
        if let Some(resources) = claim {
            resources.remove("claims");
        }
    }
}

/// Drops what is off from the pod spec at a path of an object, such as `["spec", "template", "spec"]`.
pub fn pod_spec_at(object: &mut Object, old: Option<&Object>, path: &[&str]) {
    let before = old.and_then(|old| old.get(path));
    let pointer: String = path.iter().map(|key| format!("/{key}")).collect();
    if let Some(spec) = object.as_value_mut().pointer_mut(&pointer).and_then(Value::as_object_mut) {
        pod_spec(spec, before);
    }
}

/// Drops from a pod's status what is off.
pub fn pod_status(pod: &mut Object, old: Option<&Object>) {
    // DRANodeAllocatableResources
    let key = &["status", "nodeAllocatableResourceClaimStatuses"];
    if old.is_none_or(|old| old.get(key).is_none()) {
        pod.remove(key);
    }
}

/// Drops from a claim's spec a source in another namespace (`CrossNamespaceVolumeDataSource`).
pub fn claim_spec(claim: &mut Object, old: Option<&Object>) {
    let source = &["spec", "dataSourceRef"];
    let elsewhere = !claim.get_str(&["spec", "dataSourceRef", "namespace"]).is_empty();
    if elsewhere && old.is_none_or(|old| old.get(source).is_none()) {
        claim.remove(source);
    }
}
