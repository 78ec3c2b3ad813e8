//! What was measured: latencies in an HDR histogram, whole and by second, and how it is told.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// Latencies are kept in microseconds, up to ten minutes, to three digits.
const HIGHEST: u64 = 600_000_000;

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST, digits).expect("the bounds are sound")
}

/// One measured thing, such as a verb. Many workers add to it.
pub struct Record {
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    all: Histogram<u64>,
    /// By second since the beginning: what a plot shows.
    seconds: Vec<Histogram<u64>>,
    failures: u64,
    /// The first failure, for the report.
    failure: Option<String>,
    bytes: u64,
}

/// Latencies and throughput of one second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Default for Record {
    fn default() -> Self {
        let state = State { all: histogram(3), seconds: Vec::new(), failures: 0, failure: None, bytes: 0 };
        Self { begun: Instant::now(), state: Mutex::new(state) }
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(HIGHEST).clamp(1, HIGHEST)
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl Record {
    /// Adds what a worker has gathered.
    pub fn add(&self, samples: &mut Samples) {
        let mut state = self.state.lock();
        for (at, latency) in samples.latencies.drain(..) {
            let second = usize::try_from(at.duration_since(self.begun).as_secs()).unwrap_or_default();
            while state.seconds.len() <= second {
                state.seconds.push(histogram(2));
            }
            state.all.saturating_record(latency);
            state.seconds[second].saturating_record(latency);
        }
        state.bytes += std::mem::take(&mut samples.bytes);
    }

    pub fn fail(&self, why: impl std::fmt::Display) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failure.get_or_insert_with(|| why.to_string());
    }

    pub fn count(&self) -> u64 {
        self.state.lock().all.len()
    }

    /// How often something failed, and the first time why.
    pub fn failures(&self) -> (u64, Option<String>) {
        let state = self.state.lock();
        (state.failures, state.failure.clone())
    }

    pub fn seconds(&self) -> Vec<Second> {
        let state = self.state.lock();
        let of = |h: &Histogram<u64>| Second {
            count: h.len(),
            p50_ms: millis(h.value_at_quantile(0.5)),
            p99_ms: millis(h.value_at_quantile(0.99)),
        };
        state.seconds.iter().map(of).collect()
    }

    /// The members of a JSON line. `elapsed` is how long it took in all.
    pub fn summary(&self, elapsed: Duration) -> Map<String, Value> {
        let state = self.state.lock();
        let h = &state.all;
        let mut out = Map::new();
        out.insert("count".into(), json!(h.len()));
        out.insert("per_second".into(), json!((h.len() as f64 / elapsed.as_secs_f64()).round()));
        if state.bytes > 0 {
            let rate = state.bytes as f64 / 1e6 / elapsed.as_secs_f64();
            out.insert("mb_per_second".into(), json!((rate * 10.0).round() / 10.0));
        }
        if !h.is_empty() {
            for (name, quantile) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("p99.9_ms", 0.999)]
            {
                out.insert(name.into(), json!(millis(h.value_at_quantile(quantile))));
            }
            out.insert("max_ms".into(), json!(millis(h.max())));
        }
        if state.failures > 0 {
            out.insert("failures".into(), json!(state.failures));
            out.insert("first_failure".into(), json!(state.failure));
        }
        out
    }
}

/// What one worker has measured since it last told.
#[derive(Default)]
pub struct Samples {
    latencies: Vec<(Instant, u64)>,
    bytes: u64,
}

impl Samples {
    /// How many are kept before they should be told.
    const FULL: usize = 512;

    pub fn push(&mut self, latency: Duration, bytes: usize) {
        self.latencies.push((Instant::now(), micros(latency)));
        self.bytes += bytes as u64;
    }

    pub fn is_full(&self) -> bool {
        self.latencies.len() >= Self::FULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_workers() {
        let record = Record::default();
        for half in [1..=50_u64, 51..=100] {
            let mut samples = Samples::default();
            half.for_each(|ms| samples.push(Duration::from_millis(ms), 10));
            record.add(&mut samples);
        }
        let summary = record.summary(Duration::from_secs(2));
        assert_eq!(summary["count"], 100);
        assert_eq!(summary["per_second"], 50.0);
        let at = |name: &str| summary[name].as_f64().expect("a number");
        assert!((at("p50_ms") - 50.0).abs() < 0.1 && (at("p99_ms") - 99.0).abs() < 0.1, "{summary:?}");
        assert!((at("max_ms") - 100.0).abs() < 0.2);
        assert_eq!(record.seconds()[0].count, 100);
    }

    #[test]
    fn failures_are_counted_and_the_first_is_told() {
        let record = Record::default();
        record.fail("a");
        record.fail("b");
        let summary = record.summary(Duration::from_secs(1));
        assert_eq!((&summary["failures"], &summary["first_failure"]), (&json!(2), &json!("a")));
    }
}
