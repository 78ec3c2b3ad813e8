//! Finds a place for a request among those that are answered at once, in one of upstream's two ways: by priority and
//! fairness, or by counting reads and writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use parking_lot::Mutex;

use super::body::{self, Response};
use super::max_in_flight;
use super::request_info::{Query, RequestInfo};
use super::respond;
use crate::authentication::UserInfo;
use crate::flowcontrol::{Asking, Classified, FlowControl, Registration, Seat, Stored};
use crate::server::Server;

/// How long a watch may wait for its turn: a quarter of what other requests have in all.
const WATCH_WAIT: Duration = Duration::from_secs(15);
/// Nobody waits longer.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a request holds while it is answered.
#[derive(Default)]
pub struct Place {
    /// Handed on by a watch to its events.
    watch: Mutex<Option<Begins>>,
    seat: Option<Seat>,
    classified: Option<Classified>,
    _counted: Option<max_in_flight::Place>,
}

/// What a watch holds: a seat until it has shown what there is, and its registration until it ends.
pub struct Begins {
    seat: Option<Seat>,
    _registration: Registration,
}

impl Begins {
    /// The watch has begun, and from now on waits like everybody.
    pub fn done(&mut self) {
        self.seat = None;
    }
}

/// Finds a place, or says that the client is to come again.
pub async fn enter(
    server: &Server,
    info: &Arc<RequestInfo>,
    user: &Arc<UserInfo>,
    query: &Query,
    arrived: Instant,
    deadline: Option<Instant>,
) -> Result<Place, Response> {
    let is_watch = info.verb == "watch";
    let Some(control) = &server.flow_control else {
        return match server.max_in_flight.enter(info, user) {
            Some(place) => Ok(Place { _counted: Some(place), ..Place::default() }),
            None => Err(turned_away(server, info, 1)),
        };
    };
    if info.is_long_running() && !is_watch {
        return Ok(Place::default());
    }
    let wait = deadline.map_or(WATCH_WAIT, |deadline| deadline.duration_since(arrived) / 4).min(MAX_WAIT);
    let asking = Asking { user, info, query, until: (arrived + wait).into() };
    match control.enter(asking, || stored(server, info)).await {
        Ok(seat) => Ok(Place::of(control, info, query, seat)),
        Err(away) => {
            let mut response = turned_away(server, info, away.retry_after);
            away.classified.mark(response.headers_mut());
            Err(response)
        }
    }
}

/// What there is of the resource that a request lists.
fn stored(server: &Server, info: &RequestInfo) -> Option<Stored> {
    let kind = server.registry.kind(&info.group, &info.version, &info.resource)?;
    Some(server.registry.cache.resource(kind)?.stored())
}

impl Place {
    fn of(control: &Arc<FlowControl>, info: &RequestInfo, query: &Query, seat: Seat) -> Self {
        let classified = Some(seat.classified());
        if info.verb != "watch" {
            return Self { seat: Some(seat), classified, ..Self::default() };
        }
        let begins = Begins { seat: Some(seat), _registration: control.register_watch(info, query) };
        Self { watch: Mutex::new(Some(begins)), classified, ..Self::default() }
    }

    /// What a watch takes along.
    pub fn take_watch(&self) -> Option<Begins> {
        self.watch.lock().take()
    }

    /// The answer says how its request was classified; one that is made while it is written keeps the seat until then.
    pub fn leave(self, mut response: Response) -> Response {
        if let Some(classified) = &self.classified {
            classified.mark(response.headers_mut());
        }
        if self.seat.is_none() || http_body::Body::size_hint(response.body()).exact().is_some() {
            return response;
        }
        response.map(|inner| body::holding(inner, self.seat))
    }
}

/// The answer to a request that there is no place for.
fn turned_away(server: &Server, info: &RequestInfo, retry_after: u64) -> Response {
    server.metrics.dropped(max_in_flight::is_mutating(info));
    let body = "Too many requests, please try again later.\n";
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, body);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, retry_after.into());
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
