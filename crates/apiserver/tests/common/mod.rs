//! An API server in this process, on a store in a temporary folder, and requests to it without a network.
#![allow(dead_code)]

pub mod hook;
pub mod https;
pub mod managed;
pub mod stubs;
pub mod tokens;

use std::path::Path;
use std::sync::Arc;

use apiserver::authentication::{InProcessUser, UserInfo};
use apiserver::http::{body, chain};
use apiserver::pki::{Pki, PkiOptions};
use apiserver::{Config, RequestOptions, Server, bootstrap};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use storage::Storage;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub server: Arc<Server>,
    pub pki: Pki,
    folder: Option<TempDir>,
    pub storage: Arc<dyn Storage>,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect()
    }
}

pub fn pki_options(folder: &std::path::Path) -> PkiOptions {
    PkiOptions {
        dir: folder.join("pki"),
        sans: Vec::new(),
        node_name: "n1".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: [10, 96, 0, 1].into(),
    }
}

impl Cluster {
    pub async fn start(requests: RequestOptions) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |config| config.requests = requests).await
    }

    /// On what is in a folder, as [`Cluster::stop`] leaves it.
    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let pki = Pki::load_or_create(pki_options(folder.path())).unwrap();
        Self::start_with(folder, pki, change).await
    }

    pub async fn start_with(folder: TempDir, pki: Pki, change: impl FnOnce(&mut Config)) -> Self {
        let stop = CancellationToken::new();
        let storage = storage::sqlite::Sqlite::open(folder.path().join("state.db")).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let mut config = Config::new("10.0.0.1:6443".parse().unwrap(), "10.96.0.0/16".parse().unwrap());
        change(&mut config);
        let server = Server::start(config, storage.clone(), &pki, stop.clone()).await.unwrap();
        bootstrap::run(server.clone(), pki.trust().clone()).await.unwrap();
        Self { server, pki, folder: Some(folder), storage, stop }
    }

    /// Another server over the same store, with the same certificates.
    pub async fn beside(&self, change: impl FnOnce(&mut Config)) -> Arc<Server> {
        let pki = Pki::load_or_create(pki_options(self.path())).unwrap();
        let mut config = Config::new("10.0.0.2:6443".parse().unwrap(), "10.96.0.0/16".parse().unwrap());
        change(&mut config);
        let server = Server::start(config, self.storage.clone(), &pki, self.stop.clone()).await.unwrap();
        bootstrap::run(server.clone(), pki.trust().clone()).await.unwrap();
        server
    }

    /// Ends the server and leaves the folder.
    pub async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        self.storage.close().await.unwrap();
        self.folder.take().unwrap()
    }

    /// A request of the administrator.
    pub async fn admin(&self, method: &str, uri: &str, body: Value) -> Answer {
        self.ask("admin", &["system:masters"], method, uri, body, &[]).await
    }

    pub async fn ask(
        &self,
        user: &str,
        groups: &[&str],
        method: &str,
        uri: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let user = InProcessUser(Arc::new(UserInfo::new(user, groups)));
        self.send(Some(user), method, uri, body, headers).await
    }

    /// A request of whoever has a token.
    pub async fn with_token(&self, token: &str, method: &str, uri: &str, body: Value) -> Answer {
        let authorization = format!("Bearer {token}");
        self.send(None, method, uri, body, &[("authorization", &authorization)]).await
    }

    pub fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// A request of somebody in this process, or else of whoever its headers say.
    pub async fn send(
        &self,
        user: Option<InProcessUser>,
        method: &str,
        uri: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        Self::send_to(&self.server, user, method, uri, body, headers).await
    }

    /// The same, of one of several servers.
    pub async fn send_to(
        server: &Arc<Server>,
        user: Option<InProcessUser>,
        method: &str,
        uri: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let content = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let mut request = Request::builder().method(method).uri(uri).header("user-agent", "test/1");
        let typed = headers.iter().any(|(name, _)| *name == "content-type");
        if !typed {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", kind);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body::full(content)).unwrap();
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        Self::read(chain::handle(server.clone(), request).await).await
    }

    /// A request of the administrator whose body need be no JSON, though it says so.
    pub async fn send_text(&self, method: &str, uri: &str, content: &[u8]) -> Value {
        self.raw(method, uri, "application/json", content).await.body
    }

    /// The same, of any media type.
    pub async fn raw(&self, method: &str, uri: &str, media_type: &str, content: &[u8]) -> Answer {
        let user = InProcessUser(Arc::new(UserInfo::new("admin", &["system:masters"])));
        let request = Request::builder().method(method).uri(uri).header("content-type", media_type);
        let request = request.extension(user).body(body::full(content.to_vec())).unwrap();
        Self::read(chain::handle(self.server.clone(), request).await).await
    }

    /// What becomes of a request without a body. Of an answer that does not end, no more than its head is read.
    pub async fn head(&self, user: &str, groups: &[&str], method: &str, uri: &str) -> Answer {
        let user = InProcessUser(Arc::new(UserInfo::new(user, groups)));
        let request = Request::builder().method(method).uri(uri).extension(user);
        let response = chain::handle(self.server.clone(), request.body(body::empty()).unwrap()).await;
        if response.status().is_success() {
            let (parts, _) = response.into_parts();
            return Answer { code: parts.status, headers: parts.headers, body: Value::Null };
        }
        Self::read(response).await
    }

    async fn read(response: apiserver::http::Response) -> Answer {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code: parts.status, headers: parts.headers, body }
    }
}
