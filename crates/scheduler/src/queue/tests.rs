//! The queue by the clock of the test.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::plugins::default_framework;
use crate::testing::{MemoryPort, node, pod, requests};

const SECOND: Duration = Duration::from_secs(1);
const FIT: &str = "NodeResourcesFit";

struct Bench {
    queue: SchedulingQueue,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let framework = Arc::new(default_framework(MemoryPort::new()));
        Self { queue: SchedulingQueue::new(framework, Backoff::default(), now), now }
    }

    fn add(&mut self, name: &str, over: Value) {
        self.queue.add(pod(name, over), self.now);
    }

    fn pop(&mut self) -> Option<String> {
        self.queue.pop(self.now).map(|pod| pod.info.name().to_owned())
    }

    /// Pops a pod and turns it away.
    fn fail(&mut self, name: &str, plugins: &[&'static str]) {
        let mut pod = self.queue.pop(self.now).expect("a pod");
        assert_eq!(pod.info.name(), name);
        pod.unschedulable_plugins = plugins.iter().copied().collect();
        self.queue.add_unschedulable(pod, self.now);
    }

    fn node_event(&mut self, old: Option<&Node>, new: Option<&Node>) {
        self.queue.move_all(&ClusterEvent::node(old, new), self.now);
    }
}

#[test]
fn priority_goes_first_and_then_age() {
    let mut bench = Bench::new();
    bench.add("a", json!({}));
    bench.add("b", json!({"spec": {"priority": 5}}));
    bench.add("c", json!({}));
    bench.now += SECOND;
    bench.add("d", json!({"spec": {"priority": 5}}));
    let order: Vec<String> = std::iter::from_fn(|| bench.pop()).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
}

#[test]
fn only_an_event_that_helps_brings_a_pod_back_and_at_once_when_nothing_else_is_to_do() {
    let mut bench = Bench::new();
    bench.add("p", requests(json!({"cpu": "6"})));
    bench.fail("p", &[FIT]);
    assert_eq!((bench.pop(), bench.queue.counts()), (None, (0, 0, 1)));

    let small = node("n", json!({}));
    let large = node("n", json!({"status": {"allocatable": {"cpu": "8"}}}));
    let labelled =
        node("n", json!({"metadata": {"labels": {"a": "b"}}, "status": {"allocatable": {"cpu": "8"}}}));
    bench.node_event(None, Some(&small));
    assert_eq!(bench.pop(), None, "a node that is too small does not help");
    bench.node_event(Some(&large), Some(&labelled));
    assert_eq!(bench.pop(), None, "labels do not help a pod that lacks room");
    bench.node_event(Some(&small), Some(&large));
    assert_eq!(bench.queue.counts(), (0, 1, 0), "it backs off");
    assert_eq!(bench.pop().as_deref(), Some("p"), "but why wait when nothing else is to be done");
}

#[test]
fn a_pod_that_backs_off_goes_after_those_that_are_ready() {
    let mut bench = Bench::new();
    bench.add("old", json!({"spec": {"priority": 9}}));
    bench.fail("old", &[FIT]);
    bench.node_event(None, Some(&node("n", json!({}))));
    bench.add("new", json!({}));
    assert_eq!((bench.pop().as_deref(), bench.pop().as_deref()), (Some("new"), Some("old")));

    bench.add("old", json!({"spec": {"priority": 9}}));
    bench.fail("old", &[FIT]);
    bench.node_event(None, Some(&node("n", json!({}))));
    bench.add("new", json!({}));
    bench.now += SECOND;
    assert_eq!(bench.pop().as_deref(), Some("old"), "its back-off is over");
}

#[test]
fn back_off_doubles_to_ten_seconds_after_errors() {
    let mut bench = Bench::new();
    bench.add("p", json!({}));
    for seconds in [1, 2, 4, 8, 10, 10] {
        bench.fail("p", &[]);
        let wakeup = bench.queue.next_wakeup().expect("a time");
        assert_eq!(wakeup - bench.now, seconds * SECOND);
        bench.now = wakeup - Duration::from_millis(1);
        assert_eq!(bench.queue.pop(bench.now).map(|pod| pod.attempts), None);
        bench.now = wakeup;
    }
    bench.fail("p", &[FIT]);
    assert_eq!(bench.queue.counts(), (0, 0, 1));
    bench.node_event(None, Some(&node("n", json!({}))));
    assert_eq!(bench.pop().as_deref(), Some("p"));
}

#[test]
fn after_five_minutes_a_pod_is_tried_although_nothing_helped() {
    let mut bench = Bench::new();
    bench.add("p", json!({}));
    bench.fail("p", &[FIT]);
    let start = bench.now;
    let mut rounds = 0;
    while bench.now - start <= MAX_IN_UNSCHEDULABLE {
        bench.now = bench.queue.next_wakeup().expect("it looks for such pods");
        rounds += 1;
        if bench.pop().is_some() {
            break;
        }
    }
    assert_eq!((bench.now - start, rounds), (MAX_IN_UNSCHEDULABLE + FLUSH_PERIOD, 11));
    assert_eq!(bench.queue.next_wakeup(), None);
}

#[test]
fn gates_hold_a_pod_until_the_last_is_gone() {
    let mut bench = Bench::new();
    let gated = |gates: Value| pod("p", json!({"spec": {"schedulingGates": gates}}));
    let two = gated(json!([{"name": "a"}, {"name": "b"}]));
    let one = gated(json!([{"name": "b"}]));
    let none = gated(json!([]));
    bench.queue.add(two.clone(), bench.now);
    assert_eq!((bench.pop(), bench.queue.counts()), (None, (0, 0, 1)));
    bench.node_event(None, Some(&node("n", json!({}))));
    bench.queue.update(&two, one.clone(), bench.now);
    assert_eq!(bench.pop(), None);
    bench.queue.update(&one, none, bench.now);
    assert_eq!(bench.pop().as_deref(), Some("p"));
}

#[test]
fn pods_that_claim_devices_wait() {
    let mut bench = Bench::new();
    bench.add("p", json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}]}}));
    bench.node_event(None, Some(&node("n", json!({}))));
    assert_eq!(bench.pop(), None);
}

#[test]
fn a_changed_pod_keeps_its_place_unless_the_change_helps() {
    let mut bench = Bench::new();
    let before = pod("p", json!({}));
    let labelled = pod("p", json!({"metadata": {"labels": {"a": "b"}}}));
    let tolerating = pod("p", json!({"spec": {"tolerations": [{"operator": "Exists"}]}}));
    bench.queue.add(before.clone(), bench.now);
    bench.queue.update(&before, labelled.clone(), bench.now);
    assert_eq!(bench.queue.counts(), (1, 0, 0));
    bench.fail("p", &["TaintToleration"]);
    bench.queue.update(&before, labelled.clone(), bench.now);
    assert_eq!(bench.queue.counts(), (0, 0, 1));
    bench.queue.update(&labelled, tolerating, bench.now);
    assert_eq!(bench.queue.counts(), (0, 1, 0));
    let popped = bench.queue.pop(bench.now).expect("the pod");
    assert_eq!((popped.info.tolerations().len(), popped.attempts), (1, 2));
    bench.queue.delete(&popped.info.uid);
    assert_eq!(bench.queue.counts(), (0, 0, 0));
}
