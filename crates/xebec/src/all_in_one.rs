//! `xebec server`: every component in one process, each still a client of the API with its own identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::authentication::{
    COREDNS, KUBE_CONTROLLER_MANAGER, KUBE_PROXY, KUBE_SCHEDULER, NODES_GROUP, UserInfo,
};
use apiserver::bootstrap;
use apiserver::http::serve;
use apiserver::pki::Pki;
use apiserver::{Config, InProcess, Server};
use client::{Informers, Selector};
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Client;
use kubelet::progress::Progress;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{ClusterArgs, ServerArgs};
use crate::dns::{self, Dns};
use crate::identities::{InOneProcess, named};
use crate::identity;
use crate::node::{self, Node};
use crate::resolve::{self, Cluster};
use crate::signals;
use crate::terminal::{Terminal, show_progress};

/// How long components may take to end.
const STOP: Duration = Duration::from_secs(10);

/// An API server that answers.
pub struct Running {
    pub server: Arc<Server>,
    pub pki: apiserver::pki::Pki,
    serving: tokio::task::JoinHandle<()>,
    storage: Arc<dyn storage::Storage>,
    /// Ends the server; components end before it.
    stop: CancellationToken,
}

impl Running {
    /// Opens the store, listens, and makes what every cluster has.
    pub async fn start(args: &ClusterArgs, cluster: &Cluster) -> anyhow::Result<Self> {
        let admission = resolve::admission(args)?;
        let authentication = resolve::authentication(args)?;
        let authorization = args.webhooks.authorization()?;
        resolve::data_dir(&args.data_dir)?;
        let storage = resolve::open_storage(args)?;
        let pki = resolve::pki(args, cluster)?;
        let listener = serve::bind(cluster.bind).await?;
        let config = Config {
            advertise: cluster.advertise,
            service_cidr: args.service_cluster_ip_range,
            node_ports: args.service_node_port_range,
            cluster_domain: args.cluster_domain.clone(),
            requests: resolve::requests(&args.requests),
            admission,
            authentication,
            authorization,
            encryption: args.encryption.resolve()?,
        };
        let stop = CancellationToken::new();
        let server = Server::start(config, storage.clone(), &pki, stop.clone()).await?;
        let tls = Arc::new(pki.serving_tls()?);
        let (shown, trust) = (tls.clone(), pki.trust().clone());
        let cancel = stop.clone();
        tokio::spawn(async move {
            tokio::join!(shown.follow(cancel.clone()), trust.follow(shown.clone(), cancel.clone()))
        });
        let serving = tokio::spawn(serve::serve(server.clone(), listener, tls, stop.clone()));
        bootstrap::run(server.clone(), pki.trust().clone())
            .await
            .context("the cluster's own objects cannot be made")?;
        Ok(Self { server, pki, serving, storage, stop })
    }

    /// A token that is cancelled when the server cannot go on.
    pub fn broken(&self) -> &CancellationToken {
        &self.stop
    }

    /// Leads clients to other servers, lets running requests end, then closes the store.
    pub async fn finish(self) -> anyhow::Result<()> {
        bootstrap::stop(&self.server).await;
        self.stop.cancel();
        if tokio::time::timeout(STOP, self.serving).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        if let Some(audit) = self.server.audit.clone() {
            audit.flush().await;
        }
        self.storage.close().await.context("closing the database")
    }
}

pub async fn run(args: ServerArgs) -> anyhow::Result<()> {
    let terminal = Terminal::default();
    let signal = signals::stop_token()?;
    let cluster = Cluster::resolve(&args.cluster)?;
    let cluster_cidr = controller_manager::ClusterCidr::parse(&args.cluster_cidr, args.node_cidr_mask_size)
        .context("--cluster-cidr")?;
    let running = Running::start(&args.cluster, &cluster).await?;
    let kubeconfig = args.cluster.data_dir.join("admin.kubeconfig");
    terminal.api_ready(&cluster.server_url, &kubeconfig);

    let components = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let server = running.server.clone();
    let client = |user: &str, groups: &[&str]| {
        let component =
            if groups.contains(&NODES_GROUP) { "kubelet" } else { user.trim_start_matches("system:") };
        named(InProcess::client(server.clone(), UserInfo::new(user, groups)), component)
    };
    tasks.spawn({
        let file = args.cluster.service_accounts.service_account_signing_key_file.as_deref();
        let key = match identity::signing_key("service-account-signing-key-file", file)? {
            Some(key) => key,
            None => running.pki.service_account_key()?,
        };
        let config = controller_manager::Config {
            cluster_cidr,
            root_ca: running.pki.ca_pem().to_owned(),
            signing: Some(args.signing.with_pki(&args.cluster.data_dir)?),
            token_signer: Some(identity::token_signer(key)),
            legacy_token_clean_up_period: args.legacy_tokens.legacy_service_account_token_clean_up_period,
        };
        let identities = InOneProcess(server.clone());
        let (client, cancel) = (client(KUBE_CONTROLLER_MANAGER, &[]), components.clone());
        async move {
            controller_manager::run(config, client, &identities, cancel).await;
            Ok(())
        }
    });
    tasks.spawn(scheduler::run(
        scheduler::Config::default(),
        client(KUBE_SCHEDULER, &[]),
        components.clone(),
    ));
    if !args.disable_agent {
        let (progress, steps) = Progress::channel();
        let agent = Agent {
            kubelet: kubelet::Config { progress, ..kubelet_config(&args, &cluster, &running.pki)? },
            kubelet_client: client(&format!("system:node:{}", cluster.node_name), &[NODES_GROUP]),
            cluster_cidr: args.cluster_cidr.clone(),
            proxy: node::proxy_config(
                &Node { name: cluster.node_name.clone(), ip: cluster.node_ip },
                &args.cluster_cidr,
                &args.cluster.service_cluster_ip_range,
            )?,
            proxy_client: client(KUBE_PROXY, &[]),
            dns: Dns {
                node: Node { name: cluster.node_name.clone(), ip: cluster.node_ip },
                cluster_dns: cluster_dns(&args),
                cluster_domain: args.cluster.cluster_domain.clone(),
                client: client(COREDNS, &[]),
            },
        };
        tokio::spawn(show_progress(steps));
        agent.start(&mut tasks, &components);
        let ready = wait_until_ready(client(KUBE_CONTROLLER_MANAGER, &[]), &cluster.node_name);
        tokio::select! {
            outcome = ready => {
                outcome?;
                terminal.node_ready(&cluster.node_name);
            }
            () = signal.cancelled() => {}
            () = running.broken().cancelled() => {}
            ended = first_failure(&mut tasks) => {
                end(tasks, &components).await;
                running.finish().await?;
                return Err(ended);
            }
        }
    }
    terminal.how_to_go_on(&kubeconfig);

    let outcome = tokio::select! {
        () = signal.cancelled() => {
            terminal.stopping();
            Ok(())
        }
        () = running.broken().cancelled() => Err(anyhow::anyhow!("the store broke off; the log says why")),
        ended = first_failure(&mut tasks) => Err(ended),
    };
    end(tasks, &components).await;
    running.finish().await?;
    outcome
}

/// Asks components to end and waits for them.
async fn end(mut tasks: JoinSet<anyhow::Result<()>>, components: &CancellationToken) {
    components.cancel();
    let ending = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP, ending).await.is_err() {
        tracing::warn!("some components did not end in time");
    }
}

/// The parts of a node.
struct Agent {
    kubelet: kubelet::Config,
    kubelet_client: Client,
    cluster_cidr: String,
    proxy: kube_proxy::Config,
    proxy_client: Client,
    dns: Dns,
}

impl Agent {
    fn start(self, tasks: &mut JoinSet<anyhow::Result<()>>, cancel: &CancellationToken) {
        let cancel_kubelet = cancel.clone();
        tasks.spawn(async move {
            node::run_kubelet(self.kubelet, self.kubelet_client, &self.cluster_cidr, cancel_kubelet).await
        });
        tasks.spawn(dns::run(self.dns, cancel.clone()));
        tasks.spawn(kube_proxy::run(self.proxy, self.proxy_client, cancel.clone()));
    }
}

/// The address of the cluster's DNS: as given, or the tenth of the Services'.
fn cluster_dns(args: &ServerArgs) -> IpAddr {
    args.cluster_dns.unwrap_or_else(|| args.cluster.service_cluster_ip_range.primary.nth(10))
}

fn kubelet_config(args: &ServerArgs, cluster: &Cluster, pki: &Pki) -> anyhow::Result<kubelet::Config> {
    let mut config = kubelet::Config::new(
        &cluster.node_name,
        cluster.node_ip,
        std::path::absolute(&args.cluster.data_dir)?,
    );
    config.cluster_dns = vec![cluster_dns(args)];
    config.cluster_domain = args.cluster.cluster_domain.clone();
    config.container_runtime_endpoint = args.container_runtime_endpoint.clone();
    config.client_ca = Some(pki.ca_pem().as_bytes().to_vec());
    let serving = resolve::kubelet_serving(pki, cluster)?;
    config.serving = kubelet::config::Serving::Given(kubelet::config::ServingCertificate {
        certificate: serving.certificate_pem.into_bytes(),
        key: serving.key_pem.into_bytes(),
    });
    Ok(config)
}

/// Waits until the node says that it is ready.
async fn wait_until_ready(client: Client, name: &str) -> anyhow::Result<()> {
    let informers = Informers::new(client, CancellationToken::new());
    let nodes = informers.select::<ApiNode>(Selector::fields(format!("metadata.name={name}")));
    let (ready, is_ready) = watch::channel(false);
    nodes.on_change(move |change| {
        let conditions = change.object().status.as_ref().and_then(|status| status.conditions.as_ref());
        let found = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        ready.send_if_modified(|ready| std::mem::replace(ready, found) != found);
    });
    let mut is_ready = is_ready;
    is_ready.wait_for(|ready| *ready).await.map(drop).context("waiting for the node")
}

/// Waits for a component that fails. One that merely ends does not end the others.
async fn first_failure(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(error) => return anyhow::Error::new(error).context("a component ended by a panic"),
        }
    }
    std::future::pending().await
}
