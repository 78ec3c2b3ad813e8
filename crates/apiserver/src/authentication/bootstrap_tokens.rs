//! Bootstrap tokens: secrets in `kube-system` by which new nodes first reach the API server.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::Object;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{Authenticated, TokenAuthenticator, TokenGetter, UserInfo};

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
const DEFAULT_GROUP: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";

/// Recognizes tokens of the form `<id>.<secret>`.
pub struct BootstrapTokens(Arc<dyn TokenGetter>);

impl BootstrapTokens {
    pub fn new(secrets: Arc<dyn TokenGetter>) -> Self {
        Self(secrets)
    }

    fn authenticate_at(&self, token: &str, now: DateTime<Utc>) -> Option<UserInfo> {
        let (id, secret) = parse(token)?;
        let name = format!("bootstrap-token-{id}");
        let Some(object) = self.0.secret(NAMESPACE, &name) else {
            tracing::debug!(secret = name, "no secret matches a bootstrap token");
            return None;
        };
        match user(&object, id, secret, now) {
            Ok(user) => Some(user),
            Err(why) => {
                tracing::debug!(secret = name, why, "a bootstrap token is not good");
                None
            }
        }
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        Ok(self.authenticate_at(token, Utc::now()).map(|user| Authenticated::new(Arc::new(user))))
    }
}

/// The public and the secret part of a token.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn data(secret: &Object, key: &str) -> String {
    let decoded = STANDARD.decode(secret.get_str(&["data", key])).unwrap_or_default();
    String::from_utf8(decoded).unwrap_or_default()
}

/// Whose token it is by its secret, or why it is not good: for the log, and never with the secret itself.
fn user(object: &Object, id: &str, secret: &str, now: DateTime<Utc>) -> Result<UserInfo, &'static str> {
    if object.deletion_timestamp().is_some() {
        return Err("is deleted and awaiting removal");
    }
    if object.get_str(&["type"]) != SECRET_TYPE {
        return Err("has invalid type");
    }
    // Digests, so that the comparison's time tells nothing of how much was right.
    if Sha256::digest(data(object, "token-secret")) != Sha256::digest(secret) {
        return Err("has invalid value for key token-secret");
    }
    if data(object, "token-id") != id {
        return Err("has invalid value for key token-id");
    }
    let expiration = data(object, "expiration");
    let alive = |time: DateTime<chrono::FixedOffset>| time > now;
    if !expiration.is_empty() && !DateTime::parse_from_rfc3339(&expiration).is_ok_and(alive) {
        return Err("has expired");
    }
    if data(object, "usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true");
    }
    let mut groups = BTreeSet::from([DEFAULT_GROUP.to_owned()]);
    let extra = data(object, "auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err("has invalid value for key auth-extra-groups");
        }
        groups.insert(group.to_owned());
    }
    let groups = groups.into_iter().collect();
    Ok(UserInfo { name: format!("{USER_PREFIX}{id}"), groups, ..UserInfo::default() })
}

fn is_group(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(GROUP_PREFIX) else { return false };
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|byte| word(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    struct One(Arc<Object>);

    impl TokenGetter for One {
        fn service_account(&self, _: &str, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn pod(&self, _: &str, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
            (namespace == self.0.namespace() && name == self.0.name()).then(|| self.0.clone())
        }

        fn node(&self, _: &str) -> Option<Arc<Object>> {
            None
        }
    }

    /// A good secret, changed at some pointers; null takes away.
    fn tokens(changes: &[(&[&str], Value)]) -> BootstrapTokens {
        let mut object = Object::from(json!({
            "metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"},
            "type": SECRET_TYPE,
            "data": {
                "token-id": STANDARD.encode("abcdef"),
                "token-secret": STANDARD.encode("0123456789abcdef"),
                "usage-bootstrap-authentication": STANDARD.encode("true"),
            },
        }));
        for (path, value) in changes {
            match value {
                Value::Null => drop(object.remove(path)),
                value => object.set(path, value.clone()),
            }
        }
        BootstrapTokens::new(Arc::new(One(Arc::new(object))))
    }

    fn groups(changes: &[(&[&str], Value)], token: &str) -> Option<Vec<String>> {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let user = tokens(changes).authenticate_at(token, now)?;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:bootstrap:abcdef", ""));
        Some(user.groups)
    }

    #[test]
    fn a_good_secret_is_a_bootstrapper() {
        let encoded = |text: &str| json!(STANDARD.encode(text));
        let extra: &[&str] = &["data", "auth-extra-groups"];
        let expiration: &[&str] = &["data", "expiration"];
        assert_eq!(groups(&[], TOKEN), Some(vec![DEFAULT_GROUP.to_owned()]));
        let two = encoded("system:bootstrappers:b,system:bootstrappers:a-1,system:bootstrappers:b");
        let wanted = [DEFAULT_GROUP, "system:bootstrappers:a-1", "system:bootstrappers:b"];
        assert_eq!(groups(&[(extra, two)], TOKEN), Some(wanted.map(str::to_owned).to_vec()));
        let later = encoded("2027-01-15T08:00:01Z");
        assert!(groups(&[(expiration, later)], TOKEN).is_some());
    }

    #[test]
    fn others_are_nobody() {
        let encoded = |text: &str| json!(STANDARD.encode(text));
        let cases: Vec<(&[&str], Value)> = vec![
            (&["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z")),
            (&["metadata", "namespace"], json!("default")),
            (&["metadata", "name"], json!("bootstrap-token-abcdeg")),
            (&["type"], json!("Opaque")),
            (&["data"], Value::Null),
            (&["data", "token-id"], encoded("abcdeg")),
            (&["data", "token-secret"], encoded("0123456789abcdeg")),
            (&["data", "token-secret"], Value::Null),
            (&["data", "token-secret"], json!("not base64")),
            (&["data", "expiration"], encoded("2027-01-15T08:00:00Z")),
            (&["data", "expiration"], encoded("soon")),
            (&["data", "usage-bootstrap-authentication"], encoded("false")),
            (&["data", "usage-bootstrap-authentication"], Value::Null),
            (&["data", "auth-extra-groups"], encoded("system:masters")),
            (&["data", "auth-extra-groups"], encoded("system:bootstrappers:")),
            (&["data", "auth-extra-groups"], encoded("system:bootstrappers:a,")),
            (&["data", "auth-extra-groups"], encoded("system:bootstrappers:A")),
            (&["data", "auth-extra-groups"], encoded("system:bootstrappers:a-")),
        ];
        for (path, value) in cases {
            assert_eq!(groups(&[(path, value.clone())], TOKEN), None, "{path:?} {value}");
        }
        for token in [
            "",
            "abcdef",
            "abcdef.",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcdef0",
        ] {
            assert_eq!(groups(&[], token), None, "{token}");
        }
    }
}
