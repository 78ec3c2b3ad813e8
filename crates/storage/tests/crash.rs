//! A process that writes is killed with -9 again and again; every write that it was told is done has to be there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage::sqlite::Sqlite;
use storage::{DeleteOutcome, Expect, PutOutcome, Range, Revision, Storage};

const ROUNDS: u64 = 250;
const WRITERS: usize = 8;
const CHILD: &str = "XEBEC_STORAGE_CRASH_TEST_FILE";

/// What a killed process was told: `put key revision` or `delete key revision`, one a line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Put(Revision),
    Deleted(Revision),
}

impl Told {
    fn revision(self) -> Revision {
        match self {
            Self::Put(revision) | Self::Deleted(revision) => revision,
        }
    }
}

/// The child: writes until it is killed. Does nothing when the tests are run as usual.
#[test]
#[ignore = "run by kill_9_loses_no_acknowledged_write"]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let store = Arc::new(Sqlite::open(Path::new(&path)).expect("open"));
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write_on(store.clone(), writer)));
        futures::future::join_all(writers).await;
    });
}

async fn write_on(store: Arc<Sqlite>, writer: usize) {
    let mut number = 0_usize;
    loop {
        number += 1;
        let key = format!("/{writer}/{}", number % 16);
        let (found, _) = store.get(&key).await.expect("get");
        let value = Bytes::from(format!("{key} {number} ").repeat(number % 300 + 1));
        let line = match found {
            Some(kv) if number.is_multiple_of(5) => {
                match store.delete_if(&key, kv.mod_revision).await.expect("delete") {
                    DeleteOutcome::Deleted { revision, .. } => format!("delete {key} {revision}\n"),
                    conflict => panic!("{conflict:?}"),
                }
            }
            found => {
                let expected = found.map_or(Expect::Absent, |kv| Expect::ModRevision(kv.mod_revision));
                match store.put_if(&key, expected, value, None).await.expect("put") {
                    PutOutcome::Stored(revision) => format!("put {key} {revision}\n"),
                    conflict => panic!("{conflict:?}"),
                }
            }
        };
        // One system call, so that a line is whole or not there.
        std::io::stdout().lock().write_all(line.as_bytes()).expect("tell");
        if number.is_multiple_of(500) && writer == 0 {
            let current = store.current_revision().await.expect("revision");
            store.compact(current.saturating_sub(100).max(1)).await.expect("compact");
        }
    }
}

/// Small steps of a linear congruential generator: rounds differ, runs do not.
fn delay(round: u64) -> Duration {
    let mixed = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    Duration::from_micros(mixed >> 33 & 0x7fff)
}

#[tokio::test]
async fn kill_9_loses_no_acknowledged_write() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("db");
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let mut highest = 1;
    let mut lines = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The clock starts with the first write, or half of the rounds would end before it.
        let mut fresh = Vec::new();
        for line in output.by_ref() {
            let line = line.expect("text");
            if line.starts_with("put ") || line.starts_with("delete ") {
                fresh.push(line);
                break;
            }
        }
        assert!(!fresh.is_empty(), "round {round}: the child wrote nothing");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay(round));
            child.kill().expect("kill -9");
            child.wait().expect("wait");
        });
        fresh.extend(output.map(|line| line.expect("text")));
        killer.join().expect("killer");

        lines += fresh.len();
        for line in fresh {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, key, revision] = words[..] else { panic!("{line:?}") };
            let revision: Revision = revision.parse().expect("a revision");
            let new = if what == "put" { Told::Put(revision) } else { Told::Deleted(revision) };
            if told.get(key).is_none_or(|old| old.revision() < revision) {
                told.insert(key.to_owned(), new);
            }
            highest = highest.max(revision);
        }
        let store = Sqlite::open(&path).expect("reopen");
        let page = store.range(Range::prefix("/")).await.expect("range");
        assert!(page.revision >= highest, "round {round}: revision {} of {highest}", page.revision);
        let found: BTreeMap<&str, Revision> = page.kvs.iter().map(|kv| (&*kv.key, kv.mod_revision)).collect();
        for (key, told) in &told {
            // The child may have written more than it could tell: then what is there is newer.
            match (told, found.get(key.as_str())) {
                (Told::Put(revision), Some(found)) | (Told::Deleted(revision), Some(found)) => {
                    assert!(found >= revision, "round {round}: {key} is at {found}, {told:?}");
                    assert!(*found != told.revision() || matches!(told, Told::Put(_)), "{key} came back");
                }
                (Told::Deleted(_), None) => {}
                (Told::Put(revision), None) => {
                    // Only a later deletion that could not be told explains this.
                    assert!(
                        deleted_later(&store, key, *revision).await,
                        "round {round}: {key} lost, {told:?}"
                    );
                }
            }
        }
        for kv in &page.kvs {
            let start = format!("{} ", kv.key);
            assert!(kv.value.starts_with(start.as_bytes()), "round {round}: {} has another's value", kv.key);
        }
        store.close().await.expect("close");
    }
    assert!(lines > 1000, "{lines} writes are too few to mean something");
}

async fn deleted_later(store: &Sqlite, key: &str, after: Revision) -> bool {
    let (_, current) = store.get(key).await.expect("get");
    let Ok(mut watch) = store.watch(key, after).await else { return false };
    loop {
        let batch = watch.next().await.expect("goes on").expect("does not fail");
        if batch
            .events
            .iter()
            .any(|event| matches!(event, storage::Event::Delete { .. }) && &**event.key() == key)
        {
            return true;
        }
        if batch.revision >= current {
            return false;
        }
    }
}
