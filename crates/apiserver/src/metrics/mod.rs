//! `/metrics`: what the server does, under upstream's names.

mod access;
mod text;

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use access::{AccessMetrics, Authentication};

use crate::admission::metrics::AdmissionMetrics;
use crate::authentication::metrics::TokenCacheMetrics;
use crate::http::request_info::RequestInfo;
use crate::server::Server;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: Verb,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: Verb,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebSocketLabels {
    subresource: String,
    proxy_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ImpersonationLabels {
    mode: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Verb(&'static str);

impl EncodeLabelValue for Verb {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

pub struct Metrics {
    pub access: AccessMetrics,
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    long_running: Gauge<i64, AtomicI64>,
    translated: Family<CodeLabels, Counter>,
    tunneled: Family<CodeLabels, Counter>,
    websockets: Family<WebSocketLabels, Counter>,
    dropped: Family<DroppedLabels, Counter>,
    impersonation: Family<ImpersonationLabels, Counter>,
}

fn histogram() -> Histogram {
    Histogram::new([
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0,
    ])
}

impl Metrics {
    /// With what the parts of the server count themselves.
    pub fn new(tokens: &TokenCacheMetrics, admission: &AdmissionMetrics) -> Self {
        let mut registry = Registry::default();
        tokens.register(&mut registry);
        admission.register(&mut registry);
        let access = AccessMetrics::register(&mut registry);
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "apiserver_request_duration_seconds",
            "Seconds until the answer began, by verb and resource",
            durations.clone(),
        );
        Self {
            access,
            requests: registered(&mut registry, "apiserver_request", "Requests by verb, resource and answer"),
            durations,
            in_flight: registered(
                &mut registry,
                "apiserver_current_inflight_requests",
                "Requests that are being answered",
            ),
            long_running: registered(
                &mut registry,
                "apiserver_longrunning_requests",
                "Watches and streams that are open",
            ),
            translated: registered(
                &mut registry,
                "apiserver_stream_translator_requests",
                "WebSocket clients of exec and attach that were translated to SPDY, by how that ended",
            ),
            tunneled: registered(
                &mut registry,
                "apiserver_stream_tunnel_requests",
                "WebSocket clients of port-forward whose SPDY was passed on, by the kubelet's answer",
            ),
            websockets: registered(
                &mut registry,
                "apiserver_websocket_streaming_requests",
                "WebSocket clients of exec, attach and port-forward, by who speaks WebSocket with them",
            ),
            dropped: registered(
                &mut registry,
                "apiserver_dropped_requests",
                "Requests that were told to try again later, by whether they write",
            ),
            impersonation: registered(
                &mut registry,
                "apiserver_impersonation_attempts",
                "Requests that asked to act as somebody else, by how that was allowed",
            ),
            registry,
        }
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// A request that has begun.
pub struct Recorded<'a> {
    metrics: &'a Metrics,
    labels: DurationLabels,
    long_running: bool,
}

impl Metrics {
    pub fn begin(&self, info: &RequestInfo, long_running: bool) -> Recorded<'_> {
        let gauge = if long_running { &self.long_running } else { &self.in_flight };
        gauge.inner().fetch_add(1, Ordering::Relaxed);
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        let labels = DurationLabels {
            verb: Verb(upper(info.verb)),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope: scope.into(),
        };
        Recorded { metrics: self, labels, long_running }
    }

    /// A WebSocket client of a subresource, and whether its kubelet speaks with it itself.
    pub fn websocket_client(&self, subresource: &str, by_kubelet: bool) {
        let proxy_type = if by_kubelet { "proxied_to_kubelet" } else { "translated_at_apiserver" };
        self.websockets.get_or_create(&WebSocketLabels { subresource: subresource.into(), proxy_type }).inc();
    }

    pub fn translated(&self, code: StatusCode) {
        self.translated.get_or_create(&CodeLabels { code: code.as_u16() }).inc();
    }

    pub fn tunneled(&self, code: StatusCode) {
        self.tunneled.get_or_create(&CodeLabels { code: code.as_u16() }).inc();
    }

    /// A request that there was no place for.
    pub fn dropped(&self, mutating: bool) {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        self.dropped.get_or_create(&DroppedLabels { request_kind }).inc();
    }

    /// A request that asked to act as somebody else.
    pub fn impersonation(&self, mode: &'static str, allowed: bool) {
        let decision = if allowed { "allowed" } else { "denied" };
        self.impersonation.get_or_create(&ImpersonationLabels { mode, decision }).inc();
    }

    pub fn render(&self, server: &Server) -> String {
        let mut out = String::new();
        if encode(&mut out, &self.registry).is_err() {
            tracing::error!("metrics could not be written");
        }
        let mut out = text::from_open_metrics(&out);
        let stored = "# HELP apiserver_storage_objects Objects in the store, by resource\n# TYPE apiserver_storage_objects gauge\n";
        if let Some(audit) = &server.audit {
            let (written, lost) = audit.counts();
            let _ = writeln!(
                out,
                "# HELP apiserver_audit_event_total Audit events that were written\n# TYPE apiserver_audit_event_total counter\napiserver_audit_event_total {written}\n# HELP apiserver_audit_error_total Audit events that were lost\n# TYPE apiserver_audit_error_total counter\napiserver_audit_error_total{{plugin=\"log\"}} {lost}"
            );
        }
        if let Some(control) = &server.flow_control {
            control.render_metrics(&mut out);
        }
        out.push_str(stored);
        for cache in server.registry.cache.resources() {
            let resource = cache.kind().resource.group_resource();
            let _ = writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{resource}\"}} {}",
                cache.snapshot().len()
            );
        }
        out
    }
}

impl Recorded<'_> {
    pub fn end(self, code: StatusCode, took: Duration) {
        let gauge = if self.long_running { &self.metrics.long_running } else { &self.metrics.in_flight };
        gauge.inner().fetch_sub(1, Ordering::Relaxed);
        // paths that nothing serves would make a series each
        if code == StatusCode::NOT_FOUND && self.labels.scope.is_empty() {
            return;
        }
        let labels = self.labels;
        if !self.long_running {
            self.metrics.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
        let DurationLabels { verb, group, version, resource, subresource, scope } = labels;
        let labels =
            RequestLabels { verb, group, version, resource, subresource, scope, code: code.as_u16() };
        self.metrics.requests.get_or_create(&labels).inc();
    }
}

fn upper(verb: &'static str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "OTHER",
    }
}
