//! Tables of the rules of pods, and the pod that they change.

mod changes;
mod containers;
mod specs;

use apimachinery::Value;
use serde_json::json;

pub fn valid() -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}],
    }})
}

pub fn another(name: &str) -> Value {
    json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"})
}
