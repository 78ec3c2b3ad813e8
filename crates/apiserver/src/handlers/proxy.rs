//! `proxy` of pods, services and nodes: requests passed on to what listens there.

use apimachinery::{Object, Status, Value};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use rand::Rng;

use super::Call;
use crate::http::body::{self, Request, Response};
use crate::kubelet_client::{Endpoint, Transport};
use crate::stream_proxy;

/// What is not passed on: who the client is to the API server, and what is about one connection only.
const DROPPED: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::HOST,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("keep-alive"),
];

/// What is asked for by `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

fn target(id: &str) -> Option<Target<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (!name.is_empty()).then_some(Target { tls: scheme == "https", name, port })
}

fn transport(tls: bool) -> Transport {
    if tls { Transport::Tls } else { Transport::Plain }
}

/// Addresses of the host itself, of a link or of a group are not to be reached through the server.
fn is_global_unicast(ip: std::net::IpAddr) -> bool {
    let link_local = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || link_local)
}

/// What of a path stands behind so many segments, as it was sent, with the slash before it.
fn behind(path: &str, segments: usize) -> &str {
    let mut slashes = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at);
    slashes.nth(segments).map_or("", |at| &path[at..])
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The addresses and ports of endpoints that have a port of a name, in the order in which they are tried.
fn candidates(endpoints: &Object, port: &str, seed: usize) -> Vec<(Value, u16)> {
    let subsets = endpoints.get_array(&["subsets"]);
    let mut out = Vec::new();
    for index in 0..subsets.len() {
        let subset = &subsets[(seed + index) % subsets.len()];
        let number = list(subset, "ports").iter().find(|one| text(one, "name") == port);
        let Some(number) = number.and_then(|one| u16::try_from(one.get("port")?.as_i64()?).ok()) else {
            continue;
        };
        let addresses = list(subset, "addresses");
        out.extend((0..addresses.len()).map(|at| (addresses[(seed + at) % addresses.len()].clone(), number)));
    }
    out
}

impl Call<'_> {
    pub async fn proxy(&self, mut request: Request) -> Result<Response, Status> {
        let info = &self.ctx.info;
        let path = request.uri().path().to_owned();
        let namespaced = self.kind.resource.namespaced;
        let rest = behind(&path, if namespaced { 7 } else { 5 }).to_owned();
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        self.admit_connection(&rest).await?;
        let upgrades = stream_proxy::is_upgrade(&request);
        if rest.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
            // relative links of what is shown need the slash
            return moved(&format!("{path}/{query}"));
        }
        let kind = self.kind.resource.singular;
        let asked = target(&info.name)
            .ok_or_else(|| Status::bad_request(format!("invalid {kind} request {:?}", info.name)))?;
        let endpoint = match self.kind.resource.plural {
            "nodes" => self.node_endpoint(&asked).await?,
            "pods" => self.pod_endpoint(&asked).await?,
            _ => self.service_endpoint(&asked).await?,
        };
        let prefix = path.strip_suffix(rest.as_str()).unwrap_or(&path).to_owned();
        let target = if rest.is_empty() { "/" } else { rest.as_str() };
        *request.uri_mut() = format!("{target}{query}")
            .parse::<Uri>()
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let host = request.headers().get(header::HOST).cloned();
        for name in DROPPED {
            request.headers_mut().remove(name);
        }
        let headers = request.headers_mut();
        if let Ok(uri) = HeaderValue::from_str(&path) {
            headers.insert("x-forwarded-uri", uri);
        }
        if let Some(host) = host {
            headers.insert("x-forwarded-host", host);
        }
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        if upgrades {
            return stream_proxy::forward(&self.server.kubelets, endpoint, request).await;
        }
        request.headers_mut().remove(header::CONNECTION);
        request.headers_mut().remove(header::UPGRADE);
        let mut response = self.server.kubelets.send(&endpoint, request).await?;
        response.headers_mut().remove(header::CONNECTION);
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        if let Some(location) = location.and_then(|location| relocated(location, &endpoint, &prefix)) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    async fn node_endpoint(&self, asked: &Target<'_>) -> Result<Endpoint, Status> {
        let node = self.node(asked.name).await?;
        let kubelet = Endpoint::of(&node)?;
        if asked.port.is_empty() || asked.port == kubelet.port.to_string() {
            return Ok(kubelet);
        }
        Ok(Endpoint { port: port_number(asked.port)?, transport: transport(asked.tls), ..kubelet })
    }

    async fn pod_endpoint(&self, asked: &Target<'_>) -> Result<Endpoint, Status> {
        let entry = self.server.registry.get(self.kind, &self.ctx.info.namespace, asked.name, "").await?;
        let pod = entry.object().map_err(Status::internal)?;
        let ip = pod.get_str(&["status", "podIP"]);
        if !ip.parse().is_ok_and(is_global_unicast) {
            return Err(Status::bad_request("address not allowed"));
        }
        let port = match asked.port {
            "" => pod
                .get_array(&["spec", "containers"])
                .iter()
                .find_map(|container| list(container, "ports").first()?.get("containerPort")?.as_i64())
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(if asked.tls { 443 } else { 80 }),
            port => port_number(port)?,
        };
        Ok(Endpoint { host: ip.to_owned(), port, transport: transport(asked.tls) })
    }

    async fn service_endpoint(&self, asked: &Target<'_>) -> Result<Endpoint, Status> {
        let (registry, namespace) = (&self.server.registry, &self.ctx.info.namespace);
        let mut port = asked.port.to_owned();
        if let Ok(number) = asked.port.parse::<i64>() {
            let entry = registry.get(self.kind, namespace, asked.name, "").await?;
            let service = entry.object().map_err(Status::internal)?;
            let ports = service.get_array(&["spec", "ports"]);
            let found = ports.iter().find(|one| one.get("port").and_then(Value::as_i64) == Some(number));
            port = found.map(|one| text(one, "name").to_owned()).ok_or_else(|| {
                let name = asked.name;
                Status::service_unavailable(format!("no service port {number} found for service {name:?}"))
            })?;
        }
        let nobody =
            |name: &str| Status::service_unavailable(format!("no endpoints available for service {name:?}"));
        let entry = registry.get(registry.core("endpoints"), namespace, asked.name, "").await?;
        let endpoints = entry.object().map_err(Status::internal)?;
        if endpoints.get_array(&["subsets"]).is_empty() {
            return Err(nobody(asked.name));
        }
        let seed = rand::rng().random_range(0..usize::from(u16::MAX));
        for (address, number) in candidates(&endpoints, &port, seed) {
            if self.is_a_pods(&address) {
                let host = text(&address, "ip").to_owned();
                return Ok(Endpoint { host, port: number, transport: transport(asked.tls) });
            }
        }
        Err(nobody(&self.ctx.info.name))
    }

    /// Whether an address in endpoints, which people can write, is that of the pod it names.
    fn is_a_pods(&self, address: &Value) -> bool {
        let registry = &self.server.registry;
        let reference = address.get("targetRef").unwrap_or(&Value::Null);
        let (namespace, name) = (text(reference, "namespace"), text(reference, "name"));
        text(reference, "kind") == "Pod"
            && registry.peek(registry.core("pods"), namespace, name).is_some_and(|pod| {
                let ips = pod.get_array(&["status", "podIPs"]);
                ips.iter().any(|one| text(one, "ip") == text(address, "ip"))
            })
    }
}

fn port_number(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| {
        Status::service_unavailable(format!("error trying to reach service: invalid port {port:?}"))
    })
}

fn moved(location: &str) -> Result<Response, Status> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(location).map_err(Status::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Where a redirect of what is behind the proxy leads through the proxy; nothing where it leads elsewhere.
fn relocated(location: &str, endpoint: &Endpoint, prefix: &str) -> Option<HeaderValue> {
    let own = ["http", "https"].iter().find_map(|scheme| {
        location
            .strip_prefix(&format!("{scheme}://{}", endpoint.authority()))
            .filter(|path| path.is_empty() || path.starts_with('/'))
    });
    let path =
        own.or_else(|| Some(location).filter(|path| path.starts_with('/') && !path.starts_with("//")))?;
    let inside = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let location = if inside { path.to_owned() } else { format!("{prefix}{path}") };
    HeaderValue::from_str(&location).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_schemes_and_ports() {
        let of = |id: &'static str| target(id).map(|target| (target.tls, target.name, target.port));
        assert_eq!(of("web"), Some((false, "web", "")));
        assert_eq!(of("web:80"), Some((false, "web", "80")));
        assert_eq!(of("https:web:"), Some((true, "web", "")));
        assert_eq!(of(":web:http"), Some((false, "web", "http")));
        assert_eq!((of("ftp:web:1"), of(":80"), of(""), of("a:b:c:d")), (None, None, None, None));
    }

    #[test]
    fn the_rest_of_a_path_is_passed_on_as_it_came() {
        let path = "/api/v1/namespaces/n/pods/p/proxy/a%2Fb/";
        assert_eq!(behind(path, 7), "/a%2Fb/");
        assert_eq!(behind("/api/v1/namespaces/n/pods/p/proxy", 7), "");
        assert_eq!(behind("/api/v1/nodes/n/proxy/", 5), "/");
    }

    #[test]
    fn only_ready_addresses_with_the_port_are_tried() {
        let endpoints = Object::from(json!({"subsets": [
            {"notReadyAddresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 1}]},
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"name": "b", "port": 2}]},
        ]}));
        let ips = |port: &str, seed| -> Vec<(String, u16)> {
            let all = candidates(&endpoints, port, seed).into_iter();
            all.map(|(address, port)| (text(&address, "ip").to_owned(), port)).collect()
        };
        assert!(ips("", 0).is_empty());
        assert_eq!(ips("b", 1), [("10.0.0.2".into(), 2), ("10.0.0.1".into(), 2)]);
    }

    #[test]
    fn redirects_lead_through_the_proxy() {
        let endpoint = Endpoint { host: "10.0.0.1".into(), port: 80, transport: Transport::Plain };
        let of = |location: &str| {
            relocated(location, &endpoint, "/api/x/proxy").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of("/login").as_deref(), Some("/api/x/proxy/login"));
        assert_eq!(of("http://10.0.0.1:80/a").as_deref(), Some("/api/x/proxy/a"));
        assert_eq!(of("/api/x/proxy/a").as_deref(), Some("/api/x/proxy/a"));
        assert_eq!((of("https://example.com/"), of("next")), (None, None));
    }

    #[test]
    fn addresses_of_the_host_are_not_proxied_to() {
        for (ip, allowed) in [
            ("10.0.0.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("fd00::1", true),
        ] {
            assert_eq!(is_global_unicast(ip.parse().unwrap()), allowed, "{ip}");
        }
    }
}
