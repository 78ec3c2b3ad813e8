//! The way from the API server to what it passes requests on to: a node's kubelet, over a connection on which both
//! sides say who they are, or the pods behind a proxy, to which it is nobody in particular.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Status};
use http::Uri;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::body::{Body, BoxError, Request, Response};
use crate::pki::{Pki, PkiError};

const CONNECT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: i64 = 10250;

type Sender = http1::SendRequest<Body>;
type Connection = http1::Connection<TokioIo<Box<dyn Stream>>, Body>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to kubelets as the API server's own client, and trusts what the cluster's CA has signed; to others as
/// nobody, and trusts whoever is there, as upstream's proxy does.
#[derive(Clone)]
pub struct KubeletClient {
    tls: Arc<rustls::ClientConfig>,
    any: Arc<rustls::ClientConfig>,
}

/// How to speak to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Kubelet,
    Plain,
    Tls,
}

/// Where a node's kubelet, or a pod, listens.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub transport: Transport,
}

impl Endpoint {
    /// The endpoint of a node; the error is what a client of the API sees.
    pub fn of(node: &Object) -> Result<Self, Status> {
        const PREFERRED: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
        let addresses = node.get_array(&["status", "addresses"]);
        // names need a resolver that knows them: addresses first
        let ordered = ["InternalIP", "ExternalIP"].iter().chain(PREFERRED.iter());
        let host = ordered
            .filter_map(|kind| addresses.iter().find(|address| address["type"] == **kind))
            .find_map(|address| address.get("address")?.as_str());
        let Some(host) = host else {
            let message = format!("no preferred addresses found; known addresses: {addresses:?}");
            return Err(Status::internal(message));
        };
        let port = node.get_i64(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
        let port = u16::try_from(port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT));
        let port = port.map_err(Status::internal)?;
        Ok(Self { host: host.to_owned(), port, transport: Transport::Kubelet })
    }
}

impl Endpoint {
    /// Host and port as a URL has them.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Takes any certificate for good, as long as whoever shows it has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl KubeletClient {
    pub fn new(pki: &Pki) -> Result<Self, PkiError> {
        let tls = |error: rustls::Error| PkiError::Tls(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in pki.ca_certificates()? {
            roots.add(certificate).map_err(tls)?;
        }
        let own = &pki.apiserver_kubelet_client;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_root_certificates(roots)
            .with_client_auth_cert(own.certificates()?, own.key()?)
            .map_err(tls)?;
        let any = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config), any: Arc::new(any) })
    }

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<(Sender, Connection)> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let config = match endpoint.transport {
            Transport::Kubelet => Some(&self.tls),
            Transport::Tls => Some(&self.any),
            Transport::Plain => None,
        };
        let stream: Box<dyn Stream> = match config {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await?)
            }
        };
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
    }

    /// Sends one request over a connection of its own, so that it can be upgraded.
    pub async fn send(&self, endpoint: &Endpoint, mut request: Request) -> Result<Response, Status> {
        let fail = |error: &dyn std::fmt::Display| match endpoint.transport {
            Transport::Kubelet => Status::internal(format!(
                "error dialing backend: {error} ({}:{})",
                endpoint.host, endpoint.port
            )),
            _ => Status::service_unavailable(format!(
                "error trying to reach service: dial tcp {}: {error}",
                endpoint.authority()
            )),
        };
        let connected = tokio::time::timeout(CONNECT, self.connect(endpoint)).await;
        let (mut sender, connection) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(fail(&error)),
            Err(error) => return Err(fail(&error)),
        };
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a kubelet ended with an error");
            }
        });
        // an http/1.1 request line holds the path alone, the host has a header of its own
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_11;
        let host = http::HeaderValue::from_str(&endpoint.authority());
        request.headers_mut().insert(http::header::HOST, host.map_err(Status::internal)?);
        let response = sender.send_request(request).await.map_err(|error| fail(&error))?;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}
