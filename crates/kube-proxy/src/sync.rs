//! The running proxy: informers say which Services changed, one loop brings the rules after them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::wait_for_all;
use client::{Informers, ObjectKey, Recorder, Selector};
use component_base::{listen, page, serve};
use futures::FutureExt;
use hyper::StatusCode;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::health::{self, Health, ServiceHealth};
use crate::iptables::Iptables;
use crate::metrics::Metrics;
use crate::proxier::{Done, Proxier, World, service_of};
use crate::rules::Settings;
use crate::{Config, sysctl};

/// Services and slices that are another proxy's, or nobody's, are not even watched.
const PROXIED: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// Everything is written anew after this, whatever happened behind the proxy's back.
const WRITE_ANEW: Duration = Duration::from_secs(3600);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Services that changed since the last synchronisation; bounded by how many there are. Informers write it, the
/// loop takes it whole.
#[derive(Default)]
struct Pending {
    services: Mutex<BTreeSet<ObjectKey>>,
    changed: Notify,
}

impl Pending {
    fn add(&self, key: ObjectKey) {
        self.services.lock().insert(key);
        self.changed.notify_one();
    }

    fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut *self.services.lock())
    }

    fn put_back(&self, services: BTreeSet<ObjectKey>) {
        self.services.lock().extend(services);
    }
}

/// Runs the proxy until cancelled. The rules stay when it ends, so that traffic flows while it is away.
pub async fn run(config: Config, client: Client, cancel: CancellationToken) -> anyhow::Result<()> {
    let iptables = Iptables::open().await?;
    let settings = Settings {
        node_ip: config.node_ip,
        cluster_cidr: config.cluster_cidr.map(|range| range.trunc()),
        service_cidr: config.service_cidr.map(|range| range.trunc()),
        masquerade_all: config.masquerade_all,
        masquerade_mark: 1 << (config.masquerade_bit & 31),
        random_fully: iptables.has_random_fully(),
        localhost_node_ports: sysctl::prepare(config.localhost_node_ports).await,
        conntrack_liberal: sysctl::conntrack_liberal(),
    };
    let health = Arc::new(Health::new(config.sync_period));
    let metrics = Arc::new(Metrics::default());
    let of_run = cancel.child_token();
    let _ends_with_run = of_run.clone().drop_guard();
    serve_http(&config, &health, &metrics, &of_run).await?;

    Recorder::new(client.clone(), "kube-proxy", &config.node_name).normal(
        &ObjectReference {
            kind: Some("Node".into()),
            name: Some(config.node_name.clone()),
            uid: Some(config.node_name.clone()),
            ..ObjectReference::default()
        },
        "Starting",
        "",
    );

    let informers = Informers::new(client, of_run.clone());
    let selector = Selector { labels: PROXIED.into(), ..Selector::default() };
    let services = informers.select::<Service>(selector.clone());
    let slices = informers.select::<EndpointSlice>(selector);
    let nodes = informers.select::<Node>(Selector::fields(format!("metadata.name={}", config.node_name)));
    let world = World::new(services.store().clone(), slices.store().clone());
    let pending = Arc::new(Pending::default());
    let (tell, count) = (pending.clone(), metrics.clone());
    services.on_change(move |change| {
        count.service_changes.inc();
        tell.add(ObjectKey::of(change.object().as_ref()));
    });
    let (tell, count) = (pending.clone(), metrics.clone());
    slices.on_change(move |change| {
        count.endpoint_changes.inc();
        if let Some(service) = service_of(change.object()) {
            tell.add(service);
        }
    });
    let node: Arc<Mutex<Option<Arc<Node>>>> = Arc::default();
    let (seen, tell) = (node.clone(), pending.clone());
    nodes.on_change(move |change| {
        *seen.lock() = Some(change.object().clone());
        tell.changed.notify_one();
    });
    let synced = wait_for_all(vec![
        ("services", services.wait_for_sync().boxed()),
        ("endpointslices", slices.wait_for_sync().boxed()),
    ]);
    tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        () = synced => {}
    }
    let proxier = Proxier::new(iptables, settings, &config.node_name, world);
    let mut loop_ =
        Loop { proxier, pending, node, health, metrics, service_health: ServiceHealth::default(), config };
    loop_.run(&cancel).await;
    Ok(())
}

async fn serve_http(
    config: &Config,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = listen(health::COMPONENT, "health checks", config.healthz_address).await?;
    let asked = health.clone();
    tokio::spawn(serve(listener, cancel.clone(), move |path| asked.serve(path)));

    let listener = listen(health::COMPONENT, "metrics", config.metrics_address).await?;
    let (asked, metrics) = (health.clone(), metrics.clone());
    tokio::spawn(serve(listener, cancel.clone(), move |path| match path {
        "/metrics" => metrics.page(),
        "/proxyMode" => page(StatusCode::OK, "text/plain; charset=utf-8", "iptables".into()),
        path => asked.serve(path),
    }));
    Ok(())
}

struct Loop {
    proxier: Proxier,
    pending: Arc<Pending>,
    /// The node as it was last seen.
    node: Arc<Mutex<Option<Arc<Node>>>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    service_health: ServiceHealth,
    config: Config,
}

impl Loop {
    async fn run(&mut self, cancel: &CancellationToken) {
        let mut retry = FIRST_RETRY;
        let mut anew_at = Instant::now() + WRITE_ANEW;
        let mut look = tokio::time::interval(self.config.sync_period);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        look.tick().await;
        // the first round writes everything
        self.pending.changed.notify_one();
        loop {
            let looked = tokio::select! {
                () = cancel.cancelled() => return,
                () = self.pending.changed.notified() => false,
                _ = look.tick() => true,
            };
            if looked && self.proxier.was_flushed().await {
                tracing::info!("somebody flushed the packet rules; they are written anew");
                self.proxier.distrust();
            }
            if Instant::now() >= anew_at {
                anew_at = Instant::now() + WRITE_ANEW;
                self.proxier.distrust();
            }
            self.health.queued();
            self.metrics.queued();
            tokio::time::sleep(self.config.min_sync_period).await;
            let mut changed = self.pending.take();
            if self.look_at_node() {
                changed.extend(self.proxier.services());
            }
            let started = Instant::now();
            match self.proxier.sync(&changed).await {
                Ok(done) => {
                    retry = FIRST_RETRY;
                    self.health.updated();
                    self.metrics.synced(started.elapsed(), done == Done::Everything);
                    tracing::debug!(?done, services = changed.len(), took = ?started.elapsed(), "synchronised");
                    self.service_health.sync(self.proxier.health_checks(), &self.health).await;
                }
                Err(error) => {
                    self.metrics.failed();
                    tracing::warn!(%error, "packet rules could not be written, trying again in {retry:?}");
                    self.pending.put_back(changed);
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(retry) => {}
                    }
                    retry = (retry * 2).min(self.config.sync_period);
                    self.pending.changed.notify_one();
                }
            }
        }
    }

    /// True when what chooses among endpoints is not as before.
    fn look_at_node(&mut self) -> bool {
        let Some(node) = self.node.lock().clone() else { return false };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let leaving = node.metadata.deletion_timestamp.is_some()
            || taints.into_iter().flatten().any(|taint| taint.key == AUTOSCALER_TAINT);
        self.health.set_node_eligible(!leaving);
        self.proxier.set_labels(node.metadata.labels.clone().unwrap_or_default())
    }
}
