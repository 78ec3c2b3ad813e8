//! Decides on which node a pod runs.
//!
//! [`scheduler::Scheduler`] decides and does no IO; [`driver`] runs it against a [`port::Port`], which is the API
//! ([`api`]) or memory. Plugins take part at the points that [`framework`] names.

pub mod algorithm;
mod api;
pub mod cache;
pub mod driver;
pub mod framework;
pub mod inbox;
pub mod node_info;
pub mod plugins;
pub mod pod_info;
pub mod port;
pub mod queue;
pub mod resource;
pub mod scheduler;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use client::leader::Election;
use client::{Informers, Selector};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use queue::Backoff;

/// The profile that pods ask for when they ask for none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

#[derive(Clone, Debug)]
pub struct Config {
    /// Only pods that name this scheduler are scheduled.
    pub scheduler_name: String,
    /// Of all nodes, how many percent to find before scoring; zero adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: usize,
    pub backoff: Backoff,
    /// The name under which to stand for election, where several schedulers run.
    pub leader_election_identity: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_name: DEFAULT_SCHEDULER_NAME.to_owned(),
            percentage_of_nodes_to_score: 0,
            backoff: Backoff::default(),
            leader_election_identity: None,
        }
    }
}

/// Schedules pods until cancelled. Fails when leadership is lost: the process must then end, so that two schedulers
/// never decide at once.
pub async fn run(config: Config, client: Client, cancel: CancellationToken) -> anyhow::Result<()> {
    let Some(identity) = config.leader_election_identity.clone() else {
        schedule(config, client, cancel).await;
        return Ok(());
    };
    let mut election = Election::new(client.clone(), "kube-system", "kube-scheduler", identity);
    if !election.acquire(&cancel).await {
        return Ok(());
    }
    let work = cancel.child_token();
    let (lost, ()) = tokio::join!(
        async {
            election.hold(&cancel).await;
            work.cancel();
            !cancel.is_cancelled()
        },
        schedule(config, client, work.clone()),
    );
    if lost {
        bail!("leader election lost");
    }
    Ok(())
}

async fn schedule(config: Config, client: Client, cancel: CancellationToken) {
    let port: Arc<dyn port::Port> = Arc::new(api::ApiPort::new(client.clone(), &config.scheduler_name));
    let informers = Informers::new(client, cancel.clone());
    let inbox = Arc::new(inbox::Inbox::default());
    let nodes = informers.all::<Node>();
    let living = Selector::fields("status.phase!=Succeeded,status.phase!=Failed");
    let pods = informers.select::<Pod>(living);
    let to = inbox.clone();
    nodes.on_change(move |change| to.node(change));
    let to = inbox.clone();
    pods.on_change(move |change| to.pod(change));
    // a pod must not be placed before all that is on the nodes is known
    let synced = client::informer::wait_for_all(vec![
        ("nodes", Box::pin(nodes.wait_for_sync())),
        ("pods", Box::pin(pods.wait_for_sync())),
    ]);
    tokio::select! {
        () = cancel.cancelled() => return,
        () = synced => {}
    }
    let framework = Arc::new(plugins::default_framework(port.clone()));
    let algorithm = algorithm::Algorithm::new(config.percentage_of_nodes_to_score, rand::random());
    let scheduler = scheduler::Scheduler::new(
        &config.scheduler_name,
        framework,
        algorithm,
        config.backoff,
        Instant::now(),
    );
    driver::run(scheduler, inbox, port, cancel).await;
}
