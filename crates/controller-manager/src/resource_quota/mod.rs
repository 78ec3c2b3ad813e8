//! ResourceQuotas: the limits in force and what is used of them. Admission charges what is made; here it is counted
//! again when things change or go, and now and then in any case.

mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Bare, Change, Informer, ObjectKey, Queue};
use component_helpers::quota;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Shared, garbage_collector};
use plan::{Countable, Held};

const WORKERS: usize = 5;
/// Upstream's `--resource-quota-sync-period`.
const PERIOD: Duration = Duration::from_secs(300);
/// How long a quota has to be at rest before it is counted: a charge comes before the write that it is for, and
/// counting in between would give the room away twice.
const AT_REST: Duration = Duration::from_millis(100);
/// How often a quota is waited for that is never at rest.
const WAITS: usize = 20;
/// How often discovery is asked for resources that are not served (yet).
const LOOK_AGAIN: Duration = Duration::from_secs(30);

struct Controller {
    client: Client,
    quotas: Arc<Informer<ResourceQuota>>,
    pods: Arc<Informer<Pod>>,
    services: Arc<Informer<Service>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    resource_claims: Arc<Informer<ResourceClaim>>,
    queue: Arc<Queue<ObjectKey>>,
    served: Mutex<Served>,
    cancel: CancellationToken,
}

/// What the API serves, as of when it was asked last, and what of it is watched.
#[derive(Default)]
struct Served {
    resources: BTreeMap<Countable, ApiResource>,
    asked: Option<Instant>,
    watched: HashSet<Countable>,
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let informers = &shared.informers;
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    let controller = Arc::new(Controller {
        client,
        quotas: informers.all(),
        pods: informers.all(),
        services: informers.all(),
        claims: informers.all(),
        resource_claims: informers.all(),
        queue: queue.clone(),
        served: Mutex::default(),
        cancel: cancel.clone(),
    });
    controller.quotas.wait_for_sync().await;
    controller.pods.wait_for_sync().await;
    controller.services.wait_for_sync().await;
    controller.claims.wait_for_sync().await;
    controller.resource_claims.wait_for_sync().await;
    controller.quotas.on_change({
        let queue = queue.clone();
        move |change| {
            // a charge is what admission has counted itself
            let charged = matches!(change, Change::Updated { old, new } if old.spec == new.spec
                && quota::status_hard(old) == quota::status_hard(new));
            if !charged {
                queue.add(ObjectKey::of(change.object().as_ref()));
            }
        }
    });
    controller.wake_on(&controller.pods, |old, new| {
        let now = Timestamp::now();
        quota::pod_usage(old, now) != quota::pod_usage(new, now)
    });
    controller
        .wake_on(&controller.services, |old, new| quota::service_usage(old) != quota::service_usage(new));
    controller.wake_on(&controller.claims, |old, new| {
        quota::claim_usage(old) != quota::claim_usage(new) || old.spec != new.spec || old.status != new.status
    });
    controller.wake_on(&controller.resource_claims, |old, new| {
        quota::resource_claim_usage(old) != quota::resource_claim_usage(new)
    });
    runner::run("resourcequota", queue, WORKERS, cancel, |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
    .await;
}

impl Controller {
    /// Counts again when objects come, go, or change what they use.
    fn wake_on<K>(self: &Arc<Self>, informer: &Informer<K>, differs: fn(&K, &K) -> bool)
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
        informer.on_change(move |change| {
            if let Change::Updated { old, new } = change
                && !differs(old, new)
            {
                return;
            }
            let namespace = change.object().meta().namespace.clone().unwrap_or_default();
            for quota in quotas.store().list_namespace(&namespace) {
                queue.add(ObjectKey::of(quota.as_ref()));
            }
        });
    }

    async fn sync(self: &Arc<Self>, key: &ObjectKey) -> anyhow::Result<Again> {
        let Some(quota) = self.at_rest(key).await else { return Ok(Again::OnChange) };
        let mut held = Held {
            pods: self.pods.store().list_namespace(&key.namespace),
            services: self.services.store().list_namespace(&key.namespace),
            claims: self.claims.store().list_namespace(&key.namespace),
            resource_claims: self.resource_claims.store().list_namespace(&key.namespace),
            counts: BTreeMap::new(),
        };
        for countable in plan::countables(&quota) {
            if let Some(count) = self.count(&countable, &key.namespace).await? {
                held.counts.insert(countable, count);
            }
        }
        if let Some(status) = plan::plan(&quota, &held, Timestamp::now()) {
            let mut quota = quota.as_ref().clone();
            quota.status = Some(status);
            let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &quota).await {
                Ok(_) => {}
                Err(error) if client::is_not_found(&error) => return Ok(Again::OnChange),
                // somebody was charged meanwhile
                Err(error) if client::is_conflict(&error) => return Ok(Again::After(AT_REST)),
                Err(error) => return Err(error).context("writing the quota's status"),
            }
        }
        Ok(Again::After(PERIOD))
    }

    /// The quota, once it has not been charged for a moment.
    async fn at_rest(&self, key: &ObjectKey) -> Option<Arc<ResourceQuota>> {
        let mut quota = self.quotas.store().get_key(key)?;
        for _ in 0..WAITS {
            tokio::time::sleep(AT_REST).await;
            let newer = self.quotas.store().get_key(key)?;
            if newer.metadata.resource_version == quota.metadata.resource_version {
                break;
            }
            quota = newer;
        }
        Some(quota)
    }

    /// How many objects a namespace has of a resource; `None` when nobody serves it there.
    async fn count(self: &Arc<Self>, countable: &Countable, namespace: &str) -> anyhow::Result<Option<i64>> {
        let Some(resource) = self.served(countable).await? else { return Ok(None) };
        self.watch(countable, &resource);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => {
                let listed = i64::try_from(list.items.len()).unwrap_or(i64::MAX);
                Ok(Some(listed.saturating_add(list.metadata.remaining_item_count.unwrap_or_default())))
            }
            Err(error) if client::is_not_found(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("counting {}", resource.plural)),
        }
    }

    async fn served(&self, countable: &Countable) -> anyhow::Result<Option<ApiResource>> {
        {
            let served = self.served.lock();
            let known = served.resources.get(countable).cloned();
            if known.is_some() || served.asked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                return Ok(known);
            }
        }
        let found = garbage_collector::discover(&self.client).await.context("asking what is served")?;
        let mut served = self.served.lock();
        served.asked = Some(Instant::now());
        served.resources =
            found.into_iter().map(|one| ((one.group.clone(), one.plural.clone()), one)).collect();
        Ok(served.resources.get(countable).cloned())
    }

    /// Watches a resource from the first time that a quota counts it.
    fn watch(self: &Arc<Self>, countable: &Countable, resource: &ApiResource) {
        if !self.served.lock().watched.insert(countable.clone()) {
            return;
        }
        let (this, countable, resource) = (self.clone(), countable.clone(), resource.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = this.cancel.cancelled() => {}
                () = this.follow(&countable, &resource) => {}
            }
        });
    }

    async fn follow(&self, countable: &Countable, resource: &ApiResource) {
        let stream = watcher::watcher(Bare::all(&self.client, resource), watcher::Config::default());
        let mut stream = std::pin::pin!(stream.backoff(watcher::DefaultBackoff::default()));
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    self.wake(countable, object.metadata.namespace.as_deref().unwrap_or_default());
                }
                // what went while the watch was broken is not told
                Ok(Event::InitDone) => {
                    for quota in self.quotas.store().list() {
                        self.wake(countable, quota.metadata.namespace.as_deref().unwrap_or_default());
                    }
                }
                Ok(Event::Init | Event::InitApply(_)) => {}
                Err(error) => {
                    tracing::debug!(resource = resource.plural, %error, "a watch broke off and is taken up again");
                }
            }
        }
    }

    fn wake(&self, countable: &Countable, namespace: &str) {
        for quota in self.quotas.store().list_namespace(namespace) {
            if plan::countables(&quota).contains(countable) {
                self.queue.add(ObjectKey::of(quota.as_ref()));
            }
        }
    }
}
