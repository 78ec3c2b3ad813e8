//! Registers the node, keeps its status and its lease fresh, and watches whether runtime and network are ready.

use std::sync::Arc;
use std::time::Duration;

use client::events::Recorder;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::object::{self, Observed};
use crate::config::Config;
use crate::runtime::Runtime;

/// How often the status is looked at, and written at the latest when nothing changed.
const UPDATE_PERIOD: Duration = Duration::from_secs(10);
const REPORT_PERIOD: Duration = Duration::from_secs(300);
const LEASE_SECONDS: i32 = 40;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// While something is not ready the runtime is asked this often, so that the node is ready at once when it is.
const EAGER_PERIOD: Duration = Duration::from_millis(50);
const CALM_PERIOD: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(7);
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What is found out once.
#[derive(Clone)]
pub struct NodeFacts {
    pub config: Config,
    pub machine: Machine,
    /// Where the HTTPS server really listens.
    pub port: u16,
}

/// Whether the runtime and its network are ready; `None` means yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Readiness {
    runtime: Option<String>,
    network: Option<String>,
}

pub struct Heartbeat {
    facts: NodeFacts,
    client: Client,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    readiness: watch::Sender<Readiness>,
    network: watch::Sender<Option<String>>,
}

impl Heartbeat {
    pub fn new(
        facts: NodeFacts,
        client: Client,
        runtime: Arc<dyn Runtime>,
        recorder: Recorder,
        network: watch::Sender<Option<String>>,
    ) -> Arc<Self> {
        let unknown = Readiness {
            runtime: Some("container runtime status check may not have completed yet".to_owned()),
            network: None,
        };
        let readiness = watch::Sender::new(unknown);
        Arc::new(Self { facts, client, runtime, recorder, readiness, network })
    }

    /// Runs until cancelled. Registration comes first and is tried until it works.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let watcher = self.clone().watch_runtime();
        let beat = async {
            self.register().await;
            tokio::join!(self.keep_status(), self.keep_lease())
        };
        cancel.run_until_cancelled(async { tokio::join!(watcher, beat) }).await;
    }

    async fn watch_runtime(self: Arc<Self>) {
        loop {
            let now = match self.runtime.status().await {
                Ok(status) => Readiness {
                    runtime: (!status.runtime_ready).then(|| {
                        format!("container runtime is down: RuntimeReady=false {}", status.runtime_message)
                    }),
                    network: (!status.network_ready)
                        .then(|| format!("NetworkReady=false {}", status.network_message)),
                },
                Err(error) => Readiness {
                    runtime: Some(format!("container runtime is down: {error}")),
                    // what pods have goes on
                    network: self.readiness.borrow().network.clone(),
                },
            };
            let ready = now == Readiness::default();
            let network = now.network.clone();
            self.network.send_if_modified(|old| {
                let changed = *old != network;
                *old = network;
                changed
            });
            self.readiness.send_if_modified(|old| {
                let changed = *old != now;
                *old = now;
                changed
            });
            tokio::time::sleep(if ready { CALM_PERIOD } else { EAGER_PERIOD }).await;
        }
    }

    async fn observe(&self) -> Observed {
        let readiness = self.readiness.borrow().clone();
        let network = readiness.network.map(|why| format!("container runtime network not ready: {why}"));
        Observed {
            runtime: self.runtime.version().await.unwrap_or_default(),
            images: self.runtime.images().await.unwrap_or_default(),
            handlers: self.runtime.status().await.map(|status| status.handlers).unwrap_or_default(),
            problems: readiness.runtime.into_iter().chain(network).collect(),
        }
    }

    async fn status(&self, old: &[NodeCondition]) -> NodeStatus {
        let observed = self.observe().await;
        let NodeFacts { config, machine, port } = &self.facts;
        object::status(config, machine, &observed, *port, old, Timestamp::now())
    }

    fn about(&self) -> ObjectReference {
        let name = &self.facts.config.node_name;
        // upstream's kubelet puts the name where the uid belongs, and `kubectl describe node` looks for that
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..ObjectReference::default()
        }
    }

    fn tell_state(&self, state: &str) {
        let name = &self.facts.config.node_name;
        self.recorder.normal(&self.about(), state, format!("Node {name} status is now: {state}"));
    }

    async fn register(&self) {
        let api: Api<Node> = Api::all(self.client.clone());
        let NodeFacts { config, machine, .. } = &self.facts;
        let mut delay = Duration::from_millis(20);
        self.recorder.normal(&self.about(), "Starting", "Starting kubelet.");
        loop {
            let node = object::node(config, machine, self.status(&[]).await);
            let problem = match api.create(&PostParams::default(), &node).await {
                Ok(_) => {
                    tracing::info!(node = config.node_name, "registered the node");
                    break;
                }
                Err(error) if client::is_already_exists(&error) => match self.reconcile(&api, &node).await {
                    Ok(()) => break,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tracing::debug!(
                node = config.node_name,
                error = client::message(&problem),
                "the node is not registered yet"
            );
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
        for state in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"] {
            self.tell_state(state);
        }
    }

    /// The node was registered before: its labels are brought up to date.
    async fn reconcile(&self, api: &Api<Node>, node: &Node) -> kube::Result<()> {
        let patch =
            json!({"metadata": {"labels": node.metadata.labels, "annotations": node.metadata.annotations}});
        api.patch(&self.facts.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    async fn keep_status(&self) {
        let api: Api<Node> = Api::all(self.client.clone());
        let mut readiness = self.readiness.subscribe();
        let mut conditions: Vec<NodeCondition> = Vec::new();
        let mut written: Option<(NodeStatus, tokio::time::Instant)> = None;
        let mut was_ready = None;
        loop {
            readiness.mark_unchanged();
            if conditions.is_empty()
                && let Ok(node) = api.get(&self.facts.config.node_name).await
            {
                conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
            }
            let status = self.status(&conditions).await;
            let now_conditions = status.conditions.clone().unwrap_or_default();
            let ready = now_conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let due = written
                .as_ref()
                .is_none_or(|(last, at)| at.elapsed() >= REPORT_PERIOD || bare(last) != bare(&status));
            let mut pause = UPDATE_PERIOD;
            if due {
                let patch = json!({"status": status});
                let name = &self.facts.config.node_name;
                match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    Ok(_) => {
                        conditions = now_conditions;
                        written = Some((status, tokio::time::Instant::now()));
                        if was_ready != Some(ready) {
                            self.tell_state(if ready { "NodeReady" } else { "NodeNotReady" });
                            was_ready = Some(ready);
                        }
                    }
                    // somebody deleted the node: it comes back
                    Err(error) if client::is_not_found(&error) => self.register().await,
                    Err(error) => {
                        tracing::debug!(
                            error = client::message(&error),
                            "the node's status could not be written"
                        );
                        pause = Duration::from_secs(1);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = readiness.changed() => {}
            }
        }
    }

    async fn keep_lease(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        let mut held: Option<Lease> = None;
        let mut delay = Duration::from_millis(200);
        loop {
            match self.renew(&api, held.take()).await {
                Ok(lease) => {
                    held = Some(lease);
                    delay = Duration::from_millis(200);
                    tokio::time::sleep(LEASE_PERIOD).await;
                }
                Err(error) => {
                    tracing::debug!(error = client::message(&error), "the node's lease could not be renewed");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn renew(&self, api: &Api<Lease>, held: Option<Lease>) -> kube::Result<Lease> {
        let name = &self.facts.config.node_name;
        let lease = match held {
            Some(lease) => Some(lease),
            None => api.get_opt(name).await?,
        };
        let spec = LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        match lease {
            Some(mut lease) => {
                lease.spec = Some(spec);
                api.replace(name, &PostParams::default(), &lease).await
            }
            None => {
                let node: Api<Node> = Api::all(self.client.clone());
                let owner =
                    node.get(name).await.ok().and_then(|node| node.metadata.uid).map(|uid| OwnerReference {
                        api_version: "v1".to_owned(),
                        kind: "Node".to_owned(),
                        name: name.clone(),
                        uid,
                        ..OwnerReference::default()
                    });
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        namespace: Some(LEASE_NAMESPACE.to_owned()),
                        owner_references: owner.map(|owner| vec![owner]),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                api.create(&PostParams::default(), &lease).await
            }
        }
    }
}

/// A status without the times that always move.
fn bare(status: &NodeStatus) -> NodeStatus {
    let mut bare = status.clone();
    for condition in bare.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    bare
}
