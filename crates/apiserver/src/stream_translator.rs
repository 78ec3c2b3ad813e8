//! WebSocket clients of streams: `exec` and `attach` are translated to SPDY, the SPDY of `portforward` is unpacked, logs
//! and watches are sent as messages.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use futures::Stream;
use http::{Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use streams::remotecommand::status::Outcome;
use streams::remotecommand::{self, Options, Session, Version};
use streams::spdy::{Config, Connection, Role};
use streams::upgrade::{self, TUNNEL_PREFIX};
use streams::websocket::channels::Codec;
use streams::websocket::handshake::{Accepted, Refused, negotiate};
use streams::websocket::{self, Message, Socket};

use crate::http::body::{self, Request, Response};
use crate::http::respond;
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

/// Answers a handshake; `serve` gets the socket once the client has switched.
fn switch<F>(
    accepted: &Accepted,
    client: OnUpgrade,
    serve: impl FnOnce(Socket<TokioIo<Upgraded>>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        match client.await {
            Ok(client) => serve(websocket::serve(TokioIo::new(client)).await).await,
            Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
        }
    });
    accepted.response().map(body::full)
}

/// Sends messages to a client until they end or it hangs up.
pub fn feed(
    accepted: &Accepted,
    client: OnUpgrade,
    messages: impl Stream<Item = Message> + Send + 'static,
) -> Response {
    switch(accepted, client, |socket| websocket::feed(socket, messages))
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
    Ok(switch(&accepted, client, move |socket| async move {
        let server = connect(&kubelets, &endpoint, onward);
        let outcome = remotecommand::bridge(socket, session, server).await;
        metrics.translated(match outcome {
            Outcome::Success | Outcome::Exit(_) => StatusCode::OK,
            Outcome::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        });
    }))
}

/// Opens a SPDY connection to a kubelet.
async fn connect(
    kubelets: &KubeletClient,
    endpoint: &Endpoint,
    request: Request,
) -> Result<(Connection, Version), String> {
    let sent = kubelets.send(endpoint, request).await;
    let mut response = sent.map_err(|status| format!("error sending request: {}", status.message))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS || !upgrade::is_spdy(response.headers()) {
        let said = body::read(response.into_body()).await;
        let unread = |_| "unable to upgrade connection: unable to read error from server response".to_owned();
        return Err(upgrade::refusal(&said.map_err(unread)?));
    }
    let protocol = upgrade::chosen_protocol(response.headers());
    let version = Version::named(protocol).ok_or_else(|| format!("unknown protocol {protocol:?}"))?;
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| error.to_string())?;
    let config = Config { ping: Some(PING), ..Config::new(Role::Client) };
    Ok((Connection::new(TokioIo::new(upgraded), config).0, version))
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
    let mut response = kubelets.send(&endpoint, onward).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        metrics.tunneled(response.status());
        return Ok(response);
    }
    if !upgrade::is_spdy(response.headers()) {
        metrics.tunneled(StatusCode::INTERNAL_SERVER_ERROR);
        let message = "unable to upgrade: missing upgrade headers in response\n";
        return Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, message));
    }
    let chosen = format!("{TUNNEL_PREFIX}{}", upgrade::chosen_protocol(response.headers()));
    let accepted = match negotiate(request.method(), request.headers(), &[&chosen]) {
        Ok(accepted) => accepted,
        Err(error) => {
            metrics.tunneled(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(refused(error));
        }
    };
    metrics.tunneled(StatusCode::SWITCHING_PROTOCOLS);
    let kubelet = hyper::upgrade::on(&mut response);
    Ok(switch(&accepted, client, |socket| async move {
        match kubelet.await {
            Ok(kubelet) => websocket::tunnel(socket, TokioIo::new(kubelet)).await,
            Err(error) => tracing::debug!(%error, "a connection to a kubelet could not be upgraded"),
        }
    }))
}
