//! Switching protocols over hyper: what is done with a connection once both sides have agreed, and how a server's answer
//! to a wish for SPDY is taken.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Body;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::spdy::{Config, Connection};
use crate::upgrade::{self, TUNNEL_PREFIX};
use crate::websocket::handshake::{Accepted, negotiate};
use crate::websocket::{self, Socket};

/// The most that is read of a server's reason to refuse.
const MAX_REFUSAL: usize = 64 * 1024;

/// Answers a WebSocket handshake; `serve` gets the socket once the client has switched.
pub fn switch<F>(
    accepted: &Accepted,
    client: OnUpgrade,
    serve: impl FnOnce(Socket<TokioIo<Upgraded>>) -> F + Send + 'static,
) -> Response<Bytes>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        match client.await {
            Ok(client) => serve(websocket::serve(TokioIo::new(client)).await).await,
            Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
        }
    });
    accepted.response()
}

/// Joins two connections that both switch protocols, byte for byte, until both have ended.
pub async fn join(client: OnUpgrade, server: OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a connection could not be upgraded"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "a stream ended with an error");
    }
}

/// The connection that a server's answer to a wish for SPDY opens, and the protocol that it chose.
pub async fn spdy<B: Body>(mut answer: Response<B>, config: Config) -> Result<(Connection, String), String>
where
    B::Error: std::fmt::Display,
{
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !upgrade::is_spdy(answer.headers()) {
        let body = answer.into_body().map_err(|error| std::io::Error::other(error.to_string()));
        let said = Limited::new(body, MAX_REFUSAL).collect().await.map(Collected::to_bytes);
        let unread = |_| "unable to upgrade connection: unable to read error from server response".to_owned();
        return Err(upgrade::refusal(&said.map_err(unread)?));
    }
    let protocol = upgrade::chosen_protocol(answer.headers()).to_owned();
    let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|error| error.to_string())?;
    Ok((Connection::new(TokioIo::new(upgraded), config).0, protocol))
}

/// Passes on the SPDY that a client sends through WebSocket, now that a server has answered. An error is an answer of
/// the server's own that the client is to see.
pub fn tunnel<B>(
    method: &Method,
    headers: &HeaderMap,
    client: OnUpgrade,
    mut answer: Response<B>,
) -> Result<Response<Bytes>, Response<B>> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(answer);
    }
    if !upgrade::is_spdy(answer.headers()) {
        let message = "unable to upgrade: missing upgrade headers in response\n";
        let mut response = Response::new(Bytes::from_static(message.as_bytes()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(response);
    }
    let chosen = format!("{TUNNEL_PREFIX}{}", upgrade::chosen_protocol(answer.headers()));
    let accepted = match negotiate(method, headers, &[&chosen]) {
        Ok(accepted) => accepted,
        Err(refused) => return Ok(refused.response()),
    };
    let server = hyper::upgrade::on(&mut answer);
    Ok(switch(&accepted, client, |socket| async move {
        match server.await {
            Ok(server) => websocket::tunnel(socket, TokioIo::new(server)).await,
            Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
        }
    }))
}
