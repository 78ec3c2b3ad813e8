//! A server for tests: a store and certificates in a folder that goes with the test, no listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pki::{Pki, PkiOptions};
use crate::server::{Config, Server};

pub async fn server(stopping: CancellationToken) -> (Arc<Server>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::load_or_create(PkiOptions {
        dir: folder.path().join("pki"),
        sans: Vec::new(),
        node_name: "node".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: Ipv4Addr::new(10, 96, 0, 1).into(),
    })
    .expect("certificates");
    let storage = storage::sqlite::Sqlite::open(folder.path().join("state.db")).expect("a store");
    let config =
        Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 6443)), "10.96.0.0/16".parse().expect("a range"));
    let server = Server::start(config, Arc::new(storage), &pki, stopping).await.expect("a server");
    (server, folder)
}
