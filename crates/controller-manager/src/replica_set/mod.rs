//! ReplicaSets keep a number of pods alive.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Change, Informer, ObjectKey, Queue, Recorder, events};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::{Shared, owners, pods};
use plan::Action;

const WORKERS: usize = 5;
const BY_OWNER: &str = "controller-uid";

/// Pods by the uid of the owner that manages them; those without by the empty one.
pub fn index_by_controller(pod: &Pod) -> Vec<String> {
    vec![owners::controller_of(pod).map(|owner| owner.uid.clone()).unwrap_or_default()]
}

struct Controller {
    client: Client,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<Queue<ObjectKey>>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let sets = shared.informers.all::<ReplicaSet>();
    let pods = shared.informers.all::<Pod>();
    pods.store().add_index(BY_OWNER, index_by_controller);
    let queue = Arc::new(Queue::default());
    let expectations = Arc::new(Expectations::default());
    sets.on_change({
        let (queue, expectations) = (queue.clone(), expectations.clone());
        move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            if matches!(change, Change::Deleted(_)) {
                expectations.forget(&key);
            }
            queue.add(key);
        }
    });
    pods.on_change({
        let (queue, expectations, sets) = (queue.clone(), expectations.clone(), sets.clone());
        move |change| on_pod(change, &queue, &expectations, &sets)
    });
    sets.wait_for_sync().await;
    pods.wait_for_sync().await;
    let recorder = Recorder::new(client.clone(), "replicaset-controller", "");
    let controller =
        Arc::new(Controller { client, sets, pods, queue: queue.clone(), expectations, recorder });
    runner::run("replicaset", queue, WORKERS, cancel, |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    })
    .await;
}

/// Wakes the sets that a pod's change may matter to.
fn on_pod(
    change: &Change<Pod>,
    queue: &Queue<ObjectKey>,
    expectations: &Expectations,
    sets: &Informer<ReplicaSet>,
) {
    let pod = change.object();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let owner_key = |pod: &Pod| {
        let owner = owners::controller_of(pod).filter(|owner| owner.kind == "ReplicaSet")?;
        Some(ObjectKey::new(&namespace, &owner.name))
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match change {
        Change::Added(pod) => {
            if let Some(key) = owner_key(pod) {
                match pod.metadata.deletion_timestamp {
                    Some(_) => expectations.deletion_observed(&key, uid),
                    None => expectations.creation_observed(&key),
                }
            }
        }
        Change::Updated { old, new } => {
            if let Some(key) = owner_key(new)
                && new.metadata.deletion_timestamp.is_some()
            {
                expectations.deletion_observed(&key, uid);
            }
            if let Some(key) = owner_key(old) {
                queue.add(key);
            }
        }
        Change::Deleted(pod) => {
            if let Some(key) = owner_key(pod) {
                expectations.deletion_observed(&key, uid);
            }
        }
    }
    match owner_key(pod) {
        Some(key) => queue.add(key),
        // an orphan: whoever matches may adopt it
        None if owners::controller_of(pod.as_ref()).is_none() => {
            for set in sets.store().list_namespace(&namespace) {
                let selects = set
                    .spec
                    .as_ref()
                    .is_some_and(|spec| owners::matches(&owners::selector(&spec.selector), pod.as_ref()));
                if selects {
                    queue.add(ObjectKey::of(set.as_ref()));
                }
            }
        }
        None => {}
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Again> {
        let Some(set) = self.sets.store().get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Again::OnChange);
        };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let selector = owners::selector(&set.spec.clone().unwrap_or_default().selector);
        let settled = self.expectations.satisfied(&key);
        let store = self.pods.store();
        let mut candidates = store.by_index(BY_OWNER, &uid);
        let orphans = store.by_index(BY_OWNER, "");
        candidates.extend(orphans.into_iter().filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(&key.namespace)
                && owners::matches(&selector, pod.as_ref())
        }));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let owned = owners::claim_all(&api, plan::candidates(candidates, &uid), set.as_ref(), &selector)
            .await
            .context("claiming pods")?;
        let now = Timestamp::now();
        let mut failure = None;
        if settled {
            match plan::plan(&set, &owned, &self.related(&set), now) {
                Action::Nothing => {}
                Action::Create(count) => failure = self.create(&api, &key, &set, count).await.err(),
                Action::Delete(surplus) => failure = self.delete(&api, &key, &set, surplus).await.err(),
            }
        }
        let message = failure.as_ref().map(client::message);
        let (status, soonest) = plan::status(&set, &owned, message.as_deref(), now);
        self.write_status(&key, &set, status).await?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let seconds = soonest.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(seconds.map_or(Again::OnChange, |seconds| Again::After(Duration::from_secs(seconds))))
    }

    /// The pods of all sets of the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = owners::controller_of(set) else { return Vec::new() };
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let siblings = self.sets.store().list_namespace(namespace);
        siblings
            .iter()
            .filter(|sibling| owners::is_controlled_by(sibling.as_ref(), &owner.uid))
            .flat_map(|sibling| {
                self.pods.store().by_index(BY_OWNER, sibling.metadata.uid.as_deref().unwrap_or_default())
            })
            .collect()
    }

    /// Makes pods, first one, then twice as many each time, so that a refusal costs little.
    async fn create(
        &self,
        api: &Api<Pod>,
        key: &ObjectKey,
        set: &ReplicaSet,
        count: usize,
    ) -> Result<(), kube::Error> {
        let template = set.spec.clone().unwrap_or_default().template.unwrap_or_default();
        let owner = owners::controller_ref(set);
        let pod = pods::from_template(&template, &key.namespace, &owner);
        let about = events::reference(set);
        self.expectations.expect_creations(key, count);
        let mut left = count;
        let mut batch = 1;
        let params = PostParams::default();
        while left > 0 {
            let now = batch.min(left);
            let created = join_all((0..now).map(|_| api.create(&params, &pod))).await;
            left -= now;
            batch *= 2;
            let mut failed = None;
            for outcome in created {
                match outcome {
                    Ok(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        self.recorder.normal(&about, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(error) => {
                        self.expectations.creation_observed(key);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                for _ in 0..left {
                    self.expectations.creation_observed(key);
                }
                if client::is_namespace_terminating(&error) {
                    return Ok(());
                }
                let why = client::message(&error);
                self.recorder.warning(&about, "FailedCreate", format!("Error creating: {why}"));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn delete(
        &self,
        api: &Api<Pod>,
        key: &ObjectKey,
        set: &ReplicaSet,
        surplus: Vec<Arc<Pod>>,
    ) -> Result<(), kube::Error> {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        self.expectations.expect_deletions(key, surplus.iter().map(|pod| uid(pod)));
        let about = events::reference(set);
        let params = DeleteParams::default();
        let names: Vec<String> = surplus.iter().map(|pod| name(pod)).collect();
        let outcomes = join_all(names.iter().map(|name| api.delete(name, &params))).await;
        let mut failed = None;
        for (pod, outcome) in surplus.iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    self.recorder.normal(&about, "SuccessfulDelete", format!("Deleted pod: {}", name(pod)));
                }
                Err(error) => {
                    self.expectations.deletion_observed(key, &uid(pod));
                    if !client::is_not_found(&error) {
                        let why = client::message(&error);
                        self.recorder.warning(&about, "FailedDelete", format!("Error deleting: {why}"));
                        failed = Some(error);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut new = set.clone();
        new.status = Some(status);
        match api.replace_status(&key.name, &PostParams::default(), &new).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_not_found(&error) => Ok(()),
            // the cache is behind; its next event brings this key back
            Err(error) if client::is_conflict(&error) => {
                self.queue.add_rate_limited(key.clone());
                Ok(())
            }
            Err(error) => Err(error).context("writing the status"),
        }
    }
}
