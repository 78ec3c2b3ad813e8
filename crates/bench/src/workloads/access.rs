//! What it costs to ask whether a request may be: gets of a service account beside many roles, and creates that a
//! webhook is asked about or a quota is charged for.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::load::{self, Load, drive};
use crate::objects::config_map;
use crate::record::Record;
use crate::report::Report;
use crate::sandbox::{LABEL, Sandbox};
use crate::stop::Stop;
use crate::target::{Protocol, Request, Target, refusal};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
/// How long a quota may take until it has been counted.
const COUNTED: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Requests at once.
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub concurrency: usize,
    /// How long each is measured, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Cluster roles that have nothing to do with the requests.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub roles: u64,
    /// Bindings of these roles, each to a user of its own.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub bindings: u64,
}

pub async fn run(args: &Args, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    if args.concurrency == 0 || args.roles == 0 {
        bail!("--concurrency 0 makes no load, and bindings need roles");
    }
    Sandbox::with(target, async |sandbox| {
        let token = prepare(target, sandbox).await.context("a service account to ask as")?;
        let account = target.with_token(&token)?;
        let run = Run { args, target, account, report, stop, sandbox };
        let outcome = run.all().await;
        let removed = run.clean_up().await;
        outcome.and(removed)
    })
    .await
}

/// Lets the namespace's account write config maps there; gives back its token.
async fn prepare(target: &Target, sandbox: &Sandbox) -> anyhow::Result<String> {
    sandbox.wait_for_account().await?;
    let post =
        async |path: &str, body: Value| target.once(Request::new(Method::POST, path, body.to_string())).await;
    let namespace = &sandbox.namespace;
    let of = |plural: &str| format!("{RBAC}/namespaces/{namespace}/{plural}");
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "bench"}, "rules": rules});
    post(&of("roles"), role).await?;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "bench"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]});
    post(&of("rolebindings"), binding).await?;
    post(&sandbox.path("configmaps"), config_map("read", 0, 0, 256)).await?;
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 7200}});
    let made = post(&sandbox.path("serviceaccounts/default/token"), asked).await?;
    let made: Value = serde_json::from_slice(&made)?;
    Ok(made["status"]["token"].as_str().context("a token request without a token")?.to_owned())
}

struct Run<'a> {
    args: &'a Args,
    target: &'a Target,
    account: Target,
    report: &'a Report,
    stop: &'a Stop,
    sandbox: &'a Sandbox,
}

impl Run<'_> {
    async fn all(&self) -> anyhow::Result<()> {
        let read = self.sandbox.path("configmaps/read");
        let maps = self.sandbox.path("configmaps");
        let made = AtomicU64::new(0);
        let get = |_: u64| (Method::GET, read.clone(), Bytes::new());
        let create = |_: u64| {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let map = config_map(&format!("map-{number}"), number, 0, 256);
            (Method::POST, maps.clone(), Bytes::from(map.to_string()))
        };
        self.measure("get", &get).await?;
        self.measure("create", &create).await?;
        let hook = Hook::start().await?;
        self.post(HOOKS, self.webhook(&hook)).await?;
        self.measure("create, a webhook asked", &create).await?;
        let calls = hook.calls.load(Ordering::Relaxed);
        if calls == 0 && !self.stop.is_set() {
            bail!("the webhook was never asked; can the server reach this machine at 127.0.0.1?");
        }
        self.remove_hook().await?;
        self.with_quota().await?;
        self.measure("create, a quota charged", &create).await?;
        self.make_roles().await?;
        self.measure(&format!("get beside {} roles, {} bindings", self.args.roles, self.args.bindings), &get)
            .await
    }

    async fn measure(
        &self,
        what: &str,
        request: &(impl Fn(u64) -> (Method, String, Bytes) + Sync),
    ) -> anyhow::Result<()> {
        if self.stop.is_set() {
            return Ok(());
        }
        let load = Load {
            what: what.to_owned(),
            concurrency: self.args.concurrency,
            connections: 1,
            protocol: Protocol::Http1,
            rate: None,
            time: Duration::from_secs_f64(self.args.seconds),
            most: u64::MAX,
        };
        let connections = load.connect(&self.account).await?;
        let record = Arc::new(Record::default());
        let (_, elapsed) =
            drive(&load, &self.account, connections, &record, self.stop, async |connection, number| {
                let (method, path, body) = request(number);
                let (status, body) = connection.send(Request::new(method, &path, body)).await?;
                if !status.is_success() {
                    bail!("{}", refusal(status, &body));
                }
                Ok(body.len())
            })
            .await?;
        let mut line = record.summary(elapsed);
        line.insert("concurrency".into(), json!(self.args.concurrency));
        self.report.line(what, line);
        self.report.curve(what, &record);
        match record.failures() {
            (failures, Some(why)) if record.count() == 0 => {
                bail!("{what} failed {failures} times and never worked: {why}")
            }
            _ => Ok(()),
        }
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Bytes> {
        self.target.once(Request::new(Method::POST, path, body.to_string())).await
    }

    fn webhook(&self, hook: &Hook) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.sandbox.namespace, "labels": {LABEL.0: LABEL.1}},
            "webhooks": [{
                "name": "bench.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": hook.url, "caBundle": hook.ca_bundle},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.sandbox.namespace}},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["configmaps"]}],
            }],
        })
    }

    /// A quota with room for everything, once it counts.
    async fn with_quota(&self) -> anyhow::Result<()> {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "bench"},
            "spec": {"hard": {"count/configmaps": "1000000000"}}});
        self.post(&self.sandbox.path("resourcequotas"), quota).await?;
        let path = self.sandbox.path("resourcequotas/bench");
        let begun = Instant::now();
        loop {
            let quota: Value = serde_json::from_slice(&self.target.once(Request::get(&path)).await?)?;
            if quota["status"]["used"]["count/configmaps"].is_string() {
                return Ok(());
            }
            if begun.elapsed() > COUNTED {
                bail!("the quota is not counted after {COUNTED:?}; is a controller manager running?");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn make_roles(&self) -> anyhow::Result<()> {
        let namespace = &self.sandbox.namespace;
        let metadata =
            |number: u64| json!({"name": format!("{namespace}-{number}"), "labels": {LABEL.0: LABEL.1}});
        let role = |number: u64| {
            let rules =
                json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]);
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": metadata(number), "rules": rules})
        };
        let binding = |number: u64| {
            let of = number % self.args.roles;
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": metadata(number),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": format!("{namespace}-{of}")},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                    "name": format!("{namespace}-user-{number}")}]})
        };
        self.make("clusterroles", self.args.roles, &role).await?;
        self.make("clusterrolebindings", self.args.bindings, &binding).await
    }

    async fn make(&self, plural: &str, count: u64, body: &impl Fn(u64) -> Value) -> anyhow::Result<()> {
        let path = format!("{RBAC}/{plural}");
        load::make(plural, self.target, count, self.stop, async |connection, number| {
            let request = Request::new(Method::POST, &path, body(number).to_string());
            let (status, body) = connection.send(request).await?;
            if !status.is_success() {
                bail!("{}", refusal(status, &body));
            }
            Ok(())
        })
        .await
    }

    async fn remove_hook(&self) -> anyhow::Result<()> {
        self.delete(&format!("{HOOKS}?labelSelector={}%3D{}", LABEL.0.replace('/', "%2F"), LABEL.1)).await
    }

    async fn clean_up(&self) -> anyhow::Result<()> {
        self.remove_hook().await?;
        for plural in ["clusterrolebindings", "clusterroles"] {
            let label = LABEL.0.replace('/', "%2F");
            self.delete(&format!("{RBAC}/{plural}?labelSelector={label}%3D{}", LABEL.1)).await?;
        }
        Ok(())
    }

    async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.target.once(Request::new(Method::DELETE, path, "")).await.map(drop).context("cleaning up")
    }
}

/// A webhook in this process that lets everything pass.
struct Hook {
    url: String,
    ca_bundle: String,
    calls: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    async fn start() -> anyhow::Result<Self> {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let calls = Arc::<AtomicU64>::default();
        let counted = calls.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, calls) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    // as servers of webhooks do: a small answer is not to wait for the acknowledgement of one before
                    let _ = stream.set_nodelay(true);
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        allow(request)
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { url, ca_bundle: BASE64_STANDARD.encode(own.cert.pem()), calls, task })
    }
}

async fn allow(request: http::Request<Incoming>) -> anyhow::Result<http::Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true}});
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(answer.to_string())))?)
}
