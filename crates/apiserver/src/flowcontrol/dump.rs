//! `/debug/api_priority_and_fairness/…`: tables of levels, queues and requests, as upstream lays them out.

use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::levels::{About, Levels, Requests};
use super::queue_set::{Request, State};

pub fn priority_levels(levels: &Levels) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for (name, state) in &levels.states {
        let requests = state.level.requests.lock();
        let counts = requests.counts();
        let active = requests.queues().iter().filter(|queue| !queue.waiting().is_empty()).count();
        let quiescing = state.level.quiescing.load(std::sync::atomic::Ordering::Relaxed);
        table.row([
            name.clone(),
            active.to_string(),
            requests.is_idle().to_string(),
            quiescing.to_string(),
            requests.waiting().to_string(),
            requests.executing().to_string(),
            counts.dispatched.to_string(),
            counts.rejected.to_string(),
            "0".into(),
            counts.cancelled.to_string(),
        ]);
    }
    table.render()
}

pub fn queues(levels: &Levels) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for (name, state) in &levels.states {
        let requests = state.level.requests.lock();
        for (index, queue) in requests.queues().iter().enumerate() {
            let waiting = queue.waiting().iter().filter_map(|id| requests.request(*id));
            let initial: u32 = waiting.map(|request| request.work.initial_seats).sum();
            table.row([
                name.clone(),
                index.to_string(),
                queue.waiting().len().to_string(),
                queue.executing().to_string(),
                queue.seats_in_use().to_string(),
                queue.next_dispatch_r().to_string(),
                initial.to_string(),
                queue.seats_waiting().to_string(),
                queue.work().to_string(),
            ]);
        }
    }
    table.render()
}

/// All requests that wait or run. `began` is the moment from which the levels count time.
pub fn requests(levels: &Levels, began: DateTime<Utc>, details: bool) -> String {
    let mut columns = vec![
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ];
    if details {
        columns.extend([
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ]);
    }
    let mut table = Table::new(&columns);
    for (name, state) in &levels.states {
        let requests = state.level.requests.lock();
        for (place, request) in in_order(&requests) {
            let (queue, index) = (request.queue.map_or("-1".into(), |queue| queue.to_string()), place);
            let About { schema, user, info } = &request.about;
            let distinguisher = if schema.shards { schema.spec.distinguisher.of(user, info) } else { "" };
            let started = match request.state {
                State::Waiting => "0001-01-01T00:00:00Z".into(),
                _ => moment(began, request.began),
            };
            let mut row = vec![
                name.clone(),
                schema.name.clone(),
                queue,
                index.map_or("-1".into(), |index| index.to_string()),
                distinguisher.to_owned(),
                moment(began, request.arrived),
                request.work.initial_seats.to_string(),
                request.work.final_seats.to_string(),
                go_duration(request.work.additional_latency),
                started,
            ];
            if details {
                let version = match info.group.as_str() {
                    "" => info.version.clone(),
                    group => format!("{group}/{}", info.version),
                };
                row.extend([
                    user.name.clone(),
                    info.verb.to_owned(),
                    info.path.clone(),
                    info.namespace.clone(),
                    info.name.clone(),
                    version,
                    info.resource.clone(),
                    info.subresource.clone(),
                ]);
            }
            table.row(row);
        }
    }
    table.render()
}

type Waiter = tokio::sync::oneshot::Sender<()>;

/// Queue by queue: those that wait with their place, then those that run; last those without a queue.
fn in_order(requests: &Requests) -> Vec<(Option<usize>, &Request<About, Waiter>)> {
    let mut out = Vec::new();
    let running = |queue: Option<usize>| {
        let of_queue = move |request: &&Request<About, Waiter>| {
            request.queue == queue && request.state == State::Executing
        };
        requests.requests().map(|(_, request)| request).filter(of_queue).map(|request| (None, request))
    };
    for (index, queue) in requests.queues().iter().enumerate() {
        let waiting = queue.waiting().iter().enumerate();
        out.extend(waiting.filter_map(|(place, id)| Some((Some(place), requests.request(*id)?))));
        out.extend(running(Some(index)));
    }
    out.extend(running(None));
    out
}

fn moment(began: DateTime<Utc>, after: Duration) -> String {
    let moment = began + chrono::Duration::from_std(after).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// As Go writes durations below a second, or in seconds.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{}ms", nanos as f64 / 1e6),
        _ => format!("{}s", nanos as f64 / 1e9),
    }
}

/// Cells with commas after them, in columns at least eight wide.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    fn render(&self) -> String {
        let columns = self.0.first().map_or(0, Vec::len);
        // a comma and a blank at least
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count() + 2).max().unwrap_or_default().max(8)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.0 {
            for (index, cell) in row.iter().enumerate() {
                if index + 1 == row.len() {
                    out.push_str(cell);
                } else {
                    let _ = write!(out, "{:1$}", format!("{cell},"), widths[index]);
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns() {
        let mut table = Table::new(&["Name", "Requests", "Idle"]);
        table.row(["workload-low".to_owned(), "3".into(), "false".into()]);
        let expected = "Name,         Requests, Idle\nworkload-low, 3,        false\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn durations_are_those_of_go() {
        for (nanos, text) in [(0, "0s"), (5_000_000, "5ms"), (1_500, "1.5µs"), (2_500_000_000, "2.5s")] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
