//! From commits to watchers.
//!
//! The writer publishes each commit to the watchers whose prefix it touches. A watcher that does not keep up
//! loses its queue, not its place: its stream reads what it missed from the log and joins again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::index::{Head, Index};
use super::{Shared, read};
use crate::{Batch, Error, Event, KeyValue, ProgressRequester, Revision, WatchStream};

/// A watcher's queue: commits, and bytes of keys and values in them.
const MAX_QUEUED_BATCHES: usize = 1024;
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// Revisions of the log that one step of catching up reads.
const LOG_STEP: Revision = 1024;

#[derive(Default)]
pub struct Feed {
    next_watcher: AtomicU64,
    /// Written by the writer thread at each commit and by watchers when they join: joining and publishing must
    /// not overlap, or a commit would be lost between a watcher's log and its queue.
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    watchers: Vec<Watcher>,
    closed: bool,
}

struct Watcher {
    id: u64,
    prefix: Arc<str>,
    queue: mpsc::Sender<Batch>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Watcher {
    /// False when the watcher has gone or fallen behind.
    fn offer(&self, batch: Batch) -> bool {
        let bytes = size(&batch);
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        // A single large batch must get through an empty queue.
        if queued != 0 && queued + bytes > MAX_QUEUED_BYTES {
            return false;
        }
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queue.try_send(batch).is_ok()
    }
}

impl Feed {
    /// Puts one commit into the index and gives it to whom it concerns. Only the writer calls this, in revision
    /// order. Both happen under the lock, so that who has seen a revision and then asks a watch for its
    /// progress is told of no less.
    pub fn publish(&self, index: &Index, events: &[Event], revision: Revision) {
        let mut live = self.live.lock();
        index.apply(events.iter().map(|event| (event.key().clone(), head(event))));
        live.watchers.retain(|watcher| {
            let concerns = |event: &&Event| event.key().starts_with(&*watcher.prefix);
            let events: Vec<Event> = events.iter().filter(concerns).cloned().collect();
            if events.is_empty() {
                return !watcher.queue.is_closed();
            }
            watcher.offer(Batch { events, revision })
        });
    }

    /// Ends all watches.
    pub fn close(&self) {
        let mut live = self.live.lock();
        live.closed = true;
        live.watchers.clear();
    }

    fn is_closed(&self) -> bool {
        self.live.lock().closed
    }

    /// Joins the watchers that are told of commits; those up to the revision in the answer went before.
    fn join(&self, index: &Index, id: u64, prefix: &Arc<str>) -> Option<(Queue, Revision)> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_BATCHES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let watcher =
            Watcher { id, prefix: prefix.clone(), queue: sender, queued_bytes: queued_bytes.clone() };
        let mut live = self.live.lock();
        if live.closed {
            return None;
        }
        live.watchers.retain(|other| other.id != id);
        live.watchers.push(watcher);
        Some((Queue { receiver, queued_bytes }, index.revision()))
    }

    /// Sends the watcher how far the feed has come. One that is catching up tells so by itself when it joins.
    fn report(&self, index: &Index, id: u64) {
        let mut live = self.live.lock();
        let revision = index.revision();
        live.watchers
            .retain(|watcher| watcher.id != id || watcher.offer(Batch { events: Vec::new(), revision }));
    }
}

/// What an event leaves in the index.
fn head(event: &Event) -> Head {
    match event {
        Event::Put { kv, .. } => kv.into(),
        Event::Delete { revision, .. } => {
            Head { mod_revision: *revision, create_revision: 0, version: 0, lease: 0 }
        }
    }
}

fn size(batch: &Batch) -> usize {
    let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &Event| match event {
        Event::Put { kv, prev } => of(kv) + prev.as_ref().map_or(0, of),
        Event::Delete { prev, .. } => of(prev),
    };
    batch.events.iter().map(event).sum()
}

/// The receiving end of a watcher's queue.
struct Queue {
    receiver: mpsc::Receiver<Batch>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Queue {
    async fn next(&mut self) -> Option<Batch> {
        let batch = self.receiver.recv().await?;
        self.queued_bytes.fetch_sub(size(&batch), Ordering::Relaxed);
        Some(batch)
    }
}

/// One watch: where it is, and its queue while it keeps up.
struct Cursor {
    shared: Arc<Shared>,
    id: u64,
    prefix: Arc<str>,
    /// Everything up to here has been yielded.
    at: Revision,
    queue: Option<Queue>,
    failed: bool,
}

pub fn watch(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
    let compact_revision = shared.index.compact_revision();
    if after < compact_revision {
        return Err(Error::Compacted { requested: after, compact_revision });
    }
    let id = shared.feed.next_watcher.fetch_add(1, Ordering::Relaxed);
    let reporter = Arc::downgrade(&shared);
    let progress = ProgressRequester::new(move || {
        if let Some(shared) = reporter.upgrade() {
            shared.feed.report(&shared.index, id);
        }
    });
    let cursor = Cursor { shared, id, prefix: prefix.into(), at: after, queue: None, failed: false };
    let batches = stream::unfold(cursor, |mut cursor| async {
        let batch = cursor.next().await?;
        Some((batch, cursor))
    });
    Ok(WatchStream::new(batches.boxed(), progress))
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Batch, Error>> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(queue) = &mut self.queue {
                match queue.next().await {
                    Some(batch) => {
                        if let Some(batch) = self.pass(batch) {
                            return Some(Ok(batch));
                        }
                    }
                    None if self.shared.feed.is_closed() => return None,
                    None => self.queue = None,
                }
                continue;
            }
            match self.catch_up().await {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(Error::Closed) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Drops what was seen before, or lies before the place that was asked for.
    fn pass(&mut self, mut batch: Batch) -> Option<Batch> {
        batch.events.retain(|event| event.revision() > self.at);
        if batch.revision < self.at {
            return None;
        }
        self.at = batch.revision;
        Some(batch)
    }

    /// Reads a stretch of the log, joining the live watchers before the last one.
    async fn catch_up(&mut self) -> Result<Option<Batch>, Error> {
        let mut until = self.at.saturating_add(LOG_STEP);
        let mut queue = None;
        if self.shared.index.revision() <= until {
            let (joined, published) =
                self.shared.feed.join(&self.shared.index, self.id, &self.prefix).ok_or(Error::Closed)?;
            queue = Some(joined);
            until = published;
        }
        let events = if until > self.at {
            let (prefix, after) = (self.prefix.clone(), self.at);
            self.shared
                .readers
                .with(move |connection| read::changes(connection, &prefix, after, until))
                .await?
        } else {
            Vec::new()
        };
        // A watch from the future stays silent until the store gets there.
        let telling = !events.is_empty() || (queue.is_some() && until >= self.at);
        self.at = self.at.max(until);
        self.queue = queue;
        Ok(telling.then_some(Batch { events, revision: self.at }))
    }
}
