//! How much work a request is likely to be: how many seats it takes, and what its watchers cost after it.

use std::time::Duration;

use super::seat_seconds::SeatSeconds;
use crate::http::request_info::{Query, RequestInfo};

/// Of a list, as much as one seat stands for.
const BYTES_PER_SEAT: u64 = 100_000;
/// What a list from the cache takes at most at a time, as it is written piece by piece.
const STREAMED: u64 = 1_000_000;
/// What an object is taken to have when it is not known.
const LARGEST_OBJECT: u64 = 1_500_000;
const MAX_LIST_SEATS: u32 = 100;
const MAX_MUTATING_SEATS: u32 = 10;
const WATCHES_PER_SEAT: f64 = 10.0;
/// How long a seat is busy with the watchers of a write.
const EVENT: Duration = Duration::from_millis(5);

/// The seats of a request while it runs, and those that stay taken for a while after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkEstimate {
    pub initial_seats: u32,
    pub final_seats: u32,
    pub additional_latency: Duration,
}

impl WorkEstimate {
    pub const fn seats(seats: u32) -> Self {
        Self { initial_seats: seats, final_seats: 0, additional_latency: Duration::ZERO }
    }

    pub fn max_seats(&self) -> u32 {
        self.initial_seats.max(self.final_seats)
    }
}

/// What there is of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub objects: u64,
    pub bytes: u64,
}

impl Stored {
    fn average(self) -> u64 {
        match self.bytes.checked_div(self.objects) {
            Some(0) => LARGEST_OBJECT,
            Some(average) => average,
            None => 0,
        }
    }
}

/// The work of a request. `max_seats` is what its level lets one request have; `stored` says what there is of the
/// resource, unless nothing is known of it; `watchers` counts those who see what it writes.
pub fn estimate(
    info: &RequestInfo,
    query: &Query,
    max_seats: Option<u32>,
    stored: impl FnOnce() -> Option<Stored>,
    watchers: impl FnOnce() -> u32,
) -> WorkEstimate {
    let at_most = |limit: u32| max_seats.filter(|seats| *seats > 0).map_or(limit, |seats| seats.min(limit));
    match info.verb {
        "list" | "watch" if info.is_resource => {
            WorkEstimate::seats(list(info, query, at_most(MAX_LIST_SEATS), stored))
        }
        "create" | "update" | "patch" | "delete" if info.is_resource => {
            mutating(info, at_most(MAX_MUTATING_SEATS), watchers)
        }
        _ => WorkEstimate::seats(1),
    }
}

fn list(info: &RequestInfo, query: &Query, max: u32, stored: impl FnOnce() -> Option<Stored>) -> u32 {
    let number = |key: &str| match query.text(key) {
        "" => Ok(0),
        text => text.parse::<i64>(),
    };
    // what cannot be read is refused later, and costs as much as anything may until then
    let (Ok(limit), Ok(_)) = (number("limit"), number("timeoutSeconds")) else { return max };
    let version = query.text("resourceVersion");
    let is_watch = info.verb == "watch";
    if is_watch && !query.flag("sendInitialEvents") && !matches!(version, "" | "0") {
        return 1;
    }
    let Some(stored) = stored() else { return 1 };
    let limited = match u64::try_from(limit) {
        Ok(limit) if limit > 0 => limit.min(stored.objects),
        _ => stored.objects,
    };
    let from_cache = is_watch || !delegated(query, version, limit);
    let selects = !query.text("fieldSelector").is_empty() || !query.text("labelSelector").is_empty();
    let loaded = match () {
        () if !info.name.is_empty() => 1,
        () if from_cache => limited,
        () if selects => limited.max(stored.objects / 2),
        () => limited,
    };
    let mut bytes = loaded.saturating_mul(stored.average());
    if from_cache {
        bytes = bytes.min(STREAMED);
    }
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX).clamp(1, max.max(1))
}

/// Whether a list may have to be read from the store, as far as its options tell.
fn delegated(query: &Query, version: &str, limit: i64) -> bool {
    match query.text("resourceVersionMatch") {
        "Exact" => true,
        "NotOlderThan" => false,
        "" => !query.text("continue").is_empty() || limit > 0 && !matches!(version, "" | "0"),
        _ => true,
    }
}

fn mutating(info: &RequestInfo, max: u32, watchers: impl FnOnce() -> u32) -> WorkEstimate {
    let mut work = WorkEstimate::seats(1);
    // a token is no event for anybody
    if info.resource == "serviceaccounts" && info.subresource == "token" {
        return work;
    }
    let watchers = f64::from(watchers());
    if watchers >= WATCHES_PER_SEAT {
        let seats = (watchers / WATCHES_PER_SEAT).ceil();
        work.final_seats = (seats as u32).min(max);
        work.additional_latency = SeatSeconds::new(seats, EVENT).per_seat(work.final_seats);
    }
    work
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn seats(request: &str, max_seats: Option<u32>, stored: Option<Stored>, watchers: u32) -> WorkEstimate {
        let (method, uri) = request.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&method.parse::<Method>().unwrap(), path, &query);
        estimate(&info, &query, max_seats, || stored, || watchers)
    }

    #[test]
    fn lists_take_seats_by_what_they_load() {
        // a thousand objects of 2 kB
        let pods = Some(Stored { objects: 1000, bytes: 2_000_000 });
        for (request, max_seats, stored, expected) in [
            ("GET /api/v1/pods", None, pods, 10),
            ("GET /api/v1/pods", Some(4), pods, 4),
            ("GET /api/v1/pods?limit=100", None, pods, 2),
            ("GET /api/v1/pods?labelSelector=a", None, pods, 10),
            ("GET /api/v1/pods?fieldSelector=metadata.name%3Dx", None, pods, 1),
            ("GET /api/v1/pods?limit=10&continue=x", None, pods, 1),
            ("GET /api/v1/pods?limit=10&continue=x&labelSelector=a", None, pods, 10),
            ("GET /api/v1/pods?continue=x", None, pods, 20),
            ("GET /api/v1/pods?resourceVersion=5&resourceVersionMatch=Exact", None, pods, 20),
            ("GET /api/v1/pods?resourceVersion=5&limit=500", None, pods, 10),
            ("GET /api/v1/pods?limit=x", None, pods, 100),
            ("GET /api/v1/pods", None, Some(Stored { objects: 0, bytes: 0 }), 1),
            ("GET /api/v1/pods", None, Some(Stored { objects: 1, bytes: 0 }), 10),
            ("GET /api/v1/pods", None, None, 1),
            ("GET /api/v1/pods?watch=1", None, pods, 10),
            ("GET /api/v1/pods?watch=1&resourceVersion=0", None, pods, 10),
            ("GET /api/v1/pods?watch=1&resourceVersion=7", None, pods, 1),
            ("GET /api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true", None, pods, 10),
            ("GET /api/v1/namespaces/a/pods/p", None, pods, 1),
            ("GET /version", None, pods, 1),
        ] {
            assert_eq!(seats(request, max_seats, stored, 0), WorkEstimate::seats(expected), "{request}");
        }
    }

    #[test]
    fn writes_keep_seats_for_their_watchers() {
        let create = "POST /api/v1/namespaces/a/pods";
        let millis = Duration::from_millis;
        for (request, max_seats, watchers, final_seats, additional_latency) in [
            (create, None, 9, 0, Duration::ZERO),
            (create, None, 10, 1, millis(5)),
            (create, None, 25, 3, millis(5)),
            (create, None, 1000, 10, millis(50)),
            (create, Some(2), 40, 2, millis(10)),
            ("DELETE /api/v1/namespaces/a/pods/p", None, 25, 3, millis(5)),
            ("POST /api/v1/namespaces/a/serviceaccounts/s/token", None, 1000, 0, Duration::ZERO),
            ("GET /api/v1/namespaces/a/pods/p", None, 1000, 0, Duration::ZERO),
        ] {
            let want = WorkEstimate { initial_seats: 1, final_seats, additional_latency };
            assert_eq!(seats(request, max_seats, None, watchers), want, "{request} {watchers}");
        }
    }
}
