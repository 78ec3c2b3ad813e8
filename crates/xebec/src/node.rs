//! The parts of a node, however they are started.

use std::net::IpAddr;

use anyhow::Context;
use kube::Client;
use storage::Storage;
use storage::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;

use crate::cli::ResetArgs;

/// What pods may send in one packet.
const POD_MTU: u32 = 1500;

/// Who and where a node is.
pub struct Node {
    pub name: String,
    pub ip: IpAddr,
}

/// The kubelet and the pod network, which is the node's own business too.
pub async fn run_kubelet(
    config: kubelet::Config,
    client: Client,
    cluster_cidr: &str,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let paths = config.paths();
    let network = cluster_network::Config {
        node_name: config.node_name.clone(),
        cni_folder: paths.cni_config(),
        state: paths.cni_state(),
        mtu: POD_MTU,
        cluster_cidr: cluster_cidr.parse().context("--cluster-cidr")?,
    };
    let network = cluster_network::run(network, client.clone(), cancel.clone());
    tokio::try_join!(network, kubelet::run(config, client, cancel.clone())).map(drop)
}

pub fn proxy_config(
    node: &Node,
    cluster_cidr: &str,
    services: &apiserver::ServiceRanges,
) -> anyhow::Result<kube_proxy::Config> {
    let IpAddr::V4(ip) = node.ip else {
        anyhow::bail!("the node's address {} is not an IPv4 address; give one with --node-ip", node.ip);
    };
    let mut config = kube_proxy::Config::new(&node.name, ip);
    config.cluster_cidr = Some(cluster_cidr.parse().context("--cluster-cidr")?);
    config.service_cidr = match services.of_family(false) {
        Some(range) => Some(range.to_string().parse().context("--service-cluster-ip-range")?),
        None => None,
    };
    Ok(config)
}

/// Takes back what a node left on this machine. State and images stay.
pub async fn reset(args: ResetArgs) -> anyhow::Result<()> {
    let data_dir = std::path::absolute(&args.data_dir)?;
    let state = data_dir.join("state.db");
    if state.exists() {
        match Sqlite::open(&state) {
            Ok(storage) => storage.close().await?,
            Err(error @ storage::Error::Locked { .. }) => {
                return Err(error).context("a server runs on this data directory; stop it first");
            }
            // whatever is wrong with the state, it is not touched
            Err(error) => tracing::debug!(%error, "the database cannot be opened"),
        }
    }
    // neither name nor address matters to what is left
    let config = kubelet::Config::new("", IpAddr::from([0, 0, 0, 0]), &data_dir);
    kubelet::teardown(&config).await.context("the node cannot be taken down")?;
    kube_proxy::cleanup(true).await.context("the packet rules cannot be taken back")?;
    cluster_network::cleanup().await
}
