//! Writes the statuses of pods to the API, and removes pods there when all that they had here is gone.

use std::collections::HashMap;
use std::sync::Arc;

use client::queue::Queue;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::pod::conditions::is_kubelets;
use crate::pod::spec;
use crate::pod::status::settle;

/// Statuses written at the same time.
const WRITERS: usize = 8;

struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// What the API has, as far as we wrote it.
    written: Option<PodStatus>,
    /// Containers ended, volumes and cgroup gone: the object may go, too.
    finished: bool,
    /// The API has been asked to remove it.
    deleted: bool,
}

/// The last word on each pod of this node. Cheap to clone.
#[derive(Clone)]
pub struct StatusManager {
    client: Client,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    queue: Arc<Queue<String>>,
}

impl StatusManager {
    pub fn new(client: Client) -> Self {
        Self { client, entries: Arc::default(), queue: Arc::default() }
    }

    /// Starts the writers; they end with `cancel`, after what is being written.
    pub fn start(&self, cancel: &CancellationToken) -> Vec<tokio::task::JoinHandle<()>> {
        let queue = self.queue.clone();
        let ended = cancel.clone();
        tokio::spawn(async move {
            ended.cancelled().await;
            queue.close();
        });
        (0..WRITERS)
            .map(|_| {
                let manager = self.clone();
                tokio::spawn(async move {
                    while let Some(uid) = manager.queue.get().await {
                        match manager.sync(&uid).await {
                            Ok(()) => manager.queue.forget(&uid),
                            Err(error) => {
                                tracing::debug!(pod = uid, %error, "a status could not be written, trying again");
                                manager.queue.add_rate_limited(uid.clone());
                            }
                        }
                        manager.queue.done(&uid);
                    }
                })
            })
            .collect()
    }

    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        self.entries.lock().get(uid).map(|entry| entry.status.clone())
    }

    /// Takes a new status. Times are carried over from the last one; nothing is written when nothing changed.
    pub fn set(&self, pod: &Arc<Pod>, mut status: PodStatus) {
        let uid = spec::uid(pod).to_owned();
        let mut entries = self.entries.lock();
        let from_api = pod.status.clone().unwrap_or_default();
        let old = entries.get(&uid).map_or(&from_api, |entry| &entry.status);
        settle(&mut status, old, Timestamp::now());
        match entries.get_mut(&uid) {
            Some(entry) => {
                entry.pod = pod.clone();
                if entry.status == status {
                    return;
                }
                entry.status = status;
            }
            None => {
                let entry =
                    Entry { pod: pod.clone(), status, written: None, finished: false, deleted: false };
                entries.insert(uid.clone(), entry);
            }
        }
        drop(entries);
        self.queue.add(uid);
    }

    /// The pod object changed: it may be deleted now.
    pub fn observe(&self, pod: &Arc<Pod>) {
        let uid = spec::uid(pod);
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.pod = pod.clone();
        if entry.finished && spec::is_being_deleted(pod) {
            drop(entries);
            self.queue.add(uid.to_owned());
        }
    }

    /// Nothing of the pod is left on the node.
    pub fn finish(&self, pod: &Arc<Pod>) {
        let uid = spec::uid(pod);
        if let Some(entry) = self.entries.lock().get_mut(uid) {
            entry.finished = true;
        }
        self.queue.add(uid.to_owned());
    }

    /// The pod object is gone.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    async fn sync(&self, uid: &str) -> kube::Result<()> {
        let Some((pod, status, dirty, delete)) = self.entries.lock().get(uid).map(|entry| {
            let dirty = entry.written.as_ref() != Some(&entry.status);
            let over = spec::is_terminal_phase(entry.status.phase.as_deref().unwrap_or_default());
            let delete = entry.finished && over && !entry.deleted && spec::is_being_deleted(&entry.pod);
            (entry.pod.clone(), entry.status.clone(), dirty, delete)
        }) else {
            return Ok(());
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), spec::namespace(&pod));
        if dirty {
            let body = patch(uid, &status);
            match api.patch_status(spec::name(&pod), &PatchParams::default(), &Patch::Strategic(body)).await {
                Ok(_) => {
                    if let Some(entry) = self.entries.lock().get_mut(uid) {
                        entry.written = Some(status);
                    }
                }
                // it was deleted, and perhaps made anew under its name
                Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if delete {
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
                ..DeleteParams::default()
            };
            match api.delete(spec::name(&pod), &parameters).await {
                Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                    return Err(error);
                }
                _ => tracing::debug!(
                    pod = spec::format(&pod),
                    "the pod is fully terminated and removed from the API"
                ),
            }
        }
        Ok(())
    }
}

/// The strategic merge patch that writes a status. It holds all that the kubelet owns: scalars that are not set
/// are taken away, lists are replaced, and of the conditions only the kubelet's own are named.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut own = status.clone();
    if let Some(conditions) = &mut own.conditions {
        conditions.retain(|condition| is_kubelets(&condition.type_));
    }
    let mut body = serde_json::to_value(&own).unwrap_or_default();
    // conditions merge by type: a reason that no longer holds has to be taken away
    for condition in body["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    for field in
        ["phase", "reason", "message", "podIP", "hostIP", "observedGeneration", "startTime", "qosClass"]
    {
        if body.get(field).is_none() {
            body[field] = Value::Null;
        }
    }
    // these merge by address otherwise, and an old address would stay
    for list in ["podIPs", "hostIPs"] {
        match body.get_mut(list).and_then(Value::as_array_mut) {
            Some(items) => items.push(json!({"$patch": "replace"})),
            None => body[list] = Value::Null,
        }
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if body.get(list).is_none() {
            body[list] = Value::Null;
        }
    }
    json!({"metadata": {"uid": uid}, "status": body})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_what_the_kubelet_owns() {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "example.com/x", "status": "True"}],
        }))
        .expect("a status");
        insta::assert_json_snapshot!(patch("u", &status));
    }
}
