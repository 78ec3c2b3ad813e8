//! What others ask the proxy over HTTP: is it alive, does this node take traffic, what has it done.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use component_base::{Page, listen, not_found, page, serve};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proxier::HealthCheck;

/// Who listens.
pub const COMPONENT: &str = "kube-proxy";
const JSON: &str = "application/json";

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

    fn answer(&self, good: bool) -> Page {
        let state = *self.state.lock();
        let body = json!({
            "lastUpdated": state.updated.to_string(),
            "currentTime": Timestamp::now().to_string(),
            "nodeEligible": state.node_eligible,
        });
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        page(status, JSON, body.to_string())
    }

    pub fn serve(&self, path: &str) -> Page {
        match path {
            "/healthz" => self.answer(self.is_healthy()),
            "/livez" => self.answer(self.is_alive()),
            _ => not_found(),
        }
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
            let listener =
                match listen(COMPONENT, &format!("health checks of {}", check.service), address).await {
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

fn service_answer(service: &ObjectKey, local_endpoints: usize, healthy: bool) -> Page {
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let good = local_endpoints > 0 && healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut page = page(status, JSON, body.to_string());
    page.headers_mut().insert("x-load-balancing-endpoint-weight", HeaderValue::from(local_endpoints));
    page
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
