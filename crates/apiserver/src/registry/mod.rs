//! The one registry behind every resource: create, read, update, delete and watch over the store and its cache.
//! What differs between resources comes from their catalogue rows and strategies.

pub mod allocators;
mod create;
mod delete;
pub mod list;
pub(crate) mod metadata;
mod read;
mod rights;
mod update;
pub mod watch;

use std::sync::Arc;

use apimachinery::codec::EncodedJson;
use apimachinery::{Object, Status};
use storage::{Expect, PutOutcome, Revision, Storage};

use crate::admission::Admission;
use crate::cache::{Cache, Entry, Known, ResourceCache, storage_failed};
use crate::kinds::{Kind, Kinds};

pub use delete::DeleteOptions;
pub use metadata::generate_name;
pub use update::{Part, check_name};

/// Events go after an hour.
const EVENT_TTL: std::time::Duration = std::time::Duration::from_secs(3600);

pub struct Registry {
    pub storage: Arc<dyn Storage>,
    pub cache: Arc<Cache>,
    pub kinds: Kinds,
    pub admission: Admission,
    pub allocators: allocators::Allocators,
}

impl Registry {
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(group, version, plural)
    }

    /// A core kind; only for kinds that the catalogue is known to have.
    pub fn core(&self, plural: &str) -> &Arc<Kind> {
        self.kind("", "v1", plural).expect("the catalogue has every core kind the server uses itself")
    }

    fn cache_of(&self, kind: &Kind) -> Result<&Arc<ResourceCache>, Status> {
        self.cache.resource(kind).ok_or_else(Status::method_not_allowed)
    }

    /// What the cache holds under a name, as it holds it. For checks that may lag behind.
    pub fn glance(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.cache.resource(kind)?.get(&kind.key(namespace, name))
    }

    /// Like [`Registry::glance`], decoded, in the version of `kind`.
    pub fn peek(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Object> {
        self.decode(kind, &*self.glance(kind, namespace, name)?).ok()
    }

    fn decode(&self, kind: &Kind, entry: &Entry) -> Result<Object, Status> {
        let mut object = entry.object().map_err(|error| unreadable(kind, entry, error))?;
        kind.convert_from_stored(&mut object);
        Ok(object)
    }

    /// Writes an object if `expected` still holds and waits until the cache shows it. The object that comes
    /// back has its new resourceVersion.
    pub(crate) async fn store(
        &self,
        kind: &Kind,
        key: &str,
        object: Object,
        expected: Expect,
    ) -> Result<Result<Object, Option<storage::KeyValue>>, Status> {
        let mut stored = object;
        stored.set_resource_version("");
        kind.convert_to_stored(&mut stored);
        kind.default_stored(&mut stored);
        let bytes = kind.seal(key, kind.encode_stored(&stored)).map_err(Status::internal)?;
        let lease = (kind.resource.prefix == "events").then_some(EVENT_TTL);
        let stored = Arc::new(stored);
        let json = (!kind.converts()).then(|| Arc::new(EncodedJson::new(&stored, &kind.stored_schema)));
        let known = Known { object: stored.clone(), json };
        let handed = self.cache.hand_over(bytes.clone(), known);
        match self.storage.put_if(key, expected, bytes, lease).await {
            Ok(PutOutcome::Stored(revision)) => {
                self.cache.wait_for(revision).await?;
                drop(handed);
                let mut object = Arc::unwrap_or_clone(stored);
                kind.convert_from_stored(&mut object);
                object.set_resource_version(&revision.to_string());
                Ok(Ok(object))
            }
            Ok(PutOutcome::Conflict(current)) => Ok(Err(current)),
            Err(error) => Err(storage_failed(error)),
        }
    }

    /// The object as the store has it now, past the cache.
    async fn fresh(&self, kind: &Kind, key: &str) -> Result<Option<(Object, Revision)>, Status> {
        let (kv, _) = self.storage.get(key).await.map_err(storage_failed)?;
        kv.map(|kv| self.decode_kv(kind, &kv)).transpose()
    }

    /// Whether an object lies in the store otherwise than it would if it were written now.
    async fn is_stale(&self, kind: &Kind, key: &str) -> Result<bool, Status> {
        if !kind.may_be_stale() {
            return Ok(false);
        }
        let (kv, _) = self.storage.get(key).await.map_err(storage_failed)?;
        kv.map_or(Ok(false), |kv| kind.is_stale(key, &kv.value)).map_err(Status::internal)
    }

    fn decode_kv(&self, kind: &Kind, kv: &storage::KeyValue) -> Result<(Object, Revision), Status> {
        let value = kind.open(&kv.key, &kv.value).map_err(Status::internal)?;
        let mut object = kind.decode_stored(&value).map_err(Status::internal)?;
        kind.convert_from_stored(&mut object);
        object.set_resource_version(&kv.mod_revision.to_string());
        Ok((object, kv.mod_revision))
    }
}

fn unreadable(kind: &Kind, entry: &Entry, error: impl std::fmt::Display) -> Status {
    tracing::error!(key = %entry.key(), %error, "a stored object cannot be read");
    Status::internal(format!("unable to decode {} {}: {error}", kind.resource.plural, entry.name()))
}
