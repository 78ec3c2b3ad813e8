//! The chain that every request goes through, whether it came over TLS or in memory: identify, audit id,
//! authenticate, audit, impersonate, find a place, authorize, dispatch, deadline, and an answer in every case.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use apimachinery::Status;
use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::body::{Request, Response};
use super::gzip;
use super::limits;
use super::max_in_flight;
use super::negotiate::{self, Accepted, Asked};
use super::request_info::{Query, RequestInfo};
use super::respond;
use crate::audit::{self, Trail};
use crate::authentication::{Authenticated, PeerCertificates, Unauthenticated, UserInfo};
use crate::authorization::Attributes;
use crate::context::Context;
use crate::metrics::Authentication;
use crate::server::Server;
use crate::{handlers, nonresource};

/// How long a request that is no watch and no stream may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much longer a write may take that nobody waits for any more: it ends by itself, unless it waits for its client.
const ALONE: Duration = Duration::from_secs(30);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers one request. Never fails and never panics: what goes wrong becomes a `Status`.
///
/// The transport vouches for its peer in the request's extensions, with [`PeerCertificates`] or [`InProcessUser`].
///
/// [`PeerCertificates`]: crate::authentication::PeerCertificates
/// [`InProcessUser`]: crate::authentication::InProcessUser
pub fn handle(server: Arc<Server>, request: Request) -> BoxFuture<'static, Response> {
    // boxed here once, so that what serves connections need not know the shape of all handlers
    Box::pin(run(server, request))
}

async fn run(server: Arc<Server>, request: Request) -> Response {
    let started = Instant::now();
    let audit_id = audit_id(&request);
    let query = Query::parse(request.uri().query());
    let info = Arc::new(RequestInfo::parse(request.method(), request.uri().path(), &query));
    let accepted =
        negotiate::accepted(request.headers(), query.get("pretty"), Asked { stream: false, tables: true })
            .ok();
    let long_running = info.is_long_running();
    let takes_gzip = !long_running && gzip::is_accepted(request.headers());
    let deadline = (!long_running).then(|| started + deadline_of(&query));

    let logged = tracing::enabled!(tracing::Level::DEBUG).then(|| info.clone());
    let recorded = server.metrics.begin(&info, long_running);
    let trail = OnceLock::new();
    let arrival = Arrival { audit_id: &audit_id, at: started, accepted, deadline, trail: &trail };
    let answer = AssertUnwindSafe(answer(&server, request, info, query, arrival));
    let mut response = match answer.catch_unwind().await {
        Ok(response) => match trail.get() {
            Some(trail) => audit::record_response(trail, response, long_running).await,
            None => response,
        },
        Err(_) => {
            if let Some(trail) = trail.get() {
                trail.panicked();
            }
            let status = Status::internal("the server failed while it handled the request");
            respond::failure(&status, accepted)
        }
    };
    if takes_gzip {
        response = gzip::compress(response);
    }
    let took = started.elapsed();
    if let Some(info) = logged {
        tracing::debug!(verb = info.verb, path = info.path, code = response.status().as_u16(), ?took, "HTTP");
    }
    recorded.end(response.status(), took);
    response.headers_mut().insert(AUDIT_ID, audit_id);
    response
}

/// What is known of a request when it comes in.
struct Arrival<'a> {
    audit_id: &'a HeaderValue,
    at: Instant,
    accepted: Option<Accepted>,
    deadline: Option<Instant>,
    /// Its record, once it is known whether one is kept.
    trail: &'a OnceLock<Arc<Trail>>,
}

async fn answer(
    server: &Arc<Server>,
    request: Request,
    info: Arc<RequestInfo>,
    query: Query,
    arrival: Arrival<'_>,
) -> Response {
    let Arrival { accepted, deadline, .. } = arrival;
    let (mut parts, body) = request.into_parts();
    let offered = offered_credentials(&parts, &query);
    let now = chrono::Utc::now();
    let begin_audit = |parts: &Parts, user: &UserInfo| {
        let facts = audit::Facts {
            id: arrival.audit_id.to_str().unwrap_or_default(),
            uri: &parts.uri,
            headers: &parts.headers,
            peer: parts.extensions.get().copied(),
            received: now,
        };
        server.audit.as_ref()?.begin(&attributes(user, &info), facts)
    };
    let begun = Instant::now();
    let outcome = server.access.authenticator.authenticate(&mut parts).await;
    count_authentication(server, &outcome, begun.elapsed());
    let found = match outcome {
        Ok(found) => found,
        Err(error) => {
            // who shows nothing at all has nothing wrong with it
            if error.0.is_empty() {
                tracing::debug!("a request without credentials was refused");
            } else {
                tracing::warn!("{error}");
            }
            let status = Status::unauthorized();
            if let Some(trail) = begin_audit(&parts, &UserInfo::default()) {
                trail.unauthenticated(&offered);
                audit::record_unauthenticated(&trail);
            }
            return respond::failure(&status, accepted);
        }
    };
    let caller = found.user;
    let trail = begin_audit(&parts, &caller);
    if let Some(trail) = &trail {
        for (key, value) in &found.audit_annotations {
            trail.annotate(key, value);
        }
        trail.received();
        let _ = arrival.trail.set(trail.clone());
    }
    let user = match impersonate(server, caller, &mut parts, &info, trail.as_deref()).await {
        Ok(user) => user,
        Err(status) => return respond::failure(&status, accepted),
    };
    let place = match limits::enter(server, &info, &user, &query, arrival.at, deadline).await {
        Ok(place) => place,
        Err(response) => return response,
    };
    let request = Request::from_parts(parts, body);
    match authorize(server, &user, &info, trail.as_deref()).await {
        Ok(()) => {}
        Err(Refusal::Forbidden(status)) => return place.leave(respond::failure(&status, accepted)),
        Err(Refusal::Failed(error)) => {
            tracing::error!(%error, "a request could not be authorized");
            let uri = request.uri().path_and_query().map_or("", |uri| uri.as_str());
            let text = format!("Internal Server Error: {uri:?}: {error}");
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let text = format!("{text}\n");
            return place.leave(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    }
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let left = CancellationToken::new();
    let ctx = Context {
        user,
        user_agent: user_agent.unwrap_or_default().to_owned(),
        info,
        query,
        now,
        deadline,
        left: left.clone(),
        place,
        audit: trail,
        warnings: found.warnings.into(),
    };
    let writes = ctx.info.is_resource && max_in_flight::is_mutating(&ctx.info);
    // boxed, because what a request goes through is large to move
    let work = Box::pin(carry_out(server.clone(), ctx, request, accepted));
    let Some(deadline) = deadline else { return work.await };
    let work = if writes {
        Either::Left(ToTheEnd { work: Some(work), left, end: deadline + ALONE })
    } else {
        Either::Right(work)
    };
    let done = tokio::time::timeout_at(deadline.into(), work).await;
    done.unwrap_or_else(|_| respond::failure(&timed_out(), accepted))
}

fn timed_out() -> Status {
    Status::timeout("request did not complete within the allotted timeout", 0)
}

/// Does what an admitted request asks for.
async fn carry_out(
    server: Arc<Server>,
    ctx: Context,
    request: Request,
    accepted: Option<Accepted>,
) -> Response {
    let outcome = if ctx.info.is_resource {
        handlers::dispatch(&server, &ctx, request).await
    } else {
        nonresource::dispatch(&server, &ctx, request).await
    };
    let mut response = outcome.unwrap_or_else(|status| respond::failure(&status, accepted));
    respond::warn(&mut response, &ctx);
    ctx.place.leave(response)
}

/// A write. Dropped before its end, since its client hung up or its deadline came, it goes on by itself: it must not
/// be left half done. What it has not asked by then it gives up asking, by [`Context::left`].
struct ToTheEnd<F: Future<Output = Response> + Send + 'static> {
    /// None while it is polled and after its end.
    work: Option<Pin<Box<F>>>,
    left: CancellationToken,
    /// It does not go on after this.
    end: Instant,
}

impl<F: Future<Output = Response> + Send + 'static> Future for ToTheEnd<F> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Response> {
        // taken out, so that work that panics is not gone on with
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future<Output = Response> + Send + 'static> Drop for ToTheEnd<F> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.left.cancel();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout_at(self.end.into(), work));
        }
    }
}

fn count_authentication(server: &Server, outcome: &Result<Authenticated, Unauthenticated>, took: Duration) {
    let (ended, name) = match outcome {
        Ok(found) => (Authentication::Success, found.user.name.as_str()),
        // who shows nothing at all has nothing wrong with it
        Err(why) if why.0.is_empty() => (Authentication::Failure, ""),
        Err(_) => (Authentication::Error, ""),
    };
    server.metrics.access.authenticated(ended, name, took);
}

/// The sorts of credentials that a request came with, for the record of those that did not do.
fn offered_credentials(parts: &Parts, query: &Query) -> Vec<&'static str> {
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = authorization.and_then(|text| text.trim().split_once(' ')).map(|(scheme, _)| scheme);
    let is = |name: &str| scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    let offered = [
        (is("basic"), "basic"),
        (is("bearer"), "bearer"),
        (!query.text("access_token").trim().is_empty(), "access_token"),
        (parts.extensions.get::<Arc<PeerCertificates>>().is_some(), "x509"),
    ];
    offered.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}

/// The client's `timeout`, within the server's.
fn deadline_of(query: &Query) -> Duration {
    match query.get("timeout").and_then(parse_duration) {
        Some(asked) if !asked.is_zero() => asked.min(DEADLINE),
        _ => DEADLINE,
    }
}

/// Go's durations, as far as whole seconds, minutes, hours and milliseconds go: `30s`, `1m30s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        total += match &tail[..unit] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        rest = &tail[unit..];
    }
    Some(total)
}

/// The client's id where it is sensible, a new one else.
fn audit_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= 64);
    match given {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("")),
    }
}

/// As whom a request acts: its caller, or whom it asks to act as.
async fn impersonate(
    server: &Server,
    caller: Arc<UserInfo>,
    parts: &mut Parts,
    info: &RequestInfo,
    trail: Option<&Trail>,
) -> Result<Arc<UserInfo>, Status> {
    let asked = attributes(&caller, info);
    let authorizer = server.access.authorizer.as_ref();
    let outcome = server.impersonation.impersonate(authorizer, &asked, &mut parts.headers).await;
    match outcome {
        Ok(None) => Ok(caller),
        Ok(Some(acting)) => {
            server.metrics.impersonation(acting.mode, true);
            if let Some(trail) = trail {
                trail.impersonated(&acting.user, acting.constraint);
            }
            Ok(acting.user)
        }
        Err(status) => {
            if status.code == 403 {
                server.metrics.impersonation("", false);
            }
            Err(status)
        }
    }
}

async fn authorize(
    server: &Server,
    user: &UserInfo,
    info: &RequestInfo,
    trail: Option<&Trail>,
) -> Result<(), Refusal> {
    let attributes = attributes(user, info);
    let begun = Instant::now();
    let verdict = server.access.authorizer.authorize(&attributes).await;
    server.metrics.access.authorized(&verdict, begun.elapsed());
    let annotate = |key: &str, value: &str| {
        if let Some(trail) = trail {
            trail.annotate(key, value);
        }
    };
    let (allowed, error) = (verdict.is_allowed(), verdict.error());
    if let Some(error) = error.filter(|_| !allowed) {
        annotate("authorization.k8s.io/reason", "internal error");
        return Err(Refusal::Failed(error));
    }
    annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
    annotate("authorization.k8s.io/reason", &verdict.reason);
    if allowed { Ok(()) } else { Err(Refusal::Forbidden(attributes.forbidden(&verdict.reason))) }
}

/// Why a request goes no further than authorization.
enum Refusal {
    Forbidden(Status),
    /// Who could have allowed it could not be asked.
    Failed(String),
}

fn attributes<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Attributes<'a> {
    Attributes {
        user,
        verb: info.verb,
        namespace: &info.namespace,
        api_group: &info.group,
        api_version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        name: &info.name,
        path: &info.path,
        is_resource: info.is_resource,
        field_selector: info.field_selector.requirements(),
        label_selector: info.label_selector.requirements(),
    }
}

/// The answer to a path that no part of the server knows.
pub fn not_found() -> Response {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A write that takes so long, and whether it came to its end.
    fn write_of(took: Duration) -> (ToTheEnd<impl Future<Output = Response> + Send>, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let work = async move {
            tokio::time::sleep(took).await;
            seen.store(true, Ordering::SeqCst);
            not_found()
        };
        let end = tokio::time::Instant::now().into_std() + Duration::from_secs(10);
        (ToTheEnd { work: Some(Box::pin(work)), left: CancellationToken::new(), end }, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_nobody_waits_for_goes_on_until_its_end_or_the_last_moment() {
        for (took, ends) in [(5, true), (9, true), (11, false)] {
            let (mut write, ended) = write_of(Duration::from_secs(took));
            assert!((&mut write).now_or_never().is_none());
            let left = write.left.clone();
            drop(write);
            assert!(left.is_cancelled());
            assert!(!ended.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(ended.load(Ordering::SeqCst), ends, "{took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_waited_for_ends_once() {
        let (write, ended) = write_of(Duration::from_secs(20));
        let left = write.left.clone();
        assert_eq!(write.await.status(), StatusCode::NOT_FOUND);
        assert!(ended.load(Ordering::SeqCst));
        assert!(!left.is_cancelled());
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("30s", Some(30_000)), ("1m30s", Some(90_000)), ("250ms", Some(250)), ("5", None), ("x", None)]
        {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), millis, "{text}");
        }
    }
}
