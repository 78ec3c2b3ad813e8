//! Clients that hang up in the middle of a write: it happens wholly or not at all.

mod common;

use std::time::{Duration, Instant};

use apiserver::RequestOptions;
use common::Cluster;
use futures::FutureExt;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// Services, their addresses, and how many of them the quota was charged.
async fn counted(cluster: &Cluster) -> [u64; 3] {
    let count = async |uri: &str| {
        let list = cluster.admin("GET", uri, Value::Null).await;
        list.body["items"].as_array().unwrap_or_else(|| panic!("{list:?}")).len() as u64
    };
    let quota = cluster.admin("GET", &format!("{QUOTAS}/q"), Value::Null).await;
    let charged = quota.body["status"]["used"]["services"].as_str().unwrap().parse().unwrap();
    // one Service, and its address, was there before the quota
    [count(SERVICES).await - 1, count(ADDRESSES).await - 1, charged]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_leaves_no_half_of_a_write() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"services": "1k"}}});
    assert_eq!(cluster.admin("POST", QUOTAS, quota).await.code, 201);
    let counted_so_far = json!({"status": {"hard": {"services": "1k"}, "used": {"services": "0"}}});
    assert_eq!(cluster.admin("PATCH", &format!("{QUOTAS}/q/status"), counted_so_far).await.code, 200);

    let (mut answered, mut left) = (0, 0);
    for polls in 0..120 {
        let service = json!({"metadata": {"generateName": "s-"}, "spec": {"ports": [{"port": 80}]}});
        let mut request = Box::pin(cluster.admin("POST", SERVICES, service));
        let mut done = false;
        for _ in 0..polls {
            done = done || (&mut request).now_or_never().is_some();
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        if done { answered += 1 } else { left += 1 }
    }
    assert!(left > 3, "{answered} were answered and {left} hung up");

    let begun = Instant::now();
    loop {
        let [services, addresses, charged] = counted(&cluster).await;
        if services == addresses && services == charged {
            assert!(services >= answered, "{services} of {answered}");
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{services} Services, {addresses} addresses, {charged} charged"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
