//! Deployments move pods from one template to the next through ReplicaSets.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Change, Informer, ObjectKey, Queue, Recorder, events};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::replica_set::index_by_controller;
use crate::{Shared, owners, pods};
use plan::{Limits, Scale};

const WORKERS: usize = 5;
const SETS_BY_OWNER: &str = "controller-uid";

struct Controller {
    client: Client,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    recorder: Recorder,
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let deployments = shared.informers.all::<Deployment>();
    let sets = shared.informers.all::<ReplicaSet>();
    let pods = shared.informers.all::<Pod>();
    sets.store().add_index(SETS_BY_OWNER, |set: &ReplicaSet| {
        vec![owners::controller_of(set).map(|owner| owner.uid.clone()).unwrap_or_default()]
    });
    pods.store().add_index(SETS_BY_OWNER, index_by_controller);
    let queue = Arc::new(Queue::default());
    deployments.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    sets.on_change({
        let (queue, deployments) = (queue.clone(), deployments.clone());
        move |change| {
            let wake = |set: &ReplicaSet| wake_owner(set, &queue, &deployments);
            wake(change.object());
            if let Change::Updated { old, .. } = change {
                wake(old);
            }
        }
    });
    // a Recreate waits for the last old pod to go
    pods.on_change({
        let (queue, sets, deployments) = (queue.clone(), sets.clone(), deployments.clone());
        move |change| {
            let Change::Deleted(pod) = change else { return };
            let Some(owner) = owners::controller_of(pod.as_ref()) else { return };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if let Some(set) = sets.store().get(namespace, &owner.name) {
                wake_owner(&set, &queue, &deployments);
            }
        }
    });
    deployments.wait_for_sync().await;
    sets.wait_for_sync().await;
    pods.wait_for_sync().await;
    let recorder = Recorder::new(client.clone(), "deployment-controller", "");
    let controller = Arc::new(Controller { client, deployments, sets, pods, recorder });
    runner::run("deployment", queue, WORKERS, cancel, |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    })
    .await;
}

fn wake_owner(set: &ReplicaSet, queue: &Queue<ObjectKey>, deployments: &Informer<Deployment>) {
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    match owners::controller_of(set) {
        Some(owner) if owner.kind == "Deployment" => queue.add(ObjectKey::new(namespace, &owner.name)),
        Some(_) => {}
        None => {
            for deployment in deployments.store().list_namespace(&namespace) {
                let spec = deployment.spec.as_ref();
                if spec.is_some_and(|spec| owners::matches(&owners::selector(&spec.selector), set)) {
                    queue.add(ObjectKey::of(deployment.as_ref()));
                }
            }
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Again> {
        let Some(deployment) = self.deployments.store().get_key(&key) else { return Ok(Again::OnChange) };
        let mut deployment = deployment.as_ref().clone();
        let spec = deployment.spec.clone().unwrap_or_default();
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let selector = owners::selector(&spec.selector);
        let mut candidates = self.sets.store().by_index(SETS_BY_OWNER, &uid);
        let orphans = self.sets.store().by_index(SETS_BY_OWNER, "");
        candidates.extend(
            orphans.into_iter().filter(|set| set.metadata.namespace.as_deref() == Some(&key.namespace)),
        );
        let sets = owners::claim_all(&api, candidates, &deployment, &selector)
            .await
            .context("claiming replica sets")?;
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.sync_status(&key, &deployment, &sets).await;
        }
        if spec.paused == Some(true) || self.was_scaled(&deployment, &sets) {
            self.scale_in_proportion(&api, &deployment, &sets).await?;
            return self.sync_status(&key, &deployment, &sets).await;
        }
        let limits = Limits::of(&deployment);
        if limits.recreate {
            return self.recreate(&key, &api, &mut deployment, &sets).await;
        }
        let newest = self.ensure_newest(&key, &api, &mut deployment, &sets).await?;
        let Some(newest) = newest else { return Ok(Again::OnChange) };
        let (all, old) = with_newest(&sets, &newest);
        let steps = plan::roll(&limits, &newest, &old);
        self.scale_all(&api, &deployment, &all, steps).await?;
        self.clean_up(&api, &deployment, &old).await?;
        self.sync_rollout_status(&key, &deployment, &all).await
    }

    /// Whether the number of replicas changed since the sets were scaled last.
    fn was_scaled(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let wanted = Limits::of(deployment).replicas;
        sets.iter().filter(|set| plan::replicas(set) > 0).any(|set| {
            let annotations = set.metadata.annotations.as_ref();
            let desired = annotations.and_then(|a| a.get(plan::DESIRED)?.parse::<i32>().ok());
            desired.is_some_and(|desired| desired != wanted)
        })
    }

    async fn scale_in_proportion(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<()> {
        let limits = Limits::of(deployment);
        let mut active: Vec<Arc<ReplicaSet>> =
            sets.iter().filter(|set| plan::replicas(set) > 0).cloned().collect();
        let newest = plan::newest(deployment, sets);
        if active.is_empty() {
            active.extend(newest.cloned());
        }
        let mut steps = plan::proportional(&limits, &active);
        // sets that keep their size still learn what was wanted
        for set in &active {
            let name = set.metadata.name.clone().unwrap_or_default();
            if steps.iter().all(|step| step.name != name) {
                steps.push(Scale { name, replicas: plan::replicas(set) });
            }
        }
        self.scale_all(api, deployment, sets, steps).await
    }

    async fn recreate(
        &self,
        key: &ObjectKey,
        api: &Api<ReplicaSet>,
        deployment: &mut Deployment,
        sets: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<Again> {
        let newest = plan::newest(deployment, sets).cloned();
        let uid = newest.as_ref().and_then(|set| set.metadata.uid.clone());
        let old: Vec<Arc<ReplicaSet>> = sets.iter().filter(|set| set.metadata.uid != uid).cloned().collect();
        let steps: Vec<Scale> = old
            .iter()
            .filter(|set| plan::replicas(set) > 0)
            .map(|set| Scale { name: set.metadata.name.clone().unwrap_or_default(), replicas: 0 })
            .collect();
        if !steps.is_empty() {
            self.scale_all(api, deployment, sets, steps).await?;
            return self.sync_rollout_status(key, deployment, sets).await;
        }
        let old_pods_live = old.iter().any(|set| {
            let pods =
                self.pods.store().by_index(SETS_BY_OWNER, set.metadata.uid.as_deref().unwrap_or_default());
            pods.iter().any(|pod| !pods::has_ended(pod))
        });
        if old_pods_live {
            return self.sync_rollout_status(key, deployment, sets).await;
        }
        let Some(newest) = self.ensure_newest(key, api, deployment, sets).await? else {
            return Ok(Again::OnChange);
        };
        let (all, old) = with_newest(sets, &newest);
        let wanted = Limits::of(deployment).replicas;
        if plan::replicas(&newest) != wanted {
            let name = newest.metadata.name.clone().unwrap_or_default();
            self.scale_all(api, deployment, &all, vec![Scale { name, replicas: wanted }]).await?;
        }
        self.clean_up(api, deployment, &old).await?;
        self.sync_rollout_status(key, deployment, &all).await
    }

    /// The set of the current template, made when missing; its revision is the highest. `None` when the name
    /// was taken and another one has to be tried.
    async fn ensure_newest(
        &self,
        key: &ObjectKey,
        api: &Api<ReplicaSet>,
        deployment: &mut Deployment,
        sets: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<Option<Arc<ReplicaSet>>> {
        let found = plan::newest(deployment, sets).cloned();
        let highest_old = sets
            .iter()
            .filter(|set| found.as_ref().is_none_or(|found| found.metadata.uid != set.metadata.uid))
            .map(|set| plan::revision(set.metadata.annotations.as_ref()))
            .max()
            .unwrap_or_default();
        let revision = highest_old + 1;
        let (set, made) = match found {
            Some(set) => {
                let mut new = set.as_ref().clone();
                let current = plan::revision(set.metadata.annotations.as_ref());
                annotate(&mut new, deployment, revision.max(current), Some(current));
                let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
                new.spec.get_or_insert_default().min_ready_seconds = min_ready;
                if new == *set {
                    (set, false)
                } else {
                    let name = new.metadata.name.clone().unwrap_or_default();
                    (Arc::new(api.replace(&name, &PostParams::default(), &new).await?), false)
                }
            }
            None => match self.create_newest(key, api, deployment, sets, revision).await? {
                Some((set, made)) => (Arc::new(set), made),
                None => return Ok(None),
            },
        };
        self.note_newest(key, deployment, &set, made).await?;
        Ok(Some(set))
    }

    /// Makes the set of the current template. True beside it when it was not there already.
    async fn create_newest(
        &self,
        key: &ObjectKey,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        revision: i64,
    ) -> anyhow::Result<Option<(ReplicaSet, bool)>> {
        let spec = deployment.spec.clone().unwrap_or_default();
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = plan::template_hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default()
            .insert(plan::HASH_LABEL.into(), hash.clone());
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(plan::HASH_LABEL.into(), hash.clone());
        let limits = Limits::of(deployment);
        let current: i32 = sets.iter().map(|set| plan::replicas(set)).sum();
        let replicas = match limits.recreate {
            true => limits.replicas,
            false => (limits.max_pods() - current).clamp(0, limits.replicas),
        };
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", key.name)),
                namespace: Some(key.namespace.clone()),
                labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
                owner_references: Some(vec![owners::controller_ref(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        annotate(&mut set, deployment, revision, None);
        match api.create(&PostParams::default(), &set).await {
            Ok(set) => {
                if replicas > 0 {
                    let name = set.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.normal(&events::reference(deployment), "ScalingReplicaSet", message);
                }
                Ok(Some((set, true)))
            }
            Err(error) if client::is_already_exists(&error) => {
                let name = set.metadata.name.clone().unwrap_or_default();
                let other = api.get(&name).await?;
                let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
                let of_other = other.spec.as_ref().and_then(|spec| spec.template.as_ref());
                let ours = owners::is_controlled_by(&other, uid)
                    && of_other.is_some_and(|other| plan::same_template(other, &spec.template));
                if ours {
                    return Ok(Some((other, false)));
                }
                // somebody else's set has the name: count the collision, which changes the hash
                let mut new = deployment.clone();
                let status = new.status.get_or_insert_default();
                status.collision_count = Some(collisions.unwrap_or_default() + 1);
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
                api.replace_status(&key.name, &PostParams::default(), &new).await?;
                Ok(None)
            }
            Err(error) if client::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let why = client::message(&error);
                let message = format!("Failed to create new replica set {name:?}: {why}");
                let mut status = deployment.status.clone().unwrap_or_default();
                plan::note_create_error(deployment, &mut status, message.clone(), Timestamp::now());
                self.write_status(key, deployment, status).await?;
                self.recorder.warning(&events::reference(deployment), plan::CREATE_ERROR, message);
                Err(error.into())
            }
        }
    }

    /// The Deployment carries the revision of its newest set, and tells that there is one.
    async fn note_newest(
        &self,
        key: &ObjectKey,
        deployment: &mut Deployment,
        newest: &ReplicaSet,
        made: bool,
    ) -> anyhow::Result<()> {
        let revision = plan::revision(newest.metadata.annotations.as_ref()).to_string();
        let mut new = deployment.clone();
        new.metadata.annotations.get_or_insert_default().insert(plan::REVISION.into(), revision);
        let status = new.status.get_or_insert_default();
        plan::note_newest(deployment, status, newest, made, Timestamp::now());
        if new != *deployment {
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
            *deployment = api.replace_status(&key.name, &PostParams::default(), &new).await?;
        }
        Ok(())
    }

    async fn scale_all(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        steps: Vec<Scale>,
    ) -> anyhow::Result<()> {
        for step in steps {
            let Some(set) = sets.iter().find(|set| set.metadata.name.as_deref() == Some(&step.name)) else {
                continue;
            };
            let before = plan::replicas(set);
            let mut new = set.as_ref().clone();
            new.spec.get_or_insert_default().replicas = Some(step.replicas);
            note_replicas(&mut new, deployment);
            if new == **set {
                continue;
            }
            api.replace(&step.name, &PostParams::default(), &new).await?;
            if before != step.replicas {
                let direction = if step.replicas > before { "up" } else { "down" };
                let message = format!(
                    "Scaled {direction} replica set {} from {before} to {}",
                    step.name, step.replicas
                );
                self.recorder.normal(&events::reference(deployment), "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }

    /// Old sets beyond the history limit go, once they are empty and the rollout is complete.
    async fn clean_up(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        old: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<()> {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let complete = deployment.status.as_ref().is_some_and(|status| plan::is_complete(deployment, status));
        let limit = usize::try_from(limit).unwrap_or_default();
        if !complete || old.len() <= limit {
            return Ok(());
        }
        let mut empty: Vec<&Arc<ReplicaSet>> = old
            .iter()
            .filter(|set| {
                let status = set.status.clone().unwrap_or_default();
                status.replicas == 0
                    && plan::replicas(set) == 0
                    && status.observed_generation >= set.metadata.generation
                    && set.metadata.deletion_timestamp.is_none()
            })
            .collect();
        empty.sort_by_key(|set| plan::revision(set.metadata.annotations.as_ref()));
        for set in empty.into_iter().take(old.len() - limit) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(error) if client::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes what the sets add up to, and how a rollout goes.
    async fn sync_rollout_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<Again> {
        let now = Timestamp::now();
        let newest = plan::newest(deployment, sets).map(Arc::as_ref);
        let mut status = plan::status(deployment, sets, newest, now);
        let again = plan::progress(deployment, &mut status, newest, now);
        plan::replica_failure(&mut status, sets, newest);
        self.write_status(key, deployment, status).await?;
        let seconds = again.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(seconds.map_or(Again::OnChange, |seconds| Again::After(Duration::from_secs(seconds))))
    }

    /// Writes what the sets add up to, where nothing is rolled out.
    async fn sync_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
    ) -> anyhow::Result<Again> {
        let newest = plan::newest(deployment, sets).map(Arc::as_ref);
        let status = plan::status(deployment, sets, newest, Timestamp::now());
        self.write_status(key, deployment, status).await?;
        Ok(Again::OnChange)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> anyhow::Result<()> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut new = deployment.clone();
        new.status = Some(status);
        match api.replace_status(&key.name, &PostParams::default(), &new).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// All sets with the newest as it is now, and the others.
fn with_newest(
    sets: &[Arc<ReplicaSet>],
    newest: &Arc<ReplicaSet>,
) -> (Vec<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let old: Vec<Arc<ReplicaSet>> =
        sets.iter().filter(|set| set.metadata.uid != newest.metadata.uid).cloned().collect();
    let mut all = old.clone();
    all.push(newest.clone());
    (all, old)
}

/// Gives a set the Deployment's annotations, its revision and the numbers it was scaled by.
fn annotate(set: &mut ReplicaSet, deployment: &Deployment, revision: i64, current: Option<i64>) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !plan::is_own_annotation(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if let Some(current) = current.filter(|current| *current > 0 && *current < revision) {
        let history = annotations.entry(plan::REVISION_HISTORY.into()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&current.to_string());
    }
    annotations.insert(plan::REVISION.into(), revision.to_string());
    note_replicas(set, deployment);
}

fn note_replicas(set: &mut ReplicaSet, deployment: &Deployment) {
    let limits = Limits::of(deployment);
    let annotations: &mut BTreeMap<String, String> = set.metadata.annotations.get_or_insert_default();
    annotations.insert(plan::DESIRED.into(), limits.replicas.to_string());
    annotations.insert(plan::MAX.into(), limits.max_pods().to_string());
}
