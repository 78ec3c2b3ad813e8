//! Reading: the index says where, a small pool of connections fetches it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::Semaphore;

use super::index::{Found, Head, Index, Listing};
use super::schema::{self, from_sql, to_sql};
use crate::{Error, Event, KeyValue, Page, Range, Revision};

/// Queries at once. More would only take turns on the same cores and disk.
const MAX_READERS: usize = 4;

pub struct Readers {
    path: PathBuf,
    places: Arc<Semaphore>,
    /// Open connections not in use; a lock because any reader may take any of them.
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, places: Arc::new(Semaphore::new(MAX_READERS)), idle: Arc::default() }
    }

    /// Runs a query. Off the async threads, for it may wait for the disk.
    pub async fn with<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (path, idle, places) = (self.path.clone(), self.idle.clone(), self.places.clone());
        let run = move || {
            let _place = place;
            let keep = |connection| {
                if !places.is_closed() {
                    idle.lock().push(connection);
                }
            };
            let free = idle.lock().pop();
            let connection = match free {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            match query(&connection) {
                Ok(answer) => {
                    keep(connection);
                    Ok(answer)
                }
                Err(QueryError::Store(error)) => {
                    keep(connection);
                    Err(error)
                }
                // The connection may be what is wrong: it goes.
                Err(QueryError::Sql(error)) => Err(schema::explain(&path, error)),
            }
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(answer) => answer,
            Err(error) => Err(Error::Backend(error.to_string())),
        }
    }

    pub fn close(&self) {
        self.places.close();
        self.idle.lock().clear();
    }
}

/// A failed query: by SQLite, or with an answer of the store's own.
pub enum QueryError {
    Sql(rusqlite::Error),
    Store(Error),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for QueryError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// How often a read starts again because compaction removed what it was about to read: once is the rule.
const MAX_ATTEMPTS: usize = 8;

/// The key's present value, with the store's revision.
pub fn get(
    connection: &Connection,
    index: &Index,
    key: &Arc<str>,
) -> Result<(Option<KeyValue>, Revision), QueryError> {
    for _ in 0..MAX_ATTEMPTS {
        let (head, revision) = index.get(key);
        let Some(head) = head else { return Ok((None, revision)) };
        if let Some(value) = value(connection, head.mod_revision)? {
            return Ok((Some(head.with(key.clone(), value)), revision));
        }
    }
    Err(missing())
}

pub fn range(connection: &Connection, index: &Index, range: &Range) -> Result<Page, QueryError> {
    for _ in 0..MAX_ATTEMPTS {
        let Listing { found, more, count, revision } = index.range(range)?;
        let kvs: Option<Vec<KeyValue>> = found
            .into_iter()
            .map(|found| load(connection, found, range.keys_only))
            .collect::<Result<_, _>>()?;
        if let Some(kvs) = kvs {
            return Ok(Page { kvs, more, count, revision });
        }
    }
    Err(missing())
}

/// The log lacks what the index knows: not a race, for that would have ended.
fn missing() -> QueryError {
    QueryError::Sql(rusqlite::Error::QueryReturnedNoRows)
}

/// `None` when compaction was faster.
fn load(connection: &Connection, found: Found, keys_only: bool) -> rusqlite::Result<Option<KeyValue>> {
    let head = match found.head {
        Some(head) => head,
        None => match head(connection, found.revision)? {
            Some(head) => head,
            None => return Ok(None),
        },
    };
    let value = if keys_only { Some(Bytes::new()) } else { value(connection, found.revision)? };
    Ok(value.map(|value| head.with(found.key, value)))
}

fn head(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<Head>> {
    connection
        .prepare_cached("SELECT revision, create_revision, version, lease FROM log WHERE revision = ?1")?
        .query_row([to_sql(revision)], head_of)
        .optional()
}

fn head_of(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        mod_revision: from_sql(row.get(0)?),
        create_revision: from_sql(row.get(1)?),
        version: from_sql(row.get(2)?),
        lease: row.get(3)?,
    })
}

pub fn value(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<Bytes>> {
    connection
        .prepare_cached("SELECT value FROM value WHERE revision = ?1")?
        .query_row([to_sql(revision)], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)))
        .optional()
}

/// The changes of a prefix in `(after, until]`, from the log.
pub fn changes(
    connection: &Connection,
    prefix: &str,
    after: Revision,
    until: Revision,
) -> Result<Vec<Event>, QueryError> {
    const CHANGES: &str = "
        SELECT revision, create_revision, version, lease, key, prev_revision FROM log
        WHERE revision > ?1 AND revision <= ?2 ORDER BY revision";
    // One snapshot: what compaction has not given up in it cannot be removed from it.
    let _snapshot = connection.unchecked_transaction()?;
    let compact_revision = schema::meta(connection, "compact_revision")?;
    if after < compact_revision {
        return Err(Error::Compacted { requested: after, compact_revision }.into());
    }
    let kept = |revision| value(connection, revision)?.ok_or(rusqlite::Error::QueryReturnedNoRows);
    let mut statement = connection.prepare_cached(CHANGES)?;
    let mut rows = statement.query((to_sql(after), to_sql(until)))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let key = row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?;
        if !key.starts_with(prefix) {
            continue;
        }
        let key: Arc<str> = key.into();
        let change = head_of(row)?;
        let prev = match from_sql(row.get(5)?) {
            0 => None,
            prev => {
                let head = head(connection, prev)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                Some(head.with(key.clone(), kept(prev)?))
            }
        };
        events.push(match (change.version, prev) {
            (0, Some(prev)) => Event::Delete { prev, revision: change.mod_revision },
            // A deletion of nothing is never written.
            (0, None) => return Err(missing()),
            (_, prev) => Event::Put { kv: change.with(key, kept(change.mod_revision)?), prev },
        });
    }
    Ok(events)
}
