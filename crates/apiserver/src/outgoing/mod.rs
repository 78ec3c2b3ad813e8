//! The way from the API server to others that it asks over HTTPS: issuers of tokens, and webhooks that judge tokens
//! and requests. Knows nothing of what is asked.

pub mod kubeconfig;
pub mod retry;
pub mod trust;
pub mod ttl_cache;

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;

use crate::pki::KeyAndCertificate;

/// How long anybody who is asked may take, as upstream's clients wait.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may rest before it is closed.
const REST: Duration = Duration::from_secs(60);

/// The longest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What somebody answered, whatever it is.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In Go's words where they are well known: `Get "https://…": …`.
    pub message: String,
    /// The other side closed the connection under the request.
    pub reset: bool,
}

/// Asks over HTTPS alone, trusts whom it was told to, and keeps connections for the next question.
pub struct HttpsClient {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    credentials: Credentials,
}

/// What the API server shows besides a certificate.
#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    None,
    Header(HeaderValue),
    /// A file with a token that may be renewed at any time.
    TokenFile(std::path::PathBuf),
}

impl Credentials {
    /// What the `Authorization` header says, if there is one.
    pub async fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        match self {
            Self::None => Ok(None),
            Self::Header(value) => Ok(Some(value.clone())),
            Self::TokenFile(path) => {
                let shown = path.display();
                let token = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| format!("failed to read token file {shown}: {error}"))?;
                bearer(token.trim()).map(Some)
            }
        }
    }
}

impl HttpsClient {
    /// Trusts the certificates of `ca_pem`, or the system's when it is empty.
    pub fn new(ca_pem: &[u8]) -> Result<Self, String> {
        Self::with_identity(ca_pem, None, None)
    }

    fn with_identity(
        ca_pem: &[u8],
        own: Option<&KeyAndCertificate>,
        server_name: Option<String>,
    ) -> Result<Self, String> {
        let tls = trust::client_config_as(ca_pem, own)?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
        let builder = match server_name {
            Some(name) => {
                let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(REST)
            .build(builder.enable_http1().wrap_connector(connector));
        Ok(Self { client, credentials: Credentials::None })
    }

    pub async fn get(&self, url: &str, timeout: Duration) -> Result<Answer, Failure> {
        self.send(Method::GET, url, Bytes::new(), timeout).await
    }

    /// Posts JSON.
    pub async fn post(&self, url: &str, body: Bytes, timeout: Duration) -> Result<Answer, Failure> {
        self.send(Method::POST, url, body, timeout).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let verb = if method == Method::GET { "Get" } else { "Post" };
        let fail =
            |message: String, reset: bool| Failure { message: format!("{verb} {url:?}: {message}"), reset };
        let request = self.request(method, url, body).await.map_err(|error| fail(error, false))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| explain(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| explain(error.as_ref()))?.to_bytes();
            Ok(Answer { code: parts.status, headers: parts.headers, body })
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome.map_err(|(message, reset)| fail(message, reset)),
            Err(_) => Err(fail("context deadline exceeded".into(), false)),
        }
    }

    async fn request(&self, method: Method, url: &str, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(&method)
            .uri(url)
            .header(USER_AGENT, "kube-apiserver")
            .header(ACCEPT, "application/json, */*");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let authorization = self.credentials.authorization().await?;
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "a token holds characters that headers may not".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// What went wrong at the bottom of it, and whether the connection was closed under the request.
fn explain(error: &(dyn StdError + 'static)) -> (String, bool) {
    use std::io::ErrorKind;
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        text = error.to_string();
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return (trust::explain_tls(tls).unwrap_or_else(|| format!("remote error: tls: {tls}")), false);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_closed())
        {
            return ("EOF".into(), true);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::ConnectionRefused => {
                    return ("dial tcp: connect: connection refused".into(), false);
                }
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    return ("read: connection reset by peer".into(), true);
                }
                ErrorKind::UnexpectedEof => return ("EOF".into(), true),
                ErrorKind::TimedOut => return ("dial tcp: i/o timeout".into(), false),
                _ => {}
            }
            if let Some(inner) = io.get_ref() {
                next = Some(inner);
                continue;
            }
        }
        next = error.source();
    }
    (text, false)
}

/// A code with its name, as Go prints the status of an answer.
pub fn status_line(code: StatusCode) -> String {
    match code.canonical_reason() {
        Some(reason) => format!("{} {reason}", code.as_u16()),
        None => code.as_u16().to_string(),
    }
}

/// What a code that is no success means, in the words of upstream's client.
pub fn refusal(code: StatusCode, answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim();
    let shown: String = if text.is_empty() { "unknown".into() } else { text.chars().take(2048).collect() };
    match code.as_u16() {
        401 => "the server has asked for the client to provide credentials".into(),
        403 => shown,
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        500.. => format!("an error on the server ({shown:?}) has prevented the request from succeeding"),
        _ => format!(
            "the server responded with the status code {} but did not return more information",
            code.as_u16()
        ),
    }
}
