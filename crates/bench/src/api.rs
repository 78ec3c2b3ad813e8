//! The API's verbs, closed loop: each worker sends its next request when it has the last answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::percentiles;

const NAMESPACE: &str = "xebec-bench";
/// As many objects a list shows.
const LISTED: u32 = 500;

pub async fn run(kubeconfig: &Path, concurrency: usize, time: Duration) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..concurrency {
        clients.push(client::kubeconfig::client(kubeconfig).await?);
    }
    let first = clients.first().context("at least one worker is needed")?.clone();
    let namespaces: Api<Namespace> = Api::all(first.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.into());
    namespaces.create(&PostParams::default(), &namespace).await.context("making a namespace to work in")?;
    let outcome = measure(clients, time).await;
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.context("cleaning up")?;
    outcome
}

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some([("key".to_owned(), "x".repeat(256))].into());
    map
}

async fn measure(clients: Vec<Client>, time: Duration) -> anyhow::Result<()> {
    let made = Arc::new(AtomicUsize::new(0));
    let api = |client: &Client| Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let counter = made.clone();
    report("create", clients.len(), time, &clients, move |client| {
        let (api, number) = (api(&client), counter.fetch_add(1, Ordering::Relaxed));
        async move { api.create(&PostParams::default(), &map(&format!("map-{number}"))).await.map(drop) }
    })
    .await?;
    let count = made.load(Ordering::Relaxed).max(1);
    let next = Arc::new(AtomicUsize::new(0));
    report("get", clients.len(), time, &clients, move |client| {
        let (api, number) = (api(&client), next.fetch_add(1, Ordering::Relaxed) % count);
        async move { api.get_opt(&format!("map-{number}")).await.map(drop) }
    })
    .await?;
    report("list-500", clients.len(), time, &clients, move |client| {
        let api = api(&client);
        async move { api.list(&ListParams::default().limit(LISTED)).await.map(drop) }
    })
    .await
}

async fn report<F, R>(
    verb: &str,
    concurrency: usize,
    time: Duration,
    clients: &[Client],
    request: F,
) -> anyhow::Result<()>
where
    F: Fn(Client) -> R,
    R: Future<Output = Result<(), kube::Error>>,
{
    let start = Instant::now();
    let workers = clients.iter().map(|client| async {
        let mut latencies = Vec::new();
        while start.elapsed() < time {
            let sent = Instant::now();
            request(client.clone()).await.with_context(|| format!("{verb} failed"))?;
            latencies.push(sent.elapsed());
        }
        anyhow::Ok(latencies)
    });
    let latencies: Vec<Duration> = try_join_all(workers).await?.concat();
    let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
    let mut line: Value = percentiles(latencies);
    line["workload"] = json!("api");
    line["verb"] = json!(verb);
    line["concurrency"] = json!(concurrency);
    line["per_second"] = json!(per_second.round());
    println!("{line}");
    Ok(())
}
