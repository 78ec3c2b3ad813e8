//! Pods, from their create until a watch shows them Running.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use client::{Informers, Selector};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::percentiles;

const LABEL: &str = "xebec-bench=pods";
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn run(kubeconfig: &Path, at_once: usize, rounds: usize, image: &str) -> anyhow::Result<()> {
    let client = client::kubeconfig::client(kubeconfig).await?;
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let informers = Informers::new(client.clone(), cancel);
    let pods = informers.select::<Pod>(Selector { labels: LABEL.into(), ..Selector::default() });
    let (sender, mut running) = mpsc::unbounded_channel();
    pods.on_change(move |change| {
        let pod = change.object();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Running") {
            let _ = sender.send((pod.metadata.name.clone().unwrap_or_default(), Instant::now()));
        }
    });
    pods.wait_for_sync().await;
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let mut latencies = Vec::new();
    for round in 0..rounds {
        let mut sent = HashMap::new();
        let named: Vec<Pod> = (0..at_once).map(|i| pod(&format!("bench-{round}-{i}"), image)).collect();
        for pod in &named {
            sent.insert(pod.metadata.name.clone().unwrap_or_default(), Instant::now());
            api.create(&PostParams::default(), pod).await.context("making a pod")?;
        }
        let wait = async {
            while !sent.is_empty() {
                let Some((name, at)) = running.recv().await else { break };
                if let Some(start) = sent.remove(&name) {
                    latencies.push(at.duration_since(start));
                }
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        clean(&client, &named).await?;
        done.context("pods did not get Running in time")?;
    }
    let mut line = percentiles(latencies);
    line["workload"] = json!("pods");
    line["at_once"] = json!(at_once);
    line["rounds"] = json!(rounds);
    println!("{line}");
    Ok(())
}

fn pod(name: &str, image: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.labels = Some([("xebec-bench".to_owned(), "pods".to_owned())].into());
    pod.spec = Some(PodSpec {
        termination_grace_period_seconds: Some(0),
        containers: vec![Container {
            name: "c".into(),
            image: Some(image.to_owned()),
            command: Some(["sleep", "100000"].map(str::to_owned).into()),
            ..Container::default()
        }],
        ..PodSpec::default()
    });
    pod
}

async fn clean(client: &Client, pods: &[Pod]) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match api.delete(name, &DeleteParams::default().grace_period(0)).await {
            Err(error) if !client::is_not_found(&error) => return Err(error).context("cleaning up"),
            _ => {}
        }
    }
    Ok(())
}
