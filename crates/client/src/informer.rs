//! Shared informers: one watch per type and selector keeps a store, and tells whoever asked of every change.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ObjectKey;
use crate::intern::intern;
use crate::store::Store;

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is, or was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

/// The part of a resource that is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    pub labels: String,
    pub fields: String,
}

impl Selector {
    pub fn fields(fields: impl Into<String>) -> Self {
        Self { fields: fields.into(), ..Self::default() }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// One watch and what it keeps. The store is written before handlers are told.
pub struct Informer<K> {
    store: Arc<Store<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn new() -> Self {
        Self { store: Arc::default(), handlers: Mutex::default(), synced: watch::Sender::new(false) }
    }

    pub fn store(&self) -> &Arc<Store<K>> {
        &self.store
    }

    /// Calls `handler` for every object there is, then for every change. Handlers are quick: they look and queue.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock();
        for object in self.store.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the store holds what the API held when the watch began.
    pub async fn wait_for_sync(&self) {
        // the sender lives as long as self
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn apply(&self, object: K) {
        // the lock is held from the store's change to the last handler, so that handlers see changes in order
        let handlers = self.handlers.lock();
        let object = intern(object);
        let change = match self.store.insert(object.clone()) {
            Some(old) if old.meta().resource_version == object.meta().resource_version => return,
            // deleted and made again while nobody looked
            Some(old) if old.meta().uid != object.meta().uid => {
                let gone = Change::Deleted(old);
                handlers.iter().for_each(|handler| handler(&gone));
                Change::Added(object)
            }
            Some(old) => Change::Updated { old, new: object },
            None => Change::Added(object),
        };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn delete(&self, key: &ObjectKey) {
        let handlers = self.handlers.lock();
        if let Some(old) = self.store.remove(key) {
            let change = Change::Deleted(old);
            handlers.iter().for_each(|handler| handler(&change));
        }
    }

    async fn run(&self, api: Api<K>, config: watcher::Config) {
        let stream = watcher::watcher(api, config).backoff(watcher::DefaultBackoff::default());
        let mut stream = std::pin::pin!(stream);
        let mut listed: HashSet<ObjectKey> = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(ObjectKey::of(&object));
                    self.apply(object);
                }
                Ok(Event::InitDone) => {
                    for key in self.store.keys() {
                        if !listed.contains(&key) {
                            self.delete(&key);
                        }
                    }
                    listed = HashSet::new();
                    self.synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.apply(object),
                Ok(Event::Delete(object)) => self.delete(&ObjectKey::of(&object)),
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "a watch broke off and is taken up again");
                }
            }
        }
    }
}

/// The informers of one identity: asking twice for the same gives the same.
pub struct Informers {
    client: Client,
    cancel: CancellationToken,
    running: Mutex<HashMap<(TypeId, Selector), Arc<dyn Any + Send + Sync>>>,
}

impl Informers {
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, running: Mutex::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of a type.
    pub fn all<K>(&self) -> Arc<Informer<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.select(Selector::default())
    }

    /// The informer of the objects that a selector finds. It runs until the token of this set is cancelled.
    pub fn select<K>(&self, selector: Selector) -> Arc<Informer<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut running = self.running.lock();
        let key = (TypeId::of::<K>(), selector.clone());
        if let Some(informer) = running.get(&key)
            && let Ok(informer) = informer.clone().downcast::<Informer<K>>()
        {
            return informer;
        }
        let informer = Arc::new(Informer::<K>::new());
        running.insert(key, informer.clone());
        let api = Api::all(self.client.clone());
        let mut config = watcher::Config::default().streaming_lists();
        if !selector.labels.is_empty() {
            config = config.labels(&selector.labels);
        }
        if !selector.fields.is_empty() {
            config = config.fields(&selector.fields);
        }
        let (task, cancel) = (informer.clone(), self.cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task.run(api, config) => {}
            }
        });
        informer
    }
}

/// Waits until all informers have synced, or says so when it takes long.
pub async fn wait_for_all(waits: Vec<(&'static str, futures::future::BoxFuture<'_, ()>)>) {
    const PATIENCE: Duration = Duration::from_secs(10);
    for (name, mut wait) in waits {
        while tokio::time::timeout(PATIENCE, &mut wait).await.is_err() {
            tracing::info!(resource = name, "still waiting for the first list");
        }
    }
}
