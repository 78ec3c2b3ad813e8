//! The cluster under load, and plain HTTP connections to it: no typed objects, no retries, no pool, so that what is
//! measured is the server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::journal::{Journal, Verdict};

const CONNECT: Duration = Duration::from_secs(10);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(120);
/// How long a server that was killed may take to come back.
pub const COME_BACK: Duration = Duration::from_secs(120);
pub const RETRY: Duration = Duration::from_millis(10);
/// How often a request is sent again when the server asks for it, as upstream's client does.
const THROTTLED: u32 = 10;

/// Where a cluster is, and as whom it is asked.
#[derive(Clone)]
pub struct Target {
    pub url: String,
    address: String,
    name: ServerName<'static>,
    http1: Arc<rustls::ClientConfig>,
    http2: Arc<rustls::ClientConfig>,
    authorization: Option<HeaderValue>,
    config: Arc<Config>,
    /// How often the server has said that it has too many requests.
    throttled: Arc<AtomicU64>,
    /// Where the server is killed on purpose: what it has acknowledged.
    journal: Option<Arc<Journal>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time on each connection.
    Http1,
    /// HTTP/2: many requests at once on each connection.
    Http2,
}

/// How bodies are written and asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Protobuf,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

impl Target {
    pub async fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let kubeconfig = Kubeconfig::read_from(path).with_context(|| {
            format!("cannot read the kubeconfig {shown}; give one with --kubeconfig or KUBECONFIG")
        })?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {shown} is not complete"))?;
        Self::from_config(config).with_context(|| format!("the kubeconfig {shown}"))
    }

    /// The same cluster, asked as whoever a token is for.
    pub fn with_token(&self, token: &str) -> anyhow::Result<Self> {
        let mut config = self.config.as_ref().clone();
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        let (throttled, journal) = (self.throttled.clone(), self.journal.clone());
        Ok(Self { throttled, journal, ..Self::from_config(config)? })
    }

    fn from_config(config: Config) -> anyhow::Result<Self> {
        let url = config.cluster_url.clone();
        let (Some("https"), Some(host)) = (url.scheme_str(), url.host()) else {
            bail!("the server {url} is not reached by https");
        };
        let tls = |protocol: &[u8]| -> anyhow::Result<_> {
            let mut tls = config.rustls_client_config().context("the kubeconfig's certificates")?;
            tls.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(tls))
        };
        let named = config.tls_server_name.clone().unwrap_or_else(|| host.to_owned());
        Ok(Self {
            address: format!("{host}:{}", url.port_u16().unwrap_or(443)),
            name: ServerName::try_from(named).context("the server's name")?,
            http1: tls(b"http/1.1")?,
            http2: tls(b"h2")?,
            authorization: bearer(&config)?,
            url: url.to_string(),
            config: Arc::new(config),
            throttled: Arc::default(),
            journal: None,
        })
    }

    /// The same cluster, whose server is killed now and then: requests wait until it is back and are sent again, and
    /// what it acknowledges is kept.
    pub fn under_kills(mut self) -> Self {
        self.journal = Some(Arc::default());
        self
    }

    pub fn is_killed(&self) -> bool {
        self.journal.is_some()
    }

    /// How often the server has said so far that it has too many requests.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// How many writes were acknowledged so far, where that is kept.
    pub fn acknowledged(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.acknowledged())
    }

    /// What did not hold of what was verified so far.
    pub fn verdict(&self) -> Verdict {
        self.journal.as_ref().map(|journal| journal.verdict()).unwrap_or_default()
    }

    /// Looks whether all that was acknowledged is there, before it is removed.
    pub async fn verify(&self) -> anyhow::Result<()> {
        match &self.journal {
            Some(journal) => {
                journal.verify(self).await.context("comparing what is there with what was written")
            }
            None => Ok(()),
        }
    }

    /// A watch could not go on, and a list took its place.
    pub fn relisted(&self) {
        if let Some(journal) = &self.journal {
            journal.relisted();
        }
    }

    /// The resourceVersion of a collection as it is now.
    pub async fn current_version(&self, collection: &str) -> anyhow::Result<u64> {
        let list = self.once(Request::get(&format!("{collection}?limit=1"))).await?;
        let list: serde_json::Value = serde_json::from_slice(&list)?;
        let version = list["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
        version.context("a list without resourceVersion")
    }

    pub async fn connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
        let begun = Instant::now();
        loop {
            match self.try_to_connect(protocol).await {
                Err(_) if self.is_killed() && begun.elapsed() < COME_BACK => tokio::time::sleep(RETRY).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_to_connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
        let connecting = async {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            let tls = match protocol {
                Protocol::Http1 => &self.http1,
                Protocol::Http2 => &self.http2,
            };
            let tls = TlsConnector::from(tls.clone()).connect(self.name.clone(), tcp).await?;
            let io = TokioIo::new(tls);
            let sender = match protocol {
                Protocol::Http1 => {
                    let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                    tokio::spawn(connection);
                    Sender::Http1(sender)
                }
                Protocol::Http2 => {
                    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
                    builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
                    let (sender, connection) = builder.handshake(io).await?;
                    tokio::spawn(connection);
                    Sender::Http2(sender)
                }
            };
            anyhow::Ok(Connection { sender, target: self.clone() })
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .with_context(|| format!("{} does not answer within {CONNECT:?}", self.url))?
            .with_context(|| format!("{} cannot be reached; is the server running?", self.url))
    }

    /// One request over a connection of its own; an answer that is no success is an error with what was said.
    pub async fn once(&self, request: Request<'_>) -> anyhow::Result<Bytes> {
        let mut connection = self.connect(Protocol::Http1).await?;
        let what = format!("{} {}", request.method, request.path);
        let (status, body) = connection.send(request).await?;
        match status.is_success() {
            true => Ok(body),
            false => bail!("{what}: {}", refusal(status, &body)),
        }
    }
}

fn bearer(config: &Config) -> anyhow::Result<Option<HeaderValue>> {
    let AuthInfo { token, token_file, exec, .. } = &config.auth_info;
    if exec.is_some() {
        bail!("the kubeconfig's user gets its credentials from a program, which is not supported here");
    }
    let token = match (token, token_file) {
        (Some(token), _) => Some(token.expose_secret().to_owned()),
        (None, Some(file)) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("the token in {file}"))?)
        }
        _ => None,
    };
    token
        .map(|token| HeaderValue::from_str(&format!("Bearer {}", token.trim())).context("the token"))
        .transpose()
}

/// One request, as short as it can be said.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Bytes,
    pub content: &'static str,
    pub accept: &'static str,
}

impl<'a> Request<'a> {
    pub fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    /// In JSON unless something else is said.
    pub fn new(method: Method, path: &'a str, body: impl Into<Bytes>) -> Self {
        let json = Format::Json.media_type();
        Self { method, path, body: body.into(), content: json, accept: json }
    }

    pub fn accept(mut self, format: Format) -> Self {
        self.accept = format.media_type();
        self
    }

    pub fn content(mut self, media_type: &'static str) -> Self {
        self.content = media_type;
        self
    }
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// One connection.
pub struct Connection {
    sender: Sender,
    target: Target,
}

impl Connection {
    pub fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }

    /// Another handle on the same connection, where the protocol takes several requests at once.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { sender: Sender::Http2(sender.clone()), target: self.target.clone() })
            }
        }
    }

    /// Sends a request and gives back the answer as it begins.
    pub async fn begin(&mut self, request: Request<'_>) -> anyhow::Result<http::Response<Incoming>> {
        let uri = match self.sender {
            Sender::Http1(_) => request.path.to_owned(),
            Sender::Http2(_) => format!("https://{}{}", self.target.address, request.path),
        };
        let mut builder = http::Request::builder().method(request.method).uri(uri);
        let headers = builder.headers_mut().context("a path that is no URL")?;
        if matches!(self.sender, Sender::Http1(_)) {
            headers.insert(HOST, HeaderValue::from_str(&self.target.address)?);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static("xebec-bench"));
        headers.insert(ACCEPT, HeaderValue::from_static(request.accept));
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content));
        }
        if let Some(authorization) = &self.target.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = builder.body(Full::new(request.body))?;
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// As [`Connection::begin`], but a server that has too many requests is asked again when it says, for as long as any
    /// request may take.
    pub async fn begin_in_turn(&mut self, request: Request<'_>) -> anyhow::Result<http::Response<Incoming>> {
        let begun = Instant::now();
        loop {
            let answer = self.begin(request.clone()).await?;
            let wait = retry_after(&answer).filter(|_| answer.status() == StatusCode::TOO_MANY_REQUESTS);
            let Some(wait) = wait.filter(|_| begun.elapsed() < REQUEST) else { return Ok(answer) };
            self.target.throttled.fetch_add(1, Ordering::Relaxed);
            // what came with it is read, so that the connection can be used again
            answer.into_body().collect().await?;
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request and reads the whole answer. A server that has too many requests is asked again when it says.
    pub async fn send(&mut self, mut request: Request<'_>) -> anyhow::Result<(StatusCode, Bytes)> {
        if let Some(journal) = self.target.journal.clone() {
            // answers must tell the version
            request.accept = Format::Json.media_type();
            if request.method != Method::GET {
                Box::pin(journal.expect(&self.target, &request.method, request.path)).await?;
            }
            return self.send_until_answered(&request, &journal).await;
        }
        let mut answer = self.attempt(&request).await?;
        for _ in 0..THROTTLED {
            let Some(wait) = answer.wait.filter(|_| answer.status == StatusCode::TOO_MANY_REQUESTS) else {
                break;
            };
            self.target.throttled.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            answer = self.attempt(&request).await?;
        }
        Ok((answer.status, answer.body))
    }

    /// Sends a request that must succeed; gives back the body of its answer.
    pub async fn success(&mut self, request: Request<'_>) -> anyhow::Result<Bytes> {
        let (status, body) = self.send(request).await?;
        match status.is_success() {
            true => Ok(body),
            false => bail!("{}", refusal(status, &body)),
        }
    }

    async fn attempt(&mut self, request: &Request<'_>) -> anyhow::Result<Answer> {
        let sending = async {
            let answer = self.begin(request.clone()).await?;
            let status = answer.status();
            let wait = retry_after(&answer);
            let body = answer.into_body().collect().await?.to_bytes();
            Ok(Answer { status, wait, body })
        };
        tokio::time::timeout(REQUEST, sending).await.context("no answer within two minutes")?
    }

    /// A server that is killed has done what it did not answer, or not: the request is sent again.
    async fn send_until_answered(
        &mut self,
        request: &Request<'_>,
        journal: &Journal,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let begun = Instant::now();
        let mut unanswered = false;
        loop {
            match self.attempt(request).await {
                Ok(Answer { status, body, .. }) if is_final(status) || begun.elapsed() > COME_BACK => {
                    let (status, body) = match status {
                        StatusCode::CONFLICT if unanswered && request.method == Method::POST => {
                            self.made_before(request, status, body).await?
                        }
                        StatusCode::NOT_FOUND if unanswered && request.method == Method::DELETE => {
                            (StatusCode::OK, body)
                        }
                        _ => (status, body),
                    };
                    if status.is_success() && request.method != Method::GET {
                        journal.acknowledge(&request.method, request.path, &body)?;
                    }
                    return Ok((status, body));
                }
                Err(error) if begun.elapsed() > COME_BACK => return Err(error),
                _ => unanswered = true,
            }
            tokio::time::sleep(RETRY).await;
            *self = self.target.connect(self.protocol()).await?;
        }
    }

    /// What is there under the name of a create that had no answer and was sent again, if it says its name.
    async fn made_before(
        &mut self,
        request: &Request<'_>,
        status: StatusCode,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let said: serde_json::Value = serde_json::from_slice(&body)?;
        let Some(name) = said["details"]["name"].as_str() else { return Ok((status, body)) };
        let collection = request.path.split('?').next().unwrap_or_default();
        let item = format!("{collection}/{name}");
        let there = Box::pin(self.target.once(Request::get(&item))).await?;
        Ok((StatusCode::CREATED, there))
    }
}

/// How long a server asks to wait.
fn retry_after(answer: &http::Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether a server that is going or coming would not have said it.
pub fn is_final(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

struct Answer {
    status: StatusCode,
    /// How long the server asks to wait.
    wait: Option<Duration>,
    body: Bytes,
}

/// What a server said when it refused.
pub fn refusal(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
    match message {
        Some(message) => format!("{status}: {message}"),
        None => format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]).trim()),
    }
}
