//! `authentication_token_cache_…`: tokens that were known already, and those that were found out about.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// Clones count together.
#[derive(Clone, Debug)]
pub struct TokenCacheMetrics {
    requests: Family<StatusLabels, Counter>,
    durations: Family<StatusLabels, Histogram, fn() -> Histogram>,
    fetches: Family<StatusLabels, Counter>,
    active: Family<StatusLabels, Gauge>,
}

impl Default for TokenCacheMetrics {
    fn default() -> Self {
        const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            fetches: Family::default(),
            active: Family::default(),
        }
    }
}

/// Something that goes on; it ends when this goes.
pub struct Active(Gauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl TokenCacheMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("authentication_token_cache_{name}");
        registry.register(name("request"), "Tokens that were looked for", self.requests.clone());
        registry.register(
            name("request_duration_seconds"),
            "Seconds until it was known whose a token is",
            self.durations.clone(),
        );
        registry.register(name("fetch"), "Tokens that were not known already", self.fetches.clone());
        registry.register(
            name("active_fetch_count"),
            "Tokens that are being found out about, and requests that wait for that",
            self.active.clone(),
        );
    }

    /// A token was looked for, and known already or not.
    pub fn asked(&self, hit: bool, took: Duration) {
        let labels = StatusLabels { status: if hit { "hit" } else { "miss" } };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub fn fetched(&self, ok: bool) {
        self.fetches.get_or_create(&StatusLabels { status: if ok { "ok" } else { "error" } }).inc();
    }

    /// Somebody finds out about a token.
    pub fn in_flight(&self) -> Active {
        self.active("in_flight")
    }

    /// Somebody waits for what is being found out.
    pub fn blocked(&self) -> Active {
        self.active("blocked")
    }

    fn active(&self, status: &'static str) -> Active {
        let gauge = self.active.get_or_create(&StatusLabels { status }).clone();
        gauge.inc();
        Active(gauge)
    }
}
