//! The listener: TLS, HTTP/1.1 and HTTP/2, one task per connection, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::{self, BoxError, Response};
use super::chain;
use crate::audit::PeerAddress;
use crate::authentication::PeerCertificates;
use crate::pki::ServingTls;
use crate::server::Server;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the headers of a request may be, as in Go; tokens are long.
const MAX_HEADERS: u32 = 1 << 20;

/// How long a connection may wait until the head of its next request is there, as upstream lets it wait idle: clients
/// come back to one that they have used not long ago.
const IDLE: Duration = Duration::from_secs(90);

/// How long running requests may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Opens the port; the error says which one and what to do.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another server has the port, choose one with --secure-port",
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address, choose one with --bind-address"
            }
            io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// Serves until cancelled, then lets running requests end.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<ServingTls>,
    cancel: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1000)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let http = Arc::new(http);
    loop {
        let (stream, peer) = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // out of file descriptors, most likely: wait for some to come back
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (server, acceptor, http) = (server.clone(), TlsAcceptor::from(tls.config()), http.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            if let Err(error) = connection(server, acceptor, http, watcher, stream, peer).await {
                tracing::debug!(%error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::debug!("some connections were still open when the server stopped");
    }
}

/// An answer to HEAD, which says how long its body would be. The library leaves it out of HTTP/1.1 alone.
fn head(mut response: Response) -> Response {
    let body = std::mem::replace(response.body_mut(), body::empty());
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    http: Arc<auto::Builder<TokioExecutor>>,
    watcher: hyper_util::server::graceful::Watcher,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let tls = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let peer = tls.get_ref().1.peer_certificates().and_then(PeerCertificates::new);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            request.extensions_mut().insert(PeerAddress(address));
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let wants_no_body = *request.method() == Method::HEAD;
            let response = chain::handle(server, request).await;
            Ok::<_, std::convert::Infallible>(if wants_no_body { head(response) } else { response })
        }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(tls), service);
    watcher.watch(connection.into_owned()).await
}
