//! The opening handshake of a WebSocket server: what upstream's servers accept and what they say to the rest.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::upgrade;

/// Why a client gets no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("bad method")]
    Method,
    #[error("not websocket protocol")]
    NotWebSocket,
    #[error("mismatch challenge/response")]
    Challenge,
    #[error("missing or bad WebSocket Version")]
    Version,
    #[error("missing or bad WebSocket-Protocol")]
    Protocols,
    /// None of the protocols that the client offers is spoken here, or it does not say where it comes from.
    #[error("")]
    Forbidden,
}

impl Refused {
    pub fn response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.to_string()));
        *response.status_mut() = match self {
            Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refused::Forbidden => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self == Refused::Version {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// A handshake that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    accept: String,
    /// The protocol that both sides speak from here on; empty when the client asked for none.
    pub protocol: String,
}

impl Accepted {
    pub fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        for (name, value) in [(SEC_WEBSOCKET_ACCEPT, &self.accept), (SEC_WEBSOCKET_PROTOCOL, &self.protocol)]
        {
            if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn key(method: &Method, headers: &HeaderMap) -> Result<String, Refused> {
    if method != Method::GET {
        return Err(Refused::Method);
    }
    if !upgrade::is_websocket(headers) {
        return Err(Refused::NotWebSocket);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if key.is_empty() {
        return Err(Refused::Challenge);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refused::Version);
    }
    Ok(derive_accept_key(key))
}

/// Agrees on the first protocol of the client's that is `spoken` here; the empty name stands for none at all.
pub fn negotiate(method: &Method, headers: &HeaderMap, spoken: &[&str]) -> Result<Accepted, Refused> {
    let accept = key(method, headers)?;
    let mut offered = upgrade::websocket_protocols(headers);
    if offered.is_empty() {
        offered.push("");
    }
    let agreed = offered.into_iter().find(|protocol| spoken.contains(protocol)).ok_or(Refused::Forbidden)?;
    Ok(Accepted { accept, protocol: agreed.to_owned() })
}

/// Takes whatever protocol the client names, if it says where it comes from, as browsers do.
pub fn from_origin(method: &Method, headers: &HeaderMap) -> Result<Accepted, Refused> {
    let accept = key(method, headers)?;
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    if origin.is_empty() || origin == b"null" {
        return Err(Refused::Forbidden);
    }
    match upgrade::websocket_protocols(headers).as_slice() {
        [] => Ok(Accepted { accept, protocol: String::new() }),
        [only] => Ok(Accepted { accept, protocol: (*only).to_owned() }),
        _ => Err(Refused::Protocols),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 5] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
    ];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_first_protocol_that_both_speak() {
        let both = headers(&FULL);
        let got =
            negotiate(&Method::GET, &both, &["", "v4.channel.k8s.io", "v5.channel.k8s.io"]).expect("agreed");
        assert_eq!(got.protocol, "v5.channel.k8s.io");
        let response = got.response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        let got = negotiate(&Method::GET, &both, &["v4.channel.k8s.io"]).expect("agreed");
        assert_eq!(got.protocol, "v4.channel.k8s.io");
        let got = negotiate(&Method::GET, &headers(&FULL[..4]), &["", "v4.channel.k8s.io"]).expect("agreed");
        assert!(!got.response().headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn refusals_are_those_of_upstream() {
        let spoken = ["v4.channel.k8s.io"];
        let without = |at: usize| {
            let mut pairs = FULL.to_vec();
            pairs.remove(at);
            headers(&pairs)
        };
        let cases = [
            (Method::POST, headers(&FULL), Refused::Method, 405),
            (Method::GET, without(0), Refused::NotWebSocket, 400),
            (Method::GET, without(1), Refused::NotWebSocket, 400),
            (Method::GET, without(2), Refused::Challenge, 400),
            (Method::GET, without(3), Refused::Version, 400),
            (Method::GET, without(4), Refused::Forbidden, 403),
        ];
        for (method, headers, want, code) in cases {
            assert_eq!(negotiate(&method, &headers, &spoken), Err(want), "{headers:?}");
            assert_eq!(want.response().status(), code);
        }
        assert_eq!(Refused::Version.response().headers()[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn watches_are_for_those_who_say_where_they_come_from() {
        let mut client = headers(&FULL[..4]);
        assert_eq!(from_origin(&Method::GET, &client), Err(Refused::Forbidden));
        client.insert(ORIGIN, HeaderValue::from_static("https://example.org"));
        assert_eq!(from_origin(&Method::GET, &client).map(|accepted| accepted.protocol), Ok(String::new()));
        client.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("a, b"));
        assert_eq!(from_origin(&Method::GET, &client), Err(Refused::Protocols));
    }
}
