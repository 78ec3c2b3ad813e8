//! The port to the API: the `binding` subresource, patches of `status`, events.

use std::time::Duration;

use async_trait::async_trait;
use client::Recorder;
use client::events::reference;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::port::{EventType, Port, PortError, StatusChange};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

pub struct ApiPort {
    client: Client,
    recorder: Recorder,
}

impl ApiPort {
    /// Must be called within a tokio runtime: it starts the task that writes events.
    pub fn new(client: Client, scheduler_name: &str) -> Self {
        Self { recorder: Recorder::new(client.clone(), scheduler_name, ""), client }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }
}

async fn within_deadline<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, PortError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(PortError::Refused(status.message)),
        Ok(Err(error)) => Err(PortError::Unanswered(error.to_string())),
        Err(_) => Err(PortError::Unanswered(format!("no answer within {DEADLINE:?}"))),
    }
}

#[async_trait]
impl Port for ApiPort {
    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), PortError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let binding = Binding {
            metadata: ObjectMeta {
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                // a pod of the same name made anew meanwhile is another pod
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods = self.pods(pod);
        let parameters = PostParams::default();
        let call = pods.create_subresource::<Binding, Status>("binding", name, &parameters, &binding);
        within_deadline(call).await.map(drop)
    }

    async fn change_status(&self, pod: &Pod, change: &StatusChange) -> Result<(), PortError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let mut status = json!({"conditions": [change.condition]});
        if let Some(node) = &change.nominated_node {
            status["nominatedNodeName"] = json!(node);
        }
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        let pods = self.pods(pod);
        within_deadline(pods.patch_status(name, &PatchParams::default(), &patch)).await.map(drop)
    }

    fn event(&self, pod: &Pod, r#type: EventType, reason: &str, message: String) {
        let about = reference(pod);
        match r#type {
            EventType::Normal => self.recorder.normal(&about, reason, message),
            EventType::Warning => self.recorder.warning(&about, reason, message),
        }
    }
}
