//! The pods of this node: which there are, which are let in, and the task of each.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use client::informer::Informer;
use client::queue::Queue;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::admit;
use crate::pod::conditions::is_kubelets;
use crate::pod::spec;
use crate::pod::worker::{Desired, Wake, Worker};
use crate::shared::Shared;

/// Between the failure of a pod's task and its next start.
const RESTART: Duration = Duration::from_secs(10);

struct Handle {
    key: ObjectKey,
    desired: watch::Sender<Desired>,
    wake: Arc<Wake>,
    rejected: bool,
    task: tokio::task::JoinHandle<()>,
}

/// How others reach the tasks of pods, by uid. Filled before there are pods, so that it can be handed out first.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Mutex<HashMap<String, Arc<Wake>>>>);

impl Wakes {
    pub fn get(&self, uid: &str) -> Option<Arc<Wake>> {
        self.0.lock().get(uid).cloned()
    }

    pub fn objects_changed(&self, uids: &[String]) {
        let wakes = self.0.lock();
        for wake in uids.iter().filter_map(|uid| wakes.get(uid)) {
            wake.objects_changed();
        }
    }

    pub fn wake_all(&self) {
        self.0.lock().values().for_each(|wake| wake.wake());
    }
}

/// Whether a new version of a pod asks anything of its task; most only bring back the status that we wrote.
fn matters(old: &Pod, new: &Pod) -> bool {
    let asked = |pod: &Pod| {
        let metadata = &pod.metadata;
        let foreign: Vec<_> = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .filter(|condition| !is_kubelets(&condition.type_))
            .map(|condition| (condition.type_.clone(), condition.status.clone()))
            .collect();
        (
            metadata.generation,
            metadata.deletion_timestamp.clone(),
            metadata.deletion_grace_period_seconds,
            metadata.labels.clone(),
            metadata.annotations.clone(),
            spec::is_terminal_phase(spec::phase(pod)),
            foreign,
        )
    };
    asked(old) != asked(new)
}

/// Owns the tasks of pods. One loop changes the set; others read it.
pub struct Pods {
    shared: Arc<Shared>,
    informer: Arc<Informer<Pod>>,
    node: Arc<Informer<Node>>,
    wakes: Wakes,
    handles: Arc<Mutex<HashMap<String, Handle>>>,
    queue: Arc<Queue<ObjectKey>>,
}

impl Pods {
    pub fn new(
        shared: Arc<Shared>,
        informer: Arc<Informer<Pod>>,
        node: Arc<Informer<Node>>,
        wakes: Wakes,
    ) -> Arc<Self> {
        Arc::new(Self { shared, informer, node, wakes, handles: Arc::default(), queue: Arc::default() })
    }

    /// Follows the pods until cancelled. Containers go on when it ends.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let follow = async {
            self.informer.wait_for_sync().await;
            self.node.wait_for_sync().await;
            // the oldest pods have the first claim on the node
            let mut first = self.informer.store().list();
            first.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
            for pod in &first {
                self.process(&ObjectKey::of(pod.as_ref()));
            }
            let queue = self.queue.clone();
            self.informer.on_change(move |change| queue.add(ObjectKey::of(change.object().as_ref())));
            while let Some(key) = self.queue.get().await {
                self.process(&key);
                self.queue.done(&key);
            }
        };
        cancel.run_until_cancelled(follow).await;
        for handle in self.handles.lock().values() {
            handle.task.abort();
        }
    }

    /// Brings the task of a pod in line with its object.
    fn process(&self, key: &ObjectKey) {
        let current =
            self.informer.store().get_key(key).filter(|pod| !component_helpers::pod::is_mirror(pod));
        let uid = current.as_ref().map(|pod| spec::uid(pod).to_owned());
        let mut handles = self.handles.lock();
        // whatever else has this name is gone
        for (_, handle) in
            handles.iter().filter(|(own, handle)| handle.key == *key && Some(*own) != uid.as_ref())
        {
            handle.desired.send_modify(|desired| desired.removed = true);
        }
        let (Some(pod), Some(uid)) = (current, uid) else { return };
        if let Some(handle) = handles.get(&uid) {
            handle.desired.send_if_modified(|desired| {
                let changed = matters(&desired.pod, &pod);
                desired.pod = pod;
                changed
            });
            return;
        }
        self.add(&mut handles, key, pod, uid);
    }

    fn add(&self, handles: &mut HashMap<String, Handle>, key: &ObjectKey, pod: Arc<Pod>, uid: String) {
        let ended = spec::is_terminal_phase(spec::phase(&pod)) || spec::is_being_deleted(&pod);
        let rejection = if ended {
            None
        } else {
            let others: Vec<Arc<Pod>> = handles
                .iter()
                .filter(|(uid, handle)| !handle.rejected && !self.is_over(uid, &handle.desired.borrow()))
                .map(|(_, handle)| handle.desired.borrow().pod.clone())
                .collect();
            let node = self.node.store().get("", &self.shared.config.node_name);
            admit(&pod, others.iter().map(AsRef::as_ref), &self.shared.allocatable, node.as_deref()).err()
        };
        let rejected = rejection.is_some();
        let (desired, receiver) = watch::channel(Desired { pod, removed: false });
        let wake = Arc::new(Wake::default());
        self.wakes.0.lock().insert(uid.clone(), wake.clone());
        let (shared, own_wake) = (self.shared.clone(), wake.clone());
        let (handles_of_all, wakes, own) = (self.handles.clone(), self.wakes.clone(), uid.clone());
        let task = tokio::spawn(async move {
            loop {
                let worker = Worker::new(shared.clone(), receiver.clone(), own_wake.clone());
                // a pod whose task fails is taken up again, from what the runtime shows
                if AssertUnwindSafe(worker.run(rejection.clone())).catch_unwind().await.is_ok() {
                    break;
                }
                tracing::error!(pod_uid = own, "the task of a pod failed and starts anew");
                tokio::time::sleep(RESTART).await;
            }
            wakes.0.lock().remove(&own);
            handles_of_all.lock().remove(&own);
        });
        handles.insert(uid, Handle { key: key.clone(), desired, wake, rejected, task });
    }

    fn is_over(&self, uid: &str, desired: &Desired) -> bool {
        let told = self.shared.statuses.get(uid);
        let phase = told.and_then(|status| status.phase);
        desired.removed
            || spec::is_terminal_phase(phase.as_deref().unwrap_or_else(|| spec::phase(&desired.pod)))
    }

    /// Whether a pod has a task here.
    pub fn knows(&self, uid: &str) -> bool {
        self.handles.lock().contains_key(uid)
    }

    pub fn wake(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.wake.wake();
        }
    }

    /// All pods with what was last said about them.
    pub fn list(&self) -> Vec<Pod> {
        let pods: Vec<Arc<Pod>> =
            self.handles.lock().values().map(|h| h.desired.borrow().pod.clone()).collect();
        pods.into_iter().map(|pod| self.with_status(&pod)).collect()
    }

    /// A pod by its name, with what was last said about it.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Pod> {
        let key = ObjectKey::new(namespace, name);
        let found = {
            let handles = self.handles.lock();
            let mut own = handles.values().filter(|handle| handle.key == key);
            let found = own.find(|handle| !handle.desired.borrow().removed);
            found.map(|handle| handle.desired.borrow().pod.clone())
        };
        found.map(|pod| self.with_status(&pod))
    }

    fn with_status(&self, pod: &Arc<Pod>) -> Pod {
        let status: Option<PodStatus> =
            self.shared.statuses.get(spec::uid(pod)).or_else(|| pod.status.clone());
        Pod { status, ..pod.as_ref().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_asks_something_wakes_a_pod() {
        let pod = |value: Value| -> Pod { serde_json::from_value(value).expect("a pod") };
        let base = json!({"metadata": {"generation": 1}, "status": {"phase": "Running"}});
        let check = |change: Value, want: bool| {
            let mut new = base.clone();
            apimachinery::patch::merge_patch(&mut new, &change).expect("merged");
            assert_eq!(matters(&pod(base.clone()), &pod(new)), want, "{change}");
        };
        check(json!({"metadata": {"resourceVersion": "2"}}), false);
        check(
            json!({"status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}),
            false,
        );
        check(json!({"status": {"conditions": [{"type": "example.com/gate", "status": "True"}]}}), true);
        check(json!({"status": {"phase": "Failed"}}), true);
        check(json!({"metadata": {"generation": 2}}), true);
        check(json!({"metadata": {"labels": {"a": "b"}}}), true);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true);
    }
}
