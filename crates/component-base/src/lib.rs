//! What components show of themselves over HTTP: small pages by path, such as their health and their metrics. Knows
//! nothing of what is on them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A probe's connection ends after this.
const CONNECTION: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 64;

pub type Page = Response<Full<Bytes>>;

pub fn page(status: StatusCode, content_type: &'static str, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    page
}

pub fn not_found() -> Page {
    page(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
}

/// All that a registry counts.
pub fn metrics(registry: &Registry) -> Page {
    let mut text = String::new();
    // writing to a String does not fail
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    page(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

/// Listens for those who ask `component` for `what`.
pub async fn listen(component: &str, what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{component} cannot listen on {address} for {what}; is another one running?")
    })
}

/// Answers by path until cancelled. Connections beyond a few dozen wait.
pub async fn serve(
    listener: TcpListener,
    cancel: CancellationToken,
    by_path: impl Fn(&str) -> Page + Send + Sync + 'static,
) {
    let by_path = Arc::new(by_path);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // out of file descriptors, most likely
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let by_path = by_path.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(by_path(request.uri().path())))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // how a prober's connection ends is the prober's affair
            let _ = tokio::time::timeout(CONNECTION, connection).await;
            drop(permit);
        });
    }
}
