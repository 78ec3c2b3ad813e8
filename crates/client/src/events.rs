//! Events: what components tell users about objects. Writing them never holds anybody up: they go through a
//! bounded queue, and what repeats is counted instead of written again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// How many events may wait; more are dropped, oldest writers first.
const QUEUE: usize = 1000;
/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;
/// After this an event is written anew instead of counted.
const FORGET: Duration = Duration::from_secs(600);
const TRIES: u32 = 6;

#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Event>,
    component: Arc<str>,
    host: Arc<str>,
}

impl Recorder {
    /// Starts the task that writes what is recorded. `host` is empty but for components of a node.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, receiver));
        Self { sender, component: component.into(), host: host.into() }
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Normal", reason, message.into());
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Warning", reason, message.into());
    }

    fn record(&self, about: &ObjectReference, r#type: &str, reason: &str, message: String) {
        let now = Timestamp::now();
        let namespace =
            about.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".into());
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: about.clone(),
            type_: Some(r#type.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            source: Some(EventSource {
                component: Some(self.component.to_string()),
                host: Some(self.host.to_string()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.to_string()),
            reporting_instance: Some(self.host.to_string()).filter(|host| !host.is_empty()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped, too many are waiting");
        }
    }
}

/// A reference to an object, as events carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// What makes two events the same but for their count.
fn same(event: &Event) -> String {
    let about = &event.involved_object;
    format!("{:?}|{:?}|{:?}|{:?}|{:?}", about.uid, about.field_path, event.reason, event.message, event.type_)
}

struct Seen {
    name: String,
    count: i32,
    at: tokio::time::Instant,
}

async fn write(client: Client, mut receiver: mpsc::Receiver<Event>) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    while let Some(event) = receiver.recv().await {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if seen.len() > REMEMBERED {
            seen.retain(|_, entry| entry.at.elapsed() < FORGET);
            if seen.len() > REMEMBERED {
                seen.clear();
            }
        }
        let key = same(&event);
        if let Some(entry) = seen.get_mut(&key).filter(|entry| entry.at.elapsed() < FORGET) {
            entry.count += 1;
            entry.at = tokio::time::Instant::now();
            let patch = json!({"count": entry.count, "lastTimestamp": event.last_timestamp});
            let patched = api.patch(&entry.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                Ok(_) => continue,
                // it has expired meanwhile: written anew below
                Err(error) if crate::is_not_found(&error) => {}
                Err(error) => {
                    tracing::debug!(%error, "an event could not be counted");
                    continue;
                }
            }
        }
        let name = event.metadata.name.clone().unwrap_or_default();
        for attempt in 0..TRIES {
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {
                    seen.insert(key, Seen { name, count: 1, at: tokio::time::Instant::now() });
                    break;
                }
                // an answer is final; only a server that does not answer is asked again
                Err(kube::Error::Api(status)) => {
                    tracing::debug!(message = status.message, "an event was refused");
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "an event could not be written, trying again");
                    tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt)).await;
                }
            }
        }
    }
}
