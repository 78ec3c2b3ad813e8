//! `xebec server`: every component in one process, each still a client of the API with its own identity.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::authentication::{KUBE_CONTROLLER_MANAGER, UserInfo};
use apiserver::bootstrap::{self, Authorities};
use apiserver::http::serve;
use apiserver::{Config, InProcess, Server};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{ClusterArgs, ServerArgs};
use crate::identities::InOneProcess;
use crate::resolve::{self, Cluster};
use crate::signals;
use crate::terminal::Terminal;

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
        resolve::data_dir(&args.data_dir)?;
        let storage = resolve::open_storage(args)?;
        let pki = resolve::pki(args, cluster)?;
        let listener = serve::bind(cluster.bind).await?;
        let config = Config {
            advertise: cluster.advertise,
            service_cidr: args.service_cluster_ip_range,
            node_ports: args.service_node_port_range,
            cluster_domain: args.cluster_domain.clone(),
        };
        let stop = CancellationToken::new();
        let server = Server::start(config, storage.clone(), &pki, stop.clone()).await?;
        let tls = Arc::new(pki.server_config()?);
        let serving = tokio::spawn(serve::serve(server.clone(), listener, tls, stop.clone()));
        let authorities = Authorities {
            client_ca: pki.ca_pem().to_owned(),
            front_proxy_ca: pki.front_proxy_ca_pem().to_owned(),
        };
        bootstrap::run(server.clone(), authorities)
            .await
            .context("the cluster's own objects cannot be made")?;
        Ok(Self { server, pki, serving, storage, stop })
    }

    /// A token that is cancelled when the server cannot go on.
    pub fn broken(&self) -> &CancellationToken {
        &self.stop
    }

    /// Lets running requests end, then closes the store.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stop.cancel();
        if tokio::time::timeout(STOP, self.serving).await.is_err() {
            tracing::warn!("some requests did not end in time");
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
    let client = |user: &str, groups: &[&str]| InProcess::client(server.clone(), UserInfo::new(user, groups));
    tasks.spawn({
        let config = controller_manager::Config { cluster_cidr, root_ca: running.pki.ca_pem().to_owned() };
        let identities = InOneProcess(server.clone());
        let (client, cancel) = (client(KUBE_CONTROLLER_MANAGER, &[]), components.clone());
        async move {
            controller_manager::run(config, client, &identities, cancel).await;
            Ok(())
        }
    });
    terminal.how_to_go_on(&kubeconfig);

    let outcome = tokio::select! {
        () = signal.cancelled() => {
            terminal.stopping();
            Ok(())
        }
        () = running.broken().cancelled() => Err(anyhow::anyhow!("the store broke off; the log says why")),
        ended = first_failure(&mut tasks) => Err(ended),
    };
    components.cancel();
    let ending = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP, ending).await.is_err() {
        tracing::warn!("some components did not end in time");
    }
    running.finish().await?;
    outcome
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
