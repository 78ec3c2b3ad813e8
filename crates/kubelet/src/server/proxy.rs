//! Hands a stream on to the runtime's own streaming server, byte for byte: whatever protocol the two ends speak
//! (SPDY or WebSocket) stays between them.

use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::routes::{Request, Response, full, text};

const CONNECT: Duration = Duration::from_secs(10);

/// Sends a request on to `url` and, when that switches protocols, joins both connections.
pub async fn forward(url: &str, request: Request) -> Response {
    match try_forward(url, request).await {
        Ok(response) => response,
        Err(message) => text(StatusCode::BAD_GATEWAY, format!("error while proxying request: {message}")),
    }
}

async fn try_forward(url: &str, mut request: Request) -> Result<Response, String> {
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

    let client = hyper::upgrade::on(&mut request);
    let mut onward = http::Request::builder().method(request.method().clone());
    // the runtime's URL is a one-time token; what was asked for is behind it
    let path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    onward = onward.uri(path);
    for (name, value) in request.headers() {
        // credentials are for us
        if name != header::HOST && name != header::AUTHORIZATION {
            onward = onward.header(name, value);
        }
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    let onward =
        onward.header(header::HOST, host).body(request.into_body()).map_err(|error| error.to_string())?;
    let mut answer = sender.send_request(onward).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()));
    }
    let runtime = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (client, runtime) = match tokio::try_join!(client, runtime) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "a stream could not be taken over");
                return;
            }
        };
        let joined =
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(runtime)).await;
        if let Err(error) = joined {
            tracing::debug!(%error, "a stream ended with an error");
        }
    });
    Ok(answer.map(|_| full("")))
}
