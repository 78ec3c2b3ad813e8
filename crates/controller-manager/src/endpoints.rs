//! Endpoints and EndpointSlices: which pods stand behind a Service, in both forms.

mod order;
mod plan;
mod subsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Change, Informer, ObjectKey, Queue};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::Shared;

const WORKERS: usize = 5;

/// Which services a pod's change may matter to: those that select its labels, as they are and as they were.
fn wake_services(change: &Change<Pod>, services: &Informer<Service>, queue: &Queue<ObjectKey>) {
    let wake = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for service in services.store().list_namespace(namespace) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if selector.is_some_and(|selector| plan::selects(selector, pod)) {
                queue.add(ObjectKey::of(service.as_ref()));
            }
        }
    };
    if let Change::Updated { old, new } = change {
        if !plan::matters(old, new) {
            return;
        }
        if old.metadata.labels != new.metadata.labels {
            wake(old);
        }
    }
    wake(change.object());
}

struct World {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<Queue<ObjectKey>>,
}

async fn world(shared: &Shared) -> World {
    let services = shared.informers.all::<Service>();
    let pods = shared.informers.all::<Pod>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    services.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    services.wait_for_sync().await;
    pods.on_change({
        let (queue, services) = (queue.clone(), services.clone());
        move |change| wake_services(change, &services, &queue)
    });
    pods.wait_for_sync().await;
    World { services, pods, queue }
}

/// The pods that a Service selects; `None` for a Service without a selector, whose endpoints are others' work.
fn selected(world: &World, service: &Service) -> Option<Vec<Arc<Pod>>> {
    let selector = service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let all = world.pods.store().list_namespace(namespace);
    Some(all.into_iter().filter(|pod| plan::selects(selector, pod)).collect())
}

/// Keeps `Endpoints`.
pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let world = Arc::new(world(&shared).await);
    let endpoints = shared.informers.all::<Endpoints>();
    endpoints.wait_for_sync().await;
    runner::run("endpoint", world.queue.clone(), WORKERS, cancel, |key| {
        let (world, endpoints, client) = (world.clone(), endpoints.clone(), client.clone());
        async move { reconcile_endpoints(&world, &endpoints, client, key).await }
    })
    .await;
}

async fn reconcile_endpoints(
    world: &World,
    informer: &Informer<Endpoints>,
    client: Client,
    key: ObjectKey,
) -> anyhow::Result<Again> {
    let api: Api<Endpoints> = Api::namespaced(client, &key.namespace);
    let current = informer.store().get_key(&key);
    let Some(service) = world.services.store().get_key(&key) else {
        if current.is_some() {
            return gone(api.delete(&key.name, &DeleteParams::default()).await.map(drop));
        }
        return Ok(Again::OnChange);
    };
    let Some(pods) = selected(world, &service) else { return Ok(Again::OnChange) };
    let wanted = plan::endpoints(&service, &pods);
    match current {
        None => {
            let created = api.create(&PostParams::default(), &wanted).await;
            match created {
                Ok(_) => Ok(Again::OnChange),
                Err(error) if client::is_namespace_terminating(&error) => Ok(Again::OnChange),
                // made a moment ago, and not seen here yet
                Err(error) if client::is_already_exists(&error) => Ok(Again::RateLimited),
                Err(error) => Err(error).context("creating endpoints"),
            }
        }
        Some(current) => {
            let same_labels = current.metadata.labels == wanted.metadata.labels;
            if same_labels && current.subsets == wanted.subsets {
                return Ok(Again::OnChange);
            }
            let mut new = current.as_ref().clone();
            new.subsets = wanted.subsets;
            new.metadata.labels = wanted.metadata.labels;
            gone(api.replace(&key.name, &PostParams::default(), &new).await.map(drop))
        }
    }
}

/// What is gone needs no more work.
fn gone(outcome: Result<(), kube::Error>) -> anyhow::Result<Again> {
    match outcome {
        Ok(()) => Ok(Again::OnChange),
        Err(error) if client::is_not_found(&error) => Ok(Again::OnChange),
        Err(error) => Err(error.into()),
    }
}

/// Keeps `EndpointSlices`.
pub async fn run_slices(shared: Shared, client: Client, cancel: CancellationToken) {
    let world = Arc::new(world(&shared).await);
    let slices = shared.informers.all::<EndpointSlice>();
    let nodes = shared.informers.all::<Node>();
    slices.on_change({
        let queue = world.queue.clone();
        move |change| {
            // others' writes are put right; ours come back as events too, and change nothing
            let slice = change.object();
            let labels = slice.metadata.labels.as_ref();
            let managed = labels.and_then(|labels| labels.get(plan::MANAGED_BY));
            let service = labels.and_then(|labels| labels.get(plan::SERVICE_NAME));
            if managed.map(String::as_str) == Some(plan::MANAGER)
                && let Some(service) = service
            {
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                queue.add(ObjectKey::new(namespace, service));
            }
        }
    });
    slices.wait_for_sync().await;
    nodes.wait_for_sync().await;
    runner::run("endpointslice", world.queue.clone(), WORKERS, cancel, |key| {
        let (world, slices, nodes, client) = (world.clone(), slices.clone(), nodes.clone(), client.clone());
        async move { reconcile_slices(&world, &slices, &nodes, client, key).await }
    })
    .await;
}

async fn reconcile_slices(
    world: &World,
    informer: &Informer<EndpointSlice>,
    nodes: &Informer<Node>,
    client: Client,
    key: ObjectKey,
) -> anyhow::Result<Again> {
    let api: Api<EndpointSlice> = Api::namespaced(client, &key.namespace);
    let current: Vec<Arc<EndpointSlice>> = informer
        .store()
        .list_namespace(&key.namespace)
        .into_iter()
        .filter(|slice| plan::is_ours(slice, &key.name) && slice.metadata.deletion_timestamp.is_none())
        .collect();
    let Some(service) = world.services.store().get_key(&key) else {
        for slice in current {
            let name = slice.metadata.name.clone().unwrap_or_default();
            gone(api.delete(&name, &DeleteParams::default()).await.map(drop))?;
        }
        return Ok(Again::OnChange);
    };
    let Some(pods) = selected(world, &service) else { return Ok(Again::OnChange) };
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return Ok(Again::OnChange);
    }
    let zones: BTreeMap<String, String> = nodes
        .store()
        .list()
        .iter()
        .filter_map(|node| {
            let zone = node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone")?;
            Some((node.metadata.name.clone()?, zone.clone()))
        })
        .collect();
    let changes = plan::slices(&service, &pods, &zones, &current);
    for slice in changes.create {
        match api.create(&PostParams::default(), &slice).await {
            Ok(_) => {}
            Err(error) if client::is_namespace_terminating(&error) => {}
            Err(error) => return Err(error).context("creating an endpoint slice"),
        }
    }
    for slice in changes.update {
        let name = slice.metadata.name.clone().unwrap_or_default();
        gone(api.replace(&name, &PostParams::default(), &slice).await.map(drop))?;
    }
    for name in changes.delete {
        gone(api.delete(&name, &DeleteParams::default()).await.map(drop))?;
    }
    Ok(Again::OnChange)
}
