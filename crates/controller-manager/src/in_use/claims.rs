//! Claims stay while a pod on a node uses them. Pods are looked for in the cache first, and once more at the API before
//! a finalizer goes: a pod may be there that the cache has not heard of. Claims are decided about by namespace, so
//! that many of them that go at once cost one list.

use std::sync::Arc;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Change, Queue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::{Action, carry_out, is_candidate, plan};
use crate::{Shared, owners, pods};

const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// As many as upstream runs.
const WORKERS: usize = 30;

/// The claim of a volume: one that is named, or the one that is made for an ephemeral volume.
enum ClaimName<'a> {
    Named(&'a str),
    Ephemeral(String),
}

impl ClaimName<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Ephemeral(name) => name,
        }
    }
}

fn claim_name<'a>(pod: &Pod, volume: &'a Volume) -> Option<ClaimName<'a>> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(ClaimName::Named(&source.claim_name));
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some(ClaimName::Ephemeral(format!("{pod}-{}", volume.name)))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Whether the kubelet is done with a pod, or the pod was deleted by force: it only waits for finalizers.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Pods without a node do not count: no kubelet starts one whose claim is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node_name(pod).is_empty() {
        return false;
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    volumes(pod).any(|volume| match claim_name(pod, volume) {
        Some(ClaimName::Named(named)) => named == name,
        Some(ClaimName::Ephemeral(made)) => {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            !is_shut_down(pod) && made == name && owners::is_controlled_by(claim, uid)
        }
        None => false,
    })
}

fn plan_all<'a>(
    claims: &'a [Arc<PersistentVolumeClaim>],
    pods: &[Arc<Pod>],
) -> Vec<(&'a Arc<PersistentVolumeClaim>, Action)> {
    let planned = claims.iter().filter_map(|claim| {
        let is_used = || pods.iter().any(|pod| uses(pod, claim));
        Some((claim, plan(claim.as_ref(), FINALIZER, is_used)?))
    });
    planned.collect()
}

/// Whether a claim may be free from now on, for all that this pod does.
fn may_free(change: &Change<Pod>) -> bool {
    let pod = change.object();
    matches!(change, Change::Deleted(_)) || pods::node_name(pod).is_empty() || is_terminated(pod)
}

/// Whether a pod has ended, or is being deleted and none of its containers runs.
fn is_terminated(pod: &Pod) -> bool {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let nothing_runs = statuses.all(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
    });
    pods::has_ended(pod) || (pod.metadata.deletion_timestamp.is_some() && nothing_runs)
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let claims = shared.informers.all::<PersistentVolumeClaim>();
    let pods = shared.informers.all::<Pod>();
    // of namespaces
    let queue: Arc<Queue<String>> = Arc::default();
    claims.wait_for_sync().await;
    pods.wait_for_sync().await;
    claims.on_change({
        let queue = queue.clone();
        move |change| {
            let claim = change.object();
            if is_candidate(claim.as_ref(), FINALIZER) {
                queue.add(claim.metadata.namespace.clone().unwrap_or_default());
            }
        }
    });
    pods.on_change({
        let (queue, claims) = (queue.clone(), claims.clone());
        move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let waits = |name: &str| {
                let claim = claims.store().get(namespace, name);
                claim.is_some_and(|claim| is_candidate(claim.as_ref(), FINALIZER))
            };
            let mut names = volumes(pod).filter_map(|volume| claim_name(pod, volume));
            if may_free(change) && names.any(|name| waits(name.as_str())) {
                queue.add(namespace.to_owned());
            }
        }
    });
    runner::run("pvc-protection", queue, WORKERS, cancel, |namespace| {
        let candidates = claims.store().list_namespace(&namespace);
        let cached = pods.store().list_namespace(&namespace);
        let client = client.clone();
        async move { sync(&client, &namespace, &candidates, &cached).await }
    })
    .await;
}

async fn sync(
    client: &Client,
    namespace: &str,
    claims: &[Arc<PersistentVolumeClaim>],
    cached: &[Arc<Pod>],
) -> anyhow::Result<Again> {
    let mut planned = plan_all(claims, cached);
    if planned.iter().any(|(_, action)| *action == Action::Remove) {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let live = pods.list(&ListParams::default()).await.context("live list of pods failed")?;
        let live: Vec<Arc<Pod>> = live.items.into_iter().map(Arc::new).collect();
        planned.retain(|(claim, action)| *action == Action::Add || !live.iter().any(|pod| uses(pod, claim)));
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let mut outcome = Ok(Again::OnChange);
    // one that fails keeps none of the others
    for (claim, action) in planned {
        if let Err(error) = carry_out(&api, claim.as_ref(), FINALIZER, action).await {
            outcome = Err(error.into());
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::in_use::tests::deleted;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn claim(name: &str, owner: Option<&str>) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some(name.into());
        claim.metadata.finalizers = Some(vec![FINALIZER.into()]);
        if let Some(uid) = owner {
            let owner =
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
            claim.metadata.owner_references = serde_json::from_value(owner).unwrap();
        }
        claim
    }

    #[test]
    fn a_claim_is_used_by_pods_on_nodes() {
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let ephemeral = json!([{"name": "v", "ephemeral": {}}]);
        let shut_down = json!({"name": "p", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0});
        let leaving = json!({"name": "p", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 30});
        let meta = json!({"name": "p", "uid": "1"});
        let (plain, made, foreign) = (claim("c", None), claim("p-v", Some("1")), claim("p-v", Some("2")));
        let cases = [
            (&plain, json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": named}}), true),
            (&plain, json!({"metadata": meta, "spec": {"volumes": named}}), false),
            (&plain, json!({"metadata": meta, "spec": {"nodeName": "n"}}), false),
            (&made, json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": named}}), false),
            // one that has ended uses its claim until it is gone
            (
                &plain,
                json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": named},
                    "status": {"phase": "Succeeded"}}),
                true,
            ),
            (&plain, json!({"metadata": shut_down, "spec": {"nodeName": "n", "volumes": named}}), true),
            (&made, json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": ephemeral}}), true),
            (&made, json!({"metadata": leaving, "spec": {"nodeName": "n", "volumes": ephemeral}}), true),
            (&made, json!({"metadata": shut_down, "spec": {"nodeName": "n", "volumes": ephemeral}}), false),
            (&made, json!({"metadata": meta, "spec": {"volumes": ephemeral}}), false),
            (&foreign, json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": ephemeral}}), false),
        ];
        for (claim, value, wanted) in cases {
            assert_eq!(uses(&pod(value.clone()), claim), wanted, "{value}");
        }
    }

    #[test]
    fn the_claims_of_a_namespace_are_decided_about_together() {
        let user = pod(json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]}}));
        let mut old = claim("old", None);
        old.metadata.finalizers = None;
        let claims = [
            Arc::new(deleted(claim("used", None))),
            Arc::new(deleted(claim("free", None))),
            Arc::new(claim("lives", None)),
            Arc::new(old),
        ];
        let planned = plan_all(&claims, &[Arc::new(user)]);
        let planned: Vec<_> = planned
            .iter()
            .map(|(claim, action)| (claim.metadata.name.as_deref().unwrap(), *action))
            .collect();
        assert_eq!(planned, [("free", Action::Remove), ("old", Action::Add)]);
    }

    #[test]
    fn pods_that_run_free_nothing() {
        let running = json!([{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}}]);
        let ended = json!([{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0}}}]);
        let on_node = json!({"nodeName": "n"});
        let leaves = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let cases = [
            (json!({"spec": on_node, "status": {"phase": "Running", "containerStatuses": running}}), false),
            (json!({"spec": on_node, "status": {"phase": "Running", "containerStatuses": ended}}), false),
            (json!({"spec": on_node, "status": {"phase": "Succeeded"}}), true),
            (json!({"spec": on_node, "status": {"phase": "Failed"}}), true),
            (json!({"spec": {}, "status": {"phase": "Pending"}}), true),
            (
                json!({"metadata": leaves, "spec": on_node, "status": {"phase": "Running",
                    "containerStatuses": running}}),
                false,
            ),
            (
                json!({"metadata": leaves, "spec": on_node, "status": {"phase": "Running",
                    "containerStatuses": ended}}),
                true,
            ),
        ];
        for (value, wanted) in cases {
            let new = Arc::new(pod(value.clone()));
            assert_eq!(may_free(&Change::Updated { old: new.clone(), new: new.clone() }), wanted, "{value}");
            assert!(may_free(&Change::Deleted(new)), "{value}");
        }
    }
}
