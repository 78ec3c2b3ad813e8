//! Measures decisions on an in-memory port: `cargo run --release -p scheduler --example throughput [nodes] [pods]`.
//!
//! The whole scheduler runs, driver and binding cycles included; the port answers at once and shows each pod on its
//! node, as the API would.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::Change;
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::algorithm::Algorithm;
use scheduler::inbox::Inbox;
use scheduler::plugins::default_framework;
use scheduler::port::{EventType, Port, PortError, StatusChange};
use scheduler::scheduler::Scheduler;
use scheduler::{Backoff, DEFAULT_SCHEDULER_NAME, driver};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);

struct Memory {
    inbox: Arc<Inbox>,
    left: AtomicUsize,
    done: Notify,
}

#[async_trait]
impl Port for Memory {
    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), PortError> {
        let mut bound = pod.clone();
        bound.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self.inbox.pod(&Change::Updated { old: Arc::new(pod.clone()), new: Arc::new(bound) });
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.done.notify_one();
        }
        Ok(())
    }

    async fn change_status(&self, _: &Pod, change: &StatusChange) -> Result<(), PortError> {
        Err(PortError::Refused(change.condition.message.clone().unwrap_or_default()))
    }

    fn event(&self, _: &Pod, _: EventType, _: &str, _: String) {}
}

fn node(number: usize) -> anyhow::Result<Arc<Node>> {
    let name = format!("node-{number}");
    Ok(Arc::new(serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 3)}},
        "status": {"allocatable": {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "500Gi", "pods": "110"}},
    }))?))
}

fn pod(number: usize) -> anyhow::Result<Arc<Pod>> {
    let name = format!("pod-{number}");
    Ok(Arc::new(serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {
            "schedulerName": DEFAULT_SCHEDULER_NAME,
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}],
            "containers": [{"name": "app", "image": "registry.example.com/web:1",
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}}]},
    }))?))
}

async fn measure(nodes: usize, pods: usize) -> anyhow::Result<f64> {
    let inbox = Arc::new(Inbox::default());
    let port = Arc::new(Memory { inbox: inbox.clone(), left: AtomicUsize::new(pods), done: Notify::new() });
    for number in 0..nodes {
        inbox.node(&Change::Added(node(number)?));
    }
    let waiting = (0..pods).map(pod).collect::<anyhow::Result<Vec<_>>>()?;
    let cancel = CancellationToken::new();
    let scheduler = Scheduler::new(
        DEFAULT_SCHEDULER_NAME,
        Arc::new(default_framework(port.clone())),
        Algorithm::new(0, 1),
        Backoff::default(),
        Instant::now(),
    );
    let running = tokio::spawn(driver::run(scheduler, inbox.clone(), port.clone(), cancel.clone()));
    let began = Instant::now();
    for pod in waiting {
        inbox.pod(&Change::Added(pod));
    }
    tokio::time::timeout(DEADLINE, port.done.notified()).await?;
    let rate = pods as f64 / began.elapsed().as_secs_f64();
    cancel.cancel();
    running.await?;
    Ok(rate)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let nodes = numbers.next().transpose()?.unwrap_or(5000);
    let pods = numbers.next().transpose()?.unwrap_or(50_000);
    for round in 1..=3 {
        let rate = measure(nodes, pods).await?;
        println!(
            "{}",
            json!({"what": "scheduling", "nodes": nodes, "pods": pods, "round": round, "pods_per_second": rate.round()})
        );
    }
    Ok(())
}
