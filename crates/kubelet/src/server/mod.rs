//! The kubelet's HTTPS server: pods, logs, exec, attach, port-forward, metrics; for the API server and for those it
//! allows.

mod auth;
mod container_logs;
mod metrics;
mod proxy;
mod routes;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::Client;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certificates::serving::Shown;
use crate::pods::Pods;
use crate::shared::Shared;

pub use tls::TlsError;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at the same time; streams of logs and execs hold one each.
const MAX_CONNECTIONS: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A socket that listens, before there is anything to answer with: the node's status names its port.
pub struct Listener {
    socket: TcpListener,
    pub port: u16,
    acceptor: TlsAcceptor,
    /// The certificate that connections are shown.
    pub shown: Arc<Shown>,
}

impl Listener {
    pub async fn bind(config: &crate::Config) -> Result<Self, ServerError> {
        let shown = tls::shown(config)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(config, shown.clone())?));
        let address = SocketAddr::new(config.address, config.port);
        let socket = TcpListener::bind(address).await.map_err(|error| ServerError::Listen(address, error))?;
        let port = socket.local_addr().map_or(config.port, |local| local.port());
        Ok(Self { socket, port, acceptor, shown })
    }
}

/// What answers need.
pub struct Server {
    pub shared: Arc<Shared>,
    pub pods: Arc<Pods>,
    auth: auth::Auth,
}

impl Server {
    pub fn new(shared: Arc<Shared>, pods: Arc<Pods>, client: Client) -> Arc<Self> {
        let auth = auth::Auth::new(client, shared.config.node_name.clone());
        Arc::new(Self { shared, pods, auth })
    }

    pub async fn run(self: Arc<Self>, listener: Listener, cancel: CancellationToken) {
        let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        let serve = async {
            loop {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (tcp, peer) = match listener.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let (server, acceptor) = (self.clone(), listener.acceptor.clone());
                tokio::spawn(async move {
                    if let Err(error) = server.connection(tcp, acceptor).await {
                        tracing::debug!(%peer, error, "a connection ended with an error");
                    }
                    drop(place);
                });
            }
        };
        cancel.run_until_cancelled(serve).await;
    }

    async fn connection(
        self: Arc<Self>,
        tcp: tokio::net::TcpStream,
        acceptor: TlsAcceptor,
    ) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        tcp.set_nodelay(true).map_err(|error| text(&error))?;
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp))
            .await
            .map_err(|error| text(&error))?
            .map_err(|error| text(&error))?;
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| auth::user_of(chain.first()?));
        let service = service_fn(move |request| {
            let (server, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(routes::handle(server, peer, request).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        served.map_err(|error| text(&error))
    }
}
