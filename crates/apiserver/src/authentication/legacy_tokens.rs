//! Service account tokens that lie in secrets and do not expire: good for as long as the secret holds exactly them and
//! the account is the one that it was made for. Each use leaves a note of its day.

use std::sync::Arc;

use apimachinery::Object;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::keys::{PublicKey, PublicKeys};
use super::metrics::TokenCacheMetrics;
use super::service_account::{check_account, now, untrusted_issuer};
use super::token_cache::TokenCache;
use super::{Authenticated, TokenAuthenticator, TokenGetter, UserInfo, service_account_username};

const ISSUER: &str = "kubernetes/serviceaccount";

pub const LAST_USED_LABEL: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE_LABEL: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// Recognizes such tokens.
pub struct LegacyTokens {
    keys: PublicKeys,
    audiences: Vec<String>,
    getter: Arc<dyn TokenGetter>,
    verified: TokenCache<Claims>,
}

impl LegacyTokens {
    pub fn new(
        keys: impl IntoIterator<Item = PublicKey>,
        audiences: Vec<String>,
        getter: Arc<dyn TokenGetter>,
    ) -> Self {
        Self { keys: keys.into_iter().collect(), audiences, getter, verified: TokenCache::default() }
    }

    /// Counts tokens that come again.
    pub fn with_metrics(self, metrics: &TokenCacheMetrics) -> Self {
        Self { verified: TokenCache::new(metrics.clone()), ..self }
    }

    fn authenticate_at(
        &self,
        token: &str,
        wanted: &[String],
        now: i64,
    ) -> Result<Option<Authenticated>, String> {
        if untrusted_issuer(token).as_deref() != Some(ISSUER) {
            return Ok(None);
        }
        let claims = self.verified.get_or_verify(token, || self.keys.verify::<Claims>(token))?;
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let good_for: Vec<String> =
            self.audiences.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if good_for.is_empty() {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                self.audiences
            ));
        }
        let mut found = self.check(&claims, token, now)?;
        found.audiences = good_for;
        Ok(Some(found))
    }

    fn check(&self, claims: &Claims, token: &str, now: i64) -> Result<Authenticated, String> {
        let Claims { sub, namespace, secret, account, uid } = claims;
        for (value, name) in [
            (sub, "sub"),
            (namespace, "namespace"),
            (secret, "secretName"),
            (account, "serviceAccountName"),
            (uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return Err(format!("{name} claim is missing"));
            }
        }
        if *sub != service_account_username(namespace, account) {
            return Err("sub claim is invalid".into());
        }
        let held = self.getter.secret(namespace, secret).filter(|held| held.deletion_timestamp().is_none());
        let held = held.ok_or("service account token has been invalidated")?;
        let stored = STANDARD.decode(held.get_str(&["data", "token"])).unwrap_or_default();
        if stored != token.as_bytes() {
            return Err("service account token does not match server's copy".into());
        }
        let owner = check_account(self.getter.as_ref(), namespace, account, uid, now)?;
        let label = |name: &str| held.get_str(&["metadata", "labels", name]).to_owned();
        let day = DateTime::<Utc>::from_timestamp(now, 0).unwrap_or_default().format("%Y-%m-%d").to_string();
        if label(LAST_USED_LABEL) != day {
            self.getter.mark_used(&held, &day);
        }
        if !label(INVALID_SINCE_LABEL).is_empty() {
            return Err(format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE_LABEL}' label from the secret to temporarily allow use of this token"
            ));
        }
        let user = UserInfo::service_account(namespace, account, uid).authenticated();
        let mut found = Authenticated::new(Arc::new(user));
        let (annotation, warning) = match is_referenced(&owner, secret) {
            true => (
                "authentication.k8s.io/legacy-token-autogenerated-secret",
                Some(
                    "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.",
                ),
            ),
            false => ("authentication.k8s.io/legacy-token-manual-secret", None),
        };
        found.audit_annotations.push((annotation, secret.clone()));
        found.warnings.extend(warning.map(str::to_owned));
        Ok(found)
    }
}

/// Whether the account names the secret, as those did that controllers once made for each account.
fn is_referenced(account: &Object, secret: &str) -> bool {
    account.get_array(&["secrets"]).iter().any(|reference| reference["name"] == secret)
}

#[async_trait]
impl TokenAuthenticator for LegacyTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        self.authenticate_at(token, audiences, now())
    }
}
