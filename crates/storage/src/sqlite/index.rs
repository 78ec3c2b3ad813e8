//! Every key in memory with the revisions it had, without the values: where to look, not what is there.
//!
//! It is made from the log at start and follows each commit. With it a write is decided without reading the
//! file, and the file is only ever appended to until compaction.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Error, KeyValue, Range, Revision};

/// The revision of a store that nothing was ever written to.
const FIRST_REVISION: Revision = 1;

/// What is known of a key's present without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub mod_revision: Revision,
    pub create_revision: Revision,
    pub version: u64,
    pub lease: i64,
}

impl Head {
    pub fn with(self, key: Arc<str>, value: bytes::Bytes) -> KeyValue {
        let Self { mod_revision, create_revision, version, lease } = self;
        KeyValue { key, value, create_revision, mod_revision, version, lease }
    }
}

impl From<&KeyValue> for Head {
    fn from(kv: &KeyValue) -> Self {
        let &KeyValue { mod_revision, create_revision, version, lease, .. } = kv;
        Self { mod_revision, create_revision, version, lease }
    }
}

/// A value that is no longer: it was the key's from `revision` to before `until`.
#[derive(Clone, Copy)]
struct Past {
    revision: Revision,
    until: Revision,
}

#[derive(Default)]
struct Life {
    present: Option<Head>,
    /// In order; what compaction has not reached yet.
    past: Vec<Past>,
}

/// A key's value as of some revision: the whole head, or for the past only where it stands in the log.
#[derive(Clone, Debug)]
pub struct Found {
    pub key: Arc<str>,
    pub revision: Revision,
    pub head: Option<Head>,
}

impl Life {
    fn at(&self, revision: Revision) -> Option<(Revision, Option<Head>)> {
        if let Some(head) = self.present.filter(|head| head.mod_revision <= revision) {
            return Some((head.mod_revision, Some(head)));
        }
        let after = self.past.partition_point(|past| past.revision <= revision);
        let past = self.past[..after].last()?;
        (revision < past.until).then_some((past.revision, None))
    }

    fn supersede(&mut self, until: Revision) {
        if let Some(head) = self.present.take() {
            self.past.push(Past { revision: head.mod_revision, until });
        }
    }
}

/// What a range holds.
pub struct Listing {
    pub found: Vec<Found>,
    pub more: bool,
    pub count: u64,
    pub revision: Revision,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compact_revision: Revision,
    keys: BTreeMap<Arc<str>, Life>,
}

/// Written by the writer thread only. A lock, since readers come from everywhere; they hold it for as long as
/// it takes to note keys and revisions.
pub struct Index(RwLock<State>);

impl Index {
    pub fn new(compact_revision: Revision) -> Self {
        // Compaction may have removed the log's last row, a deletion: the revision is its in any case.
        let revision = compact_revision.max(FIRST_REVISION);
        Self(RwLock::new(State { revision, compact_revision, keys: BTreeMap::new() }))
    }

    pub fn revision(&self) -> Revision {
        self.0.read().revision
    }

    pub fn compact_revision(&self) -> Revision {
        self.0.read().compact_revision
    }

    pub fn set_compact_revision(&self, revision: Revision) {
        self.0.write().compact_revision = revision;
    }

    /// Adds committed rows, in order. A head of version 0 is a deletion.
    pub fn apply(&self, rows: impl Iterator<Item = (Arc<str>, Head)>) {
        let state = &mut *self.0.write();
        for (key, head) in rows {
            state.revision = state.revision.max(head.mod_revision);
            let life = state.keys.entry(key).or_default();
            life.supersede(head.mod_revision);
            life.present = (head.version != 0).then_some(head);
        }
    }

    /// Removes values of the past that the file no longer has.
    pub fn forget(&self, rows: impl Iterator<Item = (Arc<str>, Revision)>) {
        let state = &mut *self.0.write();
        for (key, revision) in rows {
            let Some(life) = state.keys.get_mut(&key) else { continue };
            life.past.retain(|past| past.revision != revision);
            if life.past.is_empty() {
                life.past = Vec::new();
                if life.present.is_none() {
                    state.keys.remove(&key);
                }
            }
        }
    }

    pub fn get(&self, key: &str) -> (Option<Head>, Revision) {
        let state = self.0.read();
        (state.keys.get(key).and_then(|life| life.present), state.revision)
    }

    /// The keys that end by themselves, with when.
    pub fn expiring(&self) -> Vec<(i64, Arc<str>)> {
        let state = self.0.read();
        let lease = |life: &Life| life.present.map_or(0, |head| head.lease);
        let leased = state.keys.iter().map(|(key, life)| (lease(life), key));
        leased.filter(|(lease, _)| *lease != 0).map(|(lease, key)| (lease, key.clone())).collect()
    }

    pub fn count(&self, prefix: &str) -> u64 {
        let state = self.0.read();
        let range = Range::prefix(prefix);
        state.between(&range).filter(|(_, life)| life.present.is_some()).count() as u64
    }

    pub fn range(&self, range: &Range) -> Result<Listing, Error> {
        let state = self.0.read();
        let &State { revision: current, compact_revision, .. } = &*state;
        let revision = match range.revision {
            Some(requested) if requested > current => {
                return Err(Error::FutureRevision { requested, current });
            }
            Some(requested) if requested < compact_revision => {
                return Err(Error::Compacted { requested, compact_revision });
            }
            Some(requested) => requested,
            None => current,
        };
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut found = Vec::new();
        let mut count = 0;
        for (key, life) in state.between(range) {
            if let Some((revision, head)) = life.at(revision) {
                count += 1;
                if found.len() < limit {
                    found.push(Found { key: key.clone(), revision, head });
                }
            }
        }
        Ok(Listing { more: count > found.len() as u64, found, count, revision })
    }
}

impl State {
    fn between(&self, range: &Range) -> impl Iterator<Item = (&Arc<str>, &Life)> {
        let start = range.start.as_str();
        let end = match range.end.as_deref() {
            // A map refuses ends before starts.
            Some(end) if end <= start => Bound::Excluded(start),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        self.keys.range::<str, _>((Bound::Included(start), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(mod_revision: Revision, version: u64) -> Head {
        Head { mod_revision, create_revision: mod_revision, version, lease: 0 }
    }

    #[test]
    fn a_key_is_forgotten_when_nothing_of_it_is_left() {
        let index = Index::new(0);
        let key: Arc<str> = "/a".into();
        let rows = [head(2, 1), head(3, 2), head(4, 0), head(5, 1), head(6, 0)];
        index.apply(rows.into_iter().map(|head| (key.clone(), head)));
        assert_eq!(index.revision(), 6);
        for (at, found) in [(1, None), (2, Some(2)), (3, Some(3)), (4, None), (5, Some(5)), (6, None)] {
            let listing = index.range(&Range::prefix("/").at(at)).expect("kept");
            assert_eq!(listing.found.first().map(|found| found.revision), found, "at {at}");
        }
        index.forget([2, 3].into_iter().map(|revision| (key.clone(), revision)));
        assert_eq!(index.0.read().keys.len(), 1);
        index.forget(std::iter::once((key.clone(), 5)));
        assert_eq!(index.0.read().keys.len(), 0);
    }
}
