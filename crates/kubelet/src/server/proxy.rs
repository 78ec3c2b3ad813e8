//! Hands a stream on to the runtime's own streaming server: SPDY byte for byte, WebSocket translated to the SPDY that
//! every runtime speaks.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use streams::remotecommand::{self, Options, Session, Version};
use streams::spdy::{Config, Connection, Role};
use streams::upgrade;
use streams::websocket::handshake::{Accepted, negotiate};
use streams::websocket::{self, Reader, Socket};
use streams::{portforward, spdy, switching};
use tokio::net::TcpStream;

use super::routes::{Body, Query, Request, Response, full, text};

const CONNECT: Duration = Duration::from_secs(10);

/// How long nothing may come from a client or go to it.
const IDLE: Duration = Duration::from_secs(4 * 3600);

fn failed(message: impl std::fmt::Display) -> Response {
    text(StatusCode::BAD_GATEWAY, format!("error while proxying request: {message}"))
}

/// Joins a client of `exec` or `attach` with the runtime, at the address that the runtime gave.
pub async fn command(url: &str, request: Request, options: Options) -> Response {
    if !upgrade::is_websocket(request.headers()) {
        return forward(url, request).await;
    }
    let accepted = match negotiate(request.method(), request.headers(), &remotecommand::WEBSOCKET) {
        Ok(accepted) => accepted,
        Err(refused) => return refused.response().map(full),
    };
    let (version, codec) = remotecommand::websocket_protocol(&accepted.protocol);
    let session = Session { version, codec, options, idle: Some(IDLE) };
    let (connection, protocol) = match connect(url, Version::SPDY.map(Version::name)).await {
        Ok(connected) => connected,
        Err(message) => return failed(message),
    };
    let Some(spoken) = Version::named(&protocol) else {
        return failed(format_args!("the runtime speaks {protocol:?}"));
    };
    switch(&accepted, request, move |socket| async move {
        let server = async { Ok::<_, spdy::Error>((connection, spoken)) };
        remotecommand::bridge(socket, session, server).await;
    })
}

/// Joins a client of `portForward` with the runtime.
pub async fn ports(url: &str, request: Request) -> Response {
    if !upgrade::is_websocket(request.headers()) {
        return forward(url, request).await;
    }
    if upgrade::wants_tunnel(request.headers()) {
        return tunnel(url, request).await.unwrap_or_else(failed);
    }
    let query = Query::parse(request.uri().query());
    let ports = match wanted_ports(&query) {
        Ok(ports) => ports,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let accepted = match negotiate(request.method(), request.headers(), &portforward::WEBSOCKET) {
        Ok(accepted) => accepted,
        Err(refused) => return refused.response().map(full),
    };
    let codec = portforward::codec(&accepted.protocol);
    let (connection, _) = match connect(url, [portforward::PROTOCOL]).await {
        Ok(connected) => connected,
        Err(message) => return failed(message),
    };
    switch(&accepted, request, move |socket| async move {
        portforward::bridge(socket, codec, &ports, &connection, Some(IDLE)).await;
    })
}

/// The ports that a WebSocket client of `portForward` names; others name theirs later.
fn wanted_ports(query: &Query) -> Result<Vec<u16>, String> {
    portforward::ports(query.all("port").iter().map(String::as_str))
}

/// An answer that comes bit by bit, as messages for a client that asks for WebSocket.
pub fn feed(request: Request, answer: Response) -> Response {
    if !upgrade::is_websocket(request.headers()) || answer.status() != StatusCode::OK {
        return answer;
    }
    match negotiate(request.method(), request.headers(), &Reader::SPOKEN) {
        Ok(accepted) => {
            let reader = Reader::of(&accepted.protocol);
            let messages = reader.messages(answer.into_body().into_data_stream());
            switch(&accepted, request, |socket| websocket::feed(socket, messages))
        }
        Err(refused) => refused.response().map(full),
    }
}

/// Answers a handshake; `serve` gets the socket once the client has switched.
fn switch<F>(
    accepted: &Accepted,
    mut request: Request,
    serve: impl FnOnce(Socket<TokioIo<Upgraded>>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    switching::switch(accepted, hyper::upgrade::on(&mut request), serve).map(full)
}

/// Sends a request to the runtime, on a connection of its own that can be upgraded.
async fn send(
    url: &str,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<http::Response<Incoming>, String> {
    let target: Uri = url.parse().map_err(|_| format!("the runtime gave a bad address: {url}"))?;
    let authority = target.authority().ok_or_else(|| format!("the runtime gave no host: {url}"))?.clone();
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(authority.as_str()))
        .await
        .map_err(|_| "the runtime does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());
    // the runtime's URL is a one-time token; what was asked for is behind it
    let path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut onward =
        http::Request::builder().method(method).uri(path).body(body).map_err(|error| error.to_string())?;
    *onward.headers_mut() = headers;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    onward.headers_mut().insert(header::HOST, host);
    // credentials are for us
    onward.headers_mut().remove(header::AUTHORIZATION);
    sender.send_request(onward).await.map_err(|error| error.to_string())
}

/// Opens a SPDY connection to the runtime; gives the protocol that it chose, too.
async fn connect<const N: usize>(
    url: &str,
    protocols: [&'static str; N],
) -> Result<(Connection, String), String> {
    let mut headers = HeaderMap::new();
    upgrade::ask_for_spdy(&mut headers, protocols);
    let answer = send(url, Method::POST, headers, full("")).await?;
    switching::spdy(answer, Config::new(Role::Client)).await
}

/// Passes on the SPDY that a client sends through WebSocket.
async fn tunnel(url: &str, mut request: Request) -> Result<Response, String> {
    let mut headers = HeaderMap::new();
    upgrade::ask_for_spdy(&mut headers, upgrade::tunneled_protocols(request.headers()));
    let answer = send(url, Method::POST, headers, full("")).await?;
    let client = hyper::upgrade::on(&mut request);
    let tunneled = switching::tunnel(request.method(), request.headers(), client, answer);
    Ok(tunneled.map_or_else(passed_on, |response| response.map(full)))
}

fn passed_on(answer: http::Response<Incoming>) -> Response {
    answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync())
}

/// Sends a request on and, when that switches protocols, joins both connections.
async fn forward(url: &str, mut request: Request) -> Response {
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let body = body.map_err(std::io::Error::other).boxed_unsync();
    let mut answer = match send(url, parts.method, parts.headers, body).await {
        Ok(answer) => answer,
        Err(message) => return failed(message),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return passed_on(answer);
    }
    let runtime = hyper::upgrade::on(&mut answer);
    tokio::spawn(switching::join(client, runtime));
    answer.map(|_| full(Bytes::new()))
}
