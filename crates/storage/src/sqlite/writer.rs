//! The one thread that writes: it takes all that has queued, decides it in order inside one transaction, and
//! answers when that is on disk.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::compaction::Sweep;
use super::index::{Head, Index};
use super::schema::{self, to_sql};
use super::{Shared, read};
use crate::{DeleteOutcome, Error, Event, Expect, KeyValue, PutOutcome, Revision};

/// One transaction's bounds: they keep the wait of the first in it short.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Keys that one transaction deletes because their time is over.
const MAX_EXPIRED: usize = 512;

/// How long the thread sleeps at most when a key's life will end: wall clocks get set.
const MAX_EXPIRY_WAIT: Duration = Duration::from_secs(10);

/// How long ended keys wait after a failed commit.
const EXPIRY_RETRY: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub enum Op {
    Put { key: Arc<str>, expected: Expect, value: Bytes, ttl: Option<Duration>, reply: Reply<PutOutcome> },
    Delete { key: Arc<str>, expected: Revision, reply: Reply<DeleteOutcome> },
    Compact { revision: Revision, reply: Reply<()> },
    Close { reply: Reply<()> },
}

pub struct Request {
    pub op: Op,
    /// The place in the queue, given back when the request is done with.
    pub _place: OwnedSemaphorePermit,
}

pub fn spawn(
    connection: Connection,
    lock: File,
    swept_revision: Revision,
    shared: Arc<Shared>,
    requests: Receiver<Request>,
) -> Result<JoinHandle<()>, Error> {
    let path = shared.path.clone();
    let mut sweep = Sweep::default();
    // A process may have ended in the middle of a compaction.
    sweep.resume(swept_revision, shared.index.compact_revision());
    let expiry = shared.index.expiring().into_iter().collect();
    let writer = Writer {
        connection,
        shared,
        expiry,
        expire_after: None,
        sweep,
        poisoned: None,
        pace: Pace::default(),
    };
    std::thread::Builder::new()
        .name("storage-writer".into())
        .spawn(move || {
            let closing = writer.run(&requests);
            // Only now may another process have the file.
            drop(lock);
            if let Some((reply, result)) = closing {
                // A caller that no longer waits needs no answer.
                let _ = reply.send(result);
            }
        })
        .map_err(|source| Error::Open { path, source })
}

struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    /// Keys with a time to live by its end, in seconds since 1970.
    expiry: BTreeSet<(i64, Arc<str>)>,
    /// Not before this: after a failed commit, so as not to try without end.
    expire_after: Option<Instant>,
    sweep: Sweep,
    pace: Pace,
    /// Why nothing is written any more.
    poisoned: Option<String>,
}

/// When many write at once, commits that follow each other without a rest take few of them each, and cost the
/// writers the time that they need to bring the next ones. So a commit then waits a little for more to go with it.
#[derive(Default)]
struct Pace {
    many: bool,
    /// How long the last commit took.
    took: Duration,
}

impl Pace {
    /// So many in one commit show that many write; then it takes fewer than these to show that they stopped.
    const MANY: usize = 12;
    const FEW: usize = 6;
    const MAX_PAUSE: Duration = Duration::from_micros(500);

    fn committed(&mut self, writes: usize, took: Duration) {
        self.many = writes >= if self.many { Self::FEW } else { Self::MANY };
        self.took = took;
    }

    /// How long to wait after the first write of the next commit.
    fn pause(&self) -> Duration {
        if self.many { (2 * self.took).min(Self::MAX_PAUSE) } else { Duration::ZERO }
    }
}

/// Answers that wait for the commit.
enum Answer {
    Put(Reply<PutOutcome>, PutOutcome),
    Delete(Reply<DeleteOutcome>, DeleteOutcome),
}

impl Answer {
    fn send(self, result: Result<(), Error>) {
        // A caller that no longer waits needs no answer.
        match self {
            Self::Put(reply, outcome) => drop(reply.send(result.map(|()| outcome))),
            Self::Delete(reply, outcome) => drop(reply.send(result.map(|()| outcome))),
        }
    }
}

impl Writer {
    /// Works until the store is closed or dropped; answers with whom to tell.
    fn run(mut self, requests: &Receiver<Request>) -> Option<(Reply<()>, Result<(), Error>)> {
        loop {
            let first = match self.wait(requests) {
                Ok(first) => first,
                Err(Disconnected) => {
                    if let Err(error) = self.close() {
                        tracing::warn!(%error, "cannot close the store in order");
                    }
                    return None;
                }
            };
            if first.is_some() {
                std::thread::sleep(self.pace.pause());
            }
            let mut batch: Vec<Request> = first.into_iter().collect();
            let mut bytes = 0;
            while batch.len() < MAX_BATCH
                && bytes < MAX_BATCH_BYTES
                && let Ok(request) = requests.try_recv()
            {
                if let Op::Put { value, .. } = &request.op {
                    bytes += value.len();
                }
                batch.push(request);
            }
            // Places stay taken until the answers are out.
            let mut places = Vec::with_capacity(batch.len());
            let mut writes = Vec::with_capacity(batch.len());
            let mut closing = None;
            for request in batch {
                places.push(request._place);
                match request.op {
                    Op::Compact { revision, reply } => self.begin_compaction(revision, reply),
                    Op::Close { reply } => closing = Some(reply),
                    write => writes.push(write),
                }
            }
            let (count, begun) = (writes.len(), Instant::now());
            self.commit(writes);
            self.pace.committed(count, begun.elapsed());
            drop(places);
            self.sweep_some();
            if let Some(reply) = closing {
                return Some((reply, self.close()));
            }
        }
    }

    /// The next request, or none when something else is due.
    fn wait(&self, requests: &Receiver<Request>) -> Result<Option<Request>, Disconnected> {
        if self.sweep.is_pending() && self.poisoned.is_none() {
            return match requests.try_recv() {
                Ok(request) => Ok(Some(request)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(Disconnected),
            };
        }
        let Some(at) = self.next_expiry().filter(|_| self.poisoned.is_none()) else {
            return requests.recv().map(Some).map_err(|_| Disconnected);
        };
        let seconds = u64::try_from(at.saturating_sub(now())).unwrap_or_default();
        let held = self.expire_after.map_or(Duration::ZERO, |after| after.duration_since(Instant::now()));
        let wait = Duration::from_secs(seconds).min(MAX_EXPIRY_WAIT).max(held);
        match requests.recv_timeout(wait) {
            Ok(request) => Ok(Some(request)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Disconnected),
        }
    }

    fn next_expiry(&self) -> Option<i64> {
        self.expiry.first().map(|(at, _)| *at)
    }

    fn commit(&mut self, writes: Vec<Op>) {
        let held = self.expire_after.is_some_and(|after| Instant::now() < after);
        let expiring = !held && self.next_expiry().is_some_and(|at| at <= now());
        if writes.is_empty() && !expiring {
            return;
        }
        let mut answers = Vec::with_capacity(writes.len());
        if let Some(why) = &self.poisoned {
            for write in writes {
                refuse(write, || Error::Poisoned(why.clone()));
            }
            return;
        }
        match self.transact(writes, expiring, &mut answers) {
            Ok(events) => {
                self.expire_after = None;
                if let Some(last) = events.last() {
                    self.note_expiry(&events);
                    self.shared.feed.publish(&self.shared.index, &events, last.revision());
                }
                for answer in answers {
                    answer.send(Ok(()));
                }
            }
            Err(error) => {
                self.expire_after = Some(Instant::now() + EXPIRY_RETRY);
                let error = self.failed(error);
                for answer in answers {
                    answer.send(Err(Error::Backend(error.to_string())));
                }
            }
        }
    }

    /// Decides all writes in order and commits. On an error every write of the batch still gets an answer.
    fn transact(
        &mut self,
        writes: Vec<Op>,
        expiring: bool,
        answers: &mut Vec<Answer>,
    ) -> rusqlite::Result<Vec<Event>> {
        let mut writes = writes.into_iter();
        let mut decide = || {
            // statements that are kept prepared: what begins and ends every transaction is not parsed each time
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let begun = Begun(&self.connection);
            let mut step = Step::new(&self.connection, &self.shared.index);
            if expiring {
                step.expire(self.expiry.iter().take_while(|(at, _)| *at <= now()).take(MAX_EXPIRED))?;
            }
            for write in writes.by_ref() {
                step.decide(write, answers)?;
            }
            let events = step.events;
            begun.commit()?;
            Ok(events)
        };
        let result = decide();
        for write in writes {
            refuse(write, || Error::Backend("another write of the same transaction failed".into()));
        }
        result
    }

    /// Keeps the order of ends in step with what was committed.
    fn note_expiry(&mut self, events: &[Event]) {
        for event in events {
            if let Some(prev) = event.prev().filter(|prev| prev.lease != 0) {
                self.expiry.remove(&(prev.lease, prev.key.clone()));
            }
            if let Event::Put { kv, .. } = event
                && kv.lease != 0
            {
                self.expiry.insert((kv.lease, kv.key.clone()));
            }
        }
    }

    fn begin_compaction(&mut self, requested: Revision, reply: Reply<()>) {
        let index = &self.shared.index;
        let refusal = match &self.poisoned {
            Some(why) => Some(Error::Poisoned(why.clone())),
            None if requested > index.revision() => {
                Some(Error::FutureRevision { requested, current: index.revision() })
            }
            None if requested <= index.compact_revision() => {
                let compact_revision = index.compact_revision();
                Some(Error::Compacted { requested, compact_revision })
            }
            None => {
                let marked = schema::set_meta(&self.connection, "compact_revision", requested);
                marked.err().map(|error| self.failed(error))
            }
        };
        match refusal {
            // A caller that no longer waits needs no answer.
            Some(error) => drop(reply.send(Err(error))),
            None => {
                self.shared.index.set_compact_revision(requested);
                self.sweep.begin(requested, reply);
            }
        }
    }

    /// What a failed transaction means for those to come.
    fn failed(&mut self, error: rusqlite::Error) -> Error {
        // Once the disk has failed to take a commit, nobody knows what it holds; a reopened file does.
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure) {
            self.poisoned = Some(error.to_string());
        }
        let error = schema::explain(&self.shared.path, error);
        tracing::error!(%error, "cannot commit");
        error
    }

    fn sweep_some(&mut self) {
        if self.poisoned.is_some() {
            self.sweep.fail(|| Error::Poisoned("a commit failed before".into()));
        } else if let Err(error) = self.sweep.step(&mut self.connection, &self.shared.index) {
            let error = self.failed(error);
            self.sweep.fail(|| Error::Backend(error.to_string()));
        }
    }

    /// Ends the watches and folds the write-ahead log into the file, so that the next start has nothing to do.
    fn close(mut self) -> Result<(), Error> {
        self.shared.feed.close();
        self.shared.readers.close();
        self.sweep.fail(|| Error::Closed);
        let path = self.shared.path.clone();
        let explain = |error| schema::explain(&path, error);
        if self.poisoned.is_none() {
            // A reader still at work may keep it from finishing; the log is then replayed at the next start.
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(explain)?;
        }
        self.connection.close().map_err(|(_, error)| explain(error))
    }
}

struct Disconnected;

/// An open transaction, rolled back unless it is committed.
struct Begun<'c>(&'c Connection);

impl Begun<'_> {
    fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // A failed statement may have rolled it back already.
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back");
        }
    }
}

/// What a transaction writes.
struct Step<'t> {
    connection: &'t Connection,
    index: &'t Index,
    revision: Revision,
    /// Where the keys written in this transaction stand; the index learns of them when it is committed.
    written: HashMap<Arc<str>, Option<Head>>,
    events: Vec<Event>,
}

impl<'t> Step<'t> {
    fn new(connection: &'t Connection, index: &'t Index) -> Self {
        let revision = index.revision();
        Self { connection, index, revision, written: HashMap::new(), events: Vec::new() }
    }

    fn head(&self, key: &str) -> Option<Head> {
        match self.written.get(key) {
            Some(head) => *head,
            None => self.index.get(key).0,
        }
    }

    /// What is there, with its value.
    fn present(&self, key: &Arc<str>, head: Option<Head>) -> rusqlite::Result<Option<KeyValue>> {
        let Some(head) = head else { return Ok(None) };
        let value = read::value(self.connection, head.mod_revision)?;
        let value = value.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        Ok(Some(head.with(key.clone(), value)))
    }

    fn decide(&mut self, write: Op, answers: &mut Vec<Answer>) -> rusqlite::Result<()> {
        match write {
            Op::Put { key, expected, value, ttl, reply } => match self.put(key, expected, value, ttl) {
                Ok(outcome) => answers.push(Answer::Put(reply, outcome)),
                Err(error) => {
                    // A caller that no longer waits needs no answer.
                    let _ = reply.send(Err(Error::Backend(error.to_string())));
                    return Err(error);
                }
            },
            Op::Delete { key, expected, reply } => match self.delete(&key, expected) {
                Ok(outcome) => answers.push(Answer::Delete(reply, outcome)),
                Err(error) => {
                    // As above.
                    let _ = reply.send(Err(Error::Backend(error.to_string())));
                    return Err(error);
                }
            },
            Op::Compact { .. } | Op::Close { .. } => {}
        }
        Ok(())
    }

    fn put(
        &mut self,
        key: Arc<str>,
        expected: Expect,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> rusqlite::Result<PutOutcome> {
        let head = self.head(&key);
        let prev = self.present(&key, head)?;
        let holds = match expected {
            Expect::Absent => prev.is_none(),
            Expect::ModRevision(revision) => prev.as_ref().is_some_and(|kv| kv.mod_revision == revision),
        };
        if !holds {
            return Ok(PutOutcome::Conflict(prev));
        }
        let revision = self.revision + 1;
        let head = Head {
            mod_revision: revision,
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: ttl.map_or(0, expires_at),
        };
        self.append(&key, head, prev.as_ref())?;
        self.connection
            .prepare_cached("INSERT INTO value VALUES (?1, ?2)")?
            .execute((to_sql(revision), &*value))?;
        self.written.insert(key.clone(), Some(head));
        self.events.push(Event::Put { kv: head.with(key, value), prev });
        Ok(PutOutcome::Stored(revision))
    }

    fn delete(&mut self, key: &Arc<str>, expected: Revision) -> rusqlite::Result<DeleteOutcome> {
        match self.present(key, self.head(key))? {
            Some(prev) if prev.mod_revision == expected => {
                let revision = self.bury(&prev)?;
                Ok(DeleteOutcome::Deleted { prev, revision })
            }
            other => Ok(DeleteOutcome::Conflict(other)),
        }
    }

    /// Writes the deletion of a key.
    fn bury(&mut self, prev: &KeyValue) -> rusqlite::Result<Revision> {
        let revision = self.revision + 1;
        let tombstone = Head { mod_revision: revision, create_revision: 0, version: 0, lease: 0 };
        self.append(&prev.key, tombstone, Some(prev))?;
        self.written.insert(prev.key.clone(), None);
        self.events.push(Event::Delete { prev: prev.clone(), revision });
        Ok(revision)
    }

    /// Adds a row to the log.
    fn append(&mut self, key: &str, head: Head, prev: Option<&KeyValue>) -> rusqlite::Result<()> {
        self.connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute((
            to_sql(head.mod_revision),
            key,
            to_sql(head.create_revision),
            prev.map_or(0, |prev| to_sql(prev.mod_revision)),
            to_sql(head.version),
            head.lease,
        ))?;
        self.revision = head.mod_revision;
        Ok(())
    }

    /// Deletes keys whose time is over.
    fn expire<'k>(&mut self, due: impl Iterator<Item = &'k (i64, Arc<str>)>) -> rusqlite::Result<()> {
        for (at, key) in due {
            let head = self.head(key).filter(|head| head.lease == *at);
            if let Some(prev) = self.present(key, head)? {
                self.bury(&prev)?;
            }
        }
        Ok(())
    }
}

fn refuse(write: Op, error: impl FnOnce() -> Error) {
    // A caller that no longer waits needs no answer.
    match write {
        Op::Put { reply, .. } => drop(reply.send(Err(error()))),
        Op::Delete { reply, .. } => drop(reply.send(Err(error()))),
        Op::Compact { reply, .. } | Op::Close { reply } => drop(reply.send(Err(error()))),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The second in which a life of this length is over, never too early.
fn expires_at(ttl: Duration) -> i64 {
    let whole = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    now().saturating_add(whole).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_wait_for_more_only_while_many_write() {
        let ms = Duration::from_millis;
        let micros = Duration::from_micros;
        let mut pace = Pace::default();
        for (writes, took, pause) in [
            (1, ms(1), ms(0)),
            (11, ms(1), ms(0)),
            (12, micros(100), micros(200)),
            (6, ms(5), Pace::MAX_PAUSE),
            (5, ms(5), ms(0)),
            (11, ms(5), ms(0)),
            (40, ms(0), ms(0)),
        ] {
            pace.committed(writes, took);
            assert_eq!(pace.pause(), pause, "{writes}");
        }
    }
}
