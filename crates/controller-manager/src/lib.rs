//! The controller manager: one module per controller, each with an identity of its own, over shared informers.
//! Controllers are clients of the API like any other; what they decide is computed by pure functions.

mod bootstrap;
pub mod certificates;
mod cluster_role_aggregation;
mod deployment;
mod endpoints;
mod expectations;
mod garbage_collector;
mod in_use;
mod legacy_token_cleaner;
mod namespaces;
pub mod node_ipam;
mod node_lifecycle;
mod owners;
mod pod_gc;
mod pods;
mod replica_set;
mod resource_quota;
pub mod service_account_tokens;

use std::sync::Arc;
use std::time::Duration;

use client::Informers;
use futures::future::{BoxFuture, join_all};
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use certificates::Signing;
pub use legacy_token_cleaner::CLEAN_UP_PERIOD;
pub use node_ipam::ClusterCidr;

/// What all controllers share.
#[derive(Clone)]
pub struct Shared {
    pub informers: Arc<Informers>,
    /// The CA that pods get, in PEM.
    pub root_ca: Arc<str>,
    /// How requests for certificates are signed, if they are.
    pub signing: Option<Arc<Signing>>,
    /// How long a service account's token that was made for it has to go unused until it goes.
    pub legacy_token_clean_up_period: Duration,
}

pub struct Config {
    pub cluster_cidr: ClusterCidr,
    /// The CA that pods get, in PEM.
    pub root_ca: String,
    /// How requests for certificates are signed, if they are.
    pub signing: Option<Signing>,
    /// Signs the tokens of secrets, where there are to be such.
    pub token_signer: Option<service_account_tokens::Signer>,
    /// How long a service account's token that was made for it has to go unused until it goes.
    pub legacy_token_clean_up_period: Duration,
}

/// The identities that controllers run under.
pub const CONTROLLERS: &[&str] = &[
    "namespace-controller",
    "service-account-controller",
    "root-ca-cert-publisher",
    "replicaset-controller",
    "deployment-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "node-controller",
    "generic-garbage-collector",
    "pod-garbage-collector",
    "clusterrole-aggregation-controller",
    "resourcequota-controller",
    "certificate-controller",
    "token-cleaner",
    "bootstrap-signer",
    "pvc-protection-controller",
    "pv-protection-controller",
    "volumeattributesclass-protection-controller",
    "legacy-service-account-token-cleaner",
];

/// Gives each controller a client of its own, for the service account of its name in `kube-system`.
pub trait Identities: Send + Sync {
    fn client(&self, controller: &'static str) -> Client;
}

/// Runs all controllers until cancelled. `client` lists and watches for all of them.
pub async fn run(config: Config, client: Client, identities: &dyn Identities, cancel: CancellationToken) {
    let mut tasks = Vec::new();
    // some wait for what they need to know; that must not keep anybody who wants to end
    let mut start = |controller: BoxFuture<'static, ()>| {
        let cancel = cancel.clone();
        tasks.push(tokio::spawn(async move { cancel.run_until_cancelled(controller).await }));
    };
    if let Some(signer) = config.token_signer {
        let (client, root_ca) = (client.clone(), config.root_ca.clone());
        start(Box::pin(service_account_tokens::run(client, signer, root_ca, cancel.clone())));
    }
    let shared = Shared {
        informers: Arc::new(Informers::new(client, cancel.clone())),
        root_ca: config.root_ca.into(),
        signing: config.signing.map(Arc::new),
        legacy_token_clean_up_period: config.legacy_token_clean_up_period,
    };
    type Run = fn(Shared, Client, CancellationToken) -> BoxFuture<'static, ()>;
    let controllers: [(&'static str, Run); 21] = [
        ("namespace-controller", |s, c, t| Box::pin(namespaces::run(s, c, t))),
        ("service-account-controller", |s, c, t| Box::pin(namespaces::run_service_accounts(s, c, t))),
        ("root-ca-cert-publisher", |s, c, t| Box::pin(namespaces::run_root_ca(s, c, t))),
        ("replicaset-controller", |s, c, t| Box::pin(replica_set::run(s, c, t))),
        ("deployment-controller", |s, c, t| Box::pin(deployment::run(s, c, t))),
        ("endpoint-controller", |s, c, t| Box::pin(endpoints::run(s, c, t))),
        ("endpointslice-controller", |s, c, t| Box::pin(endpoints::run_slices(s, c, t))),
        ("node-controller", |s, c, t| Box::pin(node_lifecycle::run(s, c, t))),
        ("generic-garbage-collector", |s, c, t| Box::pin(garbage_collector::run(s, c, t))),
        ("pod-garbage-collector", |s, c, t| Box::pin(pod_gc::run(s, c, t))),
        ("clusterrole-aggregation-controller", |s, c, t| Box::pin(cluster_role_aggregation::run(s, c, t))),
        ("resourcequota-controller", |s, c, t| Box::pin(resource_quota::run(s, c, t))),
        ("certificate-controller", |s, c, t| Box::pin(certificates::run_approver(s, c, t))),
        ("certificate-controller", |s, c, t| Box::pin(certificates::run_signer(s, c, t))),
        ("certificate-controller", |s, c, t| Box::pin(certificates::run_cleaner(s, c, t))),
        ("token-cleaner", |s, c, t| Box::pin(bootstrap::run_cleaner(s, c, t))),
        ("bootstrap-signer", |s, c, t| Box::pin(bootstrap::run_signer(s, c, t))),
        ("pvc-protection-controller", |s, c, t| Box::pin(in_use::run_claims(s, c, t))),
        ("pv-protection-controller", |s, c, t| Box::pin(in_use::run_volumes(s, c, t))),
        ("volumeattributesclass-protection-controller", |s, c, t| Box::pin(in_use::run_classes(s, c, t))),
        ("legacy-service-account-token-cleaner", |s, c, t| Box::pin(legacy_token_cleaner::run(s, c, t))),
    ];
    for (name, run) in controllers {
        start(run(shared.clone(), identities.client(name), cancel.clone()));
    }
    let client = identities.client("node-controller");
    start(Box::pin(node_ipam::run(shared, client, config.cluster_cidr, cancel.clone())));
    for outcome in join_all(tasks).await {
        if let Err(error) = outcome {
            tracing::error!(%error, "a controller ended by a panic");
        }
    }
}
