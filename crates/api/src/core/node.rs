//! Nodes.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::{defaults, pod_resources};
use crate::printers::{AGE, NAME, column, wide};
use crate::strategy::{Strategy, keep_status};
use crate::validation;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the node takes and runs pods.", |node, _| json!(status(node))),
    column("Roles", "string", "Roles, as labels name them.", |node, _| json!(roles(node))),
    AGE,
    column("Version", "string", "The version of the kubelet.", |node, _| {
        json!(node.get_str(&["status", "nodeInfo", "kubeletVersion"]))
    }),
    wide("Internal-IP", "string", "The node's address in the cluster.", |n, _| address(n, "InternalIP")),
    wide("External-IP", "string", "The node's address outside.", |n, _| address(n, "ExternalIP")),
    wide("OS-Image", "string", "The operating system.", |n, _| info(n, "osImage")),
    wide("Kernel-Version", "string", "The kernel.", |n, _| info(n, "kernelVersion")),
    wide("Container-Runtime", "string", "The container runtime.", |n, _| info(n, "containerRuntimeVersion")),
];

fn status(node: &Object) -> String {
    let ready = node.get_array(&["status", "conditions"]).iter().find(|c| c["type"] == "Ready");
    let mut words = vec![match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.get_bool(&["spec", "unschedulable"]) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Object) -> String {
    const PREFIX: &str = "node-role.kubernetes.io/";
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.labels().into_iter().flatten() {
        let role = match key.strip_prefix(PREFIX) {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or_default(),
            None => continue,
        };
        if !role.is_empty() && !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles.sort_unstable();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address(node: &Object, kind: &str) -> Value {
    let found = node.get_array(&["status", "addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or(json!("<none>"), |a| a["address"].clone())
}

fn info(node: &Object, key: &str) -> Value {
    match node.get_str(&["status", "nodeInfo", key]) {
        "" => json!("<unknown>"),
        text => json!(text),
    }
}

pub struct Nodes;

impl Strategy for Nodes {
    /// What can be used is what is there, until the kubelet says otherwise.
    fn default(&self, node: &mut Object) {
        if node.get(&["status", "allocatable"]).is_none()
            && let Some(capacity) = node.get(&["status", "capacity"]).cloned()
        {
            node.set(&["status", "allocatable"], capacity);
        }
        if let Some(status) = defaults::child(node.as_map_mut(), "status") {
            for key in ["capacity", "allocatable"] {
                if let Some(amounts) = defaults::child(status, key) {
                    pod_resources::round(amounts);
                }
            }
        }
    }

    /// A kubelet registers with its status in one write.
    fn prepare_for_create(&self, _node: &mut Object) {}

    fn prepare_for_update(&self, node: &mut Object, old: &Object) {
        keep_status(node, old);
    }

    fn validate(&self, node: &Object) -> ErrorList {
        validation::node(node)
    }

    fn validate_update(&self, node: &Object, old: &Object) -> ErrorList {
        let mut errors = validation::node(node);
        errors.extend(validation::node_update(node, old));
        errors
    }

    fn validate_status_update(&self, node: &Object, old: &Object) -> ErrorList {
        validation::node_update(node, old)
    }

    fn warnings_on_create(&self, node: &Object) -> Vec<String> {
        let mut out = Vec::new();
        if node.get(&["spec", "configSource"]).is_some() {
            out.push("spec.configSource: the feature is removed".to_owned());
        }
        if !node.get_str(&["spec", "externalID"]).is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        out
    }
}
