//! WebSocket clients of streams: `exec` and `attach` are translated to SPDY, the SPDY of `portforward` is unpacked, logs
//! and watches are sent as messages.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use futures::Stream;
use http::{Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use streams::remotecommand::status::Outcome;
use streams::remotecommand::{self, Options, Session, Version};
use streams::spdy::{Config, Connection, Role};
use streams::switching::{self, switch};
use streams::upgrade;
use streams::websocket::channels::Codec;
use streams::websocket::handshake::{Accepted, Refused, negotiate};
use streams::websocket::{self, Message};

use crate::http::body::{self, Request, Response};
use crate::kubelet_client::{Endpoint, KubeletClient};
use crate::metrics::Metrics;

/// How long nothing may come from a client or go to it.
const IDLE: Duration = Duration::from_secs(4 * 3600);

/// How often a kubelet is told that we are there.
const PING: Duration = Duration::from_secs(5);

/// The client's side of a connection that is about to switch protocols.
pub fn client(request: &mut Request) -> Result<OnUpgrade, Status> {
    request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| Status::bad_request("the connection cannot be upgraded; use HTTP/1.1"))
}

pub fn refused(refused: Refused) -> Response {
    refused.response().map(body::full)
}

/// Sends messages to a client until they end or it hangs up.
pub fn feed(
    accepted: &Accepted,
    client: OnUpgrade,
    messages: impl Stream<Item = Message> + Send + 'static,
) -> Response {
    switch(accepted, client, |socket| websocket::feed(socket, messages)).map(body::full)
}

/// Runs a command, for a client of version 5, through a kubelet's SPDY.
pub fn translate(
    kubelets: &KubeletClient,
    metrics: &Arc<Metrics>,
    endpoint: Endpoint,
    mut request: Request,
    options: Options,
) -> Result<Response, Status> {
    let accepted = match negotiate(request.method(), request.headers(), &[Version::V5.name()]) {
        Ok(accepted) => accepted,
        Err(error) => {
            metrics.translated(StatusCode::BAD_REQUEST);
            return Ok(refused(error));
        }
    };
    let client = client(&mut request)?;
    let mut onward = Request::new(body::empty());
    *onward.method_mut() = Method::POST;
    *onward.uri_mut() = request.uri().clone();
    upgrade::ask_for_spdy(onward.headers_mut(), Version::SPDY.map(Version::name));
    let (kubelets, metrics) = (kubelets.clone(), metrics.clone());
    let session = Session { version: Version::V5, codec: Codec::Raw, options, idle: Some(IDLE) };
    let response = switch(&accepted, client, move |socket| async move {
        let server = connect(&kubelets, &endpoint, onward);
        let outcome = remotecommand::bridge(socket, session, server).await;
        metrics.translated(match outcome {
            Outcome::Success | Outcome::Exit(_) => StatusCode::OK,
            Outcome::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        });
    });
    Ok(response.map(body::full))
}

/// Opens a SPDY connection to a kubelet.
async fn connect(
    kubelets: &KubeletClient,
    endpoint: &Endpoint,
    request: Request,
) -> Result<(Connection, Version), String> {
    let sent = kubelets.send(endpoint, request).await;
    let response = sent.map_err(|status| format!("error sending request: {}", status.message))?;
    let config = Config { ping: Some(PING), ..Config::new(Role::Client) };
    let (connection, protocol) = switching::spdy(response, config).await?;
    let version = Version::named(&protocol).ok_or_else(|| format!("unknown protocol {protocol:?}"))?;
    Ok((connection, version))
}

/// Passes on the SPDY that a client sends through WebSocket, once the kubelet has agreed to it.
pub async fn tunnel(
    kubelets: &KubeletClient,
    metrics: &Metrics,
    endpoint: Endpoint,
    mut request: Request,
) -> Result<Response, Status> {
    let client = client(&mut request)?;
    let mut onward = Request::new(body::empty());
    *onward.method_mut() = Method::POST;
    *onward.uri_mut() = request.uri().clone();
    *onward.headers_mut() = request.headers().clone();
    upgrade::forget_websocket(onward.headers_mut());
    upgrade::ask_for_spdy(onward.headers_mut(), upgrade::tunneled_protocols(request.headers()));
    let answer = kubelets.send(&endpoint, onward).await?;
    let tunneled = switching::tunnel(request.method(), request.headers(), client, answer);
    let response = tunneled.map_or_else(|answer| answer, |response| response.map(body::full));
    metrics.tunneled(response.status());
    Ok(response)
}
