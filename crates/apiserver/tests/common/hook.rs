//! A webhook that answers over TLS in this process, as each test tells it to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::pki::{Pki, Profile};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the webhook does with a review.
pub enum Does {
    /// Answers with this `response`, to which the uid is added.
    Answers(Value),
    Says(u16, String),
    Hangs,
    /// Closes the connection without a word.
    Dies,
}

type Behaviour = Arc<dyn Fn(&str, &Value) -> Does + Send + Sync>;

pub struct Hook {
    pub address: SocketAddr,
    pub ca_bundle: String,
    pub connections: Arc<AtomicUsize>,
    pub reviews: Arc<Mutex<Vec<Value>>>,
    /// As whom the server has shown itself: with a certificate or not, and what its `Authorization` header said.
    pub callers: Arc<Mutex<Vec<(bool, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn allows() -> Does {
    Does::Answers(json!({"allowed": true}))
}

pub fn patches(operations: Value) -> Does {
    let patch = BASE64_STANDARD.encode(operations.to_string());
    Does::Answers(json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"}))
}

impl Hook {
    /// The behaviour gets the path that was called and the request of the review.
    pub async fn start(pki: &Pki, does: impl Fn(&str, &Value) -> Does + Send + Sync + 'static) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let serving = pki.issue(&Profile::server("hook", names)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(serving.certificates().unwrap(), serving.key().unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, reviews) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let behaviour: Behaviour = Arc::new(does);
        let callers = Arc::<Mutex<Vec<(bool, String)>>>::default();
        let (counted, seen, known) = (connections.clone(), reviews.clone(), callers.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, behaviour, seen) = (acceptor.clone(), behaviour.clone(), seen.clone());
                let known = known.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let certified = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(|request: Request<Incoming>| {
                        let authorization = request.headers().get("authorization");
                        let authorization = authorization.and_then(|value| value.to_str().ok());
                        let caller = (certified, authorization.unwrap_or_default().to_owned());
                        known.lock().unwrap().push(caller);
                        answer(request, behaviour.clone(), seen.clone())
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let ca_bundle = BASE64_STANDARD.encode(pki.ca_pem());
        Self { address, ca_bundle, connections, reviews, callers, task }
    }

    /// A webhook of a configuration that is called at a path of this server, for config maps.
    pub fn webhook(&self, name: &str, path: &str) -> Value {
        json!({
            "name": name,
            "clientConfig": {"url": format!("https://{}{path}", self.address), "caBundle": self.ca_bundle},
            "rules": [{
                "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
            }],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 2,
        })
    }

    pub fn asked(&self) -> Vec<Value> {
        self.reviews.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    behaviour: Behaviour,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let asked = review["request"].clone();
    seen.lock().unwrap().push(asked.clone());
    let (code, text) = match behaviour(&path, &asked) {
        Does::Answers(mut response) => {
            response["uid"] = asked["uid"].clone();
            let review =
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
            (200, review.to_string())
        }
        Does::Says(code, text) => (code, text),
        Does::Hangs => match std::future::pending::<Infallible>().await {},
        Does::Dies => return Err(std::io::Error::other("as it was told")),
    };
    Ok(Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
}
