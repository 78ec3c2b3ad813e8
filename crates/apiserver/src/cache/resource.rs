//! The cache of one resource: a persistent map of its objects, its newest events and its watchers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apimachinery::Status;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use storage::Revision;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::watcher::{Filter, Scope, Watcher, Watchers};
use crate::encryption::Unreadable;
use crate::flowcontrol::Stored;
use crate::kinds::Kind;

/// How many events are kept for watches that start a little in the past.
const RECENT: usize = 4096;

/// How many snapshots are kept for the next page of a list.
const PAGES: usize = 64;

/// How long one waits for the next page. It holds on to objects that are no more; after it, pages come from the store.
const PAGE_LIFE: Duration = Duration::from_secs(30);

/// What one write did. `new` is absent for a delete; then `old` is the object as it went, at the revision of the delete.
#[derive(Clone)]
pub struct Change {
    pub revision: Revision,
    pub new: Option<Arc<Entry>>,
    pub old: Option<Arc<Entry>>,
}

pub type Map = OrdMap<Arc<str>, Arc<Entry>>;

/// All objects of a resource at one revision, or a part of them. Cheap to take and to keep.
#[derive(Clone)]
pub struct Snapshot {
    pub revision: Revision,
    /// What was read, when it was not all.
    part: Option<Part>,
    objects: Map,
    /// Objects that are there and cannot be opened, and why.
    sealed: OrdMap<Arc<str>, Arc<str>>,
}

/// The keys that start with `prefix`, from `start` on.
#[derive(Clone)]
struct Part {
    prefix: Arc<str>,
    start: Arc<str>,
}

impl Snapshot {
    pub fn new(revision: Revision, entries: Vec<Arc<Entry>>) -> Self {
        let objects = entries.into_iter().map(|entry| (entry.key().clone(), entry)).collect();
        Self { revision, part: None, objects, sealed: OrdMap::new() }
    }

    /// A snapshot of nothing but the keys that start with `prefix`, from `start` on.
    pub fn part(revision: Revision, prefix: &str, start: &str, entries: Vec<Arc<Entry>>) -> Self {
        let part = Some(Part { prefix: prefix.into(), start: start.into() });
        Self { part, ..Self::new(revision, entries) }
    }

    /// Whether it has all there was below `prefix`, from `start` on.
    fn covers(&self, prefix: &str, start: &str) -> bool {
        let within = |part: &Part| prefix.starts_with(&*part.prefix) && start.max(prefix) >= &*part.start;
        self.part.as_ref().is_none_or(within)
    }

    /// The same objects, known to be the newest up to `revision`: what other resources did moves the version
    /// of a list too.
    pub fn at_least(mut self, revision: Revision) -> Self {
        self.revision = self.revision.max(revision);
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.objects.values()
    }

    /// Entries whose keys start with `prefix`, from `start` on.
    pub fn range<'a>(&'a self, prefix: &'a str, start: Option<&str>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from: Arc<str> = start.unwrap_or(prefix).into();
        self.objects.range(from..).map(|(_, entry)| entry).take_while(move |e| e.key().starts_with(prefix))
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.objects.get(key)
    }

    /// An error where something lies below `prefix` that cannot be opened: to leave it out would be to say that it is
    /// not there.
    pub fn check(&self, prefix: &str) -> Result<(), Status> {
        let first = self.sealed.range(Arc::<str>::from(prefix)..).next();
        match first.filter(|(key, _)| key.starts_with(prefix)) {
            None => Ok(()),
            Some((key, why)) => Err(Status::internal(format!("unable to transform key {key:?}: {why}"))),
        }
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

pub struct ResourceCache {
    kind: Arc<Kind>,
    /// Written by the task that applies events alone; readers clone the map and let go.
    state: RwLock<Snapshot>,
    /// Locked by that task and by watches that start, so that a watch neither misses nor repeats an event.
    feed: Mutex<Feed>,
    pages: Mutex<BTreeMap<Revision, KeptPage>>,
    /// How many bytes the stored objects have together.
    bytes: AtomicU64,
}

/// What the next page of a list is cut from.
struct KeptPage {
    snapshot: Snapshot,
    used: Instant,
}

struct Feed {
    /// Events after this revision are in `recent`.
    floor: Revision,
    recent: VecDeque<Arc<Change>>,
    watchers: Watchers,
}

/// Why a watch cannot start from memory.
pub enum FromMemory {
    Started(Watcher),
    /// The events since the asked revision are no longer in memory; the store may still have them.
    TooOld,
}

impl ResourceCache {
    pub fn new(kind: Arc<Kind>) -> Self {
        Self {
            kind,
            state: RwLock::new(Snapshot::new(0, Vec::new())),
            feed: Mutex::new(Feed { floor: 0, recent: VecDeque::new(), watchers: Watchers::default() }),
            pages: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    pub(super) fn load(&self, entries: Vec<Arc<Entry>>, revision: Revision) {
        self.bytes.store(entries.iter().map(|entry| entry.size()).sum(), Ordering::Relaxed);
        *self.state.write() = Snapshot::new(revision, entries);
    }

    pub(super) fn set_floor(&self, revision: Revision) {
        self.feed.lock().floor = revision;
        self.state.write().revision = revision;
    }

    pub(super) fn put(&self, entry: Arc<Entry>) -> Change {
        let revision = entry.revision();
        let mut state = self.state.write();
        state.sealed.remove(entry.key());
        let old = state.objects.insert(entry.key().clone(), entry.clone());
        state.revision = revision;
        self.bytes.fetch_add(entry.size(), Ordering::Relaxed);
        self.bytes.fetch_sub(old.as_ref().map_or(0, |old| old.size()), Ordering::Relaxed);
        Change { revision, new: Some(entry), old }
    }

    pub(super) fn delete(&self, key: &str, revision: Revision) -> Option<Change> {
        let mut state = self.state.write();
        state.sealed.remove(key);
        let old = state.objects.remove(key)?;
        state.revision = revision;
        self.bytes.fetch_sub(old.size(), Ordering::Relaxed);
        Some(Change { revision, new: None, old: Some(old.deleted_at(revision)) })
    }

    /// Keeps in mind that an object is there that cannot be opened; whether it is such a one.
    pub(super) fn note_unreadable(&self, key: &Arc<str>, error: &Unreadable) -> bool {
        let Unreadable::Sealed(why) = error else { return false };
        let mut state = self.state.write();
        state.objects.remove(key);
        state.sealed.insert(key.clone(), why.as_str().into());
        true
    }

    /// Why an object that is there cannot be opened.
    pub fn why_sealed(&self, key: &str) -> Option<Arc<str>> {
        self.state.read().sealed.get(key).cloned()
    }

    pub(super) fn publish(&self, change: Change) {
        let change = Arc::new(change);
        let mut feed = self.feed.lock();
        feed.watchers.send(&change);
        feed.recent.push_back(change);
        if feed.recent.len() > RECENT
            && let Some(gone) = feed.recent.pop_front()
        {
            feed.floor = gone.revision;
        }
    }

    /// What the cache holds now.
    pub fn snapshot(&self) -> Snapshot {
        self.state.read().clone()
    }

    /// How much there is.
    pub fn stored(&self) -> Stored {
        let objects = self.state.read().objects.len() as u64;
        Stored { objects, bytes: self.bytes.load(Ordering::Relaxed) }
    }

    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Keeps a snapshot for the following pages of a list.
    pub fn keep_page(&self, snapshot: &Snapshot) {
        let mut pages = self.pages.lock();
        pages.insert(snapshot.revision, KeptPage { snapshot: snapshot.clone(), used: Instant::now() });
        while pages.len() > PAGES {
            pages.pop_first();
        }
    }

    /// The snapshot of an earlier page, when it is still there and has all below `prefix` from `start` on.
    pub fn page(&self, revision: Revision, prefix: &str, start: &str) -> Option<Snapshot> {
        let now = self.snapshot();
        if now.revision == revision {
            return Some(now);
        }
        let mut pages = self.pages.lock();
        let kept = pages.get_mut(&revision).filter(|kept| kept.snapshot.covers(prefix, start))?;
        kept.used = Instant::now();
        Some(kept.snapshot.clone())
    }

    /// Lets go of the snapshots that nobody asked for a page of in a while.
    pub(super) fn drop_pages(&self, now: Instant) {
        self.pages.lock().retain(|_, kept| now.saturating_duration_since(kept.used) < PAGE_LIFE);
    }

    /// Starts a watch of everything after `after`.
    pub fn watch(&self, after: Revision, scope: Scope, filter: Filter) -> FromMemory {
        let mut feed = self.feed.lock();
        if after < feed.floor {
            return FromMemory::TooOld;
        }
        let start = feed.recent.partition_point(|change| change.revision <= after);
        let backlog: Vec<Arc<Change>> = feed.recent.range(start..).cloned().collect();
        FromMemory::Started(feed.watchers.add(scope, filter, backlog, after))
    }

    /// Starts a watch with everything there is: first the objects, then what comes.
    pub fn watch_from_now(&self, scope: Scope, filter: Filter) -> (Snapshot, Watcher) {
        let mut feed = self.feed.lock();
        let snapshot = self.snapshot();
        // events that are in the snapshot already but not yet published are skipped by their revision
        let watcher = feed.watchers.add(scope, filter, Vec::new(), snapshot.revision);
        (snapshot, watcher)
    }

    /// Ends all watches, as a server that stops does.
    pub fn end_watches(&self) {
        self.feed.lock().watchers.end_all();
    }
}

/// The error of a revision that nothing remembers any more.
pub fn too_old(revision: Revision, floor: Revision) -> Status {
    Status::expired(format!("too old resource version: {revision} ({floor})"))
}

pub(super) type ChangeSender = mpsc::Sender<Arc<Change>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_waits_for_the_next_page_only_so_long() {
        let kind = crate::kinds::Kinds::builtin().stored().next().unwrap().clone();
        let cache = ResourceCache::new(kind);
        cache.set_floor(9);
        cache.keep_page(&Snapshot::new(5, Vec::new()));
        let kept = Instant::now();
        cache.drop_pages(kept + PAGE_LIFE / 2);
        assert!(cache.page(5, "/registry/x/", "").is_some());
        assert!(cache.page(6, "/registry/x/", "").is_none());
        // asked for again, it stays as long again
        cache.drop_pages(kept + PAGE_LIFE - Duration::from_nanos(1));
        assert!(cache.page(5, "/registry/x/", "").is_some());
        cache.drop_pages(Instant::now() + PAGE_LIFE);
        assert!(cache.page(5, "/registry/x/", "").is_none());
    }

    #[test]
    fn a_part_is_no_answer_to_who_asks_for_more() {
        let part = Snapshot::part(5, "/registry/x/a/", "/registry/x/a/m", Vec::new());
        for (prefix, start, covered) in [
            ("/registry/x/a/", "/registry/x/a/m", true),
            ("/registry/x/a/", "/registry/x/a/n", true),
            ("/registry/x/a/", "/registry/x/a/b", false),
            ("/registry/x/a/", "", false),
            ("/registry/x/b/", "/registry/x/b/z", false),
            ("/registry/x/", "/registry/x/a/n", false),
        ] {
            assert_eq!(part.covers(prefix, start), covered, "{prefix} {start}");
        }
        assert!(Snapshot::new(5, Vec::new()).covers("/registry/x/", ""));
    }
}
