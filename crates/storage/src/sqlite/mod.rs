//! The embedded backend: one SQLite file, one thread that writes it, a few connections that read it.
//!
//! [`schema`] opens the file and says what is in it, [`index`] knows every key and its revisions, [`writer`]
//! decides and commits (many callers' writes in one transaction), [`read`] fetches values, [`feed`] carries
//! commits to watchers, which fall back to the log when they cannot keep up. What is in memory is made from the
//! file at start; nothing is acknowledged before the file has it.

mod compaction;
mod feed;
mod index;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    DeleteOutcome, Error, Expect, KeyValue, Page, PutOutcome, Range, Revision, Storage, WatchStream,
};

use feed::Feed;
use index::Index;
use read::Readers;
use writer::{Op, Request};

/// Writes that may wait for the writer thread; more callers wait for a place.
const MAX_QUEUED_WRITES: usize = 4096;

/// A store in one SQLite file.
pub struct Sqlite {
    shared: Arc<Shared>,
    /// Taken only when dropped, to end the thread.
    queue: Option<std::sync::mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    places: Arc<Semaphore>,
}

/// What the writer thread, the readers and the watches have in common.
struct Shared {
    path: PathBuf,
    index: Index,
    readers: Readers,
    feed: Feed,
}

impl Sqlite {
    /// Opens the store at `path`, making it if there is none; its directory has to exist. Blocks on disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let lock = schema::lock(&path)?;
        let connection = schema::open(&path)?;
        let explain = |error| schema::explain(&path, error);
        let index = schema::load(&connection).map_err(explain)?;
        let swept = schema::meta(&connection, "swept_revision").map_err(explain)?;
        let shared =
            Arc::new(Shared { readers: Readers::new(path.clone()), feed: Feed::default(), index, path });
        let (queue, requests) = std::sync::mpsc::channel();
        let writer = writer::spawn(connection, lock, swept, shared.clone(), requests)?;
        let places = Arc::new(Semaphore::new(MAX_QUEUED_WRITES));
        Ok(Self { shared, queue: Some(queue), writer: Some(writer), places })
    }

    async fn submit<T>(&self, op: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Op) -> Result<T, Error> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.send(Request { op: op(reply), _place: place }).map_err(|_| Error::Closed)?;
        // The writer drops what it did not get to when it closes.
        answer.await.unwrap_or(Err(Error::Closed))
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.places.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }
}

impl Drop for Sqlite {
    /// Waits for the commit under way, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.places.close();
        self.shared.readers.close();
        self.queue.take();
        if let Some(writer) = self.writer.take() {
            // A panic of the thread was reported when it happened.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Storage for Sqlite {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), Error> {
        self.check_open()?;
        let key: Arc<str> = key.into();
        let shared = self.shared.clone();
        self.shared.readers.with(move |connection| read::get(connection, &shared.index, &key)).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.check_open()?;
        let shared = self.shared.clone();
        self.shared.readers.with(move |connection| read::range(connection, &shared.index, &range)).await
    }

    async fn count(&self, prefix: &str) -> Result<u64, Error> {
        self.check_open()?;
        Ok(self.shared.index.count(prefix))
    }

    async fn put_if(
        &self,
        key: &str,
        expected: Expect,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<PutOutcome, Error> {
        let key = key.into();
        self.submit(|reply| Op::Put { key, expected, value, ttl, reply }).await
    }

    async fn delete_if(&self, key: &str, expected: Revision) -> Result<DeleteOutcome, Error> {
        let key = key.into();
        self.submit(|reply| Op::Delete { key, expected, reply }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        self.check_open()?;
        feed::watch(self.shared.clone(), prefix, after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.submit(|reply| Op::Compact { revision, reply }).await
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        self.check_open()?;
        Ok(self.shared.index.revision())
    }

    async fn close(&self) -> Result<(), Error> {
        let done = self.submit(|reply| Op::Close { reply }).await;
        self.places.close();
        self.shared.readers.close();
        done
    }
}
