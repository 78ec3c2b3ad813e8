//! What others ask the proxy over HTTP: is it alive, does this node take traffic, what has it done.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::ObjectKey;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proxier::HealthCheck;

const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A probe's connection ends after this.
const CONNECTION: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 64;
const JSON: &str = "application/json";

pub type Answer = Response<Full<Bytes>>;

/// How the proxy is doing. Written by the loop that synchronises, read by whoever asks; the lock is held for copies
/// of a few words only.
pub struct Health {
    state: Mutex<State>,
    /// A change that waits longer than this makes the proxy unhealthy.
    patience: Duration,
}

#[derive(Clone, Copy)]
struct State {
    updated: Timestamp,
    waiting_since: Option<Timestamp>,
    /// The node is not about to be taken away.
    node_eligible: bool,
}

impl Health {
    pub fn new(sync_period: Duration) -> Self {
        let state = State { updated: Timestamp::now(), waiting_since: None, node_eligible: true };
        Self { state: Mutex::new(state), patience: sync_period * 2 }
    }

    pub fn queued(&self) {
        self.state.lock().waiting_since.get_or_insert_with(Timestamp::now);
    }

    pub fn updated(&self) {
        let mut state = self.state.lock();
        state.updated = Timestamp::now();
        state.waiting_since = None;
    }

    pub fn set_node_eligible(&self, eligible: bool) {
        self.state.lock().node_eligible = eligible;
    }

    /// Whether changes reach the rules.
    pub fn is_alive(&self) -> bool {
        let waiting_since = self.state.lock().waiting_since;
        waiting_since.is_none_or(|since| {
            let waited = Timestamp::now().duration_since(since);
            Duration::try_from(waited).is_ok_and(|waited| waited < self.patience)
        })
    }

    /// Whether load balancers should send traffic here.
    pub fn is_healthy(&self) -> bool {
        self.is_alive() && self.state.lock().node_eligible
    }

    fn answer(&self, good: bool) -> Answer {
        let state = *self.state.lock();
        let body = json!({
            "lastUpdated": state.updated.to_string(),
            "currentTime": Timestamp::now().to_string(),
            "nodeEligible": state.node_eligible,
        });
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, JSON, body.to_string())
    }

    pub fn serve(&self, path: &str) -> Answer {
        match path {
            "/healthz" => self.answer(self.is_healthy()),
            "/livez" => self.answer(self.is_alive()),
            _ => not_found(),
        }
    }
}

pub fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

pub fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
}

pub async fn listen(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("kube-proxy cannot listen on {address} for {what}; is another one running?"))
}

/// Answers by path until cancelled. Connections beyond a few dozen wait.
pub async fn serve(
    listener: TcpListener,
    cancel: CancellationToken,
    by_path: impl Fn(&str) -> Answer + Send + Sync + 'static,
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

/// The ports on which load balancers ask whether this node has endpoints of a Service.
#[derive(Default)]
pub struct ServiceHealth {
    servers: HashMap<ObjectKey, Server>,
}

struct Server {
    port: u16,
    local_endpoints: Arc<Mutex<usize>>,
    /// Ends the server with this entry.
    _guard: DropGuard,
}

impl ServiceHealth {
    /// Opens and closes ports as the Services say. What cannot be opened is tried again with the next change.
    pub async fn sync(&mut self, checks: Vec<HealthCheck>, health: &Arc<Health>) {
        let wanted: HashMap<_, _> = checks.iter().map(|check| (&check.service, check.port)).collect();
        self.servers.retain(|service, server| wanted.get(service) == Some(&server.port));
        for check in checks {
            if let Some(server) = self.servers.get(&check.service) {
                *server.local_endpoints.lock() = check.local_endpoints;
                continue;
            }
            let address = (Ipv4Addr::UNSPECIFIED, check.port).into();
            let listener = match listen(&format!("health checks of {}", check.service), address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!("{error:#}");
                    continue;
                }
            };
            let cancel = CancellationToken::new();
            let local_endpoints = Arc::new(Mutex::new(check.local_endpoints));
            let (service, count, health) = (check.service.clone(), local_endpoints.clone(), health.clone());
            tokio::spawn(serve(listener, cancel.clone(), move |_| {
                service_answer(&service, *count.lock(), health.is_healthy())
            }));
            let server = Server { port: check.port, local_endpoints, _guard: cancel.drop_guard() };
            self.servers.insert(check.service, server);
        }
    }
}

fn service_answer(service: &ObjectKey, local_endpoints: usize, healthy: bool) -> Answer {
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let good = local_endpoints > 0 && healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = answer(status, JSON, body.to_string());
    answer.headers_mut().insert("x-load-balancing-endpoint-weight", HeaderValue::from(local_endpoints));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_change_makes_the_proxy_unhealthy_and_an_update_heals_it() {
        let health = Health::new(Duration::ZERO);
        assert_eq!(health.serve("/healthz").status(), StatusCode::OK);
        health.queued();
        assert_eq!(health.serve("/livez").status(), StatusCode::SERVICE_UNAVAILABLE);
        health.updated();
        assert_eq!(health.serve("/livez").status(), StatusCode::OK);
        health.set_node_eligible(false);
        assert_eq!(health.serve("/livez").status(), StatusCode::OK);
        assert_eq!(health.serve("/healthz").status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.serve("/").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_service_is_healthy_where_it_has_endpoints() {
        let service = ObjectKey::new("ns", "web");
        for (endpoints, healthy, status) in [(1, true, 200), (0, true, 503), (2, false, 503)] {
            let answer = service_answer(&service, endpoints, healthy);
            assert_eq!(answer.status().as_u16(), status, "{endpoints} {healthy}");
        }
    }
}
