//! A versioned key-value store of bytes, in etcd's model: every write has a revision of its own, a key is
//! written only by compare-and-swap on the revision that last changed it, and the past can be read and
//! watched until it is compacted.
//!
//! Nothing here knows what the bytes mean. [`Storage`] is the contract, [`sqlite`] the embedded backend, and
//! [`conformance`] the suite that every backend has to pass.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod sqlite;
mod watch;

pub use watch::{Batch, ProgressRequester, WatchStream};

/// The position of a write in the store's history. An empty store is at revision 1, as etcd is, so that 0
/// stays free for "any".
pub type Revision = u64;

/// A key with its value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision that made the key (after its last deletion).
    pub create_revision: Revision,
    /// The revision of this value.
    pub mod_revision: Revision,
    /// How often the key was written since it was made; 1 after the first write.
    pub version: u64,
    /// What ends the key's life by itself, in the backend's own terms; 0 when nothing does.
    pub lease: i64,
}

/// One change, at a revision of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put { kv: KeyValue, prev: Option<KeyValue> },
    Delete { prev: KeyValue, revision: Revision },
}

impl Event {
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { prev, .. } => &prev.key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// The value before the change.
    pub fn prev(&self) -> Option<&KeyValue> {
        match self {
            Self::Put { prev, .. } => prev.as_ref(),
            Self::Delete { prev, .. } => Some(prev),
        }
    }
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    ModRevision(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    Stored(Revision),
    /// The expectation did not hold; this is what is there.
    Conflict(Option<KeyValue>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    Deleted {
        prev: KeyValue,
        revision: Revision,
    },
    /// The expectation did not hold; this is what is there.
    Conflict(Option<KeyValue>),
}

/// Which keys to read, and as of when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key, inclusive.
    pub start: String,
    /// The end, exclusive; `None` reads to the last key.
    pub end: Option<String>,
    /// At most this many keys; 0 is no limit.
    pub limit: usize,
    /// The state as of this revision; `None` is the present.
    pub revision: Option<Revision>,
    /// Leaves the values empty.
    pub keys_only: bool,
}

impl Range {
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: prefix_end(prefix), ..Self::default() }
    }

    /// What of `prefix` comes after `key`: the next page of a listing.
    pub fn prefix_after(prefix: &str, key: &str) -> Self {
        Self { start: format!("{key}\0"), ..Self::prefix(prefix) }
    }

    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    pub fn at(self, revision: Revision) -> Self {
        Self { revision: Some(revision), ..self }
    }

    pub fn keys_only(self) -> Self {
        Self { keys_only: true, ..self }
    }
}

/// The smallest string greater than all that start with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The next character: surrogates are no characters, and after the last one the place is dropped.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// An answer to a [`Range`], in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub kvs: Vec<KeyValue>,
    /// The limit cut the answer short.
    pub more: bool,
    /// How many keys the range holds without the limit.
    pub count: u64,
    /// The revision that was read: the requested one, or the current one.
    pub revision: Revision,
}

/// A write that was acknowledged is durable and visible to every later call; calls on different keys are
/// ordered by their revisions. Dropping the future of a write leaves open whether it happened.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The key, with the revision at which it was read. Linearizable.
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error>;

    /// Several keys as of one revision. Without a revision it is linearizable. Fails with
    /// [`Error::Compacted`] and [`Error::FutureRevision`].
    async fn range(&self, range: Range) -> Result<Page, Error>;

    /// How many keys start with `prefix` now.
    async fn count(&self, prefix: &str) -> Result<u64, Error>;

    /// Writes the key if it is as expected. With a `ttl` the store deletes the key after that time (whole
    /// seconds, rounded up) unless it is written again; a write without one makes it permanent.
    async fn put_if(
        &self,
        key: &str,
        expected: Expect,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<PutOutcome, Error>;

    /// Deletes the key if `expected` is the revision that last changed it.
    async fn delete_if(&self, key: &str, expected: Revision) -> Result<DeleteOutcome, Error>;

    /// All changes under `prefix` with a revision greater than `after`, in order and without gaps, for as long
    /// as the stream is read. Fails with [`Error::Compacted`], also later in the stream, when changes after
    /// `after` are no longer kept.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error>;

    /// Forgets what was overwritten or deleted at or before `revision`; older states can no longer be read, nor
    /// older changes watched. Returns when the space is free for use again.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    async fn current_revision(&self) -> Result<Revision, Error>;

    /// Finishes what was begun, ends the watches and lets go of the store. Every later call fails with
    /// [`Error::Closed`].
    async fn close(&self) -> Result<(), Error>;
}

/// What can go wrong. Conflicts are outcomes, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// List or watch from a newer revision.
    #[error("revision {requested} has been compacted, the oldest that is kept is {compact_revision}")]
    Compacted { requested: Revision, compact_revision: Revision },
    #[error("revision {requested} is in the future, the store is at {current}")]
    FutureRevision { requested: Revision, current: Revision },
    #[error("the store is closed")]
    Closed,
    /// Another process has the store open.
    #[error("{} is in use by another process{}", path.display(), Holder(*.pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    /// The file is damaged, or it never was a store. It is left as it is.
    #[error(
        "{} cannot be read as a database of this program ({reason}); restore it from a backup or move it away",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    /// The file was written by another version of the program.
    #[error("{} has schema version {found}, this program knows {supported}", path.display())]
    SchemaVersion { path: PathBuf, found: i64, supported: i64 },
    /// A write could not be made durable; nothing more is written until the store is opened again.
    #[error("the store takes no more writes after a failed one: {0}")]
    Poisoned(String),
    /// The operation did not happen; it may be tried again.
    #[error("storage: {0}")]
    Backend(String),
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_that_lacks_it() {
        let cases = [
            ("/registry/pods/", Some("/registry/pods0")),
            ("a", Some("b")),
            ("a\u{10FFFF}", Some("b")),
            ("\u{D7FF}", Some("\u{E000}")),
            ("\u{10FFFF}", None),
            ("", None),
        ];
        for (prefix, end) in cases {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_locked_store_names_its_holder() {
        let locked = Error::Locked { path: "/data/db".into(), pid: Some(7) };
        assert_eq!(locked.to_string(), "/data/db is in use by another process (pid 7)");
    }
}
