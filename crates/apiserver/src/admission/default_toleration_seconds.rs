//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable, unless they say
//! otherwise.

use apimachinery::Value;
use serde_json::json;

use super::{Attributes, Operation};

const SECONDS: i64 = 300;

pub fn admit(attributes: &mut Attributes<'_>) {
    if !attributes.is("pods", "") || attributes.operation == Operation::Delete {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    let mut tolerations = pod.get_array(&["spec", "tolerations"]).to_vec();
    let before = tolerations.len();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|toleration| tolerates(toleration, key)) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
    if tolerations.len() > before {
        pod.set(&["spec", "tolerations"], tolerations);
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let text = |name: &str| toleration.get(name).and_then(Value::as_str).unwrap_or_default();
    (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}
