//! Requests by path: who asks is settled first, then what they get.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use streams::remotecommand::Options;

use super::auth::{self, User};
use super::{Server, container_logs, metrics, proxy};
use crate::pod::spec;
use crate::runtime::Streams;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Response = http::Response<Body>;
pub type Request = http::Request<Incoming>;

/// Commands of `/run` have an end.
const RUN_LIMIT: Duration = Duration::from_secs(120);

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

pub fn text(status: StatusCode, message: impl Into<String>) -> Response {
    let mut message: String = message.into();
    message.push('\n');
    respond(status, "text/plain; charset=utf-8", message)
}

fn json(value: &serde_json::Value) -> Response {
    respond(StatusCode::OK, "application/json", value.to_string())
}

/// Query parameters, each with all its values in order.
#[derive(Debug, Default)]
pub struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            all.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(all)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|values| values.first()).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

async fn authenticate(server: &Server, peer: Option<User>, request: &Request) -> Option<User> {
    if peer.is_some() {
        return peer;
    }
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        header.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
    match server.auth.user_of_token(token?).await {
        Ok(user) => user,
        Err(error) => {
            tracing::warn!(%error, "a token could not be reviewed");
            None
        }
    }
}

/// Answers one request.
pub async fn handle(server: Arc<Server>, peer: Option<User>, request: Request) -> Response {
    let Some(user) = authenticate(&server, peer, &request).await else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    let path = request.uri().path().to_owned();
    match server.auth.allows(&user, request.method(), &path).await {
        Ok(true) => {}
        Ok(false) => {
            let resources = auth::subresources(&path).join(" or nodes/");
            let message = format!(
                "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
                user.name,
                auth::verb(request.method()),
                resources.replace(" or nodes/", ","),
            );
            return text(StatusCode::FORBIDDEN, message);
        }
        Err(error) => {
            let message = format!("Authorization error (user={}): {error}", user.name);
            return text(StatusCode::INTERNAL_SERVER_ERROR, message);
        }
    }
    route(server, request, &path).await
}

async fn route(server: Arc<Server>, request: Request, path: &str) -> Response {
    let query = Query::parse(request.uri().query());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let method = request.method().clone();
    match (method, parts.as_slice()) {
        (Method::GET, ["healthz"] | ["healthz", "ping" | "syncloop" | "log"]) => text_ok("ok"),
        (Method::GET, ["pods"]) => pods(&server),
        (Method::GET, ["runningpods"]) => running_pods(&server).await,
        (Method::GET, ["metrics"]) => respond(StatusCode::OK, metrics::TEXT, metrics::own(&server).await),
        (Method::GET, ["metrics", "resource"]) => {
            respond(StatusCode::OK, metrics::TEXT, metrics::resource(&server).await)
        }
        (Method::GET, ["metrics", "cadvisor" | "probes"]) => {
            respond(StatusCode::OK, metrics::TEXT, String::new())
        }
        (Method::GET, ["stats", "summary"]) => json(&metrics::summary(&server).await),
        (Method::GET, ["configz"]) => json(&configz(&server)),
        (Method::GET, ["containerLogs", namespace, pod, container]) => {
            let answer = container_logs::serve(&server, namespace, pod, container, &query).await;
            proxy::feed(request, answer)
        }
        (Method::GET | Method::POST, ["exec", namespace, pod, container]) => {
            exec(&server, request, &query, namespace, pod, None, container).await
        }
        (Method::GET | Method::POST, ["exec", namespace, pod, uid, container]) => {
            exec(&server, request, &query, namespace, pod, Some(uid), container).await
        }
        (Method::GET | Method::POST, ["attach", namespace, pod, container]) => {
            attach(&server, request, &query, namespace, pod, None, container).await
        }
        (Method::GET | Method::POST, ["attach", namespace, pod, uid, container]) => {
            attach(&server, request, &query, namespace, pod, Some(uid), container).await
        }
        (Method::GET | Method::POST, ["portForward", namespace, pod]) => {
            port_forward(&server, request, namespace, pod, None).await
        }
        (Method::GET | Method::POST, ["portForward", namespace, pod, uid]) => {
            port_forward(&server, request, namespace, pod, Some(uid)).await
        }
        (Method::POST, ["run", namespace, pod, container]) => {
            run(&server, &query, namespace, pod, None, container).await
        }
        (Method::POST, ["run", namespace, pod, uid, container]) => {
            run(&server, &query, namespace, pod, Some(uid), container).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn text_ok(body: &'static str) -> Response {
    respond(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn pod_list(pods: &[Pod]) -> Response {
    let items: Vec<serde_json::Value> =
        pods.iter().filter_map(|pod| serde_json::to_value(pod).ok()).collect();
    json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn pods(server: &Server) -> Response {
    pod_list(&server.pods.list())
}

async fn running_pods(server: &Server) -> Response {
    let listed = match server.shared.runtime.list().await {
        Ok(listed) => listed,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let running: Vec<String> =
        listed.into_iter().filter(|item| item.running).map(|item| item.pod_uid).collect();
    let pods: Vec<Pod> = server
        .pods
        .list()
        .into_iter()
        .filter(|pod| running.iter().any(|uid| uid == spec::uid(pod)))
        .collect();
    pod_list(&pods)
}

fn configz(server: &Server) -> serde_json::Value {
    let config = &server.shared.config;
    json!({"kubeletconfig": {
        "address": config.address.to_string(),
        "port": config.port,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "maxPods": config.max_pods,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": config.cgroup_root,
        "containerLogMaxFiles": config.container_log_max_files,
    }})
}

/// A pod by its name, and by its uid where one is given.
pub fn find_pod(server: &Server, namespace: &str, name: &str, uid: Option<&str>) -> Option<Pod> {
    server.pods.find(namespace, name).filter(|pod| uid.is_none_or(|uid| uid == spec::uid(pod)))
}

/// The id of a container that runs.
fn running_container(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten();
    let found = all.find(|s| s.name == container)?;
    found.state.as_ref()?.running.as_ref()?;
    found.container_id.as_deref()?.split_once("://").map(|(_, id)| id.to_owned())
}

fn no_pod() -> Response {
    text(StatusCode::NOT_FOUND, "pod does not exist")
}

/// Upstream's server names the streams `input`, `output` and `error`; the API's names are taken, too.
fn streams(query: &Query) -> Result<Streams, &'static str> {
    let tty = query.flag("tty");
    let either = |a: &str, b: &str| query.flag(a) || query.flag(b);
    let streams = Streams {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        // a terminal has one output
        stderr: either("error", "stderr") && !tty,
        tty,
    };
    if streams.stdin || streams.stdout || streams.stderr {
        Ok(streams)
    } else {
        Err("you must specify at least 1 of stdin, stdout, stderr")
    }
}

fn wanted(streams: Streams) -> Options {
    let Streams { stdin, stdout, stderr, tty } = streams;
    Options { stdin, stdout, stderr, tty }
}

async fn exec(
    server: &Server,
    request: Request,
    query: &Query,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    container: &str,
) -> Response {
    let Some(pod) = find_pod(server, namespace, name, uid) else { return no_pod() };
    let streams = match streams(query) {
        Ok(streams) => streams,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(id) = running_container(&pod, container) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
    };
    match server.shared.runtime.exec(&id, query.all("command"), streams).await {
        Ok(url) => proxy::command(&url, request, wanted(streams)).await,
        Err(error) => runtime_error(&error),
    }
}

async fn attach(
    server: &Server,
    request: Request,
    query: &Query,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    container: &str,
) -> Response {
    let Some(pod) = find_pod(server, namespace, name, uid) else { return no_pod() };
    let mut streams = match streams(query) {
        Ok(streams) => streams,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let found = spec::find_container(spec::spec(&pod), container);
    let (Some(definition), Some(id)) = (found, running_container(&pod, container)) else {
        let message = format!("container {container} not found in pod {name}_{namespace}");
        return text(StatusCode::INTERNAL_SERVER_ERROR, message);
    };
    // whether a process has a terminal was settled when it started
    streams.tty = definition.tty.unwrap_or_default();
    streams.stderr &= !streams.tty;
    match server.shared.runtime.attach(&id, streams).await {
        Ok(url) => proxy::command(&url, request, wanted(streams)).await,
        Err(error) => runtime_error(&error),
    }
}

async fn port_forward(
    server: &Server,
    request: Request,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Response {
    let Some(pod) = find_pod(server, namespace, name, uid) else { return no_pod() };
    let state = match server.shared.runtime.pod_state(spec::uid(&pod)).await {
        Ok(state) => state,
        Err(error) => return runtime_error(&error),
    };
    let Some(sandbox) = state.ready_sandbox() else {
        let message = format!("pod not found (\"{name}_{namespace}\")");
        return text(StatusCode::INTERNAL_SERVER_ERROR, message);
    };
    match server.shared.runtime.port_forward(&sandbox.id).await {
        Ok(url) => proxy::ports(&url, request).await,
        Err(error) => runtime_error(&error),
    }
}

async fn run(
    server: &Server,
    query: &Query,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    container: &str,
) -> Response {
    let Some(pod) = find_pod(server, namespace, name, uid) else { return no_pod() };
    let Some(id) = running_container(&pod, container) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
    };
    // one parameter with blanks between the words, as upstream has it
    let command: Vec<String> =
        query.get("cmd").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    match server.shared.runtime.exec_sync(&id, command, RUN_LIMIT).await {
        Ok(result) => {
            let mut output = result.stdout;
            output.extend_from_slice(&result.stderr);
            if result.exit_code == 0 {
                respond(StatusCode::OK, "text/plain; charset=utf-8", output)
            } else {
                let output = String::from_utf8_lossy(&output);
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("{output}command terminated with exit code {}", result.exit_code),
                )
            }
        }
        Err(error) => runtime_error(&error),
    }
}

fn runtime_error(error: &crate::runtime::Error) -> Response {
    let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
    text(status, crate::runtime::cri::bare(&error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_keep_the_order_of_commands() {
        let query = Query::parse(Some("command=sh&command=-c&command=echo+a%26b&input=1&tty=true&output="));
        assert_eq!(query.all("command"), ["sh", "-c", "echo a&b"]);
        assert!(query.flag("input") && query.flag("tty") && !query.flag("output"));
        let streams = streams(&query).expect("a stream");
        assert!(streams.stdin && !streams.stdout && streams.tty);
        assert!(super::streams(&Query::parse(None)).is_err());
    }
}
