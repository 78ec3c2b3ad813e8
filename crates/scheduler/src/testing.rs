//! Nodes, pods and a world in memory for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::pod_info::PodInfo;
use crate::port::{EventType, Port, PortError, StatusChange};

/// Lays `over` over `base`, objects by key.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// A node with 4 CPUs, 8 GiB and room for 110 pods, but where `over` says otherwise.
pub fn node(name: &str, over: Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut value, over);
    Arc::new(serde_json::from_value(value).expect("a node"))
}

/// A pod whose uid is its name.
pub fn raw_pod(name: &str, over: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]},
    });
    merge(&mut value, over);
    Arc::new(serde_json::from_value(value).expect("a pod"))
}

pub fn pod(name: &str, over: Value) -> Arc<PodInfo> {
    PodInfo::new(raw_pod(name, over))
}

/// The spec of a pod that asks for these resources.
pub fn requests(requests: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})
}

/// Keeps what is done to it.
#[derive(Default)]
pub struct MemoryPort {
    pub bound: Mutex<Vec<(String, String)>>,
    pub changes: Mutex<Vec<StatusChange>>,
    pub events: Mutex<Vec<(String, String)>>,
    /// How many calls to bind are still to fail.
    pub failures: AtomicUsize,
    pub happened: Notify,
}

impl MemoryPort {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until something has happened that satisfies a test.
    pub async fn wait_for<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                let happened = self.happened.notified();
                if let Some(found) = look(self) {
                    return found;
                }
                happened.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it happens in time")
    }
}

#[async_trait]
impl Port for MemoryPort {
    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), PortError> {
        let failing =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() {
            return Err(PortError::Unanswered("the API is away".to_owned()));
        }
        self.bound.lock().push((pod.metadata.name.clone().unwrap_or_default(), node.to_owned()));
        self.happened.notify_one();
        Ok(())
    }

    async fn change_status(&self, _: &Pod, change: &StatusChange) -> Result<(), PortError> {
        self.changes.lock().push(change.clone());
        self.happened.notify_one();
        Ok(())
    }

    fn event(&self, _: &Pod, _: EventType, reason: &str, message: String) {
        self.events.lock().push((reason.to_owned(), message));
        self.happened.notify_one();
    }
}
