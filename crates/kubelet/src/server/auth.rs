//! Who asks the kubelet, and whether they may: the API server decides both (TokenReview, SubjectAccessReview).

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
const MAX_CACHED: usize = 1024;

/// Somebody who has shown who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The user that a verified client certificate names: its common name, with its organizations as groups.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok());
    let mut groups: Vec<String> = organizations.map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups, ..User::default() })
}

/// The subresources of `nodes` that give access to a path; any one will do (KEP-2862).
pub fn subresources(path: &str) -> Vec<&'static str> {
    let is = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}/"));
    match () {
        () if is("/stats") => vec!["stats"],
        () if is("/metrics") => vec!["metrics"],
        () if is("/logs") => vec!["log"],
        () if is("/checkpoint") => vec!["checkpoint"],
        () if is("/healthz") => vec!["healthz", "proxy"],
        () if is("/configz") => vec!["configz", "proxy"],
        () if is("/pods") || is("/runningpods") => vec!["pods", "proxy"],
        () => vec!["proxy"],
    }
}

pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Answers for a while, and not more than fit.
struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        let entries = self.0.lock();
        entries.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.0.lock();
        let now = Instant::now();
        if entries.len() >= MAX_CACHED {
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= MAX_CACHED {
                entries.clear();
            }
        }
        entries.insert(key, (now + ttl, value));
    }
}

pub struct Auth {
    client: Client,
    node: String,
    tokens: Cache<[u8; 32], Option<User>>,
    decisions: Cache<(User, String, &'static str), bool>,
}

impl Auth {
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node, tokens: Cache::new(), decisions: Cache::new() }
    }

    /// The user behind a bearer token; `None` when it is not good.
    pub async fn user_of_token(&self, token: &str) -> kube::Result<Option<User>> {
        // the token itself is not kept
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated.unwrap_or_default()).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.put(key, user.clone(), TOKEN_TTL);
        Ok(user)
    }

    /// Whether a user may do this; the error is the API server's.
    pub async fn allows(&self, user: &User, method: &Method, path: &str) -> kube::Result<bool> {
        for subresource in subresources(path) {
            if self.decide(user, verb(method), subresource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn decide(&self, user: &User, verb: &str, subresource: &'static str) -> kube::Result<bool> {
        let key = (user.clone(), verb.to_owned(), subresource);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.decisions.put(key, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_need_their_subresource() {
        let cases = [
            ("/pods", vec!["pods", "proxy"]),
            ("/runningpods/", vec!["pods", "proxy"]),
            ("/healthz/ping", vec!["healthz", "proxy"]),
            ("/stats/summary", vec!["stats"]),
            ("/metrics/resource", vec!["metrics"]),
            ("/metricsx", vec!["proxy"]),
            ("/exec/ns/p/c", vec!["proxy"]),
        ];
        for (path, want) in cases {
            assert_eq!(subresources(path), want, "{path}");
        }
        assert_eq!((verb(&Method::POST), verb(&Method::HEAD)), ("create", "get"));
    }

    #[test]
    fn certificates_name_users() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let user = user_of(certificate.der()).expect("a user");
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("jane", vec!["devs".to_owned(), "system:authenticated".into()])
        );
        assert_eq!(user_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn answers_are_kept_for_a_while() {
        let cache = Cache::new();
        cache.put(1, "a", Duration::from_secs(60));
        cache.put(2, "b", Duration::ZERO);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some("a"), None));
        for key in 3..3000 {
            cache.put(key, "c", Duration::from_secs(60));
        }
        assert!(cache.0.lock().len() <= MAX_CACHED);
    }
}
