//! Who makes a request: client certificates, bearer tokens, callers in this process, or nobody.
//!
//! [`Authenticator`] asks each way in turn. A credential that is there but bad refuses the request; only one
//! without any credential is anonymous. It knows nothing of what a user may do.

mod bootstrap_tokens;
mod csv;
mod es512;
pub mod jwt;
pub mod keys;
mod legacy_tokens;
pub mod metrics;
mod options;
mod request_header;
pub mod service_account;
mod static_tokens;
mod token_cache;
mod user;
pub mod webhook;
pub mod x509;

use std::sync::Arc;

use apimachinery::Status;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;

pub use bootstrap_tokens::BootstrapTokens;
pub use legacy_tokens::LegacyTokens;
use metrics::TokenCacheMetrics;
pub use options::{Options, ServiceAccountOptions};
pub use request_header::{FrontProxy, RequestHeaders};
pub use service_account::{
    BoundObject, IssuedToken, ServiceAccountTokens, TokenGetter, TokenIssuer, TokenRequest,
};
pub use static_tokens::StaticTokens;
pub use user::*;
pub use x509::{ClientCa, PeerCertificates};

const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
const INVALID_TOKEN: &str = "invalid bearer token";

/// The issuer of service account tokens where none is named.
pub fn default_issuer(cluster_domain: &str) -> String {
    format!("https://kubernetes.default.svc.{cluster_domain}")
}

/// The scheme of a URL, if Go would take it for one.
pub fn check_url(text: &str) -> Result<String, String> {
    api::validation::url::parse(text).map(|url| url.scheme)
}

/// A caller inside this process, put into the request's extensions by the in-process transport and by nothing
/// that reads from a network.
#[derive(Clone, Debug)]
pub struct InProcessUser(pub Arc<UserInfo>);

/// Who makes a request, and what else authentication found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub user: Arc<UserInfo>,
    /// The audiences that the credential is good for; empty when it is not bound to any.
    pub audiences: Vec<String>,
    /// Annotations for the audit event of the request.
    pub audit_annotations: Vec<(&'static str, String)>,
    /// What the client is told besides.
    pub warnings: Vec<String>,
}

impl Authenticated {
    pub fn new(user: Arc<UserInfo>) -> Self {
        Self { user, audiences: Vec::new(), audit_annotations: Vec::new(), warnings: Vec::new() }
    }

    fn with_all_authenticated(mut self) -> Self {
        if !self.user.is_in(ALL_AUTHENTICATED) {
            self.user = Arc::new((*self.user).clone().authenticated());
        }
        self
    }
}

/// Why a request is nobody's. The reasons are for the log: the answer tells none of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unable to authenticate the request: {}", .0.join(", "))]
pub struct Unauthenticated(pub Vec<String>);

impl From<Unauthenticated> for Status {
    fn from(_: Unauthenticated) -> Self {
        Status::unauthorized()
    }
}

/// Recognizes bearer tokens. Asynchronous for those that ask somebody else.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `None` for a token that is not of this kind; an error for one that is and is not good. `audiences` are
    /// those that the caller asks for; empty stands for the API server's own.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, String>;
}

/// The whole chain.
#[derive(Default)]
pub struct Authenticator {
    front_proxy: Option<FrontProxy>,
    client_ca: Option<ClientCa>,
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
    anonymous: Anonymous,
    pub metrics: TokenCacheMetrics,
}

/// Where requests without credentials may pass as `system:anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    Everywhere,
    #[default]
    Nowhere,
    /// At exactly these paths.
    At(Vec<String>),
}

impl Anonymous {
    fn allows(&self, path: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::At(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

impl Authenticator {
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes this proxy for whom it speaks.
    pub fn with_front_proxy(self, proxy: FrontProxy) -> Self {
        Self { front_proxy: Some(proxy), ..self }
    }

    /// Accepts client certificates of this authority.
    pub fn with_client_ca(self, client_ca: ClientCa) -> Self {
        Self { client_ca: Some(client_ca), ..self }
    }

    pub fn with_tokens(mut self, tokens: Arc<dyn TokenAuthenticator>) -> Self {
        self.tokens.push(tokens);
        self
    }

    /// Lets requests without credentials pass as `system:anonymous`.
    pub fn with_anonymous(self, anonymous: Anonymous) -> Self {
        Self { anonymous, ..self }
    }

    /// Tells who makes a request, and takes all that tells it out of the headers, so that nothing behind can pass
    /// it on.
    pub async fn authenticate(&self, request: &mut Parts) -> Result<Authenticated, Unauthenticated> {
        let found = self.identify(request).await?;
        request.headers.remove(AUTHORIZATION);
        RequestHeaders::default().clear(&mut request.headers);
        if let Some(proxy) = &self.front_proxy {
            proxy.headers.clear(&mut request.headers);
        }
        Ok(found)
    }

    async fn identify(&self, request: &mut Parts) -> Result<Authenticated, Unauthenticated> {
        if let Some(InProcessUser(user)) = request.extensions.get() {
            return Ok(Authenticated::new(user.clone()));
        }
        let mut errors = Vec::new();
        let peer = request.extensions.get::<Arc<PeerCertificates>>();
        if let (Some(proxy), Some(peer)) = (&self.front_proxy, peer) {
            match proxy.authenticate(peer, &request.headers) {
                Ok(Some(user)) => return Ok(Authenticated::new(user)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if let (Some(ca), Some(peer)) = (&self.client_ca, peer) {
            match ca.authenticate(peer) {
                Ok(Some(user)) => return Ok(Authenticated::new(user)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if let Some(token) = bearer_token(&request.headers) {
            match self.token_or_error(&token).await {
                Ok(found) => return Ok(found),
                Err(error) => errors.push(error),
            }
        }
        match websocket_token(&request.headers) {
            Ok(None) => {}
            Ok(Some((token, others))) => match self.token_or_error(&token).await {
                Ok(found) => {
                    // What is left was in a header before, so it can be in one again.
                    if let Ok(others) = others.parse() {
                        request.headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
                    }
                    return Ok(found);
                }
                Err(error) => errors.push(error),
            },
            Err(error) => errors.push(error.to_owned()),
        }
        if errors.is_empty() && self.anonymous.allows(request.uri.path()) {
            return Ok(Authenticated::new(Arc::new(UserInfo::anonymous())));
        }
        Err(Unauthenticated(errors))
    }

    /// For `TokenReview`: whose a token is, if it is good for one of the audiences.
    pub async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        let mut errors = Vec::new();
        for tokens in &self.tokens {
            match tokens.authenticate_token(token, audiences).await {
                Ok(Some(found)) => return Ok(Some(found.with_all_authenticated())),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(errors.join(", ")) }
    }

    async fn token_or_error(&self, token: &str) -> Result<Authenticated, String> {
        self.authenticate_token(token, &[]).await?.ok_or_else(|| INVALID_TOKEN.to_owned())
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, rest) = header.split_once(' ')?;
    // As upstream splits it: what comes after a second space is no part of the token.
    let token = rest.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn names<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The token that a browser sends as a subprotocol, with the subprotocols without it.
fn websocket_token(headers: &HeaderMap) -> Result<Option<(String, String)>, &'static str> {
    let has = |name, wanted: &str| names(headers, name).any(|value| value.eq_ignore_ascii_case(wanted));
    if !has(&UPGRADE, "websocket") || !has(&CONNECTION, "upgrade") {
        return Ok(None);
    }
    let mut token = None;
    let mut others = Vec::new();
    for protocol in names(headers, &SEC_WEBSOCKET_PROTOCOL) {
        let Some(encoded) = protocol.strip_prefix(WEBSOCKET_TOKEN_PREFIX) else {
            others.push(protocol);
            continue;
        };
        if token.is_some() {
            return Err("multiple base64.bearer.authorization tokens specified");
        }
        let decoded = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| "invalid base64.bearer.authorization token encoding")?;
        token = Some(String::from_utf8(decoded).map_err(|_| "invalid base64.bearer.authorization token")?);
    }
    match token.filter(|token| !token.is_empty()) {
        None => Ok(None),
        Some(_) if others.is_empty() => Err("missing additional subprotocol"),
        Some(token) => Ok(Some((token, others.join(",")))),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn chain() -> Authenticator {
        let tokens = StaticTokens::new([("good".to_owned(), UserInfo::new("jane", &["devs"]))]);
        Authenticator::new().with_tokens(Arc::new(tokens)).with_anonymous(Anonymous::Everywhere)
    }

    fn request(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder(), |r, (name, value)| r.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    async fn who(chain: &Authenticator, headers: &[(&str, &str)]) -> Result<String, Vec<String>> {
        let found = chain.authenticate(&mut request(headers)).await;
        found.map(|found| found.user.name.clone()).map_err(|error| error.0)
    }

    #[tokio::test]
    async fn credentials_decide_who_it_is() {
        let chain = chain();
        let encoded = |token: &str| format!("{WEBSOCKET_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(token));
        let good = format!("v5.channel.k8s.io, {}", encoded("good"));
        let bad = format!("v5.channel.k8s.io,{}", encoded("bad"));
        let twice = format!("{},{}", encoded("good"), encoded("good"));
        let socket = [("upgrade", "websocket"), ("connection", "Upgrade")];
        let with = |protocols: &'static str| [socket[0], socket[1], ("sec-websocket-protocol", protocols)];
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let refused = |why: &str| Err(vec![why.to_owned()]);
        let name = |name: &str| Ok(name.to_owned());
        let cases: Vec<(Vec<(&str, &str)>, Result<String, Vec<String>>)> = vec![
            (vec![], name(ANONYMOUS)),
            (vec![("authorization", "Bearer good")], name("jane")),
            (vec![("authorization", "bearer good ignored")], name("jane")),
            (vec![("authorization", "Bearer bad")], refused(INVALID_TOKEN)),
            (vec![("authorization", "Bearer ")], name(ANONYMOUS)),
            (vec![("authorization", "Basic good")], name(ANONYMOUS)),
            (with(leak(good.clone())).to_vec(), name("jane")),
            (with(leak(bad)).to_vec(), refused(INVALID_TOKEN)),
            (with(leak(encoded("good"))).to_vec(), refused("missing additional subprotocol")),
            (with(leak(twice)).to_vec(), refused("multiple base64.bearer.authorization tokens specified")),
            (vec![("sec-websocket-protocol", leak(good))], name(ANONYMOUS)),
        ];
        for (headers, wanted) in cases {
            assert_eq!(who(&chain, &headers).await, wanted, "{headers:?}");
        }
        let closed = Authenticator::new();
        assert_eq!(who(&closed, &[]).await, Err(vec![]), "anonymous only where allowed");
        let some = Authenticator::new().with_anonymous(Anonymous::At(vec!["/livez".into()]));
        for (path, passes) in [("/livez", true), ("/livez?verbose", true), ("/livez/", false), ("/", false)] {
            let mut parts = Request::get(path).body(()).expect("a request").into_parts().0;
            assert_eq!(some.authenticate(&mut parts).await.is_ok(), passes, "{path}");
        }
    }

    #[tokio::test]
    async fn tokens_go_no_further() {
        let chain = chain();
        let mut parts = request(&[("authorization", "Bearer good")]);
        chain.authenticate(&mut parts).await.expect("good");
        assert!(!parts.headers.contains_key(AUTHORIZATION));
        let protocols = format!("a, {WEBSOCKET_TOKEN_PREFIX}{},b", URL_SAFE_NO_PAD.encode("good"));
        let mut parts = request(&[
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-protocol", &protocols),
        ]);
        chain.authenticate(&mut parts).await.expect("good");
        assert_eq!(parts.headers[SEC_WEBSOCKET_PROTOCOL], "a,b");
    }

    #[tokio::test]
    async fn everyone_known_is_authenticated() {
        let chain = chain();
        let groups = |parts: Parts| {
            let mut parts = parts;
            let chain = &chain;
            async move { chain.authenticate(&mut parts).await.expect("good").user.groups.clone() }
        };
        assert_eq!(groups(request(&[("authorization", "Bearer good")])).await, ["devs", ALL_AUTHENTICATED]);
        assert_eq!(groups(request(&[])).await, [ALL_UNAUTHENTICATED]);
        let mut inside = request(&[("authorization", "Bearer bad")]);
        inside.extensions.insert(InProcessUser(Arc::new(UserInfo::new(KUBE_SCHEDULER, &[]))));
        assert_eq!(groups(inside).await, [ALL_AUTHENTICATED]);
        assert_eq!(Status::from(Unauthenticated(vec!["secret reason".into()])), Status::unauthorized());
    }
}
