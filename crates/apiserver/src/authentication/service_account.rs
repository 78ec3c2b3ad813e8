//! Bound service account tokens: what is in them, who signs them, and when they are good.
//!
//! A token is good while its signature, its time, its audience and the objects that it is bound to are. The
//! objects are looked up for every request, so deleting a pod ends its tokens at once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use apimachinery::Object;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::{Deserialize, Deserializer, Serialize};

use super::keys::{PublicKey, PublicKeys, SigningKey};
use super::metrics::TokenCacheMetrics;
use super::token_cache::TokenCache;
use super::{
    Authenticated, CREDENTIAL_ID_KEY, NODE_NAME_KEY, NODE_UID_KEY, POD_NAME_KEY, POD_UID_KEY,
    TokenAuthenticator, UserInfo, service_account_username,
};

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;

/// The lifetime that the service account admission plugin asks for, by which its tokens are known.
pub const WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS: i64 = 60 * 60 + 7;

/// How long such a token really lives, for clients that never read it again.
const EXPIRATION_EXTENSION_SECONDS: i64 = 24 * 365 * 60 * 60;

/// The live objects that tokens are bound to.
pub trait TokenGetter: Send + Sync {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>>;
    fn node(&self, name: &str) -> Option<Arc<Object>>;

    /// Notes at a secret that its token was used on a day.
    fn mark_used(&self, _secret: &Object, _day: &str) {}
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

impl Reference {
    fn to(object: &Object) -> Self {
        Self { name: object.name().to_owned(), uid: object.uid().to_owned() }
    }
}

/// The claims in the `kubernetes.io` field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KubernetesClaims {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(default)]
    serviceaccount: Reference,
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "one_or_more")]
    aud: Vec<String>,
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(default)]
    iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(default)]
    sub: String,
}

/// A JWT's `NumericDate` may have a fraction.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds as i64))
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        More(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::More(more) => more,
    })
}

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot sign a service account token: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// What a token is bound to besides its service account.
#[derive(Clone, Copy, Debug)]
pub enum BoundObject<'o> {
    Pod {
        pod: &'o Object,
        /// The pod's node, if it has one; by name only when the node is not known.
        node: Option<&'o Object>,
    },
    Secret(&'o Object),
    Node(&'o Object),
}

/// A request for a token, already defaulted and validated.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequest<'o> {
    pub service_account: &'o Object,
    pub bound_to: Option<BoundObject<'o>>,
    pub audiences: &'o [String],
    pub expiration_seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    /// For the request's status, in seconds since 1970.
    pub expiration: i64,
    /// For the audit event: `JTI=…`.
    pub credential_id: String,
}

/// Signs tokens.
pub struct TokenIssuer {
    issuer: String,
    key: SigningKey,
    api_audiences: Vec<String>,
    /// Whether tokens of the admission plugin live on for a year (`--service-account-extend-token-expiration`).
    extend_expiration: bool,
}

impl TokenIssuer {
    pub fn new(issuer: &str, key: SigningKey, api_audiences: Vec<String>, extend_expiration: bool) -> Self {
        Self { issuer: issuer.to_owned(), key, api_audiences, extend_expiration }
    }

    pub fn issue(&self, request: &TokenRequest<'_>) -> Result<IssuedToken, SignError> {
        self.issue_at(request, now())
    }

    fn issue_at(&self, request: &TokenRequest<'_>, now: i64) -> Result<IssuedToken, SignError> {
        let account = request.service_account;
        let mut kubernetes = KubernetesClaims {
            namespace: account.namespace().to_owned(),
            serviceaccount: Reference::to(account),
            ..KubernetesClaims::default()
        };
        match request.bound_to {
            Some(BoundObject::Pod { pod, node }) => {
                kubernetes.pod = Some(Reference::to(pod));
                kubernetes.node = match (node, pod.get_str(&["spec", "nodeName"])) {
                    (Some(node), _) => Some(Reference::to(node)),
                    (None, "") => None,
                    (None, name) => Some(Reference { name: name.to_owned(), uid: String::new() }),
                };
            }
            Some(BoundObject::Secret(secret)) => kubernetes.secret = Some(Reference::to(secret)),
            Some(BoundObject::Node(node)) => kubernetes.node = Some(Reference::to(node)),
            None => {}
        }
        let audiences = if request.audiences.is_empty() { &self.api_audiences } else { request.audiences };
        let asked = request.expiration_seconds;
        let mut lifetime = asked;
        let for_the_api = audiences.iter().all(|audience| self.api_audiences.contains(audience));
        if self.extend_expiration
            && asked == WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS
            && kubernetes.pod.is_some()
            && for_the_api
        {
            lifetime = EXPIRATION_EXTENSION_SECONDS;
            kubernetes.warnafter = Some(now + asked);
        }
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: Some(now + lifetime),
            iat: Some(now),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes,
            nbf: Some(now),
            sub: service_account_username(account.namespace(), account.name()),
        };
        let token = self.key.sign(&claims)?;
        let credential_id = format!("JTI={}", claims.jti);
        Ok(IssuedToken { token, expiration: now + asked, credential_id })
    }
}

/// Recognizes service account tokens.
pub struct ServiceAccountTokens {
    issuers: Vec<String>,
    keys: PublicKeys,
    api_audiences: Vec<String>,
    getter: Arc<dyn TokenGetter>,
    verified: TokenCache<Claims>,
}

impl ServiceAccountTokens {
    pub fn new(
        issuers: Vec<String>,
        keys: impl IntoIterator<Item = PublicKey>,
        api_audiences: Vec<String>,
        getter: Arc<dyn TokenGetter>,
    ) -> Self {
        let keys = keys.into_iter().collect();
        Self { issuers, keys, api_audiences, getter, verified: TokenCache::default() }
    }

    /// Counts tokens that come again.
    pub fn with_metrics(self, metrics: &TokenCacheMetrics) -> Self {
        Self { verified: TokenCache::new(metrics.clone()), ..self }
    }

    fn authenticate_at(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Option<Authenticated>, String> {
        if !untrusted_issuer(token).is_some_and(|issuer| self.issuers.contains(&issuer)) {
            return Ok(None);
        }
        let claims = self.verified.get_or_verify(token, || self.verify(token))?;
        let wanted = if audiences.is_empty() { &self.api_audiences } else { audiences };
        let of_token = if claims.aud.is_empty() { &self.api_audiences } else { &claims.aud };
        let good_for: Vec<String> = of_token.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if good_for.is_empty() {
            return Err(format!(
                "token audiences {of_token:?} is invalid for the target audiences {wanted:?}"
            ));
        }
        check_time(&claims, now)?;
        self.check_objects(&claims.kubernetes, now)?;
        let mut found = Authenticated::new(Arc::new(user(&claims).authenticated()));
        found.audiences = good_for;
        if let Some(warn_after) = claims.kubernetes.warnafter.filter(|after| *after != 0 && now > *after) {
            let text =
                format!("subject: {}, seconds after warning threshold: {}", claims.sub, now - warn_after);
            found.audit_annotations.push(("authentication.k8s.io/stale-token", text));
        }
        Ok(Some(found))
    }

    fn verify(&self, token: &str) -> Result<Claims, String> {
        let claims: Claims = self.keys.verify(token)?;
        match self.issuers.contains(&claims.iss) {
            true => Ok(claims),
            false => Err(format!("token issuer {:?} is invalid", claims.iss)),
        }
    }

    fn check_objects(&self, claims: &KubernetesClaims, now: i64) -> Result<(), String> {
        const INVALIDATED: &str = "service account token has been invalidated";
        let KubernetesClaims { namespace, serviceaccount, pod, secret, node, .. } = claims;
        check_account(self.getter.as_ref(), namespace, &serviceaccount.name, &serviceaccount.uid, now)?;
        let check = |found: Option<Arc<Object>>, reference: &Reference, mismatch: [&str; 2]| {
            let found = found.filter(|object| !is_deleted(object, now)).ok_or(INVALIDATED)?;
            if found.uid() != reference.uid {
                let [kind, claim] = mismatch;
                return Err(format!(
                    "{kind} UID ({}) does not match service account {claim} ref claim ({})",
                    found.uid(),
                    reference.uid
                ));
            }
            Ok(())
        };
        if let Some(secret) = secret {
            check(self.getter.secret(namespace, &secret.name), secret, ["secret", "secret"])?;
        }
        if let Some(pod) = pod {
            check(self.getter.pod(namespace, &pod.name), pod, ["pod", "pod"])?;
        } else if let Some(node) = node {
            // The node of a pod is there to be read, not to be bound to.
            check(self.getter.node(&node.name), node, ["node", "node"])?;
        }
        Ok(())
    }
}

/// Who made a token as it says itself, truthfully or not.
pub(super) fn untrusted_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        #[serde(default)]
        iss: String,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&payload).ok().map(|Issuer { iss }| iss)
}

/// Whether the account that a token was made for is still there; one that was made anew is another. Gives it back.
pub(super) fn check_account(
    getter: &dyn TokenGetter,
    namespace: &str,
    name: &str,
    uid: &str,
    now: i64,
) -> Result<Arc<Object>, String> {
    let account = getter.service_account(namespace, name);
    let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    if is_deleted(&account, now) {
        return Err(format!("service account {namespace}/{name} has been deleted"));
    }
    if account.uid() != uid {
        return Err(format!("service account UID ({}) does not match claim ({uid})", account.uid()));
    }
    Ok(account)
}

fn check_time(claims: &Claims, now: i64) -> Result<(), String> {
    if claims.exp.is_some_and(|exp| now - LEEWAY > exp) {
        return Err("service account token has expired".into());
    }
    if claims.nbf.is_some_and(|nbf| now + LEEWAY < nbf) {
        return Err("service account token is not valid yet".into());
    }
    if claims.iat.is_some_and(|iat| now + LEEWAY < iat) {
        return Err(
            "service account token claims could not be validated due to unexpected validation error".into()
        );
    }
    Ok(())
}

/// Whether the object's deletion is older than clocks may be apart.
fn is_deleted(object: &Object, now: i64) -> bool {
    object
        .deletion_timestamp()
        .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
        .is_some_and(|time| time.timestamp() < now - LEEWAY)
}

fn user(claims: &Claims) -> UserInfo {
    let KubernetesClaims { namespace, serviceaccount, pod, node, .. } = &claims.kubernetes;
    let mut user = UserInfo::service_account(namespace, &serviceaccount.name, &serviceaccount.uid);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = pod.as_ref().filter(|pod| !pod.name.is_empty() && !pod.uid.is_empty()) {
        extra(POD_NAME_KEY, &pod.name);
        extra(POD_UID_KEY, &pod.uid);
    }
    if !claims.jti.is_empty() {
        extra(CREDENTIAL_ID_KEY, &format!("JTI={}", claims.jti));
    }
    if let Some(node) = node.as_ref().filter(|node| !node.name.is_empty()) {
        extra(NODE_NAME_KEY, &node.name);
        extra(NODE_UID_KEY, &node.uid);
    }
    user
}

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        self.authenticate_at(token, audiences, now())
    }
}

#[cfg(test)]
#[path = "service_account_tests.rs"]
mod tests;
