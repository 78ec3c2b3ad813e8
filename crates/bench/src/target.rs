//! The cluster under load, and plain HTTP connections to it: no typed objects, no retries, no pool, so that what is
//! measured is the server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
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

const CONNECT: Duration = Duration::from_secs(10);
/// A request that takes longer has failed.
const REQUEST: Duration = Duration::from_secs(120);

/// Where a cluster is, and as whom it is asked.
#[derive(Clone)]
pub struct Target {
    pub url: String,
    address: String,
    name: ServerName<'static>,
    http1: Arc<rustls::ClientConfig>,
    http2: Arc<rustls::ClientConfig>,
    authorization: Option<HeaderValue>,
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
        Self::from_config(&config(path).await?)
    }

    /// The cluster of a kubeconfig, asked as whoever a token is for.
    pub async fn with_token(path: &Path, token: &str) -> anyhow::Result<Self> {
        let mut config = config(path).await?;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Self::from_config(&config)
    }

    fn from_config(config: &Config) -> anyhow::Result<Self> {
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
            authorization: bearer(config)?,
            url: url.to_string(),
        })
    }

    pub async fn connect(&self, protocol: Protocol) -> anyhow::Result<Connection> {
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
            anyhow::Ok(Connection {
                sender,
                host: self.address.clone(),
                authorization: self.authorization.clone(),
            })
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

async fn config(path: &Path) -> anyhow::Result<Config> {
    let shown = path.display();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| {
        format!("cannot read the kubeconfig {shown}; give one with --kubeconfig or KUBECONFIG")
    })?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("the kubeconfig {shown} is not complete"))
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
    host: String,
    authorization: Option<HeaderValue>,
}

impl Connection {
    /// Another handle on the same connection, where the protocol takes several requests at once.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                host: self.host.clone(),
                authorization: self.authorization.clone(),
            }),
        }
    }

    /// Sends a request and gives back the answer as it begins.
    pub async fn begin(&mut self, request: Request<'_>) -> anyhow::Result<http::Response<Incoming>> {
        let uri = match self.sender {
            Sender::Http1(_) => request.path.to_owned(),
            Sender::Http2(_) => format!("https://{}{}", self.host, request.path),
        };
        let mut builder = http::Request::builder().method(request.method).uri(uri);
        let headers = builder.headers_mut().context("a path that is no URL")?;
        if matches!(self.sender, Sender::Http1(_)) {
            headers.insert(HOST, HeaderValue::from_str(&self.host)?);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static("xebec-bench"));
        headers.insert(ACCEPT, HeaderValue::from_static(request.accept));
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content));
        }
        if let Some(authorization) = &self.authorization {
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

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<'_>) -> anyhow::Result<(StatusCode, Bytes)> {
        let sending = async {
            let answer = self.begin(request).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(REQUEST, sending).await.context("no answer within two minutes")?
    }
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
