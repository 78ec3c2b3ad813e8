//! Watch: what a watcher sees first, and the changes after it, whether memory or the store still has them.

use std::sync::Arc;

use apimachinery::{GroupKind, Status};
use storage::Revision;

use super::Registry;
use super::list::{ListOptions, parse_version};
use crate::cache::{Change, Entry, FromMemory, Watcher, storage_failed, too_old};
use crate::kinds::Kind;

/// A watch that has started: the objects to show first, then the changes.
pub struct Watch {
    pub initial: Vec<Arc<Entry>>,
    pub watcher: Watcher,
    /// The revision that the initial objects show.
    pub revision: Revision,
    /// Whether a bookmark says where the initial objects end.
    pub marks_end_of_initial: bool,
}

impl Registry {
    pub async fn watch(&self, kind: &Kind, namespace: &str, options: &ListOptions) -> Result<Watch, Status> {
        let cache = self.cache_of(kind)?;
        let filter = options.filter(namespace);
        let version = options.resource_version.as_str();
        let parse_version = |version| {
            parse_version(version).map_err(|error| {
                let resource = kind.resource.group_resource();
                Status::invalid(&GroupKind::new(resource.group, resource.resource), "", &[error])
            })
        };
        let wants_initial = options.send_initial_events.unwrap_or(matches!(version, "" | "0"));
        if wants_initial {
            match version {
                "" => {
                    self.cache.wait_for_latest().await?;
                }
                "0" => {}
                version => self.cache.wait_for(parse_version(version)?).await?,
            }
            let (snapshot, watcher) = cache.watch_from_now(filter.scope(), filter.clone());
            snapshot.check(&kind.key("", ""))?;
            let prefix = kind.key(namespace, "");
            let initial =
                snapshot.range(&prefix, None).filter(|entry| filter.matches(entry)).cloned().collect();
            return Ok(Watch {
                initial,
                watcher,
                revision: snapshot.revision,
                marks_end_of_initial: options.send_initial_events == Some(true),
            });
        }
        let after = match version {
            "" | "0" => self.cache.wait_for_latest().await?,
            version => parse_version(version)?,
        };
        // of a revision that is not there yet nothing is known until there is one after it
        let watcher = match cache.watch(after, filter.scope(), filter.clone()) {
            FromMemory::Started(watcher) => watcher,
            FromMemory::TooOld => self.watch_from_store(kind, after, filter).await?,
        };
        Ok(Watch { initial: Vec::new(), watcher, revision: after, marks_end_of_initial: false })
    }

    /// Starts with changes that only the store's log still has, as after a restart.
    async fn watch_from_store(
        &self,
        kind: &Kind,
        after: Revision,
        filter: crate::cache::Filter,
    ) -> Result<Watcher, Status> {
        let cache = self.cache_of(kind)?;
        // the live part first, so that nothing falls between
        let (snapshot, mut watcher) = cache.watch_from_now(filter.scope(), filter);
        let until = snapshot.revision;
        let mut older = Vec::new();
        if until > after {
            let mut stream = match self.storage.watch(&kind.key("", ""), after).await {
                Ok(stream) => stream,
                Err(storage::Error::Compacted { compact_revision, .. }) => {
                    return Err(too_old(after, compact_revision));
                }
                Err(error) => return Err(storage_failed(error)),
            };
            'read: while let Some(batch) = stream.next().await {
                let batch = batch.map_err(storage_failed)?;
                for event in batch.events {
                    if event.revision() > until {
                        break 'read;
                    }
                    older.push(Arc::new(self.change_of(cache.kind(), event)?));
                }
                if batch.revision >= until {
                    break;
                }
            }
        }
        let seen = older.last().map_or(after, |change| change.revision);
        watcher.prepend(older, after.min(seen));
        Ok(watcher)
    }

    fn change_of(&self, kind: &Arc<Kind>, event: storage::Event) -> Result<Change, Status> {
        let entry = |kv: storage::KeyValue| {
            Entry::from_store(kind, &kv.key, kv.value, kv.mod_revision, None).map_err(Status::internal)
        };
        let revision = event.revision();
        Ok(match event {
            storage::Event::Put { kv, prev } => {
                Change { revision, new: Some(entry(kv)?), old: prev.map(entry).transpose()? }
            }
            storage::Event::Delete { prev, .. } => {
                Change { revision, new: None, old: Some(entry(prev)?.deleted_at(revision)) }
            }
        })
    }
}
