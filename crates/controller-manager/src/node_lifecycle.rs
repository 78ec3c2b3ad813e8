//! Node lifecycle: taints follow conditions, a node that falls silent is marked, and pods leave where they are not
//! tolerated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{ObjectKey, Queue, Recorder, events};
use component_helpers::taints;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Shared, pods};

/// Upstream's defaults.
const MONITOR_PERIOD: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(50);
const BY_NODE: &str = "node";

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that keep new pods away: type, the status that does, taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    conditions(node).iter().find(|condition| condition.type_ == kind)
}

/// The taints that a node should have: its own, and those that its conditions ask for. Times of taints that
/// stay are kept.
fn wanted_taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let managed = |taint: &Taint| {
        let key = taint.key.as_str();
        let by_condition = BY_CONDITION.iter().any(|(_, _, own)| *own == key) || key == UNSCHEDULABLE;
        match taint.effect.as_str() {
            "NoSchedule" => by_condition,
            "NoExecute" => matches!(key, NOT_READY | UNREACHABLE),
            _ => false,
        }
    };
    let mut out: Vec<Taint> = current.iter().filter(|taint| !managed(taint)).cloned().collect();
    let mut add = |key: &str, effect: &str| {
        let old = current.iter().find(|taint| taint.key == key && taint.effect == effect);
        out.push(old.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: Some(Time(now)),
            value: None,
        }));
    };
    for (kind, status, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|condition| condition.status == status) {
            add(key, "NoSchedule");
            if kind == "Ready" {
                add(key, "NoExecute");
            }
        }
    }
    // before its first word, a node is not ready
    if condition(node, "Ready").is_none() {
        add(NOT_READY, "NoSchedule");
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        add(UNSCHEDULABLE, "NoSchedule");
    }
    out
}

/// When a pod has to leave a node with these taints: `None` when it may stay.
fn leaves_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut soonest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let matching: Vec<_> =
            tolerations.iter().filter(|toleration| taints::tolerates(toleration, taint, false)).collect();
        if matching.is_empty() {
            return Some(now);
        }
        let shortest = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min();
        if let Some(seconds) = shortest {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let at = Timestamp::from_second(since.as_second() + seconds.max(0)).unwrap_or(now);
            soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
        }
    }
    soonest
}

/// What a node was last heard of, by this process' clock.
struct Heard {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
    at: Instant,
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let nodes = shared.informers.all::<Node>();
    let pods = shared.informers.all::<Pod>();
    let leases = shared.informers.all::<Lease>();
    pods.store().add_index(BY_NODE, |pod: &Pod| vec![pods::node_name(pod).to_owned()]);
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    nodes.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    pods.on_change({
        let queue = queue.clone();
        move |change| {
            // a pod that is new on a tainted node may have to go
            let node = pods::node_name(change.object());
            if !node.is_empty() && matches!(change, client::Change::Added(_) | client::Change::Updated { .. })
            {
                let moved = match change {
                    client::Change::Updated { old, new } => pods::node_name(old) != pods::node_name(new),
                    _ => true,
                };
                if moved {
                    queue.add(ObjectKey::new("", node));
                }
            }
        }
    });
    nodes.wait_for_sync().await;
    pods.wait_for_sync().await;
    leases.wait_for_sync().await;
    let recorder = Recorder::new(client.clone(), "node-controller", "");
    let heard: Arc<Mutex<HashMap<String, Heard>>> = Arc::default();
    runner::run("node-lifecycle", queue, 4, cancel, |key| {
        let (nodes, pods, leases) = (nodes.clone(), pods.clone(), leases.clone());
        let (client, heard, recorder) = (client.clone(), heard.clone(), recorder.clone());
        async move {
            let Some(node) = nodes.store().get_key(&key) else {
                heard.lock().remove(&key.name);
                return Ok(Again::OnChange);
            };
            let lease = leases.store().get("kube-node-lease", &key.name);
            let silent = is_silent(&heard, &node, lease.as_deref());
            if silent {
                mark_unknown(&client, &node, &recorder).await?;
            }
            let now = Timestamp::now();
            let wanted = wanted_taints(&node, now);
            let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
            if wanted != current {
                let api: Api<Node> = Api::all(client.clone());
                let version = node.metadata.resource_version.clone();
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": wanted}});
                api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .context("writing the node's taints")?;
            }
            let on_node = pods.store().by_index(BY_NODE, &key.name);
            evict(&client, &on_node, &wanted, now, &recorder).await
        }
    })
    .await;
}

/// Whether nothing has been heard of a node for too long.
fn is_silent(heard: &Mutex<HashMap<String, Heard>>, node: &Node, lease: Option<&Lease>) -> bool {
    let name = node.metadata.name.clone().unwrap_or_default();
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
    let heartbeat = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
    let mut heard = heard.lock();
    let entry = heard.entry(name).or_insert_with(|| Heard {
        renewed: renewed.clone(),
        heartbeat: heartbeat.clone(),
        at: Instant::now(),
    });
    if entry.renewed != renewed || entry.heartbeat != heartbeat {
        *entry = Heard { renewed, heartbeat, at: Instant::now() };
    }
    entry.at.elapsed() > GRACE
}

/// A node that says nothing is in no known state.
async fn mark_unknown(client: &Client, node: &Node, recorder: &Recorder) -> anyhow::Result<()> {
    const KINDS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let now = Time(Timestamp::now());
    let mut new = conditions(node).to_vec();
    let mut moved = false;
    for kind in KINDS {
        match new.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(now.clone());
                moved = true;
            }
            None => {
                moved = true;
                new.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(now.clone()),
                });
            }
        }
    }
    if !moved {
        return Ok(());
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"status": {"conditions": new}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .context("marking the node")?;
    recorder.normal(
        &events::reference(node),
        "NodeNotReady",
        format!("Node {name} status is now: NodeNotReady"),
    );
    Ok(())
}

async fn evict(
    client: &Client,
    pods: &[Arc<Pod>],
    taints: &[Taint],
    now: Timestamp,
    recorder: &Recorder,
) -> anyhow::Result<Again> {
    let mut next = i64::try_from(MONITOR_PERIOD.as_secs()).unwrap_or(5);
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !pods::has_ended(pod)) {
        let Some(at) = leaves_at(pod, taints, now) else { continue };
        let left = at.as_second() - now.as_second();
        if left > 0 {
            next = next.min(left);
            continue;
        }
        let (namespace, name) = (
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default(),
        );
        recorder.normal(
            &events::reference(pod.as_ref()),
            "TaintManagerEviction",
            format!("Marking for deletion Pod {namespace}/{name}"),
        );
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if client::is_not_found(&error) => {}
            Err(error) => return Err(error).context("evicting a pod"),
        }
    }
    Ok(Again::After(Duration::from_secs(u64::try_from(next).unwrap_or(1))))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeStatus, PodSpec, Toleration};

    use super::*;

    fn node(ready: &str, unschedulable: bool) -> Node {
        let mut node = Node::default();
        node.spec.get_or_insert_default().unschedulable = Some(unschedulable);
        let ready = NodeCondition { type_: "Ready".into(), status: ready.into(), ..NodeCondition::default() };
        node.status = Some(NodeStatus { conditions: Some(vec![ready]), ..NodeStatus::default() });
        node
    }

    #[test]
    fn taints_follow_conditions() {
        let keys = |node: &Node| -> Vec<String> {
            let taints = wanted_taints(node, Timestamp::UNIX_EPOCH);
            taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
        };
        assert!(keys(&node("True", false)).is_empty());
        let not_ready = ["NoSchedule", "NoExecute"].map(|effect| format!("{NOT_READY}:{effect}"));
        assert_eq!(keys(&node("False", false)), not_ready);
        let taints = wanted_taints(&node("False", false), Timestamp::UNIX_EPOCH);
        assert!(taints.iter().all(|taint| taint.time_added.is_some()), "{taints:?}");
        assert_eq!(keys(&node("True", true)), [format!("{UNSCHEDULABLE}:NoSchedule")]);
        let mut own = node("True", false);
        own.spec.get_or_insert_default().taints =
            Some(vec![Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() }]);
        assert_eq!(keys(&own), ["mine:NoSchedule"]);
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        let now = Timestamp::from_second(1000).unwrap();
        let taint = Taint {
            key: NOT_READY.into(),
            effect: "NoExecute".into(),
            time_added: Timestamp::from_second(900).ok().map(Time),
            value: None,
        };
        let pod = |tolerations: Vec<Toleration>| Pod {
            spec: Some(PodSpec { tolerations: Some(tolerations), ..PodSpec::default() }),
            ..Pod::default()
        };
        let toleration = |seconds: Option<i64>| Toleration {
            key: Some(NOT_READY.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let taints = [taint];
        assert_eq!(leaves_at(&pod(vec![]), &taints, now), Some(now));
        assert_eq!(leaves_at(&pod(vec![toleration(None)]), &taints, now), None);
        let at = leaves_at(&pod(vec![toleration(Some(300))]), &taints, now);
        assert_eq!(at.map(|at| at.as_second()), Some(1200));
    }
}
