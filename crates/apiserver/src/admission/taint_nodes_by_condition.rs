//! TaintNodesByCondition: a new node takes no pods before it is known to be ready.

use apimachinery::Value;
use serde_json::json;

use super::{Attributes, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub fn admit(attributes: &mut Attributes<'_>) {
    if !attributes.is("nodes", "") || attributes.operation != Operation::Create {
        return;
    }
    let Some(node) = &mut attributes.object else { return };
    let mut taints = node.get_array(&["spec", "taints"]).to_vec();
    let has = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if !taints.iter().any(has) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        node.set(&["spec", "taints"], taints);
    }
}
