//! Secrets and config maps of pods on this node, each watched by its name: the node may not list them all.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// How long a pod waits for the first answer about an object.
const SYNC_DEADLINE: Duration = Duration::from_secs(10);
/// The authorizer learns of a pod a moment after we do, so the first tries follow each other quickly.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(20);
/// The server ends a watch after this; it is taken up again.
const WATCH_SECONDS: u32 = 290;

/// What is known of one object.
#[derive(Clone, Debug)]
enum Known<K> {
    Nothing,
    Object(Option<Arc<K>>),
    Failed(String),
}

struct Entry<K> {
    state: watch::Receiver<Known<K>>,
    users: HashSet<String>,
    task: tokio::task::JoinHandle<()>,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Told with the uids of the pods that use an object when it changed.
pub type OnChange = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Objects of one type by namespace and name, held as long as a pod uses them.
pub struct Objects<K> {
    client: Client,
    /// Lower-case kind, for messages.
    kind: &'static str,
    entries: Arc<Mutex<HashMap<(String, String), Entry<K>>>>,
    on_change: OnChange,
}

impl<K> Objects<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    pub fn new(client: Client, kind: &'static str, on_change: OnChange) -> Self {
        Self { client, kind, entries: Arc::default(), on_change }
    }

    /// The object as it is now; `None` when it does not exist. The pod keeps it watched until [`Self::release`].
    pub async fn get(&self, pod_uid: &str, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        let mut state = self.entry(pod_uid, namespace, name);
        let known = async {
            let known = state.wait_for(|known| !matches!(known, Known::Nothing)).await;
            known.map(|known| known.clone())
        };
        match tokio::time::timeout(SYNC_DEADLINE, known).await {
            Ok(Ok(Known::Object(object))) => Ok(object),
            Ok(Ok(Known::Failed(message))) => Err(message),
            _ => Err(format!("failed to sync {} cache: timed out waiting for the condition", self.kind)),
        }
    }

    fn entry(&self, pod_uid: &str, namespace: &str, name: &str) -> watch::Receiver<Known<K>> {
        // held for map operations only
        let mut entries = self.entries.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let (sender, state) = watch::channel(Known::Nothing);
            let follow = Follow {
                api: Api::namespaced(self.client.clone(), namespace),
                name: name.to_owned(),
                sender,
                changed: self.notifier(key),
            };
            Entry { state, users: HashSet::new(), task: tokio::spawn(follow.run()) }
        });
        entry.users.insert(pod_uid.to_owned());
        entry.state.clone()
    }

    fn notifier(&self, key: (String, String)) -> Box<dyn Fn() + Send + Sync> {
        let entries = Arc::downgrade(&self.entries);
        let on_change = self.on_change.clone();
        Box::new(move || {
            let Some(entries) = entries.upgrade() else { return };
            let users: Vec<String> = entries
                .lock()
                .get(&key)
                .map(|entry| entry.users.iter().cloned().collect())
                .unwrap_or_default();
            on_change(&users);
        })
    }

    /// A pod is gone; what nobody else uses is no longer watched.
    pub fn release(&self, pod_uid: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.remove(pod_uid);
            !entry.users.is_empty()
        });
    }
}

/// Follows one object: a list by name, then a watch from there.
struct Follow<K> {
    api: Api<K>,
    name: String,
    sender: watch::Sender<Known<K>>,
    changed: Box<dyn Fn() + Send + Sync>,
}

impl<K> Follow<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    async fn run(self) {
        let mut delay = FIRST_RETRY;
        loop {
            match self.follow().await {
                Ok(()) => delay = FIRST_RETRY,
                Err(error) => {
                    // a first answer that is an error is told, so that the pod can say what it waits for
                    let message = client::message(&error);
                    let waited_long = delay > Duration::from_millis(500);
                    self.sender.send_if_modified(|known| {
                        let tell = waited_long && !matches!(known, Known::Object(_));
                        if tell {
                            *known = Known::Failed(message);
                        }
                        tell
                    });
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
    }

    async fn follow(&self) -> kube::Result<()> {
        let fields = format!("metadata.name={}", self.name);
        let list = self.api.list(&ListParams::default().fields(&fields)).await?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        self.publish(list.items.into_iter().next());
        let parameters = WatchParams::default().fields(&fields).timeout(WATCH_SECONDS);
        let mut events = std::pin::pin!(self.api.watch(&parameters, &version).await?);
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.publish(Some(object)),
                WatchEvent::Deleted(_) => self.publish(None),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(())
    }

    fn publish(&self, object: Option<K>) {
        let version = |object: &K| object.meta().resource_version.clone();
        let object = object.map(Arc::new);
        let mut first = false;
        let changed = self.sender.send_if_modified(|known| {
            let same = match known {
                Known::Object(old) => old.as_deref().map(&version) == object.as_deref().map(&version),
                _ => {
                    first = true;
                    false
                }
            };
            if !same {
                *known = Known::Object(object.clone());
            }
            !same
        });
        // the first answer goes to the one who asked
        if changed && !first {
            (self.changed)();
        }
    }
}
