//! `apiserver_flowcontrol_…`: what each level and schema does, under upstream's names.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::levels::{Levels, Schemas};
use super::queue_set::State;

const WAITING_SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// Why requests were turned away, in upstream's words.
pub const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

/// Counts of one schema on its level; clones count together. Made when there is something to count.
#[derive(Clone, Default)]
pub struct FlowMetrics(Arc<OnceLock<Counts>>);

struct Counts {
    dispatched: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    waited: Histogram<13>,
    waited_in_vain: Histogram<13>,
    executed: Histogram<13>,
    watched: Histogram<13>,
    seats: Histogram<8>,
    watchers: Histogram<6>,
}

impl FlowMetrics {
    fn counts(&self) -> &Counts {
        self.0.get_or_init(|| Counts {
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            waited: Histogram::new(WAITING_SECONDS),
            waited_in_vain: Histogram::new(WAITING_SECONDS),
            executed: Histogram::new(WAITING_SECONDS),
            watched: Histogram::new(WAITING_SECONDS),
            seats: Histogram::new(SEATS),
            watchers: Histogram::new(WATCHES),
        })
    }

    pub fn dispatched(&self) {
        self.counts().dispatched.fetch_add(1, Ordering::Relaxed);
    }

    pub fn rejected(&self, reason: &str) {
        let index = REASONS.iter().position(|known| *known == reason);
        if let Some(count) = index.and_then(|index| self.counts().rejected.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long a request waited, and whether that led to something.
    pub fn waited(&self, took: Duration, executes: bool) {
        let counts = self.counts();
        let of = if executes { &counts.waited } else { &counts.waited_in_vain };
        of.observe(took.as_secs_f64());
    }

    pub fn executed(&self, took: Duration, watch: bool) {
        let counts = self.counts();
        let of = if watch { &counts.watched } else { &counts.executed };
        of.observe(took.as_secs_f64());
    }

    pub fn estimated(&self, seats: u32) {
        self.counts().seats.observe(f64::from(seats));
    }

    pub fn watchers(&self, count: u32) {
        self.counts().watchers.observe(f64::from(count));
    }
}

/// How often a number was within which bounds. Nothing is locked.
struct Histogram<const N: usize> {
    bounds: [f64; N],
    buckets: [AtomicU64; N],
    count: AtomicU64,
    /// The bits of a float.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, buckets, count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: f64) {
        if let Some(bucket) = self.buckets.get(self.bounds.partition_point(|bound| *bound < value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Nothing for one that was never used.
    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let mut below = 0;
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{PREFIX}{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let _ = writeln!(out, "{PREFIX}{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{PREFIX}{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "{PREFIX}{name}_count{{{labels}}} {count}");
    }
}

const PREFIX: &str = "apiserver_flowcontrol_";

/// One family of series.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, sort: &str, name: &'static str, help: &str) -> Self {
        let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {sort}");
        Self { out, name }
    }

    fn value(&mut self, labels: &str, value: f64) {
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.out, "{PREFIX}{}{braces} {value}", self.name);
    }

    fn histogram<const N: usize>(&mut self, labels: &str, histogram: &Histogram<N>) {
        histogram.write(self.out, self.name, labels);
    }
}

/// Requests and seats of one schema, as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Now {
    waiting: u32,
    waiting_seats: u32,
    executing: u32,
    executing_seats: u32,
}

/// Appends all metrics in the text format.
pub fn render(levels: &Levels, schemas: &Schemas, out: &mut String) {
    let mut by_schema = Vec::new();
    for schema in &schemas.0 {
        let mut now = Now::default();
        let requests = schema.level.requests.lock();
        for (_, request) in requests.requests() {
            if request.about.schema.name != schema.name {
                continue;
            }
            let seats = request.work.max_seats();
            match request.state {
                State::Waiting => {
                    now.waiting += 1;
                    now.waiting_seats += seats;
                }
                State::Executing => {
                    now.executing += 1;
                    now.executing_seats += seats;
                }
                State::Lingering => now.executing_seats += seats,
            }
        }
        let labels = format!("flow_schema=\"{}\",priority_level=\"{}\"", schema.name, schema.level.name);
        by_schema.push((labels, now, schema.metrics.counts()));
    }
    let mut gauges = |name, help, of: fn(&Now) -> u32| {
        let mut family = Family::new(out, "gauge", name, help);
        for (labels, now, _) in &by_schema {
            family.value(labels, f64::from(of(now)));
        }
    };
    gauges("current_inqueue_requests", "Requests that wait in queues", |now| now.waiting);
    gauges("current_inqueue_seats", "Seats that waiting requests ask for", |now| now.waiting_seats);
    gauges("current_executing_requests", "Requests that are answered; of watches, those that begin", |now| {
        now.executing
    });
    gauges("current_executing_seats", "Seats that are taken", |now| now.executing_seats);
    let mut dispatched =
        Family::new(out, "counter", "dispatched_requests_total", "Requests that were let through");
    for (labels, _, counts) in &by_schema {
        dispatched.value(labels, counts.dispatched.load(Ordering::Relaxed) as f64);
    }
    let mut rejected =
        Family::new(out, "counter", "rejected_requests_total", "Requests that were turned away");
    for (labels, _, counts) in &by_schema {
        for (reason, count) in REASONS.iter().zip(&counts.rejected) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                rejected.value(&format!("{labels},reason=\"{reason}\""), count as f64);
            }
        }
    }
    let name = "request_wait_duration_seconds";
    let mut waited = Family::new(out, "histogram", name, "How long requests waited for a seat");
    for (labels, _, counts) in &by_schema {
        waited.histogram(&format!("{labels},execute=\"true\""), &counts.waited);
        waited.histogram(&format!("{labels},execute=\"false\""), &counts.waited_in_vain);
    }
    let name = "request_execution_seconds";
    let mut executed = Family::new(out, "histogram", name, "How long requests were answered");
    for (labels, _, counts) in &by_schema {
        executed.histogram(&format!("{labels},type=\"regular\""), &counts.executed);
        executed.histogram(&format!("{labels},type=\"watch\""), &counts.watched);
    }
    let mut seats =
        Family::new(out, "histogram", "work_estimated_seats", "Seats that requests were taken to need");
    for (labels, _, counts) in &by_schema {
        seats.histogram(labels, &counts.seats);
    }
    let mut watchers =
        Family::new(out, "histogram", "watch_count_samples", "Watches that requests wrote for");
    for (labels, _, counts) in &by_schema {
        watchers.histogram(labels, &counts.watchers);
    }
    of_levels(levels, out);
}

fn of_levels(levels: &Levels, out: &mut String) {
    let states = || levels.states.iter().map(|(name, state)| (format!("priority_level=\"{name}\""), state));
    macro_rules! gauge {
        ($name:literal, $help:literal, $of:expr) => {
            let mut family = Family::new(out, "gauge", $name, $help);
            for (labels, state) in states() {
                family.value(&labels, $of(state));
            }
        };
    }
    use super::levels::LevelState as Of;
    gauge!("nominal_limit_seats", "Seats of a level by its share", |of: &Of| f64::from(of.limits.nominal));
    gauge!("lower_limit_seats", "Seats that a level keeps", |of: &Of| f64::from(of.limits.min));
    gauge!("upper_limit_seats", "Seats that a level may have", |of: &Of| f64::from(of.limits.max));
    gauge!("current_limit_seats", "Seats that a level has now", |of: &Of| f64::from(of.current));
    gauge!("demand_seats_average", "Seats that a level could have used", |of: &Of| of.demand.average);
    gauge!("demand_seats_stdev", "How much that varied", |of: &Of| of.demand.deviation);
    gauge!("demand_seats_smoothed", "Seats that a level can use, smoothed", |of: &Of| of.demand.smoothed);
    gauge!("demand_seats_high_watermark", "Seats that a level could have used at most", |of: &Of| {
        f64::from(of.demand.high_watermark)
    });
    let mut targets = Family::new(out, "gauge", "target_seats", "Seats that a level should have");
    for (labels, state) in states() {
        if let Some(target) = state.target {
            targets.value(&labels, target);
        }
    }
    let mut fraction =
        Family::new(out, "gauge", "seat_fair_frac", "The part of its target that every level gets");
    fraction.value("", levels.fair_fraction);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_up() {
        let histogram = Histogram::new([1.0, 2.0, 4.0]);
        for value in [1.0, 1.5, 3.0, 100.0] {
            histogram.observe(value);
        }
        let mut out = String::new();
        histogram.write(&mut out, "h", "a=\"b\"");
        let expected = "\
apiserver_flowcontrol_h_bucket{a=\"b\",le=\"1\"} 1
apiserver_flowcontrol_h_bucket{a=\"b\",le=\"2\"} 2
apiserver_flowcontrol_h_bucket{a=\"b\",le=\"4\"} 3
apiserver_flowcontrol_h_bucket{a=\"b\",le=\"+Inf\"} 4
apiserver_flowcontrol_h_sum{a=\"b\"} 105.5
apiserver_flowcontrol_h_count{a=\"b\"} 4
";
        assert_eq!(out, expected);
    }
}
