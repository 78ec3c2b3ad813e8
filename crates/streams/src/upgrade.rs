//! What the headers of a request say of the protocol that it wants to switch to.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// The value of `Upgrade` that asks for SPDY.
pub const SPDY: &str = "SPDY/3.1";

/// The protocols that a SPDY client offers, each as a header of its own or after commas, and the one chosen.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The protocols that a SPDY server would have taken, when it refuses.
pub const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Before the name of a SPDY protocol that is tunnelled through WebSocket.
pub const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const TUNNEL_SUFFIX: &str = ".k8s.io";

/// The first value of a header, as Go's `Header.Get` has it.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

/// Whether a request asks to switch protocols.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Whether a request asks to switch to WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    first(headers, &UPGRADE).eq_ignore_ascii_case("websocket") && is_upgrade(headers)
}

/// Whether the headers of a request or an answer name SPDY/3.1 as what is switched to.
pub fn is_spdy(headers: &HeaderMap) -> bool {
    first(headers, &UPGRADE).to_ascii_lowercase().contains("spdy/3.1")
        && first(headers, &CONNECTION).to_ascii_lowercase().contains("upgrade")
}

/// The WebSocket protocols on offer, in the client's order.
pub fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    match first(headers, &SEC_WEBSOCKET_PROTOCOL) {
        "" => Vec::new(),
        protocols => protocols.split(',').map(str::trim).collect(),
    }
}

/// Whether a WebSocket request offers a remote command protocol that can end one stream alone: version 5.
pub fn wants_stream_close(headers: &HeaderMap) -> bool {
    is_websocket(headers) && websocket_protocols(headers).contains(&crate::remotecommand::Version::V5.name())
}

/// Whether a WebSocket request offers to carry SPDY.
pub fn wants_tunnel(headers: &HeaderMap) -> bool {
    is_websocket(headers) && !tunneled_protocols(headers).is_empty()
}

/// The SPDY protocols that a WebSocket request offers to carry.
pub fn tunneled_protocols(headers: &HeaderMap) -> Vec<&str> {
    websocket_protocols(headers)
        .into_iter()
        .filter(|protocol| protocol.ends_with(TUNNEL_SUFFIX))
        .filter_map(|protocol| protocol.strip_prefix(TUNNEL_PREFIX))
        .collect()
}

/// The SPDY protocols on offer.
pub fn spdy_protocols(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(PROTOCOL_VERSION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn requests_are_told_apart() {
        const UP: (&str, &str) = ("connection", "keep-alive, Upgrade");
        const WS: (&str, &str) = ("upgrade", "WebSocket");
        let offer = |offer| ("sec-websocket-protocol", offer);
        // headers -> WebSocket, with close signal, tunnel
        let cases: [(&[_], [bool; 3]); 8] = [
            (&[], [false; 3]),
            (&[WS], [false; 3]),
            (&[UP, ("upgrade", "SPDY/3.1")], [false; 3]),
            (&[UP, WS], [true, false, false]),
            (&[UP, WS, offer("v4.channel.k8s.io, v5.channel.k8s.io")], [true, true, false]),
            (&[UP, WS, offer("v5.channel.k8s.io.example")], [true, false, false]),
            (&[UP, WS, offer("SPDY/3.1+portforward.k8s.io")], [true, false, true]),
            (&[UP, WS, offer("SPDY/3.1+portforward")], [true, false, false]),
        ];
        for (pairs, want) in cases {
            let headers = headers(pairs);
            let got = [is_websocket(&headers), wants_stream_close(&headers), wants_tunnel(&headers)];
            assert_eq!(got, want, "{pairs:?}");
        }
        assert!(is_spdy(&headers(&[UP, ("upgrade", "spdy/3.1")])));
        assert!(!is_spdy(&headers(&[UP, WS])));
        let both = headers(&[("x-stream-protocol-version", "a, b,"), ("x-stream-protocol-version", "c")]);
        assert_eq!(spdy_protocols(&both), ["a", "b", "c"]);
    }
}
