//! Pods on a real node: containerd, runc, CNI and the API server, in a network namespace of the test.

mod common;

use std::time::{Duration, Instant};

use common::cluster::{Cluster, condition, container};
use serde_json::json;

/// Long-running, and quick to end.
const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_goes() {
    if !common::isolated("a_pod_runs_and_goes", "10.99.2.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 2, 1]).await;
    let started = Instant::now();
    cluster.create("p", json!({"containers": [container("c", SLEEP)]})).await;
    let pod = cluster.wait_until_ready("p").await;
    eprintln!("the pod is ready after {:?}", started.elapsed());
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Initialized"), "True");
    tokio::time::sleep(Duration::from_millis(300)).await;
    eprintln!("{:#}", pod["status"]);
    eprintln!("{}", cluster.events("p").await.join("\n"));
    let started = Instant::now();
    cluster.delete("p", None).await;
    cluster.wait_until_gone("p", 20).await;
    eprintln!("the pod is gone after {:?}", started.elapsed());
}
