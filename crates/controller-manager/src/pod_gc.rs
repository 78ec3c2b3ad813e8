//! Pod GC: pods whose node is gone, that were deleted before they had a node, and the oldest of too many that
//! have ended.

use std::sync::Arc;
use std::time::Duration;

use client::Informer;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{Shared, pods};

const PERIOD: Duration = Duration::from_secs(20);
/// Upstream's threshold of ended pods.
const KEEP_ENDED: usize = 12500;

/// Why a pod is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Orphaned,
    NeverScheduled,
    TooMany,
}

fn plan(all: &[Arc<Pod>], node_exists: impl Fn(&str) -> bool, keep_ended: usize) -> Vec<(Arc<Pod>, Why)> {
    let mut out = Vec::new();
    let mut ended: Vec<&Arc<Pod>> = Vec::new();
    for pod in all {
        let node = pods::node_name(pod);
        if !node.is_empty() && !node_exists(node) {
            out.push((pod.clone(), Why::Orphaned));
        } else if node.is_empty() && pod.metadata.deletion_timestamp.is_some() {
            out.push((pod.clone(), Why::NeverScheduled));
        } else if pods::has_ended(pod) {
            ended.push(pod);
        }
    }
    if ended.len() > keep_ended {
        ended.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let surplus = ended.len() - keep_ended;
        out.extend(ended.into_iter().take(surplus).map(|pod| (pod.clone(), Why::TooMany)));
    }
    out
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let pods: Arc<Informer<Pod>> = shared.informers.all();
    let nodes: Arc<Informer<Node>> = shared.informers.all();
    pods.wait_for_sync().await;
    nodes.wait_for_sync().await;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let surplus = plan(&pods.store().list(), |node| nodes.store().get("", node).is_some(), KEEP_ENDED);
        for (pod, why) in surplus {
            if let Err(error) = take_away(&client, &pod, why).await {
                tracing::warn!(pod = pod.metadata.name, %error, "a pod could not be taken away");
            }
        }
    }
}

async fn take_away(client: &Client, pod: &Pod, why: Why) -> Result<(), kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // nobody will ever say how it ended: it failed
    if !pods::has_ended(pod) && why == Why::Orphaned {
        let node = pods::node_name(pod);
        // the node may have come back since the cache looked
        let nodes: Api<Node> = Api::all(client.clone());
        if nodes.get_opt(node).await?.is_some() {
            return Ok(());
        }
        let patch = json!({"status": {"phase": "Failed", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
        }]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    match api.delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(error) if !client::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.spec = Some(PodSpec { node_name: Some(node.into()), ..PodSpec::default() });
        pod.status = Some(PodStatus { phase: Some(phase.into()), ..PodStatus::default() });
        Arc::new(pod)
    }

    #[test]
    fn only_what_nobody_cares_for_goes() {
        let all = [
            pod("fine", "n1", "Running"),
            pod("orphan", "gone", "Running"),
            pod("done", "n1", "Succeeded"),
            pod("new", "", "Pending"),
        ];
        let names = |keep: usize| -> Vec<(String, Why)> {
            let plan = plan(&all, |node| node == "n1", keep);
            plan.into_iter().map(|(pod, why)| (pod.metadata.name.clone().unwrap(), why)).collect()
        };
        assert_eq!(names(1), [("orphan".to_owned(), Why::Orphaned)]);
        assert_eq!(names(0)[1], ("done".to_owned(), Why::TooMany));
    }
}
