//! PodTopologyLabels: a pod shows zone and region of the node that it is bound to (KEP-4742).

use apimachinery::Object;

use super::{Attributes, Operation};
use crate::registry::Registry;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub fn admit(registry: &Registry, attributes: &mut Attributes<'_>) {
    // a binding is an update of the pod here
    let binds = attributes.operation == Operation::Update && attributes.is("pods", "binding");
    if !(binds || attributes.operation == Operation::Create && attributes.is("pods", "")) {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    let node = pod.get_str(&["spec", "nodeName"]);
    if node.is_empty() {
        return;
    }
    if let Some(node) = registry.peek(registry.core("nodes"), "", node) {
        copy(pod, &node);
    }
}

/// Labels that the pod has already stay as they are.
fn copy(pod: &mut Object, node: &Object) {
    for key in LABELS {
        if let (Some(value), None) = (node.label(key), pod.label(key)) {
            pod.set(&["metadata", "labels", key], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn zone_and_region_are_copied() {
        let node = Object::from(json!({"metadata": {"labels": {
            "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"}}}));
        let mut pod = Object::from(json!({"metadata": {"labels": {"topology.kubernetes.io/region": "own"}}}));
        copy(&mut pod, &node);
        let wanted = json!({"topology.kubernetes.io/region": "own", "topology.kubernetes.io/zone": "z"});
        assert_eq!(pod.get(&["metadata", "labels"]), Some(&wanted));
        let mut bare = Object::from(json!({}));
        copy(&mut bare, &Object::default());
        assert_eq!(bare, Object::default());
    }
}
