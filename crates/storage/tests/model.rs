//! Random histories on the store and on a model of it: every answer, every past state and every watch must agree.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use storage::sqlite::Sqlite;
use storage::{DeleteOutcome, Error, Event, Expect, PutOutcome, Range, Revision, Storage, WatchStream};

#[derive(Clone, Debug)]
enum Action {
    Put {
        key: usize,
        stale: bool,
        absent: bool,
    },
    Delete {
        key: usize,
        stale: bool,
    },
    Compact {
        back: u64,
    },
    Reopen,
    /// Several writes at once.
    Burst {
        keys: Vec<usize>,
    },
}

const KEYS: [&str; 6] = ["/a", "/a/b", "/a/c", "/b", "/b/é", "/c"];
const PREFIXES: [&str; 4] = ["/", "/a", "/a/", "/b"];

fn action() -> impl Strategy<Value = Action> {
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (key.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(key, stale, absent)| Action::Put { key, stale, absent }),
        3 => (key.clone(), prop::bool::weighted(0.1)).prop_map(|(key, stale)| Action::Delete { key, stale }),
        1 => (0_u64..8).prop_map(|back| Action::Compact { back }),
        1 => Just(Action::Reopen),
        2 => prop::collection::vec(key, 1..8).prop_map(|keys| Action::Burst { keys }),
    ]
}

/// A key's life: mod revision, create revision, version, value.
type Entry = (Revision, Revision, u64, String);
type World = BTreeMap<String, Entry>;

#[derive(Default)]
struct Model {
    /// The state at each revision from 1 on.
    states: Vec<World>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn at(&self, revision: Revision) -> &World {
        &self.states[revision as usize - 1]
    }

    fn now(&self) -> &World {
        self.at(self.revision())
    }

    fn put(&mut self, key: &str, value: &str) {
        let mut next = self.now().clone();
        let revision = self.revision() + 1;
        let (create, version) = next.get(key).map_or((revision, 1), |old| (old.1, old.2 + 1));
        next.insert(key.to_owned(), (revision, create, version, value.to_owned()));
        self.states.push(next);
    }

    fn delete(&mut self, key: &str) {
        let mut next = self.now().clone();
        next.remove(key);
        self.states.push(next);
    }
}

fn show(event: &Event) -> String {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    let prev = event.prev().map(|kv| (kv.mod_revision, text(&kv.value)));
    match event {
        Event::Put { kv, .. } => format!("{} put {} {} {prev:?}", kv.mod_revision, kv.key, text(&kv.value)),
        Event::Delete { revision, .. } => format!("{revision} delete {} {prev:?}", event.key()),
    }
}

/// The changes of a prefix after a revision, made from the model's states.
fn history(model: &Model, prefix: &str, after: Revision) -> Vec<String> {
    let mut out = Vec::new();
    for revision in after + 1..=model.revision() {
        let (before, now) = (model.at(revision - 1), model.at(revision));
        for key in KEYS.iter().filter(|key| key.starts_with(prefix)) {
            let (old, new) = (before.get(*key), now.get(*key));
            let prev = old.map(|old| (old.0, old.3.clone()));
            match new {
                Some(new) if old != Some(new) => out.push(format!("{revision} put {key} {} {prev:?}", new.3)),
                None if old.is_some() => out.push(format!("{revision} delete {key} {prev:?}")),
                _ => {}
            }
        }
    }
    out
}

/// Reads a watch up to a revision.
async fn read_on(watch: &mut WatchStream, revision: Revision, seen: &mut Vec<String>) {
    watch.progress_requester().request();
    loop {
        let batch = watch.next().await.expect("goes on").expect("does not fail");
        seen.extend(batch.events.iter().map(show));
        if batch.revision >= revision {
            return;
        }
    }
}

async fn compare(store: &Sqlite, model: &Model) {
    assert_eq!(store.current_revision().await.expect("revision"), model.revision());
    for prefix in PREFIXES {
        let count = model.now().keys().filter(|key| key.starts_with(prefix)).count();
        assert_eq!(store.count(prefix).await.expect("count"), count as u64);
        for revision in 1..=model.revision() {
            let answer = store.range(Range::prefix(prefix).at(revision)).await;
            if revision < model.compacted {
                assert!(matches!(answer, Err(Error::Compacted { .. })), "{revision}: {answer:?}");
                continue;
            }
            let found: World = answer
                .expect("range")
                .kvs
                .into_iter()
                .map(|kv| {
                    let value = String::from_utf8_lossy(&kv.value).into_owned();
                    (kv.key.to_string(), (kv.mod_revision, kv.create_revision, kv.version, value))
                })
                .collect();
            let wanted: World = model
                .at(revision)
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect();
            assert_eq!(found, wanted, "{prefix} at {revision}");
        }
        for after in 1..=model.revision() {
            let watch = store.watch(prefix, after).await;
            if after < model.compacted {
                assert!(matches!(watch, Err(Error::Compacted { .. })));
                continue;
            }
            let (mut watch, mut seen) = (watch.expect("watch"), Vec::new());
            read_on(&mut watch, model.revision(), &mut seen).await;
            assert_eq!(seen, history(model, prefix, after), "{prefix} after {after}");
        }
    }
}

async fn run(actions: Vec<Action>) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("db");
    let mut store = Sqlite::open(&path).expect("open");
    let mut model = Model { states: vec![World::new()], compacted: 0 };
    // One watch over everything, open for as long as the store is.
    let mut watch = store.watch("/", 1).await.expect("watch");
    let (mut watched_from, mut seen) = (1, Vec::new());
    for (step, action) in actions.into_iter().enumerate() {
        let value = format!("value {step}");
        match action {
            Action::Put { key, stale, absent } => {
                let key = KEYS[key];
                let present = model.now().get(key).map(|entry| entry.0);
                let expected = match present {
                    Some(revision) if !absent => Expect::ModRevision(revision + u64::from(stale)),
                    _ => Expect::Absent,
                };
                let holds = match expected {
                    Expect::Absent => present.is_none(),
                    Expect::ModRevision(revision) => present == Some(revision),
                };
                let answer = store.put_if(key, expected, value.clone().into(), None).await.expect("put");
                match answer {
                    PutOutcome::Stored(revision) => {
                        assert!(holds);
                        model.put(key, &value);
                        assert_eq!(revision, model.revision());
                    }
                    PutOutcome::Conflict(found) => {
                        assert!(!holds);
                        assert_eq!(found.map(|kv| kv.mod_revision), present);
                    }
                }
            }
            Action::Delete { key, stale } => {
                let key = KEYS[key];
                let present = model.now().get(key).map(|entry| entry.0);
                let expected = present.unwrap_or(1) + u64::from(stale);
                match store.delete_if(key, expected).await.expect("delete") {
                    DeleteOutcome::Deleted { prev, revision } => {
                        assert_eq!(present, Some(expected));
                        assert_eq!(prev.mod_revision, expected);
                        model.delete(key);
                        assert_eq!(revision, model.revision());
                    }
                    DeleteOutcome::Conflict(found) => {
                        assert_ne!(present, Some(expected));
                        assert_eq!(found.map(|kv| kv.mod_revision), present);
                    }
                }
            }
            Action::Compact { back } => {
                let revision = model.revision().saturating_sub(back).max(1);
                let answer = store.compact(revision).await;
                if revision > model.compacted {
                    answer.expect("compact");
                    model.compacted = revision;
                } else {
                    assert!(matches!(answer, Err(Error::Compacted { .. })));
                }
            }
            Action::Reopen => {
                drop(watch);
                drop(store);
                store = Sqlite::open(&path).expect("reopen");
                watched_from = model.revision();
                watch = store.watch("/", watched_from).await.expect("watch");
                seen.clear();
                // before it is read for the first time, compaction may pass it by
                read_on(&mut watch, model.revision(), &mut seen).await;
            }
            Action::Burst { keys } => {
                // All at once, each a creation: the first of each key wins, whatever the order among keys.
                let puts = keys.iter().map(|key| {
                    let value = Bytes::from(format!("{value} {key}"));
                    store.put_if(KEYS[*key], Expect::Absent, value, None)
                });
                let mut stored: Vec<(Revision, usize)> = Vec::new();
                for (answer, key) in futures::future::join_all(puts).await.into_iter().zip(&keys) {
                    if let PutOutcome::Stored(revision) = answer.expect("put") {
                        stored.push((revision, *key));
                    }
                }
                stored.sort_unstable();
                for (revision, key) in stored {
                    assert!(!model.now().contains_key(KEYS[key]), "two creations of one key");
                    model.put(KEYS[key], &format!("{value} {key}"));
                    assert_eq!(revision, model.revision());
                }
                for key in keys {
                    assert!(model.now().contains_key(KEYS[key]), "a creation failed for no reason");
                }
            }
        }
        // The open watch is read to the present, now and then only, so that its queue is used.
        if step % 3 == 0 {
            read_on(&mut watch, model.revision(), &mut seen).await;
            assert_eq!(seen, history(&model, "/", watched_from));
        }
    }
    compare(&store, &model).await;
    drop(watch);
    drop(store);
    compare(&Sqlite::open(&path).expect("reopen"), &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_as_the_model_does(actions in prop::collection::vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(run(actions));
    }
}
