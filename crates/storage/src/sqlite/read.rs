//! Reading: a small pool of connections, each answer from one snapshot of the file.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::Semaphore;

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

    /// Runs a query on a snapshot that holds everything acknowledged before the call.
    pub async fn with<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Snapshot<'_>) -> Result<T, QueryError> + Send + 'static,
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
            let answer = Snapshot::take(&connection).and_then(|snapshot| query(&snapshot));
            match answer {
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

/// A read transaction.
pub struct Snapshot<'c> {
    connection: &'c Connection,
    revision: Revision,
    /// Ends the transaction when dropped.
    _transaction: rusqlite::Transaction<'c>,
}

impl<'c> Snapshot<'c> {
    fn take(connection: &'c Connection) -> Result<Self, QueryError> {
        let transaction = connection.unchecked_transaction()?;
        Ok(Self { connection, revision: schema::revision(connection)?, _transaction: transaction })
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &Arc<str>) -> Result<Option<KeyValue>, QueryError> {
        Ok(get(self.connection, key)?)
    }

    pub fn range(&self, range: &Range) -> Result<Page, QueryError> {
        let revision = match range.revision {
            Some(requested) => self.check(requested)?,
            None => self.revision,
        };
        // One more than asked for tells whether there is more.
        let limit = if range.limit == 0 { usize::MAX } else { range.limit.saturating_add(1) };
        let mut found = self.find(range, revision, limit)?;
        let more = range.limit != 0 && found.len() > range.limit;
        let count = if more { self.count(range, revision)? } else { found.len() as u64 };
        if more {
            found.pop();
        }
        let mut kvs = Vec::with_capacity(found.len());
        for (key, at) in found {
            let kv = if range.keys_only {
                head(self.connection, &key, at)?
            } else {
                row(self.connection, &key, at)?
            };
            kvs.push(kv);
        }
        Ok(Page { kvs, more, count, revision })
    }

    /// The keys of a range with the revisions of their values.
    fn find(
        &self,
        range: &Range,
        revision: Revision,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, Revision)>, QueryError> {
        const PRESENT: &str =
            "SELECT key, revision FROM current WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
        const PAST: &str = "
            SELECT key, revision FROM current WHERE key >= ?1 AND key < ?2 AND revision <= ?4
            UNION ALL
            SELECT key, revision FROM history
                WHERE key >= ?1 AND key < ?2 AND revision <= ?4 AND until > ?4
            ORDER BY key LIMIT ?3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let key = |row: &Row<'_>| Ok((text(row, 0)?, from_sql(row.get(1)?)));
        let (start, end) = bounds(range);
        let found = if revision == self.revision {
            let mut statement = self.connection.prepare_cached(PRESENT)?;
            statement.query_map((start, end, limit), key)?.collect::<Result<_, _>>()?
        } else {
            let mut statement = self.connection.prepare_cached(PAST)?;
            statement.query_map((start, end, limit, to_sql(revision)), key)?.collect::<Result<_, _>>()?
        };
        Ok(found)
    }

    pub fn count(&self, range: &Range, revision: Revision) -> Result<u64, QueryError> {
        const PRESENT: &str = "SELECT count(*) FROM current WHERE key >= ?1 AND key < ?2";
        const PAST: &str = "
            SELECT (SELECT count(*) FROM current WHERE key >= ?1 AND key < ?2 AND revision <= ?3)
                 + (SELECT count(*) FROM history
                    WHERE key >= ?1 AND key < ?2 AND revision <= ?3 AND until > ?3)";
        let (start, end) = bounds(range);
        let count = if revision == self.revision {
            self.connection.prepare_cached(PRESENT)?.query_row((start, end), |row| row.get(0))?
        } else {
            let mut statement = self.connection.prepare_cached(PAST)?;
            statement.query_row((start, end, to_sql(revision)), |row| row.get(0))?
        };
        Ok(from_sql(count))
    }

    /// Whether the state at a revision can be read.
    fn check(&self, requested: Revision) -> Result<Revision, QueryError> {
        let compact_revision = schema::meta(self.connection, "compact_revision")?;
        if requested > self.revision {
            return Err(Error::FutureRevision { requested, current: self.revision }.into());
        }
        if requested < compact_revision {
            return Err(Error::Compacted { requested, compact_revision }.into());
        }
        Ok(requested)
    }

    /// The changes of a prefix in `(after, until]`.
    pub fn changes(&self, prefix: &str, after: Revision, until: Revision) -> Result<Vec<Event>, QueryError> {
        const CHANGES: &str = "
            SELECT revision, create_revision, version, lease, value, key, prev_revision FROM log
            WHERE revision > ?1 AND revision <= ?2 AND key >= ?3 AND key < ?4 ORDER BY revision";
        let compact_revision = schema::meta(self.connection, "compact_revision")?;
        if after < compact_revision {
            return Err(Error::Compacted { requested: after, compact_revision }.into());
        }
        let range = Range::prefix(prefix);
        let (start, end) = bounds(&range);
        let mut statement = self.connection.prepare_cached(CHANGES)?;
        let mut rows = statement.query((to_sql(after), to_sql(until), start, end))?;
        let mut events = Vec::new();
        while let Some(found) = rows.next()? {
            let kv = key_value(found, &text(found, 5)?)?;
            let prev = match found.get::<_, i64>(6)? {
                0 => None,
                prev => Some(row(self.connection, &kv.key, from_sql(prev))?),
            };
            events.push(match (kv.version, prev) {
                (0, Some(prev)) => Event::Delete { prev, revision: kv.mod_revision },
                // A deletion of nothing is never written.
                (0, None) => return Err(rusqlite::Error::QueryReturnedNoRows.into()),
                (_, prev) => Event::Put { kv, prev },
            });
        }
        Ok(events)
    }
}

/// The key's present value.
pub fn get(connection: &Connection, key: &Arc<str>) -> rusqlite::Result<Option<KeyValue>> {
    const GET: &str = "
        SELECT l.revision, l.create_revision, l.version, l.lease, l.value
        FROM current c CROSS JOIN log l ON l.revision = c.revision WHERE c.key = ?1";
    connection.prepare_cached(GET)?.query_row([&**key], |row| key_value(row, key)).optional()
}

fn row(connection: &Connection, key: &Arc<str>, revision: Revision) -> rusqlite::Result<KeyValue> {
    const ROW: &str = "SELECT revision, create_revision, version, lease, value FROM log WHERE revision = ?1";
    connection.prepare_cached(ROW)?.query_row([to_sql(revision)], |row| key_value(row, key))
}

/// A row without its value.
fn head(connection: &Connection, key: &Arc<str>, revision: Revision) -> rusqlite::Result<KeyValue> {
    const HEAD: &str = "SELECT revision, create_revision, version, lease, x'' FROM log WHERE revision = ?1";
    connection.prepare_cached(HEAD)?.query_row([to_sql(revision)], |row| key_value(row, key))
}

fn key_value(row: &Row<'_>, key: &Arc<str>) -> rusqlite::Result<KeyValue> {
    Ok(KeyValue {
        key: key.clone(),
        value: Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?),
        create_revision: from_sql(row.get(1)?),
        mod_revision: from_sql(row.get(0)?),
        version: from_sql(row.get(2)?),
        lease: row.get(3)?,
    })
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

/// A range's ends as SQLite compares them: a blob sorts after every text, so an empty one is an open end.
fn bounds(range: &Range) -> (&str, Value) {
    let end = match &range.end {
        Some(end) => Value::Text(end.clone()),
        None => Value::Blob(Vec::new()),
    };
    (&range.start, end)
}
