//! One run of a probe or an HTTP hook: what is asked, and what the answer means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;

use crate::runtime::{ErrorKind, Runtime};

/// Output of a command is looked at up to here; the rest says nothing about health.
const MAX_OUTPUT: usize = 10 * 1024;
const DEFAULT_PATH: &str = "/";

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It worked, but a redirect left the host, which is told as a warning.
    Warning(String),
    Failure(String),
    /// The question could not be put at all; the last result stays.
    Unknown(String),
}

/// Where a probe goes.
#[derive(Clone)]
pub struct Target {
    pub pod: Arc<Pod>,
    pub container: Arc<Container>,
    pub container_id: String,
    pub pod_ip: String,
}

pub fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1))
}

/// The number of a port, which may be the name of one of the container's.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            match container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)) {
                Some(found) => found.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {port:?} in container"))?,
            }
        }
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// Runs a probe once, within its timeout.
pub async fn run_once(probe: &Probe, target: &Target, runtime: &dyn Runtime) -> Outcome {
    let limit = timeout(probe);
    if let Some(exec) = &probe.exec {
        return run_exec(exec.command.clone().unwrap_or_default(), target, runtime, limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match run_http(get, &target.container, &target.pod_ip, limit, "kube-probe/1.36").await {
            Ok(answer) => judge_http(&answer),
            Err(HttpError::Unusable(message)) => Outcome::Unknown(message),
            Err(HttpError::Failed(message)) => Outcome::Failure(message),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = match resolve_port(&tcp.port, &target.container) {
            Ok(port) => port,
            Err(message) => return Outcome::Unknown(message),
        };
        let host = tcp.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&target.pod_ip);
        return run_tcp(host, port, limit).await;
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        return run_grpc(&target.pod_ip, grpc.port, service, limit).await;
    }
    Outcome::Unknown(format!("missing probe handler for {}", crate::pod::spec::format(&target.pod)))
}

async fn run_exec(command: Vec<String>, target: &Target, runtime: &dyn Runtime, limit: Duration) -> Outcome {
    match runtime.exec_sync(&target.container_id, command.clone(), limit).await {
        Ok(result) => {
            let mut output = result.stdout;
            output.extend_from_slice(&result.stderr);
            output.truncate(MAX_OUTPUT);
            let text = String::from_utf8_lossy(&output).into_owned();
            if result.exit_code == 0 { Outcome::Success } else { Outcome::Failure(text) }
        }
        Err(error) if error.kind == ErrorKind::DeadlineExceeded || error.message.contains("timed out") => {
            Outcome::Failure(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                limit.as_secs()
            ))
        }
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

async fn run_tcp(host: &str, port: u16, limit: Duration) -> Outcome {
    let address = host_and_port(host, port);
    match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {address}: connect: {}", errno_text(&error))),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// The system's words for an error, without Rust's addition.
fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// An answer to a GET, as far as it is looked at.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub location: Option<String>,
    host: String,
}

#[derive(Debug)]
pub enum HttpError {
    /// The action itself makes no request.
    Unusable(String),
    Failed(String),
}

fn judge_http(answer: &HttpAnswer) -> Outcome {
    match answer.status {
        300..400 => {
            let elsewhere = answer.location.as_deref().unwrap_or_default();
            Outcome::Warning(format!("Probe terminated redirects, Response body: {elsewhere}"))
        }
        200..300 => Outcome::Success,
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Puts a GET action to a container. Redirects are followed as long as they stay on the same host.
pub async fn run_http(
    get: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    limit: Duration,
    agent: &str,
) -> Result<HttpAnswer, HttpError> {
    let port = resolve_port(&get.port, container).map_err(HttpError::Unusable)?;
    let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let tls = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH);
    let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let address = host_and_port(host, port);
    let url = |path: &str| format!("{}://{address}{path}", if tls { "https" } else { "http" });
    let first = url(&path);
    let failed = |what: String| HttpError::Failed(format!("Get {first:?}: {what}"));
    let run = async {
        for _ in 0..10 {
            let answer = get_once(get, &address, host, tls, &path, agent).await?;
            let Some(location) = answer.location.as_deref().filter(|_| (300..400).contains(&answer.status))
            else {
                return Ok(answer);
            };
            // a redirect to another host is not followed: the answer there is not the container's
            let here =
                location.strip_prefix(&url("")).or(Some(location)).filter(|rest| rest.starts_with('/'));
            match here {
                Some(next) => path = next.to_owned(),
                None => return Ok(answer),
            }
        }
        Err("stopped after 10 redirects".to_owned())
    };
    match tokio::time::timeout(limit, run).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

async fn get_once(
    get: &HTTPGetAction,
    address: &str,
    host: &str,
    tls: bool,
    path: &str,
    agent: &str,
) -> Result<HttpAnswer, String> {
    let mut request = http::Request::get(path);
    let headers = get.http_headers.as_deref().unwrap_or_default();
    let given = |name: &str| headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    if !given("host") {
        request = request.header("Host", address);
    }
    if !given("user-agent") {
        request = request.header("User-Agent", agent);
    }
    if !given("accept") {
        request = request.header("Accept", "*/*");
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .header("Connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("dial tcp {address}: connect: {}", errno_text(&error)))?;
    if tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting_client()?));
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request, host).await
    } else {
        exchange(TokioIo::new(stream), request, host).await
    }
}

async fn exchange<T>(
    io: T,
    request: http::Request<Empty<bytes::Bytes>>,
    host: &str,
) -> Result<HttpAnswer, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let result = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        // the body is not read: the status has said enough
        Ok(HttpAnswer { status, location, host: host.to_owned() })
    }
    .await;
    driver.abort();
    result
}

impl HttpAnswer {
    /// Of the host that answered, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// A client that takes any certificate: probes ask for health, not for identity (API docs of `scheme`).
fn trusting_client() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `grpc.health.v1.HealthCheckRequest` and its answer.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn run_grpc(host: &str, port: i32, service: String, limit: Duration) -> Outcome {
    let Ok(port) = u16::try_from(port) else {
        return Outcome::Unknown(format!("invalid port number: {port}"));
    };
    let address = host_and_port(host, port);
    let check = async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Outcome::Unknown(error.to_string()))?
            .user_agent("kube-probe/1.36")
            .map_err(|error| Outcome::Unknown(error.to_string()))?;
        let channel = endpoint.connect().await.map_err(|_| {
            Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {}s",
                limit.as_secs()
            ))
        })?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| Outcome::Failure(format!("error: {error}")))?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost_codec();
        let request = tonic::Request::new(HealthRequest { service });
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == tonic::Code::Unimplemented => Err(Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ))),
            Err(status) => Err(Outcome::Failure(format!("error: health rpc probe failed: {status}"))),
        }
    };
    match tokio::time::timeout(limit, check).await {
        Ok(Ok(HealthAnswer { status: SERVING })) => Outcome::Success,
        Ok(Ok(answer)) => Outcome::Failure(format!(
            "service unhealthy (responded with {:?})",
            match answer.status {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            }
        )),
        Ok(Err(outcome)) => outcome,
        Err(_) => {
            Outcome::Failure(format!("timeout: health rpc did not complete within {}s", limit.as_secs()))
        }
    }
}

fn tonic_prost_codec() -> HealthCodec {
    HealthCodec
}

/// Messages of the health service as prost writes them.
#[derive(Clone, Copy)]
struct HealthCodec;

struct HealthEncoder;
struct HealthDecoder;

impl tonic::codec::Codec for HealthCodec {
    type Encode = HealthRequest;
    type Decode = HealthAnswer;
    type Encoder = HealthEncoder;
    type Decoder = HealthDecoder;

    fn encoder(&mut self) -> HealthEncoder {
        HealthEncoder
    }

    fn decoder(&mut self) -> HealthDecoder {
        HealthDecoder
    }
}

impl tonic::codec::Encoder for HealthEncoder {
    type Item = HealthRequest;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: HealthRequest,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        prost::Message::encode(&item, out).map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

impl tonic::codec::Decoder for HealthDecoder {
    type Item = HealthAnswer;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<HealthAnswer>, tonic::Status> {
        let answer: Result<HealthAnswer, _> = prost::Message::decode(from);
        answer.map(Some).map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that gives the answers one after the other and returns what it was asked.
    async fn serve(answers: Vec<&'static str>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.expect("a request");
                asked.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("an answer");
            }
            asked
        });
        (port, task)
    }

    async fn probe(port: u16, more: serde_json::Value) -> Outcome {
        let mut get = json!({"port": port, "path": "/h"});
        get.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let get: HTTPGetAction = serde_json::from_value(get).expect("an action");
        let container = Container::default();
        let answer =
            run_http(&get, &container, "127.0.0.1", Duration::from_millis(500), "kube-probe/1.36").await;
        match answer {
            Ok(answer) => judge_http(&answer),
            Err(HttpError::Failed(message)) => Outcome::Failure(message),
            Err(HttpError::Unusable(message)) => Outcome::Unknown(message),
        }
    }

    #[tokio::test]
    async fn http_statuses_decide() {
        let (port, asked) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(
            probe(port, json!({"httpHeaders": [{"name": "X-A", "value": "b"}]})).await,
            Outcome::Success
        );
        let request = asked.await.expect("requests").remove(0).to_lowercase();
        assert!(
            request.starts_with("get /h http/1.1") && request.contains("user-agent: kube-probe/1.36"),
            "{request}"
        );
        assert!(request.contains("x-a: b") && request.contains("accept: */*"), "{request}");
        let (port, _) = serve(vec!["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]).await;
        let failed = Outcome::Failure("HTTP probe failed with statuscode: 503".into());
        assert_eq!(probe(port, json!({})).await, failed);
        let (port, _) = serve(vec![
            "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        assert_eq!(probe(port, json!({})).await, Outcome::Success);
        let (port, _) =
            serve(vec!["HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n"]).await;
        assert!(matches!(probe(port, json!({})).await, Outcome::Warning(_)));
    }

    #[tokio::test]
    async fn refusals_and_silence_are_failures() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let silent = probe(port, json!({})).await;
        assert_eq!(
            silent,
            Outcome::Failure(format!(
                "Get \"http://127.0.0.1:{port}/h\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ))
        );
        assert_eq!(run_tcp("127.0.0.1", port, Duration::from_secs(1)).await, Outcome::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(
            run_tcp("127.0.0.1", port, Duration::from_secs(1)).await,
            Outcome::Failure(refused.clone())
        );
        let http = format!("Get \"http://127.0.0.1:{port}/h\": {refused}");
        assert_eq!(probe(port, json!({})).await, Outcome::Failure(http));
    }

    /// A health service that always answers with this status.
    async fn health(status: u8) -> u16 {
        use http_body_util::{BodyExt, StreamBody};
        use hyper::body::Frame;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let service =
                hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let body = request.into_body().collect().await.expect("a message").to_bytes();
                    assert_eq!(&body[..], [0, 0, 0, 0, 3, 0x0a, 1, b's'], "the service is named");
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    let message = bytes::Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]);
                    let frames = [
                        Ok::<_, std::convert::Infallible>(Frame::data(message)),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    http::Response::builder().header("content-type", "application/grpc").body(body)
                });
            let executor = hyper_util::rt::TokioExecutor::new();
            let server = hyper::server::conn::http2::Builder::new(executor);
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        port
    }

    #[tokio::test]
    async fn grpc_health_is_asked() {
        let limit = Duration::from_secs(2);
        let ask = |port: u16| run_grpc("127.0.0.1", port.into(), "s".into(), limit);
        assert_eq!(ask(health(1).await).await, Outcome::Success);
        let unhealthy = Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".into());
        assert_eq!(ask(health(2).await).await, unhealthy);
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = closed.local_addr().expect("an address").port();
        drop(closed);
        assert!(matches!(ask(port).await, Outcome::Failure(_)));
    }

    #[test]
    fn ports_may_be_named() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("ok");
        let name = |text: &str| IntOrString::String(text.into());
        assert_eq!(resolve_port(&name("web"), &container), Ok(8080));
        assert_eq!(resolve_port(&name("81"), &container), Ok(81));
        assert_eq!(resolve_port(&IntOrString::Int(0), &container), Err("invalid port number: 0".into()));
        assert!(resolve_port(&name("none"), &container).is_err());
    }
}
