//! A server for tests: a store and certificates in a folder that goes with the test, no listener.

#[allow(dead_code)]
#[path = "../tests/common/https.rs"]
pub mod https;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pki::{Pki, PkiOptions};
use crate::server::{Config, Server};

/// Certificates in a folder.
pub fn pki(folder: &std::path::Path) -> Pki {
    Pki::load_or_create(PkiOptions {
        dir: folder.join("pki"),
        sans: Vec::new(),
        node_name: "node".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: Ipv4Addr::new(10, 96, 0, 1).into(),
    })
    .expect("certificates")
}

/// What somebody on this machine listens with, signed by the cluster's authority.
pub fn serving(pki: &Pki) -> crate::pki::KeyAndCertificate {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    pki.issue(&crate::pki::Profile::server("somebody", names)).expect("a certificate")
}

pub async fn server(stopping: CancellationToken) -> (Arc<Server>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = pki(folder.path());
    let storage = storage::sqlite::Sqlite::open(folder.path().join("state.db")).expect("a store");
    let config =
        Config::new(SocketAddr::from(([10, 0, 0, 1], 6443)), "10.96.0.0/16".parse().expect("a range"));
    let server = Server::start(config, Arc::new(storage), &pki, stopping).await.expect("a server");
    (server, folder)
}

/// Somebody outside who is asked over TLS, and the kubeconfig that leads there.
pub struct Webhook {
    pub folder: tempfile::TempDir,
    pub server: https::Https,
}

impl Webhook {
    /// Answers at a path; the server shows a certificate and a token there.
    pub async fn start(
        path: &str,
        does: impl Fn(&https::Asked) -> https::Says + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = pki(folder.path());
        let serving = serving(&pki);
        let own = pki.issue(&crate::pki::Profile::client("apiserver", &[])).expect("a certificate");
        let authority = pki.ca_certificates().expect("some").swap_remove(0);
        let certificates = serving.certificates().expect("some");
        let key = serving.key().expect("a key");
        let server = https::Https::start(certificates, key, Some(authority), does).await;
        let kubeconfig = format!(
            "clusters: [{{name: c, cluster: {{server: '{}', certificate-authority: ca}}}}]\n\
             users: [{{name: u, user: {{client-certificate: crt, client-key: key, token: secret}}}}]\n",
            server.url(path)
        );
        for (name, text) in [
            ("ca", pki.ca_pem()),
            ("crt", own.certificate_pem.as_str()),
            ("key", own.key_pem.as_str()),
            ("config", kubeconfig.as_str()),
        ] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Self { folder, server }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }
}
