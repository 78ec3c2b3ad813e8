//! The conformance suite on SQLite, and what is particular to a file: reopening, locking, damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Sqlite;
use crate::conformance::{self, create, delete, update};
use crate::{Error, Event, Expect, Range, Storage};

fn open(directory: &tempfile::TempDir) -> Sqlite {
    Sqlite::open(directory.path().join("db")).expect("open")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_conformance_suite() {
    let directory = directory();
    let store = Arc::new(open(&directory));
    conformance::all(store).await;
}

#[tokio::test]
async fn a_new_store_is_at_revision_one() {
    let directory = directory();
    let store = open(&directory);
    assert_eq!(store.get("/a").await.expect("get"), (None, 1));
    assert_eq!(store.current_revision().await.expect("revision"), 1);
    assert_eq!(create(&store, "/a", "x").await, 2);
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let directory = directory();
    let store = open(&directory);
    let a = create(&store, "/a", "1").await;
    let b = create(&store, "/b", "1").await;
    let a2 = update(&store, "/a", a, "2").await;
    let gone = delete(&store, "/b", b).await;
    store.close().await.expect("close");
    assert!(matches!(store.get("/a").await, Err(Error::Closed)));
    assert!(matches!(store.delete_if("/a", a2).await, Err(Error::Closed)));
    assert!(matches!(store.watch("/", a2).await, Err(Error::Closed)));

    let store = open(&directory);
    assert_eq!(store.current_revision().await.expect("revision"), gone);
    let past = store.range(Range::prefix("/").at(b)).await.expect("range");
    assert_eq!(past.kvs.len(), 2);
    let mut watch = store.watch("/", a).await.expect("a watch from before the restart");
    let batch = watch.next().await.expect("goes on").expect("does not fail");
    let revisions: Vec<u64> = batch.events.iter().map(Event::revision).collect();
    assert_eq!(revisions, [b, a2, gone]);
    assert!(matches!(&batch.events[2], Event::Delete { prev, .. } if &*prev.key == "/b"));
    store.compact(gone).await.expect("compact");
    drop(watch);
    drop(store);

    let store = open(&directory);
    assert_eq!(store.current_revision().await.expect("revision"), gone, "though its row is gone");
    assert!(matches!(store.watch("/", a2).await, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn expiry_goes_on_after_reopening() {
    let directory = directory();
    let store = open(&directory);
    let ttl = Some(Duration::from_secs(1));
    store.put_if("/a", Expect::Absent, Bytes::new(), ttl).await.expect("put");
    drop(store);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let store = open(&directory);
    let mut watch = store.watch("/", 2).await.expect("watch");
    let event = loop {
        let batch = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("in time");
        if let Some(event) = batch.expect("goes on").expect("does not fail").events.pop() {
            break event;
        }
    };
    assert!(matches!(event, Event::Delete { .. }));
}

#[tokio::test]
async fn closing_ends_watches() {
    let directory = directory();
    let store = open(&directory);
    let mut watch = store.watch("/", 1).await.expect("watch");
    create(&store, "/a", "x").await;
    store.close().await.expect("close");
    let rest = async { while watch.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the watch ends");
}

#[tokio::test]
async fn a_slow_watcher_misses_nothing() {
    let directory = directory();
    let store = open(&directory);
    let mut watch = store.watch("/", 1).await.expect("watch");
    watch.next().await.expect("joined").expect("does not fail");
    // More batches, and more bytes, than a queue takes.
    let value = Bytes::from(vec![0; 64 << 10]);
    for number in 0..1200 {
        store.put_if(&format!("/{number}"), Expect::Absent, value.clone(), None).await.expect("put");
    }
    let mut next = 2;
    while next < 1202 {
        let batch = watch.next().await.expect("goes on").expect("does not fail");
        for event in batch.events {
            assert_eq!(event.revision(), next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_slow_watcher_is_told_that_the_log_is_gone() {
    let directory = directory();
    let store = open(&directory);
    let mut watch = store.watch("/", 1).await.expect("watch");
    watch.next().await.expect("joined").expect("does not fail");
    let value = Bytes::from(vec![0; 1 << 20]);
    for number in 0..40 {
        store.put_if(&format!("/{number}"), Expect::Absent, value.clone(), None).await.expect("put");
    }
    store.compact(41).await.expect("compact");
    let error = loop {
        match watch.next().await.expect("ends with an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Compacted { compact_revision: 41, .. }), "{error}");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn compaction_frees_the_file() {
    let directory = directory();
    let store = open(&directory);
    let value = Bytes::from(vec![7; 2000]);
    let fill = async |from: u64| {
        let mut revision = from;
        for _ in 0..500 {
            let expected = if revision == 0 { Expect::Absent } else { Expect::ModRevision(revision) };
            match store.put_if("/a", expected, value.clone(), None).await.expect("put") {
                crate::PutOutcome::Stored(stored) => revision = stored,
                conflict => panic!("{conflict:?}"),
            }
        }
        revision
    };
    let pages = || {
        let connection = rusqlite::Connection::open(directory.path().join("db")).expect("open");
        let count = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        count("page_count").expect("pages") - count("freelist_count").expect("pages")
    };
    let mut revision = fill(0).await;
    let full = pages();
    store.compact(revision).await.expect("compact");
    assert!(pages() < full / 10, "{} of {full}", pages());
    revision = fill(revision).await;
    store.compact(revision).await.expect("compact");
    assert!(pages() < full / 10);
}

#[tokio::test]
async fn an_interrupted_compaction_is_finished_later() {
    let directory = directory();
    let store = open(&directory);
    let mut revision = create(&store, "/a", "x").await;
    for _ in 0..50 {
        revision = update(&store, "/a", revision, "x").await;
    }
    drop(store);
    let path = directory.path().join("db");
    let rows = || -> i64 {
        let connection = rusqlite::Connection::open(&path).expect("open");
        connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).expect("count")
    };
    rusqlite::Connection::open(&path)
        .and_then(|c| {
            c.execute("UPDATE meta SET value = ?1 WHERE name = 'compact_revision'", [revision as i64])
        })
        .expect("as if the process had ended after the mark");
    assert_eq!(rows(), 51);
    let store = open(&directory);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while rows() != 1 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.get("/a").await.expect("get").0.expect("alive").mod_revision, revision);
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let directory = directory();
    let store = open(&directory);
    match Sqlite::open(directory.path().join("db")) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{:?}", other.map(drop)),
    }
    drop(store);
    open(&directory);
}

/// Opens a file that cannot be a store and checks that it is left as it is.
fn refused(path: &Path, expected: fn(&Error) -> bool) {
    let before = std::fs::read(path).expect("read");
    match Sqlite::open(path) {
        Err(error) => assert!(expected(&error), "{error:?}"),
        Ok(_) => panic!("opened"),
    }
    assert!(std::fs::read(path).expect("read") == before, "the file was changed");
}

#[tokio::test]
async fn damage_is_told_and_left_alone() {
    let directory = directory();
    let path = directory.path().join("db");
    std::fs::write(&path, "this is no database, though it is long enough to be taken for one")
        .expect("write");
    refused(&path, |error| matches!(error, Error::Corrupt { .. }));
    std::fs::remove_file(&path).expect("remove");

    let store = open(&directory);
    for number in 0..200 {
        create(&store, &format!("/{number}"), &"x".repeat(500)).await;
    }
    drop(store);
    // Everything behind the header is overwritten.
    let mut content = std::fs::read(&path).expect("read");
    content[100..].fill(0xa5);
    std::fs::write(&path, content).expect("write");
    refused(&path, |error| matches!(error, Error::Corrupt { .. }));
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_not_an_absence() {
    let directory = directory();
    let path = directory.path().join("db");
    let store = open(&directory);
    for number in 0..200 {
        create(&store, &format!("/{number}"), &"x".repeat(500)).await;
    }
    drop(store);
    let mut content = std::fs::read(&path).expect("read");
    let middle = content.len() / 2 / 4096 * 4096;
    content[middle..middle + 8 * 4096].fill(0xa5);
    std::fs::write(&path, content).expect("write");
    let store = match Sqlite::open(&path) {
        Ok(store) => store,
        Err(error) => return assert!(matches!(error, Error::Corrupt { .. }), "{error:?}"),
    };
    match store.range(Range::prefix("/")).await {
        Err(Error::Corrupt { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let directory = directory();
    let path = directory.path().join("db");
    let other = rusqlite::Connection::open(&path).expect("open");
    other.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY)").expect("make");
    other.close().expect("close");
    refused(
        &path,
        |error| matches!(error, Error::Corrupt { reason, .. } if reason.contains("another program")),
    );

    std::fs::remove_file(&path).expect("remove");
    drop(open(&directory));
    let newer = rusqlite::Connection::open(&path).expect("open");
    newer.pragma_update(None, "user_version", 99).expect("set");
    newer.close().expect("close");
    refused(&path, |error| matches!(error, Error::SchemaVersion { found: 99, .. }));

    match Sqlite::open(directory.path().join("missing/db")) {
        Err(Error::Open { .. }) => {}
        other => panic!("{:?}", other.map(drop)),
    }
}
