//! The scheduler as a whole: no node is ever given more than it has, and the driver is prompt.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Change;
use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::algorithm::Algorithm;
use crate::driver;
use crate::framework::Status;
use crate::inbox::Inbox;
use crate::plugins::default_framework;
use crate::queue::Backoff;
use crate::scheduler::{Decision, Scheduler};
use crate::testing::{MemoryPort, node, raw_pod, requests};

const NAME: &str = "default-scheduler";

fn scheduler(port: Arc<MemoryPort>, now: Instant) -> Scheduler {
    let framework = Arc::new(default_framework(port));
    Scheduler::new(NAME, framework, Algorithm::new(0, 3), Backoff::default(), now)
}

fn assigned(pod: &Pod, to: &str) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.spec.get_or_insert_default().node_name = Some(to.to_owned());
    Arc::new(pod)
}

/// What may happen in a cluster.
#[derive(Clone, Debug)]
enum Step {
    AddPod {
        milli_cpu: u16,
        port: Option<u8>,
    },
    /// The pod of this number, if there is one, ends or is deleted.
    RemovePod(usize),
    SetNode {
        node: u8,
        cpu: u8,
        cordoned: bool,
    },
    RemoveNode(u8),
    Schedule,
    /// The oldest binding under way succeeds and is seen, or fails.
    Settle {
        well: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3000_u16, prop::option::of(0..3_u8)).prop_map(|(milli_cpu, port)| Step::AddPod { milli_cpu, port }),
        2 => (0..40_usize).prop_map(Step::RemovePod),
        3 => (0..4_u8, 1..6_u8, prop::bool::weighted(0.2))
            .prop_map(|(node, cpu, cordoned)| Step::SetNode { node, cpu, cordoned }),
        1 => (0..4_u8).prop_map(Step::RemoveNode),
        8 => Just(Step::Schedule),
        5 => prop::bool::weighted(0.8).prop_map(|well| Step::Settle { well }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// When a pod is given a node, the node has room for it beside all that is on it or on its way, and its ports
    /// are free; and a pod is never on its way twice.
    #[test]
    fn no_node_is_given_more_than_it_has(steps in prop::collection::vec(step(), 1..120)) {
        let mut now = Instant::now();
        let mut scheduler = scheduler(MemoryPort::new(), now);
        let mut nodes: BTreeMap<String, (Arc<Node>, i64, bool)> = BTreeMap::new();
        let mut pods: Vec<Option<(Arc<Pod>, i64, Option<u8>)>> = Vec::new();
        // on which node each pod is, or will be when its binding settles
        let mut places: BTreeMap<usize, String> = BTreeMap::new();
        let mut under_way = std::collections::VecDeque::new();
        for step in steps {
            now += Duration::from_millis(300);
            match step {
                Step::AddPod { milli_cpu, port } => {
                    let ports: Vec<Value> =
                        port.map(|p| json!({"containerPort": 1, "hostPort": 8000 + u16::from(p)})).into_iter().collect();
                    let pod = raw_pod(&pods.len().to_string(), json!({"spec": {"containers": [{
                        "name": "c", "ports": ports,
                        "resources": {"requests": {"cpu": format!("{milli_cpu}m")}}}]}}));
                    scheduler.on_pod(None, Some(&pod), now);
                    pods.push(Some((pod, i64::from(milli_cpu), port)));
                }
                Step::RemovePod(number) => {
                    if let Some((pod, _, _)) = pods.get_mut(number).and_then(Option::take) {
                        scheduler.on_pod(Some(&pod), None, now);
                        places.remove(&number);
                    }
                }
                Step::SetNode { node: number, cpu, cordoned } => {
                    let name = format!("n{number}");
                    let new = node(&name, json!({
                        "spec": {"unschedulable": cordoned},
                        "status": {"allocatable": {"cpu": cpu.to_string()}}}));
                    let old = nodes.insert(name, (new.clone(), i64::from(cpu) * 1000, cordoned));
                    scheduler.on_node(old.as_ref().map(|(node, _, _)| node), Some(&new), now);
                }
                Step::RemoveNode(number) => {
                    if let Some((old, _, _)) = nodes.remove(&format!("n{number}")) {
                        scheduler.on_node(Some(&old), None, now);
                    }
                }
                Step::Schedule => match scheduler.schedule_one(now) {
                    Some(Decision::Bind(binding)) => {
                        let number: usize = binding.queued.info.name().parse().expect("a number");
                        let (_, milli_cpu, port) = pods[number].clone().expect("only pods that exist are placed");
                        let on = binding.node.to_string();
                        let (_, capacity, cordoned) = nodes.get(&on).expect("only on nodes that exist");
                        prop_assert!(!cordoned);
                        let others: Vec<_> = places
                            .iter()
                            .filter(|(_, at)| **at == on)
                            .filter_map(|(number, _)| pods[*number].as_ref())
                            .collect();
                        let used: i64 = others.iter().map(|(_, milli_cpu, _)| milli_cpu).sum();
                        prop_assert!(milli_cpu == 0 || used + milli_cpu <= *capacity, "{used} + {milli_cpu} > {capacity}");
                        if port.is_some() {
                            prop_assert!(others.iter().all(|(_, _, other)| *other != port), "port {port:?} twice");
                        }
                        prop_assert_eq!(places.insert(number, on), None, "placed twice");
                        under_way.push_back(binding);
                    }
                    Some(Decision::Reject(_) | Decision::Skip(_)) | None => {}
                },
                Step::Settle { well } => {
                    let Some(binding) = under_way.pop_front() else { continue };
                    let number: usize = binding.queued.info.name().parse().expect("a number");
                    let exists = pods[number].is_some();
                    if well && exists {
                        let (before, milli_cpu, port) = pods[number].take().expect("it exists");
                        let after = assigned(&before, &binding.node);
                        scheduler.on_pod(Some(&before), Some(&after), now);
                        pods[number] = Some((after, milli_cpu, port));
                    } else {
                        let report = scheduler.binding_failed(*binding, Status::error("no"), now);
                        prop_assert_eq!(report.is_some(), exists);
                        places.remove(&number);
                    }
                }
            }
        }
        // what the scheduler believes is what is
        let believed: HashSet<(String, String)> = scheduler
            .cache()
            .snapshot()
            .nodes()
            .flat_map(|(_, node)| node.pods.iter().map(|pod| (pod.name().to_owned(), node.name.to_string())))
            .collect();
        let is: HashSet<(String, String)> = places
            .into_iter()
            .filter(|(_, on)| nodes.contains_key(on))
            .map(|(number, on)| (number.to_string(), on))
            .collect();
        prop_assert_eq!(believed, is);
    }
}

struct World {
    port: Arc<MemoryPort>,
    inbox: Arc<Inbox>,
    cancel: CancellationToken,
    driver: tokio::task::JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let (port, inbox, cancel) = (MemoryPort::new(), Arc::new(Inbox::default()), CancellationToken::new());
        let scheduler = scheduler(port.clone(), Instant::now());
        let driver = tokio::spawn(driver::run(scheduler, inbox.clone(), port.clone(), cancel.clone()));
        Self { port, inbox, cancel, driver }
    }

    fn add_node(&self, name: &str, over: Value) {
        self.inbox.node(&Change::Added(node(name, over)));
    }

    fn add_pod(&self, name: &str, over: Value) {
        self.inbox.pod(&Change::Added(raw_pod(name, over)));
    }

    async fn bound(&self, count: usize) -> Vec<(String, String)> {
        self.port.wait_for(|port| Some(port.bound.lock().clone()).filter(|bound| bound.len() >= count)).await
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.driver.await.expect("the driver ends");
    }
}

#[tokio::test]
async fn a_pod_is_bound_at_once_and_users_are_told() {
    let world = World::start();
    world.add_node("n", json!({}));
    world.add_pod("other", json!({"spec": {"schedulerName": "mine"}}));
    world.add_pod("p", json!({}));
    let began = Instant::now();
    assert_eq!(world.bound(1).await, [("p".to_owned(), "n".to_owned())]);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    let events = world.port.wait_for(|port| Some(port.events.lock().clone()).filter(|e| !e.is_empty())).await;
    assert_eq!(events, [("Scheduled".to_owned(), "Successfully assigned ns/p to n".to_owned())]);
    world.stop().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_goes_as_soon_as_it_fits() {
    let world = World::start();
    world.add_pod("p", requests(json!({"cpu": "6"})));
    let said = |count: usize| {
        let port = world.port.clone();
        async move { port.wait_for(|port| port.changes.lock().get(count - 1).cloned()).await.condition }
    };
    assert_eq!(said(1).await.message.as_deref(), Some("no nodes available to schedule pods"));
    world.add_node("n", json!({}));
    let condition = said(2).await;
    let message = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate";
    assert_eq!(
        (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_deref()),
        ("PodScheduled", "False", Some("Unschedulable"))
    );
    assert_eq!((condition.message.as_deref(), condition.observed_generation), (Some(message), Some(1)));
    let events = world.port.events.lock().clone();
    assert_eq!(events.last(), Some(&("FailedScheduling".to_owned(), message.to_owned())));

    let began = Instant::now();
    world.add_node("large", json!({"status": {"allocatable": {"cpu": "8"}}}));
    assert_eq!(world.bound(1).await, [("p".to_owned(), "large".to_owned())]);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again_after_its_back_off() {
    let world = World::start();
    world.port.failures.store(1, std::sync::atomic::Ordering::SeqCst);
    world.add_node("n", json!({}));
    let began = Instant::now();
    world.add_pod("p", json!({}));
    assert_eq!(world.bound(1).await.len(), 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let events = world.port.events.lock().clone();
    let why = r#"running Bind plugin "DefaultBinder": the API is away"#;
    assert_eq!(events[0], ("FailedScheduling".to_owned(), why.to_owned()));
    let condition = world.port.changes.lock()[0].condition.clone();
    assert_eq!(condition.reason.as_deref(), Some("SchedulerError"));
    world.stop().await;
}

#[test]
fn a_pod_deleted_while_it_is_bound_gives_its_room_back_at_once() {
    let now = Instant::now();
    let mut scheduler = scheduler(MemoryPort::new(), now);
    let on = node("n", json!({}));
    scheduler.on_node(None, Some(&on), now);
    let first = raw_pod("first", requests(json!({"cpu": "3"})));
    let second = raw_pod("second", requests(json!({"cpu": "3"})));
    scheduler.on_pod(None, Some(&first), now);
    let Some(Decision::Bind(binding)) = scheduler.schedule_one(now) else { panic!("it fits") };
    scheduler.on_pod(None, Some(&second), now);
    assert!(matches!(scheduler.schedule_one(now), Some(Decision::Reject(_))));
    assert!(scheduler.schedule_one(now).is_none());
    scheduler.on_pod(Some(&first), None, now);
    assert!(matches!(scheduler.schedule_one(now), Some(Decision::Bind(_))));
    assert!(scheduler.binding_failed(*binding, Status::error("not found"), now).is_none());
}
