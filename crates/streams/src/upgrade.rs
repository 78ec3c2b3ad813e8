//! What the headers of a request say of the protocol that it wants to switch to.

use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

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

/// Takes away what asks for WebSocket.
pub fn forget_websocket(headers: &mut HeaderMap) {
    for name in [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ] {
        headers.remove(name);
    }
}

/// Asks for SPDY and one of some protocols, best first.
pub fn ask_for_spdy<'a>(headers: &mut HeaderMap, protocols: impl IntoIterator<Item = &'a str>) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.remove(PROTOCOL_VERSION);
    for protocol in protocols {
        if let Ok(protocol) = HeaderValue::from_str(protocol) {
            headers.append(PROTOCOL_VERSION, protocol);
        }
    }
}

/// The protocol that a SPDY server chose; empty when it named none.
pub fn chosen_protocol(headers: &HeaderMap) -> &str {
    first(headers, &PROTOCOL_VERSION)
}

/// What a client says of an answer that did not switch to SPDY.
pub fn refusal(body: &[u8]) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let said = [status["message"].as_str(), status["error"].as_str(), Some(&text)];
    let said = said.into_iter().flatten().map(str::trim).find(|said| !said.is_empty());
    format!("unable to upgrade connection: {}", said.unwrap_or("empty server response"))
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

    #[test]
    fn refusals_are_told_in_the_servers_words() {
        let cases = [
            (r#"{"kind":"Status","message":"pods \"p\" not found"}"#, "pods \"p\" not found"),
            ("container not found (\"c\")\n", "container not found (\"c\")"),
            (" ", "empty server response"),
        ];
        for (body, want) in cases {
            assert_eq!(refusal(body.as_bytes()), format!("unable to upgrade connection: {want}"));
        }
    }

    #[test]
    fn a_websocket_request_becomes_one_for_spdy() {
        let mut asked =
            headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")]);
        forget_websocket(&mut asked);
        ask_for_spdy(&mut asked, ["v4.channel.k8s.io", "channel.k8s.io"]);
        assert!(is_spdy(&asked) && !asked.contains_key("sec-websocket-key"));
        assert_eq!(spdy_protocols(&asked), ["v4.channel.k8s.io", "channel.k8s.io"]);
        assert_eq!(chosen_protocol(&asked), "v4.channel.k8s.io");
    }
}
