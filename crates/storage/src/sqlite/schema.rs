//! The file: who may open it, what is in it, and what its damage looks like.
//!
//! `log` holds every kept change by revision, a deletion as a row of version 0; `value` holds their values,
//! apart, so that the log can be read alone at start. Both only grow at their ends until compaction.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::index::{Head, Index};
use crate::{Error, Revision};

/// "Xebc", to tell a store from any other SQLite file.
const APPLICATION_ID: i64 = 0x5865_6263;
const SCHEMA_VERSION: i64 = 1;

/// Rows that go into the index at a time when it is made.
const LOAD_STEP: usize = 4096;

const TABLES: &str = "
    CREATE TABLE log (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        create_revision INTEGER NOT NULL,
        prev_revision INTEGER NOT NULL,
        version INTEGER NOT NULL,
        lease INTEGER NOT NULL
    );
    CREATE TABLE value (revision INTEGER PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('compact_revision', 0), ('swept_revision', 0);
";

/// Takes the lock that keeps a second process from the same file; it falls with the process.
pub fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| Error::Open { path: (&name).into(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message: a holder that has not written its pid yet stays unnamed.
            let pid = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(Error::Locked { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Opens the file for the one writer, making the tables when it is new.
pub fn open(path: &Path) -> Result<Connection, Error> {
    // Made here rather than by SQLite, for its mode: values are secrets.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let explain = |error| explain(path, error);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explain)?;
    if is_new(&connection).map_err(explain)? {
        create(&mut connection).map_err(explain)?;
    }
    let application: i64 = pragma(&connection, "application_id").map_err(explain)?;
    if application != APPLICATION_ID {
        let reason = "it belongs to another program".to_owned();
        return Err(Error::Corrupt { path: path.to_owned(), reason });
    }
    let found: i64 = pragma(&connection, "user_version").map_err(explain)?;
    if found != SCHEMA_VERSION {
        return Err(Error::SchemaVersion { path: path.to_owned(), found, supported: SCHEMA_VERSION });
    }
    configure_writer(&connection).map_err(explain)?;
    Ok(connection)
}

/// Opens the file for reading.
pub fn open_reader(path: &Path) -> Result<Connection, Error> {
    let explain = |error| explain(path, error);
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explain)?;
    connection.pragma_update(None, "query_only", true).map_err(explain)?;
    connection.pragma_update(None, "cache_size", -1024).map_err(explain)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(32);
    // No other process writes; only recovery and the first open of the shared memory can make one wait.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    // FULL syncs the log at every commit: what was acknowledged survives a power loss.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Pages of 16 MB between checkpoints: fewer of them, and the log file is written in place afterwards.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

fn is_new(connection: &Connection) -> rusqlite::Result<bool> {
    let application: i64 = pragma(connection, "application_id")?;
    let version: i64 = pragma(connection, "user_version")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(application == 0 && version == 0 && tables == 0)
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Reads the log into a new index.
pub fn load(connection: &Connection) -> rusqlite::Result<Index> {
    let index = Index::new(meta(connection, "compact_revision")?);
    let mut statement = connection
        .prepare("SELECT key, revision, create_revision, version, lease FROM log ORDER BY revision")?;
    let mut rows = statement.query([])?;
    let mut stretch = Vec::with_capacity(LOAD_STEP);
    while let Some(row) = rows.next()? {
        let head = Head {
            mod_revision: from_sql(row.get(1)?),
            create_revision: from_sql(row.get(2)?),
            version: from_sql(row.get(3)?),
            lease: row.get(4)?,
        };
        stretch.push((Arc::from(row.get_ref(0)?.as_str()?), head));
        if stretch.len() == LOAD_STEP {
            index.apply(stretch.drain(..));
        }
    }
    index.apply(stretch.into_iter());
    Ok(index)
}

pub fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Revision> {
    let value: i64 = connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))?;
    Ok(from_sql(value))
}

pub fn set_meta(connection: &Connection, name: &str, revision: Revision) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?
        .execute((name, to_sql(revision)))?;
    Ok(())
}

/// SQLite's integers are signed; a revision gets nowhere near their end.
pub fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub fn from_sql(value: i64) -> Revision {
    Revision::try_from(value).unwrap_or_default()
}

/// Tells damage from what may pass.
pub fn explain(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Corrupt { path: path.to_owned(), reason: error.to_string() }
        }
        // A store of ours whose tables or columns have gone is damaged as well.
        Some(ErrorCode::Unknown) => Error::Corrupt { path: path.to_owned(), reason: error.to_string() },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            Error::Open { path: path.to_owned(), source: std::io::Error::other(error) }
        }
        _ => Error::Backend(error.to_string()),
    }
}
