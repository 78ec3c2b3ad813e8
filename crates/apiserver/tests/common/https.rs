//! Something that answers over TLS in this process, as each test tells it to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What it does with a request.
pub enum Says {
    Json(Value),
    Text(u16, String),
    Hangs,
    /// Closes the connection without a word.
    Dies,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// Null when it is no JSON.
    pub body: Value,
    /// The common name of the certificate that the client showed.
    pub client: Option<String>,
}

type Behaviour = Arc<dyn Fn(&Asked) -> Says + Send + Sync>;

pub struct Https {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Https {
    /// Listens on a port of its own; `client_ca` has clients asked for a certificate of that authority.
    pub async fn start(
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        client_ca: Option<CertificateDer<'static>>,
        does: impl Fn(&Asked) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, certificates, key, client_ca, does)
    }

    pub fn start_on(
        listener: TcpListener,
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        client_ca: Option<CertificateDer<'static>>,
        does: impl Fn(&Asked) -> Says + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(ca).unwrap();
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(certificates, key).unwrap()));
        let address = listener.local_addr().unwrap();
        let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let behaviour: Behaviour = Arc::new(does);
        let (counted, seen) = (connections.clone(), asked.clone());
        let task = tokio::spawn(async move {
            // they end with it, like those of a process that was killed
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, behaviour, seen) = (acceptor.clone(), behaviour.clone(), seen.clone());
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let client =
                        stream.get_ref().1.peer_certificates().and_then(|chain| common_name(&chain[0]));
                    let service = service_fn(|request| {
                        answer(request, behaviour.clone(), seen.clone(), client.clone())
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, connections, asked, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn common_name(der: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some(name)
}

async fn answer(
    request: Request<Incoming>,
    behaviour: Behaviour,
    seen: Arc<Mutex<Vec<Asked>>>,
    client: Option<String>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let asked = Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        client,
    };
    seen.lock().unwrap().push(asked.clone());
    let (code, text) = match behaviour(&asked) {
        Says::Json(value) => (200, value.to_string()),
        Says::Text(code, text) => (code, text),
        Says::Hangs => match std::future::pending::<Infallible>().await {},
        Says::Dies => return Err(std::io::Error::other("as it was told")),
    };
    let response = Response::builder().status(code).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(text))).unwrap())
}
