//! What becomes known of one request while it is answered, and the events that are made of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Value, codec};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Map, json};

use super::Audit;
use super::policy::{Decision, Level, Stage};
use crate::authentication::UserInfo;
use crate::authorization::Attributes;
use crate::http::body::{self, Response};

const MAX_USER_AGENT: usize = 1024;

/// Where a request came from, in its extensions. Only the listener sets it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// What is known of a request from the start.
pub struct Facts<'a> {
    pub id: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub peer: Option<PeerAddress>,
    pub received: DateTime<Utc>,
}

/// The record of one request.
pub struct Trail {
    audit: Arc<Audit>,
    decision: Decision,
    received: DateTime<Utc>,
    event: Mutex<Map<String, Value>>,
}

impl Trail {
    pub fn new(audit: Arc<Audit>, decision: Decision, attributes: &Attributes<'_>, facts: Facts<'_>) -> Self {
        let mut event = Map::new();
        let mut set = |key: &str, value: Value| drop(event.insert(key.to_owned(), value));
        set("kind", "Event".into());
        set("apiVersion", "audit.k8s.io/v1".into());
        set("level", decision.level.name().into());
        set("auditID", facts.id.into());
        set("stage", Value::Null);
        let uri = facts.uri.path_and_query().map_or(facts.uri.path(), |uri| uri.as_str());
        set("requestURI", uri.into());
        set("verb", attributes.verb.into());
        set("user", attributes.user.to_value());
        let ips = source_ips(facts.headers, facts.peer);
        if !ips.is_empty() {
            set("sourceIPs", ips.iter().map(IpAddr::to_string).collect());
        }
        let agent = facts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        if !agent.is_empty() {
            set("userAgent", truncated(agent).into());
        }
        if attributes.is_resource {
            let mut reference = Map::new();
            for (key, value) in [
                ("resource", attributes.resource),
                ("namespace", attributes.namespace),
                ("name", attributes.name),
                ("apiGroup", attributes.api_group),
                ("apiVersion", attributes.api_version),
                ("subresource", attributes.subresource),
            ] {
                if !value.is_empty() {
                    reference.insert(key.to_owned(), value.into());
                }
            }
            set("objectRef", reference.into());
        }
        set("requestReceivedTimestamp", micros(facts.received).into());
        Self { audit, decision, received: facts.received, event: Mutex::new(event) }
    }

    /// Writes the event of a stage, unless the policy leaves that stage out.
    pub fn stage(&self, stage: Stage) {
        if self.decision.omit_stages.contains(&stage) {
            return;
        }
        let at = if stage == Stage::RequestReceived { self.received } else { Utc::now() };
        let mut line = {
            let mut event = self.event.lock();
            event.insert("stage".into(), stage.name().into());
            event.insert("stageTimestamp".into(), micros(at).into());
            serde_json::to_vec(&*event).unwrap_or_default()
        };
        line.push(b'\n');
        if !self.audit.log.write(line) {
            tracing::debug!("an audit event was dropped: the log cannot keep up");
        }
    }

    pub fn received(&self) {
        self.stage(Stage::RequestReceived);
    }

    /// Adds an annotation; the first of a key stays.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        let annotations = event.entry("annotations").or_insert_with(|| json!({}));
        match annotations.get(key) {
            None => annotations[key] = value.into(),
            Some(before) if before == value => {}
            Some(_) => tracing::warn!(key, "an audit annotation was already set to something else"),
        }
    }

    /// As whom the request acts, and by which verb that was allowed.
    pub fn impersonated(&self, user: &UserInfo, constraint: &str) {
        let mut event = self.event.lock();
        event.insert("impersonatedUser".into(), user.to_value());
        if !constraint.is_empty() {
            event.insert("authenticationMetadata".into(), json!({"impersonationConstraint": constraint}));
        }
    }

    /// The credentials that did not do.
    pub fn unauthenticated(&self, methods: &[&str]) {
        let message = match methods {
            [] => "Authentication failed, no credentials provided".to_owned(),
            some => format!("Authentication failed, attempted: {}", some.join(", ")),
        };
        self.event.lock().insert("responseStatus".into(), json!({"metadata": {}, "message": message}));
    }

    /// The object that a request carries.
    pub fn request_object(&self, object: &Object) {
        let mut event = self.event.lock();
        let metadata = [
            ("namespace", object.namespace()),
            ("name", object.name()),
            ("uid", object.uid()),
            ("resourceVersion", object.resource_version()),
        ];
        if let Some(reference) = event.get_mut("objectRef").and_then(Value::as_object_mut) {
            for (key, value) in metadata {
                if !value.is_empty() {
                    reference.entry(key).or_insert_with(|| value.into());
                }
            }
        }
        if self.decision.level >= Level::Request {
            event.insert("requestObject".into(), self.shown(object.as_value().clone()));
        }
    }

    pub fn request_patch(&self, patch: &Value) {
        if self.decision.level >= Level::Request {
            self.event.lock().insert("requestObject".into(), patch.clone());
        }
    }

    /// Whether what a request carries is recorded.
    pub fn wants_request_object(&self) -> bool {
        self.decision.level >= Level::Request
    }

    fn wants_response_object(&self) -> bool {
        self.decision.level >= Level::RequestResponse
    }

    fn response(&self, code: StatusCode, object: Option<Value>) {
        let mut event = self.event.lock();
        let mut status = match event.get("responseStatus").cloned() {
            Some(Value::Object(status)) => status,
            _ => Map::from_iter([("metadata".to_owned(), json!({}))]),
        };
        if let Some(object) = &object
            && object["kind"] == "Status"
            && object["apiVersion"] == "v1"
        {
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = object.get(key).filter(|value| **value != "") {
                    status.insert(key.to_owned(), value.clone());
                }
            }
        }
        status.insert("code".into(), code.as_u16().into());
        event.insert("responseStatus".into(), status.into());
        if let (true, Some(object)) = (self.wants_response_object(), object) {
            event.insert("responseObject".into(), self.shown(object));
        }
    }

    /// An object as the policy lets it be seen.
    fn shown(&self, mut value: Value) -> Value {
        if self.decision.omit_managed_fields {
            let forget = |object: &mut Value| {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            };
            forget(&mut value);
            for key in ["items", "rows"] {
                for item in value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                    match item.get_mut("object") {
                        Some(object) if key == "rows" => forget(object),
                        _ => forget(item),
                    }
                }
            }
        }
        value
    }

    /// The server failed over this request.
    pub fn panicked(&self) {
        self.event.lock().insert(
            "responseStatus".into(),
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": "APIServer panic'd: see the server's log",
            }),
        );
        self.stage(Stage::Panic);
    }
}

/// Records an answer. Of one that is a stream, the beginning at once and the end when it has ended.
pub async fn record_response(trail: &Arc<Trail>, response: Response, long_running: bool) -> Response {
    let code = response.status();
    if long_running && (code.is_success() || code.is_informational()) {
        trail.response(code, None);
        trail.stage(Stage::ResponseStarted);
        let ends = trail.clone();
        return response.map(|inner| body::holding(inner, End(ends)));
    }
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().to_owned();
    // a failure tells its reason, and so does the outcome of a delete
    let small = response.body().size_hint().upper().is_some_and(|size| size < 16 * 1024);
    if !(trail.wants_response_object() || small && is_api_object(&media_type)) {
        trail.response(code, None);
        trail.stage(Stage::ResponseComplete);
        return response;
    }
    let (parts, content) = response.into_parts();
    let content = match content.collect().await {
        Ok(content) => content.to_bytes(),
        Err(error) => {
            tracing::debug!(%error, "an answer broke off before it could be recorded");
            Bytes::new()
        }
    };
    trail.response(code, parse(&media_type, &content));
    if long_running {
        trail.stage(Stage::ResponseStarted);
    }
    trail.stage(Stage::ResponseComplete);
    Response::from_parts(parts, body::full(content))
}

/// Records a refusal of somebody who could not be authenticated, which has but a beginning.
pub fn record_unauthenticated(trail: &Trail) {
    trail.response(StatusCode::UNAUTHORIZED, None);
    trail.stage(Stage::ResponseStarted);
}

fn is_api_object(media_type: &str) -> bool {
    media_type.starts_with("application/json")
        || media_type.contains("protobuf")
        || media_type.contains("yaml")
}

/// The object that an answer holds, whatever form it has.
fn parse(media_type: &str, content: &[u8]) -> Option<Value> {
    if media_type.starts_with("application/json") {
        return serde_json::from_slice(content).ok();
    }
    if media_type.contains("yaml") {
        return codec::parse_yaml(content).ok();
    }
    if !media_type.contains("protobuf") {
        return None;
    }
    let (api_version, kind) = codec::peek_type_protobuf(content).ok()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let gvk = GroupVersionKind::new(group, version, &kind);
    let mut object = codec::decode_protobuf(content, &Schema::for_kind(&gvk)?).ok()?;
    object.set_type(&gvk);
    Some(object.into_value())
}

/// Notes the end of a stream when it is dropped.
struct End(Arc<Trail>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

/// The addresses that a request says it came by, and the one it came from.
fn source_ips(headers: &HeaderMap, peer: Option<PeerAddress>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut ips: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    if let Ok(real) = text("x-real-ip").parse()
        && !ips.contains(&real)
    {
        ips.push(real);
    }
    if let Some(PeerAddress(address)) = peer {
        let ip = address.ip().to_canonical();
        if ips.last() != Some(&ip) {
            ips.push(ip);
        }
    }
    ips
}

fn truncated(agent: &str) -> String {
    if agent.len() <= MAX_USER_AGENT {
        return agent.to_owned();
    }
    let mut end = MAX_USER_AGENT;
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...TRUNCATED", &agent[..end])
}

fn micros(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_listed_from_the_farthest() {
        let peer = |text: &str| Some(PeerAddress(text.parse().unwrap()));
        let cases = [
            ("", "", peer("10.0.0.1:80"), "10.0.0.1"),
            (
                "1.1.1.1, x, 2.2.2.2",
                "3.3.3.3",
                peer("[::ffff:10.0.0.1]:80"),
                "1.1.1.1 2.2.2.2 3.3.3.3 10.0.0.1",
            ),
            ("1.1.1.1", "1.1.1.1", peer("1.1.1.1:80"), "1.1.1.1"),
            ("", "", None, ""),
        ];
        for (forwarded, real, peer, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            headers.insert("x-real-ip", real.parse().unwrap());
            let ips: Vec<String> = source_ips(&headers, peer).iter().map(IpAddr::to_string).collect();
            assert_eq!(ips.join(" "), expected);
        }
    }

    #[test]
    fn long_agents_are_cut_at_a_character() {
        assert_eq!(truncated(&"ä".repeat(600)).len(), 1024 + "...TRUNCATED".len());
    }
}
