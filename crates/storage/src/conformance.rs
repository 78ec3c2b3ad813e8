//! What every backend has to do. Each check works under a prefix of its own and compares revisions with each
//! other, so that the store may be shared, old and large.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Batch, DeleteOutcome, Error, Event, Expect, KeyValue, PutOutcome, Range, Revision, Storage, WatchStream,
};

/// How long a change may take to reach a watcher, or a key to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every check. Panics at the first that fails. The store is left open; `compaction` runs last because
/// it forgets what came before.
pub async fn all(store: Arc<dyn Storage>) {
    let store = &*store;
    writes_compare_and_swap(store).await;
    ranges_page_in_key_order(store).await;
    the_past_can_be_read(store).await;
    watches_tell_every_change_once(store).await;
    watches_resume(store).await;
    progress_is_told_when_asked_for(store).await;
    keys_expire(store).await;
    compaction_forgets_the_past(store).await;
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub async fn create(store: &dyn Storage, key: &str, value: &str) -> Revision {
    match store.put_if(key, Expect::Absent, bytes(value), None).await {
        Ok(PutOutcome::Stored(revision)) => revision,
        other => panic!("creating {key}: {other:?}"),
    }
}

pub async fn update(store: &dyn Storage, key: &str, expected: Revision, value: &str) -> Revision {
    match store.put_if(key, Expect::ModRevision(expected), bytes(value), None).await {
        Ok(PutOutcome::Stored(revision)) => revision,
        other => panic!("updating {key}: {other:?}"),
    }
}

pub async fn delete(store: &dyn Storage, key: &str, expected: Revision) -> Revision {
    match store.delete_if(key, expected).await {
        Ok(DeleteOutcome::Deleted { revision, .. }) => revision,
        other => panic!("deleting {key}: {other:?}"),
    }
}

async fn get(store: &dyn Storage, key: &str) -> Option<KeyValue> {
    store.get(key).await.expect("get").0
}

/// `key=value@mod_revision` of each, with the prefix cut off.
async fn listing(store: &dyn Storage, range: Range, prefix: &str) -> String {
    let page = store.range(range).await.expect("range");
    let show = |kv: &KeyValue| {
        format!("{}={}", kv.key.trim_start_matches(prefix), String::from_utf8_lossy(&kv.value))
    };
    page.kvs.iter().map(show).collect::<Vec<_>>().join(" ")
}

async fn writes_compare_and_swap(store: &dyn Storage) {
    let key = "/conformance/cas/key";
    assert_eq!(get(store, key).await, None);
    let lost = store.put_if(key, Expect::ModRevision(1), bytes("x"), None).await.expect("put");
    assert_eq!(lost, PutOutcome::Conflict(None), "an update of what is not there");
    assert_eq!(store.delete_if(key, 1).await.expect("delete"), DeleteOutcome::Conflict(None));

    let first = create(store, key, "one").await;
    let (found, at) = store.get(key).await.expect("get");
    let one = KeyValue {
        key: key.into(),
        value: bytes("one"),
        create_revision: first,
        mod_revision: first,
        version: 1,
        lease: 0,
    };
    assert_eq!(found.as_ref(), Some(&one));
    assert!(at >= first, "a read after a write is at its revision or later");
    assert_eq!(
        store.put_if(key, Expect::Absent, bytes("x"), None).await.expect("put"),
        PutOutcome::Conflict(Some(one.clone())),
        "a second creation"
    );

    let second = update(store, key, first, "two").await;
    assert!(second > first);
    let two = KeyValue { value: bytes("two"), mod_revision: second, version: 2, ..one };
    assert_eq!(get(store, key).await.as_ref(), Some(&two));
    assert_eq!(
        store.put_if(key, Expect::ModRevision(first), bytes("x"), None).await.expect("put"),
        PutOutcome::Conflict(Some(two.clone())),
        "an update of an old revision"
    );
    assert_eq!(
        store.delete_if(key, first).await.expect("delete"),
        DeleteOutcome::Conflict(Some(two.clone())),
        "a deletion of an old revision"
    );
    let before = store.current_revision().await.expect("revision");
    match store.delete_if(key, second).await.expect("delete") {
        DeleteOutcome::Deleted { prev, revision } => {
            assert_eq!(prev, two);
            assert!(revision > before);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(store, key).await, None);

    let again = create(store, key, "").await;
    let kv = get(store, key).await.expect("made again");
    assert_eq!((kv.create_revision, kv.version, kv.value), (again, 1, Bytes::new()), "a new life");
    delete(store, key, again).await;
}

async fn ranges_page_in_key_order(store: &dyn Storage) {
    let prefix = "/conformance/range/";
    for name in ["b", "a", "c/x", "c", "é", "d"] {
        create(store, &format!("{prefix}{name}"), name).await;
    }
    let neighbour = "/conformance/range0";
    create(store, neighbour, "not under the prefix").await;
    let all = Range::prefix(prefix);
    assert_eq!(listing(store, all.clone(), prefix).await, "a=a b=b c=c c/x=c/x d=d é=é");
    assert_eq!(listing(store, all.clone().keys_only(), prefix).await, "a= b= c= c/x= d= é=");
    assert_eq!(store.count(prefix).await.expect("count"), 6);
    assert_eq!(store.count("/conformance/nothing/").await.expect("count"), 0);

    let page = store.range(all.clone().with_limit(4)).await.expect("range");
    assert_eq!((page.kvs.len(), page.more, page.count), (4, true, 6));
    let last = page.kvs.last().expect("four").key.clone();
    let rest = Range::prefix_after(prefix, &last).with_limit(4).at(page.revision);
    let page = store.range(rest).await.expect("range");
    let keys: Vec<&str> = page.kvs.iter().map(|kv| &*kv.key).collect();
    assert_eq!(keys, ["/conformance/range/d", "/conformance/range/é"]);
    assert_eq!((page.more, page.count), (false, 2));
    let page = store.range(all.clone().with_limit(6)).await.expect("range");
    assert!(!page.more, "a limit that is just enough");

    let from = Range { start: neighbour.to_owned(), end: None, ..Range::default() }.with_limit(1);
    assert_eq!(store.range(from).await.expect("range").kvs.len(), 1, "an open end");
    let empty = Range { start: "b".into(), end: Some("a".into()), ..Range::default() };
    assert_eq!(store.range(empty).await.expect("range").kvs.len(), 0, "a range that ends before it starts");
    let current = store.current_revision().await.expect("revision");
    match store.range(all.at(current + 1000)).await {
        Err(Error::FutureRevision { requested, .. }) => assert_eq!(requested, current + 1000),
        other => panic!("{other:?}"),
    }
}

async fn the_past_can_be_read(store: &dyn Storage) {
    let prefix = "/conformance/past/";
    let key = |name: &str| format!("{prefix}{name}");
    let empty = store.current_revision().await.expect("revision");
    let a1 = create(store, &key("a"), "1").await;
    let b1 = create(store, &key("b"), "1").await;
    let a2 = update(store, &key("a"), a1, "2").await;
    let gone = delete(store, &key("b"), b1).await;
    let b2 = create(store, &key("b"), "2").await;
    let a3 = update(store, &key("a"), a2, "3").await;
    let states = [
        (empty, ""),
        (a1, "a=1"),
        (b1, "a=1 b=1"),
        (a2, "a=2 b=1"),
        (gone, "a=2"),
        (b2, "a=2 b=2"),
        (a3, "a=3 b=2"),
    ];
    for (revision, state) in states {
        let range = Range::prefix(prefix).at(revision);
        assert_eq!(listing(store, range.clone(), prefix).await, state, "at {revision}");
        let page = store.range(range.with_limit(1)).await.expect("range");
        let count = state.split_whitespace().count();
        assert_eq!((page.count as usize, page.more), (count, count > 1), "at {revision}");
        assert_eq!(page.revision, revision);
    }
}

async fn next(watch: &mut WatchStream) -> Batch {
    let batch = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a watch has to tell in time");
    batch.expect("the watch goes on").expect("the watch does not fail")
}

/// Reads changes until there are as many as wanted; checks their order and what batches say of themselves.
async fn events(watch: &mut WatchStream, wanted: usize) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    while found.len() < wanted {
        let batch = next(watch).await;
        for event in batch.events {
            assert!(found.last().is_none_or(|last| last.revision() < event.revision()), "order");
            assert!(event.revision() <= batch.revision, "a batch covers its events");
            found.push(event);
        }
    }
    assert_eq!(found.len(), wanted);
    found
}

fn describe(events: &[Event]) -> String {
    let value = |kv: &KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
    let prev = |event: &Event| event.prev().map(value).unwrap_or_default();
    let show = |event: &Event| match event {
        Event::Put { kv, .. } => format!("{}->{}", prev(event), value(kv)),
        Event::Delete { .. } => format!("{}->gone", prev(event)),
    };
    events.iter().map(show).collect::<Vec<_>>().join(" ")
}

async fn watches_tell_every_change_once(store: &dyn Storage) {
    let prefix = "/conformance/watch/";
    let start = store.current_revision().await.expect("revision");
    let mut watch = store.watch(prefix, start).await.expect("watch");
    let mut narrow = store.watch("/conformance/watch/b", start).await.expect("watch");
    let a1 = create(store, "/conformance/watch/a", "a1").await;
    create(store, "/conformance/elsewhere", "x").await;
    let a2 = update(store, "/conformance/watch/a", a1, "a2").await;
    let b1 = create(store, "/conformance/watch/b", "b1").await;
    let gone = delete(store, "/conformance/watch/a", a2).await;
    create(store, "/conformance/watch/a", "a3").await;
    let seen = events(&mut watch, 5).await;
    assert_eq!(describe(&seen), "->a1 a1->a2 ->b1 a2->gone ->a3");
    let revisions: Vec<Revision> = seen.iter().map(Event::revision).collect();
    assert_eq!(revisions[..4], [a1, a2, b1, gone]);
    assert_eq!(describe(&events(&mut narrow, 1).await), "->b1");

    // Many writers, one order.
    let writers = (0..8).map(|writer| async move {
        for turn in 0..25 {
            create(store, &format!("{prefix}many/{writer}/{turn}"), "x").await;
        }
    });
    futures::future::join_all(writers).await;
    let mut keys: Vec<String> = events(&mut watch, 200).await.iter().map(|e| e.key().to_string()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 200, "each once");
}

async fn watches_resume(store: &dyn Storage) {
    let key = "/conformance/resume/key";
    let start = store.current_revision().await.expect("revision");
    let mut revisions = vec![create(store, key, "1").await];
    for value in 2..=40 {
        let last = *revisions.last().expect("one at least");
        revisions.push(update(store, key, last, &value.to_string()).await);
    }
    for (skip, after) in [(0, start), (1, revisions[0]), (39, revisions[38])] {
        let mut watch = store.watch("/conformance/resume/", after).await.expect("watch");
        let seen: Vec<Revision> =
            events(&mut watch, revisions.len() - skip).await.iter().map(Event::revision).collect();
        assert_eq!(seen, revisions[skip..], "after {after}");
    }
    // From the present: only what comes.
    let mut watch = store.watch("/conformance/resume/", revisions[39]).await.expect("watch");
    let more = update(store, key, revisions[39], "41").await;
    assert_eq!(events(&mut watch, 1).await[0].revision(), more);
    // From the future: not before it.
    let mut watch = store.watch("/conformance/resume/", more + 1).await.expect("watch");
    let skipped = update(store, key, more, "42").await;
    let told = update(store, key, skipped, "43").await;
    assert_eq!(skipped, more + 1, "the checks need the store to themselves here");
    assert_eq!(events(&mut watch, 1).await[0].revision(), told);
}

async fn progress_is_told_when_asked_for(store: &dyn Storage) {
    let start = store.current_revision().await.expect("revision");
    let mut watch = store.watch("/conformance/progress/", start).await.expect("watch");
    let mut elsewhere = start;
    for turn in 0..3 {
        elsewhere = create(store, &format!("/conformance/progressed/{turn}"), "x").await;
        let requester = watch.progress_requester();
        requester.request();
        let asked = tokio::time::Instant::now();
        loop {
            let batch = next(&mut watch).await;
            assert!(batch.events.is_empty());
            if batch.revision >= elsewhere {
                break;
            }
            assert!(asked.elapsed() < PATIENCE);
        }
    }
    let event = create(store, "/conformance/progress/a", "x").await;
    assert!(event > elsewhere);
    assert_eq!(events(&mut watch, 1).await[0].revision(), event);
}

async fn keys_expire(store: &dyn Storage) {
    let prefix = "/conformance/expire/";
    let ttl = Some(Duration::from_secs(1));
    let start = store.current_revision().await.expect("revision");
    let mut watch = store.watch(prefix, start).await.expect("watch");
    let short = format!("{prefix}short");
    let kept = format!("{prefix}kept");
    let renewed = format!("{prefix}renewed");
    for key in [&short, &kept, &renewed] {
        let outcome = store.put_if(key, Expect::Absent, bytes("x"), ttl).await.expect("put");
        let PutOutcome::Stored(revision) = outcome else { panic!("{outcome:?}") };
        let kv = get(store, key).await.expect("alive");
        assert_ne!(kv.lease, 0);
        if *key == kept {
            update(store, key, revision, "y").await;
        }
        if *key == renewed {
            let longer = Some(Duration::from_secs(3600));
            let outcome = store.put_if(key, Expect::ModRevision(revision), bytes("y"), longer).await;
            assert!(matches!(outcome, Ok(PutOutcome::Stored(_))), "{outcome:?}");
        }
    }
    let seen = events(&mut watch, 6).await;
    assert_eq!(describe(&seen), "->x ->x x->y ->x x->y x->gone");
    assert_eq!(&**seen[5].key(), short);
    assert_eq!(get(store, &short).await, None);
    assert_eq!(get(store, &kept).await.expect("made permanent").lease, 0);
    assert_ne!(get(store, &renewed).await.expect("lives on").lease, 0);
}

async fn compaction_forgets_the_past(store: &dyn Storage) {
    let prefix = "/conformance/compact/";
    let key = format!("{prefix}key");
    let first = create(store, &key, "1").await;
    let second = update(store, &key, first, "2").await;
    let other = create(store, &format!("{prefix}other"), "x").await;
    let gone = delete(store, &format!("{prefix}other"), other).await;
    let third = update(store, &key, second, "3").await;
    let mut old = store.watch(prefix, first).await.expect("watch");
    assert_eq!(describe(&events(&mut old, 4).await), "1->2 ->x x->gone 2->3");

    store.compact(gone).await.expect("compact");
    match store.range(Range::prefix(prefix).at(second)).await {
        Err(Error::Compacted { requested, compact_revision }) => {
            assert_eq!((requested, compact_revision), (second, gone));
        }
        other => panic!("{other:?}"),
    }
    match store.watch(prefix, second).await {
        Err(Error::Compacted { compact_revision, .. }) => assert_eq!(compact_revision, gone),
        other => panic!("{other:?}"),
    }
    assert_eq!(listing(store, Range::prefix(prefix).at(gone), prefix).await, "key=2", "the edge is kept");
    assert_eq!(listing(store, Range::prefix(prefix), prefix).await, "key=3");
    let mut watch = store.watch(prefix, gone).await.expect("watch");
    assert_eq!(describe(&events(&mut watch, 1).await), "2->3", "with its previous value");
    let fourth = update(store, &key, third, "4").await;
    assert_eq!(events(&mut old, 1).await[0].revision(), fourth, "a watch that is past it goes on");

    assert!(matches!(store.compact(gone).await, Err(Error::Compacted { .. })), "a second time");
    assert!(matches!(store.compact(fourth + 1000).await, Err(Error::FutureRevision { .. })));
    // The last change of all may be a deletion: its revision must not come again.
    let last = delete(store, &key, fourth).await;
    store.compact(last).await.expect("compact");
    assert_eq!(store.get(&key).await.expect("get"), (None, last));
    assert_eq!(create(store, &key, "new").await, last + 1);
}
