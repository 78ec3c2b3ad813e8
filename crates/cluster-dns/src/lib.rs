//! The cluster's DNS server: answers for Services, their endpoints and pods from informers, and asks the node's own
//! name servers for the rest. It runs on nodes, behind the Service kube-system/kube-dns.

mod metrics;
mod publish;
mod server;
mod upstream;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::Informers;
use client::informer::wait_for_all;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use publish::{Error, METRICS_PORT, ensure_service};

use server::{Handler, Sockets};
use zone::{World, Zone};

/// How often it is looked whether the node has other name servers now.
const LOOK_AT_RESOLV_CONF: Duration = Duration::from_secs(5);

/// Where the server listens and what it answers for.
#[derive(Clone, Debug)]
pub struct Config {
    /// On UDP and on TCP.
    pub bind: SocketAddr,
    /// Where metrics are read.
    pub metrics_address: SocketAddr,
    /// Without dots at its ends, such as `cluster.local`.
    pub cluster_domain: String,
    /// The address of the Service kube-dns. A node whose own name server this is would ask itself.
    pub cluster_dns: Option<IpAddr>,
    /// Names the servers that are asked for names outside of the cluster; read again when it changes.
    pub resolv_conf: PathBuf,
}

/// Serves until cancelled. Names of the cluster are SERVFAIL until the API has told which there are.
pub async fn run(config: Config, client: Client, cancel: CancellationToken) -> anyhow::Result<()> {
    let sockets = Sockets::bind(config.bind)
        .await
        .with_context(|| format!("cluster DNS cannot listen on {}; is another server there?", config.bind))?;
    let for_metrics = component_base::listen("cluster DNS", "metrics", config.metrics_address).await?;
    let of_run = cancel.child_token();
    let _ends_with_run = of_run.clone().drop_guard();
    let informers = Informers::new(client, of_run.clone());
    let services = informers.all::<Service>();
    let slices = informers.all::<EndpointSlice>();
    let namespaces = informers.all::<Namespace>();
    let world = World::new(services.store().clone(), slices.store().clone(), namespaces.store().clone());
    let zone = Zone::new(&config.cluster_domain, world)
        .with_context(|| format!("{:?} is no domain name", config.cluster_domain))?;
    let handler = Arc::new(Handler::new(zone, config.bind));
    let asked = handler.clone();
    tokio::spawn(component_base::serve(for_metrics, of_run, move |path| asked.metrics.serve(path)));
    let serving = server::serve(sockets, handler.clone(), cancel.clone());
    let keeping = keep_upstream(&config, &handler);
    let syncing = async {
        wait_for_all(vec![
            ("services", services.wait_for_sync().boxed()),
            ("endpointslices", slices.wait_for_sync().boxed()),
            ("namespaces", namespaces.wait_for_sync().boxed()),
        ])
        .await;
        handler.set_synced();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = serving => outcome,
        () = keeping => Ok(()),
        () = syncing => Ok(()),
    }
}

/// Follows the node's resolv.conf. Does not end.
async fn keep_upstream(config: &Config, handler: &Handler) {
    let mut last = None;
    let mut look = tokio::time::interval(LOOK_AT_RESOLV_CONF);
    loop {
        look.tick().await;
        let text = match tokio::fs::read_to_string(&config.resolv_conf).await {
            Ok(text) => text,
            Err(error) if last.is_none() => {
                let path = config.resolv_conf.display();
                tracing::warn!(%path, %error, "no name servers of this node; names outside of the cluster fail");
                String::new()
            }
            // it is being written, most likely
            Err(_) => continue,
        };
        if last.as_ref() == Some(&text) {
            continue;
        }
        let ourselves = |ip: &IpAddr| {
            Some(*ip) == config.cluster_dns
                || (*ip == config.bind.ip() && config.bind.port() == upstream::PORT)
        };
        let servers = upstream::name_servers(&text).into_iter().filter(|ip| !ourselves(ip));
        let servers: Vec<SocketAddr> = servers.map(|ip| (ip, upstream::PORT).into()).collect();
        tracing::debug!(?servers, "names outside of the cluster are asked of these");
        handler.set_upstream(&servers);
        last = Some(text);
    }
}

#[cfg(test)]
mod tests;
