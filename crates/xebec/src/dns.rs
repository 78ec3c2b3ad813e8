//! The cluster's DNS on this node: the server, and its part of the Service kube-system/kube-dns.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Where the server listens on its node; the Service's port 53 leads here.
const PORT: u16 = 10053;
const RETRY: Duration = Duration::from_millis(200);

pub struct Dns {
    pub node: Node,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Reads Services and endpoints, and writes those of the DNS.
    pub client: Client,
}

pub async fn run(dns: Dns, cancel: CancellationToken) -> anyhow::Result<()> {
    let config = cluster_dns::Config {
        bind: SocketAddr::new(dns.node.ip, PORT),
        metrics_address: SocketAddr::new(dns.node.ip, cluster_dns::METRICS_PORT),
        cluster_domain: dns.cluster_domain.clone(),
        cluster_dns: Some(dns.cluster_dns),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let serving = cluster_dns::run(config, dns.client.clone(), cancel.clone());
    tokio::select! {
        outcome = serving => outcome,
        () = publish(&dns) => Ok(()),
        () = cancel.cancelled() => Ok(()),
    }
}

/// Makes the Service and this node's part of it, once the node is there to belong to. Does not end.
async fn publish(dns: &Dns) {
    loop {
        let (client, node) = (dns.client.clone(), &dns.node);
        match cluster_dns::ensure_service(client, dns.cluster_dns, &node.name, node.ip, PORT).await {
            Ok(()) => std::future::pending::<()>().await,
            Err(error) => tracing::debug!(%error, "the Service of the cluster's DNS is not there yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
