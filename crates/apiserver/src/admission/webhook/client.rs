//! The way to a webhook: where it is, whom to trust there, and connections that are used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::{Object, Value};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::credentials::Credentials;
use crate::outgoing::{refusal, trust};
use crate::registry::Registry;

/// How many connections and how many parties to trust are kept, and for how long a connection may rest.
const IDLE_PER_TARGET: usize = 16;
const TARGETS: usize = 128;
const REST: Duration = Duration::from_secs(60);
/// The longest answer, as upstream's client takes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// Where a webhook is and who may answer there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name that the certificate has to have.
    host: String,
    port: u16,
    path: String,
    ca_pem: Vec<u8>,
    /// Namespace and name, to be looked up.
    service: Option<(String, String)>,
}

impl Target {
    pub fn service(namespace: String, name: String, port: u16, path: &str, ca_pem: Vec<u8>) -> Self {
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        Self { host: format!("{name}.{namespace}.svc"), port, path, ca_pem, service: Some((namespace, name)) }
    }

    pub fn url(url: &str, ca_pem: Vec<u8>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| format!("Unparsable URL: {url:?} is no https address"))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(443),
            path: uri.path().to_owned(),
            ca_pem,
            service: None,
        })
    }

    /// Host and port as a URL has them; a service's port always, another's where it is not the usual one.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.port, &self.service) {
            (443, None) => host,
            (port, _) => format!("{host}:{port}"),
        }
    }
}

/// Connections to all webhooks.
pub struct Client {
    credentials: Credentials,
    idle: Mutex<HashMap<Target, Vec<(Sender, Instant)>>>,
    /// By whom to trust and as whom to be known.
    tls: Mutex<HashMap<(Vec<u8>, Option<String>), Arc<rustls::ClientConfig>>>,
}

/// Why there is no answer that could be used, and the code that stands for that.
pub struct Unanswered {
    pub code: u16,
    pub why: String,
}

impl Client {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, idle: Mutex::default(), tls: Mutex::default() }
    }

    /// Posts a review and brings the answer. The error is the reason as upstream words it.
    pub async fn post(
        &self,
        registry: &Registry,
        target: &Target,
        review: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Unanswered> {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let url = format!("https://{}{}?timeout={seconds}s", target.authority(), target.path);
        let fail = |why: &dyn std::fmt::Display| Unanswered {
            code: http::StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            why: format!("failed to call webhook: Post {url:?}: {why}"),
        };
        match tokio::time::timeout(timeout, self.exchange(registry, target, &review, seconds)).await {
            Ok(Ok((code, answer))) if code.is_success() => Ok(answer),
            Ok(Ok((code, answer))) => Err(Unanswered {
                code: code.as_u16(),
                why: format!("failed to call webhook: {}", refusal(code, &answer)),
            }),
            Ok(Err(why)) => Err(fail(&why)),
            Err(_) => Err(fail(&"context deadline exceeded")),
        }
    }

    async fn exchange(
        &self,
        registry: &Registry,
        target: &Target,
        review: &Bytes,
        seconds: u64,
    ) -> Result<(http::StatusCode, Bytes), String> {
        let authorization = match self.credentials.for_host(&target.host, target.port) {
            Some(credential) => credential.authorization().await?,
            None => None,
        };
        let request = || {
            let mut request = Request::post(format!("{}?timeout={seconds}s", target.path))
                .header(HOST, target.authority())
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json, */*")
                .header(USER_AGENT, "kube-apiserver-admission");
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            request.body(Full::new(review.clone())).map_err(|error| error.to_string())
        };
        // a connection that rested may have been closed meanwhile, which is no failure of the webhook
        while let Some(mut sender) = self.rested(target) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request()?).await {
                Ok(response) => return self.read(target, sender, response).await,
                Err(error) => tracing::debug!(%error, "a rested connection to a webhook was of no use"),
            }
        }
        let mut sender = self.connect(registry, target).await?;
        let response = sender.send_request(request()?).await.map_err(|error| match broke_off(&error) {
            true => "EOF".to_owned(),
            false => error.to_string(),
        })?;
        self.read(target, sender, response).await
    }

    async fn read(
        &self,
        target: &Target,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<(http::StatusCode, Bytes), String> {
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let answer = body.map_err(|error| format!("unexpected error when reading response body: {error}"))?;
        self.rest(target, sender);
        Ok((code, answer.to_bytes()))
    }

    fn rested(&self, target: &Target) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let senders = idle.get_mut(target)?;
        senders.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < REST);
        senders.pop().map(|(sender, _)| sender)
    }

    fn rest(&self, target: &Target, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() >= TARGETS && !idle.contains_key(target) {
            idle.clear();
        }
        let senders = idle.entry(target.clone()).or_default();
        if senders.len() < IDLE_PER_TARGET && !sender.is_closed() {
            senders.push((sender, Instant::now()));
        }
    }

    async fn connect(&self, registry: &Registry, target: &Target) -> Result<Sender, String> {
        let (host, port) = match &target.service {
            Some((namespace, name)) => resolve(registry, namespace, name, target.port)?,
            None => (target.host.clone(), target.port),
        };
        let dial = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("dial tcp {host}:{port}: connect: connection refused")
            }
            _ => format!("dial tcp {host}:{port}: {error}"),
        };
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(dial)?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(self.tls_for(target)?).connect(name, tcp).await;
        let tls = tls.map_err(|error| trust::explain(&error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended with an error");
            }
        });
        Ok(sender)
    }

    fn tls_for(&self, target: &Target) -> Result<Arc<rustls::ClientConfig>, String> {
        let identified = self.credentials.for_host(&target.host, target.port);
        let identified = identified.and_then(|credential| Some((credential, credential.identity.as_ref()?)));
        let key = (target.ca_pem.clone(), identified.map(|(credential, _)| credential.name.clone()));
        let mut known = self.tls.lock();
        if let Some(config) = known.get(&key) {
            return Ok(config.clone());
        }
        let identity = identified.map(|(_, identity)| identity);
        let config = Arc::new(trust::client_config(&target.ca_pem, identity)?);
        if known.len() >= TARGETS {
            known.clear();
        }
        known.insert(key, config.clone());
        Ok(config)
    }
}

/// Whether the other side closed the connection instead of answering.
fn broke_off(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || source.is_some_and(|source| {
            matches!(source.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset)
        })
}

/// An endpoint of a service that is ready; services have no addresses here that packets could be sent to.
fn resolve(registry: &Registry, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let service = registry.peek(registry.core("services"), namespace, name);
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let sort = service.get_str(&["spec", "type"]);
    if !matches!(sort, "" | "ClusterIP" | "LoadBalancer" | "NodePort") {
        return Err(format!("unsupported service type {sort:?}"));
    }
    let ports = service.get_array(&["spec", "ports"]);
    let wanted = ports.iter().find(|candidate| candidate["port"] == port);
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = wanted.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let none = || format!("no endpoints available for service {name:?}");
    let kind = registry.kind("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let cache = registry.cache.resource(kind).ok_or_else(none)?;
    let (snapshot, prefix) = (cache.snapshot(), kind.key(namespace, ""));
    let family = service.get_array(&["spec", "ipFamilies"]).first().cloned().unwrap_or_default();
    let mut slices = Vec::new();
    for entry in snapshot.range(&prefix, None) {
        slices.push(entry.object().map_err(|error| error.to_string())?);
    }
    let mut choices = endpoints(&slices, name, port_name, &family);
    if choices.is_empty() {
        return Err(none());
    }
    Ok(choices.swap_remove(rand::random_range(0..choices.len())))
}

/// Where a port of a service is served, in the service's first family if it is at all.
fn endpoints(slices: &[Object], service: &str, port: &str, family: &Value) -> Vec<(String, u16)> {
    let mut choices: Vec<(bool, (String, u16))> = Vec::new();
    for slice in slices {
        let of = slice.labels().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if of.and_then(Value::as_str) != Some(service) {
            continue;
        }
        let named =
            |candidate: &&Value| candidate.get("name").and_then(Value::as_str).unwrap_or_default() == port;
        let number =
            slice.get_array(&["ports"]).iter().find(named).and_then(|port| port.get("port")?.as_u64());
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let primary = slice.get(&["addressType"]) == Some(family);
        for endpoint in slice.get_array(&["endpoints"]) {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false);
            if let (true, Some(address)) = (ready, endpoint.pointer("/addresses/0").and_then(Value::as_str)) {
                choices.push((primary, (address.to_owned(), number)));
            }
        }
    }
    let any_primary = choices.iter().any(|(primary, _)| *primary);
    choices.into_iter().filter(|(primary, _)| *primary == any_primary).map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_ready_ones_of_the_first_family() {
        let slice = |service: &str, family: &str, port: &str, endpoints: Value| {
            Object::from(json!({
                "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": family,
                "ports": [{"name": "other", "port": 1}, {"name": port, "port": 8443}], "endpoints": endpoints,
            }))
        };
        let at = |address: &str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}});
        let slices = [
            slice("s", "IPv6", "https", json!([at("fd00::1", true)])),
            slice(
                "s",
                "IPv4",
                "https",
                json!([at("10.0.0.1", false), at("10.0.0.2", true), {"addresses": ["10.0.0.3"]}]),
            ),
            slice("s", "IPv4", "http", json!([at("10.0.0.4", true)])),
            slice("t", "IPv4", "https", json!([at("10.0.0.5", true)])),
        ];
        let found = |family: &str| endpoints(&slices, "s", "https", &json!(family));
        assert_eq!(found("IPv4"), [("10.0.0.2".to_owned(), 8443), ("10.0.0.3".to_owned(), 8443)]);
        assert_eq!(found("IPv6"), [("fd00::1".to_owned(), 8443)]);
        assert_eq!(found("").len(), 3, "without a first family all do");
        assert!(endpoints(&slices, "s", "none", &json!("IPv4")).is_empty());
    }

    #[test]
    fn urls_name_what_is_called() {
        let url = |text: &str| Target::url(text, Vec::new());
        for (text, authority, port, path) in [
            ("https://example.com/a", "example.com", 443, "/a"),
            ("https://127.0.0.1:8443", "127.0.0.1:8443", 8443, "/"),
            ("https://[::1]:8443/x", "[::1]:8443", 8443, "/x"),
        ] {
            let target = url(text).unwrap();
            assert_eq!(
                (target.authority().as_str(), target.port, target.path.as_str()),
                (authority, port, path)
            );
        }
        assert!(url("http://example.com").unwrap_err().contains("no https address"));
        assert!(url("").is_err());
        let service = Target::service("ns".into(), "s".into(), 443, "", Vec::new());
        assert_eq!((service.authority().as_str(), service.path.as_str()), ("s.ns.svc:443", "/"));
    }
}
