//! `xebec hello`: what `make up` shows, without a kubectl: applies a manifest with a Deployment and a Service of the
//! same name, waits, and asks the Service.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Informers, Selector};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::HelloArgs;

const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "default";
const REQUESTS: usize = 30;

pub async fn run(args: HelloArgs) -> anyhow::Result<()> {
    let client = client::kubeconfig::client(&args.kubeconfig).await?;
    let shown = args.manifest.display();
    let text = std::fs::read_to_string(&args.manifest).with_context(|| format!("{shown} cannot be read"))?;
    let (mut deployment, mut service) = (None, None);
    for document in text.split("\n---\n") {
        let value =
            apimachinery::codec::parse_yaml(document.as_bytes()).with_context(|| shown.to_string())?;
        match value["kind"].as_str() {
            Some("Deployment") => deployment = Some(apply::<Deployment>(&client, &value).await?),
            Some("Service") => service = Some(apply::<Service>(&client, &value).await?),
            other => {
                bail!("{shown} holds a {}, which is not shown here", other.unwrap_or("thing without a kind"))
            }
        }
    }
    let deployment = deployment.with_context(|| format!("{shown} holds no Deployment"))?;
    let service = service.with_context(|| format!("{shown} holds no Service"))?;
    tokio::time::timeout(PATIENCE, available(&client, &deployment)).await.with_context(|| {
        format!("the Deployment {deployment} is not available after {PATIENCE:?}; see kubectl describe pods")
    })??;
    ask(&client, &service).await
}

/// Applies an object and gives back its name.
async fn apply<K>(client: &Client, object: &serde_json::Value) -> anyhow::Result<String>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().context("an object without a name")?.to_owned();
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.patch(&name, &PatchParams::apply("xebec-hello").force(), &Patch::Apply(object)).await?;
    Ok(name)
}

/// Waits until all replicas of a Deployment are available.
async fn available(client: &Client, name: &str) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let informers = Informers::new(client.clone(), cancel);
    let deployments = informers.select::<Deployment>(Selector::fields(format!("metadata.name={name}")));
    let (sender, mut receiver) = watch::channel(None);
    let namespace = Some(NAMESPACE.to_owned());
    deployments.on_change(move |change| {
        let deployment = change.object();
        if deployment.metadata.namespace != namespace {
            return;
        }
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let current = status.observed_generation >= deployment.metadata.generation;
        let available = if current { status.available_replicas.unwrap_or_default() } else { 0 };
        sender.send_replace(Some((available, wanted)));
    });
    let mut shown = None;
    loop {
        let now = *receiver.borrow_and_update();
        if let Some((available, wanted)) = now.filter(|_| now != shown) {
            println!("{name:<12} {available} of {wanted} replicas available");
            shown = now;
            if available >= wanted {
                return Ok(());
            }
        }
        receiver.changed().await.context("the watch ended")?;
    }
}

/// Asks a Service by its cluster address and shows what its pods say.
async fn ask(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = api.get(name).await?.spec.unwrap_or_default();
    let ip = spec.cluster_ip.context("the Service has no address")?;
    let port = spec
        .ports
        .and_then(|ports| ports.first().map(|port| port.port))
        .context("the Service has no port")?;
    let mut answers = BTreeSet::new();
    let mut last = None;
    for _ in 0..REQUESTS {
        match tokio::time::timeout(Duration::from_secs(2), get(&ip, port)).await {
            Ok(Ok(answer)) => {
                answers.insert(answer);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(anyhow::anyhow!("no answer within two seconds")),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{name:<12} http://{ip}:{port} answers:");
    for answer in &answers {
        println!("             {answer}");
    }
    match last {
        Some(error) if answers.is_empty() => Err(error).context("the Service does not answer"),
        _ => Ok(()),
    }
}

async fn get(ip: &str, port: i32) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(format!("{ip}:{port}")).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {ip}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    body.filter(|body| !body.is_empty()).context("an empty answer")
}
