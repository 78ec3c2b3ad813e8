//! Waiting for a seat: in virtual time, with requests that come, go and give up.

use std::sync::atomic::AtomicUsize;

use serde_json::json;

use super::*;

fn level(shares: u32, queues: u32, length_limit: u32) -> Object {
    Object::from(json!({"metadata": {"name": "l", "uid": "level"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {
            "type": "Queue", "queuing": {"queues": queues, "handSize": 1, "queueLengthLimit": length_limit},
        },
    }}}))
}

fn schema() -> Object {
    Object::from(json!({"metadata": {"name": "s", "uid": "schema"}, "spec": {
        "priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 5,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
    }}))
}

/// One seat for everybody.
fn control(length_limit: u32) -> Arc<FlowControl> {
    let control = FlowControl::new(1);
    control.digest(&[level(1000, 4, length_limit)], &[schema()]);
    control
}

async fn ask(control: &Arc<FlowControl>, user: &str, wait: Duration) -> Result<Seat, TurnedAway> {
    let user = Arc::new(UserInfo::new(user, &[]));
    let info = Arc::new(RequestInfo { verb: "get", path: "/version".into(), ..RequestInfo::default() });
    let query = Query::default();
    let until = Instant::now() + wait;
    control.enter(Asking { user: &user, info: &info, query: &query, until }, || None).await
}

const LONG: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_seat_that_becomes_free() {
    let control = control(10);
    let first = ask(&control, "a", LONG).await.ok().unwrap();
    let mut headers = HeaderMap::new();
    first.classified().mark(&mut headers);
    assert_eq!(
        (&headers[SCHEMA_UID], &headers[LEVEL_UID]),
        (&HeaderValue::from_static("schema"), &HeaderValue::from_static("level"))
    );
    let second = tokio::spawn({
        let control = control.clone();
        async move { ask(&control, "b", LONG).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_finds_a_full_queue_is_turned_away() {
    let control = control(1);
    let _first = ask(&control, "a", LONG).await.ok().unwrap();
    let began = Instant::now();
    let waiting = tokio::spawn({
        let control = control.clone();
        async move { ask(&control, "b", LONG).await }
    });
    tokio::task::yield_now().await;
    let full = ask(&control, "b", LONG).await.err().unwrap();
    assert_eq!((full.retry_after, began.elapsed()), (1, Duration::ZERO));
    let late = waiting.await.unwrap().err().unwrap();
    assert_eq!((late.retry_after, began.elapsed().as_secs()), (1, 15));
    let mut text = String::new();
    control.render_metrics(&mut text);
    for line in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"queue-full\"} 1",
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"time-out\"} 1",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"s\",priority_level=\"l\"} 1",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"s\",priority_level=\"l\"} 1",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"s\",priority_level=\"l\"} 0",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"l\"} 1",
        "apiserver_flowcontrol_request_wait_duration_seconds_count{flow_schema=\"s\",priority_level=\"l\",execute=\"false\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn tables_show_levels_queues_and_requests() {
    let control = control(10);
    let _first = ask(&control, "a", LONG).await.ok().unwrap();
    let second = tokio::spawn({
        let control = control.clone();
        async move { ask(&control, "b", LONG).await }
    });
    tokio::task::yield_now().await;
    let levels = control.dump("dump_priority_levels", false).unwrap();
    let row = levels.lines().find(|line| line.starts_with("l,")).unwrap();
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    assert_eq!(cells, ["l", "1", "false", "false", "1", "1", "1", "0", "0", "0"]);
    let queues = control.dump("dump_queues", false).unwrap();
    assert_eq!(queues.lines().filter(|line| line.starts_with("l,")).count(), 4);
    let requests = control.dump("dump_requests", true).unwrap();
    let rows: Vec<Vec<&str>> =
        requests.lines().skip(1).map(|line| line.split(',').map(str::trim).collect()).collect();
    let shown: Vec<_> = rows.iter().map(|row| (row[1], row[3], row[4], row[10], row[11], row[12])).collect();
    assert!(shown.contains(&("s", "-1", "a", "a", "get", "/version")), "{requests}");
    assert!(shown.contains(&("s", "0", "b", "b", "get", "/version")), "{requests}");
    assert_eq!(control.dump("dump_nothing", false), None);
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_level_that_is_gone_serves_those_it_has_and_says_when_it_is_idle() {
    let control = control(10);
    let first = ask(&control, "a", LONG).await.ok().unwrap();
    let second = tokio::spawn({
        let control = control.clone();
        async move { ask(&control, "b", LONG).await }
    });
    tokio::task::yield_now().await;
    let references = control.digest(&[], &[schema()]);
    assert!(references[0].dangling);
    drop(first);
    let second = second.await.unwrap().ok().unwrap();
    assert!(control.levels.lock().states.contains_key("l"));
    drop(second);
    tokio::time::timeout(Duration::ZERO, control.changed.notified()).await.expect("the level is idle");
    control.digest(&[], &[schema()]);
    assert!(!control.levels.lock().states.contains_key("l"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_when_others_give_up() {
    let control = control(1000);
    let served = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for number in 0..300_u64 {
        let (control, served) = (control.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 7 % 100)).await;
            let user = format!("user-{}", number % 5);
            let work = async {
                let seat = ask(&control, &user, Duration::from_secs(10 + number % 3)).await.ok()?;
                tokio::time::sleep(Duration::from_millis(3 + number % 4)).await;
                served.fetch_add(1, Ordering::Relaxed);
                drop(seat);
                Some(())
            };
            // every third client goes away in the middle, wherever that is
            let patience = Duration::from_millis(if number % 3 == 0 { number } else { 60_000 });
            let _ = tokio::time::timeout(patience, work).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) >= 200, "{served:?}");
    let levels = control.levels.lock();
    let requests = levels.states["l"].level.requests.lock();
    assert!(requests.is_idle());
    assert_eq!((requests.seats_in_use(), requests.requests().count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn seats_that_a_write_keeps_come_back() {
    let control = control(10);
    let user = Arc::new(UserInfo::new("admin", &["system:masters"]));
    let query = Query::default();
    let info = |verb| {
        Arc::new(RequestInfo { is_resource: true, verb, resource: "pods".into(), ..RequestInfo::default() })
    };
    let watches: Vec<_> = (0..20).map(|_| control.register_watch(&info("watch"), &query)).collect();
    let until = Instant::now() + LONG;
    let create = info("create");
    let seat = control.enter(Asking { user: &user, info: &create, query: &query, until }, || None).await;
    let level = control.levels.lock().states[levels::EXEMPT].level.clone();
    assert_eq!(level.requests.lock().seats_in_use(), 2);
    drop(seat);
    let now = || {
        let requests = level.requests.lock();
        (requests.executing(), requests.seats_in_use())
    };
    assert_eq!(now(), (0, 2));
    tokio::time::sleep(Duration::from_millis(6)).await;
    assert_eq!(now(), (0, 0));
    drop(watches);
}
