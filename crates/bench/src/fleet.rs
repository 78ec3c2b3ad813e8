//! Nodes that are objects only: nothing runs their pods, but their leases are renewed, so that no controller takes them
//! for dead.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{Method, StatusCode};
use serde_json::json;

use crate::load::make;
use crate::sandbox::LABEL;
use crate::stop::Stop;
use crate::target::{Connection, Protocol, Request, Target, refusal};

/// Zones that the nodes are divided into.
const ZONES: u64 = 3;
/// How often leases are renewed, as kubelets do.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub struct Fleet {
    pub target: Target,
    /// What the nodes' names begin with; it tells those of this run from others.
    pub prefix: String,
    pub nodes: u64,
    /// How many processors a node has.
    pub cpu: &'static str,
}

impl Fleet {
    pub fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Makes the nodes, runs something while they are alive, and removes them whatever comes of it.
    pub async fn with<T>(
        &self,
        stop: &Stop,
        run: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let outcome = async {
            eprintln!("making {} nodes …", self.nodes);
            make("nodes", &self.target, self.nodes, stop, async |connection, number| {
                self.make_node(connection, number).await
            })
            .await?;
            tokio::select! {
                outcome = run() => outcome,
                never = self.beat_on(stop) => match never {},
            }
        };
        let outcome = outcome.await;
        let removed = self.remove().await;
        let value = outcome?;
        removed?;
        Ok(value)
    }

    async fn beat_on(&self, stop: &Stop) -> std::convert::Infallible {
        let beat = async |connection: &mut Connection, number| self.beat(connection, number).await;
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            // a late one does no harm before the next
            let _ = make("renewing leases", &self.target, self.nodes, stop, beat).await;
        }
    }

    async fn make_node(&self, connection: &mut Connection, number: u64) -> anyhow::Result<()> {
        let resources = json!({"cpu": self.cpu, "memory": "256Gi", "pods": "110"});
        let name = self.name(number);
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                LABEL.0: LABEL.1, "of": self.prefix, "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
            }},
        });
        connection.success(Request::new(Method::POST, "/api/v1/nodes", node.to_string())).await?;
        self.beat(connection, number).await?;
        let now = now();
        let status = json!({"status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "made by xebec-bench",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        let path = format!("/api/v1/nodes/{name}/status");
        let patch = Request::new(Method::PATCH, &path, status.to_string());
        connection.success(patch.content("application/merge-patch+json")).await?;
        // the controller of nodes taints those that were not ready when it saw them; it takes it back later
        let path = format!("/api/v1/nodes/{name}");
        let patch = Request::new(Method::PATCH, &path, json!({"spec": {"taints": null}}).to_string());
        connection.success(patch.content("application/merge-patch+json")).await.map(drop)
    }

    /// Renews a node's lease.
    async fn beat(&self, connection: &mut Connection, number: u64) -> anyhow::Result<()> {
        let name = self.name(number);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_now()},
        });
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}?fieldManager=xebec-bench&force=true"
        );
        let apply = Request::new(Method::PATCH, &path, lease.to_string());
        connection.success(apply.content("application/apply-patch+yaml")).await.map(drop)
    }

    async fn remove(&self) -> anyhow::Result<()> {
        let mut connection = self.target.connect(Protocol::Http1).await.context("cleaning up")?;
        let path = format!("/api/v1/nodes?labelSelector=of%3D{}", self.prefix);
        let (status, body) = connection.send(Request::new(Method::DELETE, &path, "")).await?;
        if !status.is_success() {
            bail!("removing the nodes: {}", refusal(status, &body));
        }
        make("removing leases", &self.target, self.nodes, &Stop::default(), async |connection, number| {
            let path = format!(
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}",
                self.name(number)
            );
            match connection.send(Request::new(Method::DELETE, &path, "")).await? {
                (StatusCode::NOT_FOUND, _) => Ok(()),
                (status, _) if status.is_success() => Ok(()),
                (status, body) => bail!("{}", refusal(status, &body)),
            }
        })
        .await
    }
}

/// The present time, as times of conditions are written.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// As times of leases are.
fn micro_now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
