//! `log`, `exec`, `attach` and `portforward`: what the kubelet answers, passed through.

use apimachinery::{Object, Status, Value, time};
use form_urlencoded::Serializer;
use http::header::{self, HeaderName};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use streams::remotecommand::Options;
use streams::upgrade;
use streams::websocket::Reader;
use streams::websocket::handshake::negotiate;

use super::Call;
use crate::authorization::Attributes;
use crate::http::body::{self, Request, Response};
use crate::kubelet_client::Endpoint;
use crate::registry::list::parse_i64;
use crate::{stream_proxy, stream_translator};

/// Headers of one hop, and those that carry the client's credentials.
const DROPPED: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::HOST];

impl Call<'_> {
    pub async fn stream(&self, request: Request) -> Result<Response, Status> {
        let info = &self.ctx.info;
        let registry = &self.server.registry;
        if info.subresource != "log" {
            self.may_create().await?;
            self.admit_connection("").await?;
        }
        let log_query = (info.subresource == "log").then(|| self.log_query()).transpose()?;
        let entry = registry.get(self.kind, &info.namespace, &info.name, "").await?;
        let pod = entry.object().map_err(Status::internal)?;
        let container = match info.subresource.as_str() {
            "portforward" => String::new(),
            _ => container(&pod, self.ctx.query.text("container"))?,
        };
        let node_name = pod.get_str(&["spec", "nodeName"]);
        if node_name.is_empty() {
            // a pod that is nowhere has no logs, and nothing to talk to
            return match info.subresource.as_str() {
                "log" => Ok(crate::http::respond::text(StatusCode::OK, "")),
                _ => Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name()))),
            };
        }
        let path = match (info.subresource.as_str(), log_query) {
            ("portforward", _) => {
                let mut query = Serializer::new(String::new());
                for port in self.ctx.query.all("ports").flat_map(|ports| ports.split(',')) {
                    query.append_pair("port", port);
                }
                format!("/portForward/{}/{}?{}", pod.namespace(), pod.name(), query.finish())
            }
            (_, Some(query)) => {
                format!("/containerLogs/{}/{}/{container}?{query}", pod.namespace(), pod.name())
            }
            (subresource, None) => {
                let query = self.exec_query(subresource)?;
                format!("/{subresource}/{}/{}/{container}?{query}", pod.namespace(), pod.name())
            }
        };
        let node = self.node(node_name).await?;
        self.forward(request, &node, &path).await
    }

    /// A WebSocket client comes with GET, which alone would let readers run commands.
    async fn may_create(&self) -> Result<(), Status> {
        let info = &self.ctx.info;
        if info.verb == "create" {
            return Ok(());
        }
        let attributes = Attributes {
            namespace: &info.namespace,
            api_version: &info.version,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
            ..Attributes::resource(&self.ctx.user, "create", &info.group, &info.resource)
        };
        let verdict = self.server.access.authorizer.authorize(&attributes).await;
        match verdict.is_allowed() {
            true => Ok(()),
            false => Err(Status::forbidden(&self.kind.resource.group_resource(), &info.name, verdict.reason)),
        }
    }

    pub async fn node(&self, name: &str) -> Result<Object, Status> {
        let registry = &self.server.registry;
        let entry = registry.get(registry.core("nodes"), "", name, "").await?;
        entry.object().map_err(Status::internal)
    }

    /// The options of a log (`PodLogOptions`) as a kubelet is asked for it.
    fn log_query(&self) -> Result<String, Status> {
        use apimachinery::field::{Error, Path};
        let query = &self.ctx.query;
        let number = |key: &str| query.get(key).map(parse_i64).transpose();
        let since_seconds = number("sinceSeconds")?;
        let since_time = match query.get("sinceTime") {
            None | Some("" | "null") => None,
            Some(text) => Some(time::parse(text).map_err(|error| Status::bad_request(error.to_string()))?),
        };
        let (tail_lines, limit_bytes) = (number("tailLines")?, number("limitBytes")?);

        let mut errors = Vec::new();
        if let Some(lines @ ..0) = tail_lines {
            let why = "must be greater than or equal to 0";
            errors.push(Error::invalid(&Path::new("tailLines"), lines, why));
        }
        if let Some(bytes @ ..1) = limit_bytes {
            errors.push(Error::invalid(&Path::new("limitBytes"), bytes, "must be greater than 0"));
        }
        match since_seconds {
            Some(_) if query.get("sinceTime").is_some() => {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                // what upstream makes of a path without a name
                errors.push(Error::forbidden(&Path::new("[]"), why));
            }
            Some(seconds @ ..1) => {
                errors.push(Error::invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0"));
            }
            _ => {}
        }
        // behind a feature gate that is closed: PodLogsQuerySplitStreams
        if query.get("stream").is_some() {
            errors.push(Error::forbidden(&Path::new("stream"), "may not be specified"));
        }
        if !errors.is_empty() {
            let kind = apimachinery::GroupKind::new("", "PodLogOptions");
            return Err(Status::invalid(&kind, &self.ctx.info.name, &errors));
        }

        let mut out = Serializer::new(String::new());
        for key in ["follow", "previous", "timestamps"].into_iter().filter(|key| query.flag(key)) {
            out.append_pair(key, "true");
        }
        if let Some(time) = since_time {
            out.append_pair("sinceTime", &time::format(time));
        }
        let numbers =
            [("sinceSeconds", since_seconds), ("tailLines", tail_lines), ("limitBytes", limit_bytes)];
        for (key, number) in numbers {
            if let Some(number) = number {
                out.append_pair(key, &number.to_string());
            }
        }
        Ok(out.finish())
    }

    fn exec_query(&self, subresource: &str) -> Result<String, Status> {
        let query = &self.ctx.query;
        let mut out = Serializer::new(String::new());
        let mut any = false;
        for (asked, sent) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error")] {
            if query.flag(asked) {
                out.append_pair(sent, "1");
                any = true;
            }
        }
        if query.flag("tty") {
            out.append_pair("tty", "1");
            if query.flag("stderr") {
                return Err(Status::bad_request("tty and stderr cannot both be true"));
            }
        }
        if !any {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        let mut commands = query.all("command").peekable();
        if subresource == "exec" && commands.peek().is_none() {
            return Err(Status::bad_request("you must specify at least 1 command for the container"));
        }
        for command in commands {
            out.append_pair("command", command);
        }
        Ok(out.finish())
    }

    async fn forward(&self, mut request: Request, node: &Object, path: &str) -> Result<Response, Status> {
        let endpoint = Endpoint::of(node)?;
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| Status::bad_request(error.to_string()))?;
        for name in DROPPED {
            request.headers_mut().remove(name);
        }
        let subresource = self.ctx.info.subresource.as_str();
        if let Some(response) = self.websocket(&mut request, node, &endpoint).await? {
            return Ok(response);
        }
        let streams = matches!(subresource, "exec" | "attach" | "portforward");
        if streams || (subresource != "log" && stream_proxy::is_upgrade(&request)) {
            return stream_proxy::forward(&self.server.kubelets, endpoint, request).await;
        }
        if subresource == "log" {
            return self.log(request, &endpoint).await;
        }
        self.server.kubelets.send(&endpoint, request).await
    }

    /// Streams of WebSocket clients that kubelets need not know how to speak with.
    async fn websocket(
        &self,
        request: &mut Request,
        node: &Object,
        endpoint: &Endpoint,
    ) -> Result<Option<Response>, Status> {
        let subresource = self.ctx.info.subresource.as_str();
        let (commands, forwards) = (matches!(subresource, "exec" | "attach"), subresource == "portforward");
        let translates = commands && upgrade::wants_stream_close(request.headers());
        let tunnels = forwards && upgrade::wants_tunnel(request.headers());
        if !translates && !tunnels {
            return Ok(None);
        }
        let metrics = &self.server.metrics;
        let declared = node.get_array(&["status", "declaredFeatures"]);
        let by_kubelet = declared.iter().any(|feature| feature == "ExtendWebSocketsToKubelet");
        metrics.websocket_client(subresource, by_kubelet);
        if by_kubelet {
            return Ok(None);
        }
        let request = std::mem::replace(request, Request::new(body::empty()));
        let (kubelets, endpoint) = (&self.server.kubelets, endpoint.clone());
        if tunnels {
            return stream_translator::tunnel(kubelets, metrics, endpoint, request).await.map(Some);
        }
        let query = &self.ctx.query;
        let options = Options {
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            tty: query.flag("tty"),
        };
        stream_translator::translate(kubelets, metrics, endpoint, request, options).map(Some)
    }

    async fn log(&self, mut request: Request, endpoint: &Endpoint) -> Result<Response, Status> {
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let by_messages = upgrade::is_websocket(&headers);
        let client = by_messages.then(|| stream_translator::client(&mut request)).transpose()?;
        upgrade::forget_websocket(request.headers_mut());
        *request.method_mut() = Method::GET;
        *request.body_mut() = body::empty();
        let response = self.server.kubelets.send(endpoint, request).await?;
        if !response.status().is_success() {
            return Err(log_failure(response).await);
        }
        let Some(client) = client else { return Ok(response) };
        let accepted = match negotiate(&method, &headers, &Reader::SPOKEN) {
            Ok(accepted) => accepted,
            Err(refused) => return Ok(stream_translator::refused(refused)),
        };
        let reader = Reader::of(&accepted.protocol);
        let messages = reader.messages(response.into_body().into_data_stream());
        Ok(stream_translator::feed(&accepted, client, messages))
    }
}

/// What the kubelet says of a log that it cannot give.
async fn log_failure(response: Response) -> Status {
    let code = response.status();
    let text = match body::read(response.into_body()).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(status) => return status,
    };
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::new(404, apimachinery::Reason::NotFound, text),
        _ => Status::internal(text),
    }
}

/// The container that is meant: the one named, or the only one that is no init container.
fn container(pod: &Object, asked: &str) -> Result<String, Status> {
    let names = |key: &str| -> Vec<&str> {
        pod.get_array(&["spec", key]).iter().filter_map(|c| c.get("name").and_then(Value::as_str)).collect()
    };
    let all = ["initContainers", "containers", "ephemeralContainers"].map(names);
    if asked.is_empty() {
        return match all[1].as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => Err(Status::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                all.concat().join(" ")
            ))),
        };
    }
    if all.iter().any(|names| names.contains(&asked)) {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!("container {asked} is not valid for pod {}", pod.name())))
}
