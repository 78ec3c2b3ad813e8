//! The watch cache: the newest state of every resource in memory, fed from the store's log, from which all
//! reads and watches are answered. It never writes, and it applies events in the order of their revisions.

mod entry;
mod resource;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use apimachinery::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use storage::{Event as StoreEvent, KeyValue, Range, Revision, Storage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use entry::{Entry, Known};
pub use resource::{Change, FromMemory, ResourceCache, Snapshot, too_old};
pub use watcher::{Filter, Seen, Watcher};

use crate::encryption::Unreadable;
use crate::kinds::{Kind, Kinds};

/// Everything lives below this key.
pub const ROOT: &str = "/registry/";

/// How long a read waits for the cache to catch up before it fails.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How often snapshots that nobody reads on in are let go.
const DROP_PAGES: Duration = Duration::from_secs(10);

/// A thread more is worth it for so many objects.
const SHARE: usize = 2000;

/// A stored object as it was read, with its resource and its key.
type Read = (Arc<ResourceCache>, Arc<str>, Result<Arc<Entry>, Unreadable>);

/// Told of every change, in order, by the one task that applies them.
pub type Observer = Box<dyn Fn(&Resource, &Change) + Send + Sync>;

/// An object that lies ready for the cache. It has the bytes, so that no other write can have their address meanwhile.
pub struct Handed<'a> {
    cache: &'a Cache,
    bytes: Bytes,
}

impl Drop for Handed<'_> {
    fn drop(&mut self) {
        self.cache.handed.lock().remove(&(self.bytes.as_ptr() as usize));
    }
}

/// All resources' caches and how far they have come.
pub struct Cache {
    storage: Arc<dyn Storage>,
    by_prefix: HashMap<String, Arc<ResourceCache>>,
    applied: watch::Sender<Revision>,
    observers: Mutex<Vec<Observer>>,
    /// Objects that a writer of this process has at hand, so that the cache need not decode what was just
    /// encoded; keyed by the address of the stored bytes, which the event shares with the writer.
    handed: Mutex<HashMap<usize, Known>>,
}

impl Cache {
    /// Reads the whole store once; changes come with [`Cache::follow`].
    pub async fn load(storage: Arc<dyn Storage>, kinds: &Kinds) -> Result<Arc<Self>, storage::Error> {
        let page = storage.range(Range::prefix(ROOT)).await?;
        let by_prefix: HashMap<String, Arc<ResourceCache>> = kinds
            .stored()
            .map(|kind| (kind.resource.prefix.to_owned(), Arc::new(ResourceCache::new(kind.clone()))))
            .collect();
        let cache = Arc::new(Self {
            storage,
            by_prefix,
            applied: watch::Sender::new(page.revision),
            observers: Mutex::default(),
            handed: Mutex::default(),
        });
        let mut loading: HashMap<&str, Vec<Arc<Entry>>> = HashMap::new();
        let mut sealed = Vec::new();
        for (resource, key, outcome) in cache.read_all(page.kvs) {
            match outcome {
                Ok(entry) => loading.entry(resource.kind().resource.prefix).or_default().push(entry),
                Err(error) => {
                    tracing::error!(%key, %error, "a stored object cannot be read; it is left alone");
                    sealed.push((resource, key, error));
                }
            }
        }
        for (prefix, entries) in loading {
            if let Some(resource) = cache.by_prefix.get(prefix) {
                resource.load(entries, page.revision);
            }
        }
        for (resource, key, error) in sealed {
            resource.note_unreadable(&key, &error);
        }
        for resource in cache.by_prefix.values() {
            resource.set_floor(page.revision);
        }
        Ok(cache)
    }

    /// Reads what the store holds, with all cores: it is what a start takes its time for.
    fn read_all(&self, kvs: Vec<KeyValue>) -> Vec<Read> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = kvs.len().div_ceil(cores).max(SHARE);
        let read = |kvs: Vec<KeyValue>| -> Vec<Read> {
            let one = |kv: KeyValue| {
                let resource = self.route(&kv.key)?.clone();
                let entry = Entry::from_store(resource.kind(), &kv.key, kv.value, kv.mod_revision, None);
                Some((resource, kv.key, entry))
            };
            kvs.into_iter().filter_map(one).collect()
        };
        let mut rest = kvs;
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            while rest.len() > share {
                let part = rest.split_off(rest.len() - share);
                others.push(scope.spawn(|| read(part)));
            }
            let mut all = read(rest);
            for other in others.into_iter().rev() {
                match other.join() {
                    Ok(part) => all.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    }

    /// Applies the store's changes until cancelled. Ends with an error when the store's log breaks off.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) -> Result<(), storage::Error> {
        let mut stream = self.storage.watch(ROOT, self.revision()).await?;
        let mut drop_pages = tokio::time::interval(DROP_PAGES);
        loop {
            let batch = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                now = drop_pages.tick() => {
                    self.resources().for_each(|resource| resource.drop_pages(now.into_std()));
                    continue;
                }
                batch = stream.next() => match batch {
                    Some(batch) => batch?,
                    None => return Ok(()),
                },
            };
            for event in batch.events {
                self.apply(event);
            }
            self.applied.send_if_modified(|applied| {
                let moved = batch.revision > *applied;
                *applied = (*applied).max(batch.revision);
                moved
            });
        }
    }

    fn apply(&self, event: StoreEvent) {
        let Some(resource) = self.route(event.key()) else { return };
        let change = match event {
            StoreEvent::Put { kv, .. } => {
                let known = self.handed.lock().remove(&(kv.value.as_ptr() as usize));
                match Entry::from_store(resource.kind(), &kv.key, kv.value, kv.mod_revision, known) {
                    Ok(entry) => resource.put(entry),
                    Err(error) => {
                        tracing::error!(key = %kv.key, %error, "a stored object cannot be read");
                        // who watches is to find out by a new list, which fails
                        if resource.note_unreadable(&kv.key, &error) {
                            resource.end_watches();
                        }
                        return;
                    }
                }
            }
            StoreEvent::Delete { prev, revision } => match resource.delete(&prev.key, revision) {
                Some(change) => change,
                None => return,
            },
        };
        for observer in self.observers.lock().iter() {
            observer(resource.kind().resource, &change);
        }
        resource.publish(change);
    }

    /// Calls `observer` for everything there is, then for every change.
    pub fn observe(&self, observer: Observer) {
        let mut observers = self.observers.lock();
        for resource in self.by_prefix.values() {
            for entry in resource.snapshot().iter() {
                let change = Change { revision: entry.revision(), new: Some(entry.clone()), old: None };
                observer(resource.kind().resource, &change);
            }
        }
        observers.push(observer);
    }

    /// Lets the cache use an object that is about to be committed as `bytes`, for as long as the answer is held.
    pub fn hand_over(&self, bytes: Bytes, known: Known) -> Handed<'_> {
        self.handed.lock().insert(bytes.as_ptr() as usize, known);
        Handed { cache: self, bytes }
    }

    /// The cache of a stored kind.
    pub fn resource(&self, kind: &Kind) -> Option<&Arc<ResourceCache>> {
        self.by_prefix.get(kind.resource.prefix)
    }

    pub fn by_prefix(&self, prefix: &str) -> Option<&Arc<ResourceCache>> {
        self.by_prefix.get(prefix)
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.by_prefix.values()
    }

    /// Up to which revision changes are applied.
    pub fn revision(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Waits until the cache shows `revision`.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let caught_up = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(CATCH_UP, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::service_unavailable("the server is shutting down")),
            Err(_) => {
                let message = format!("Too large resource version: {revision}, current: {}", self.revision());
                Err(too_large(message))
            }
        }
    }

    /// Waits until the cache shows everything that was committed before the call.
    pub async fn wait_for_latest(&self) -> Result<Revision, Status> {
        let latest = self.storage.current_revision().await.map_err(storage_failed)?;
        self.wait_for(latest).await?;
        Ok(latest)
    }

    /// The cache whose key prefix a key starts with.
    fn route(&self, key: &str) -> Option<&Arc<ResourceCache>> {
        let rest = key.strip_prefix(ROOT)?;
        let first = rest.find('/')?;
        if let Some(found) = self.by_prefix.get(&rest[..first]) {
            return Some(found);
        }
        let second = rest[first + 1..].find('/')? + first + 1;
        self.by_prefix.get(&rest[..second])
    }
}

fn too_large(message: String) -> Status {
    let mut status = Status::timeout(&message, 1);
    if let Some(details) = &mut status.details {
        details.causes.push(apimachinery::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
    }
    status
}

/// A failed store as the client sees it.
pub fn storage_failed(error: storage::Error) -> Status {
    match &error {
        storage::Error::Closed => tracing::debug!("a request came after the store was closed"),
        _ => tracing::error!(%error, "the store failed"),
    }
    Status::internal(error)
}
