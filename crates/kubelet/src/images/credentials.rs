//! Registry credentials out of pull secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default, Clone)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// Credentials by what they are for, the most exact first.
#[derive(Default)]
pub struct Keyring {
    entries: Vec<(String, AuthConfig)>,
}

impl Keyring {
    /// Secrets of types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`; what cannot be read is skipped.
    pub fn from_secrets(secrets: &[Arc<Secret>]) -> Self {
        let mut keyring = Self::default();
        for secret in secrets {
            let data = |key: &str| {
                secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice())
            };
            if let Some(bytes) = data(".dockerconfigjson")
                && let Ok(config) = serde_json::from_slice::<DockerConfig>(bytes)
            {
                keyring.add(config.auths);
            } else if let Some(bytes) = data(".dockercfg")
                && let Ok(auths) = serde_json::from_slice(bytes)
            {
                keyring.add(auths);
            }
        }
        // a longer pattern is a more exact one
        keyring.entries.sort_by(|(a, _), (b, _)| b.cmp(a));
        keyring
    }

    fn add(&mut self, auths: BTreeMap<String, DockerAuth>) {
        for (server, auth) in auths {
            let pattern = server.trim_start_matches("https://").trim_start_matches("http://");
            let pattern = pattern.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
            let pattern = if pattern == "index.docker.io" { "docker.io" } else { pattern };
            let (username, password) = match decode(&auth.auth) {
                Some(pair) if auth.username.is_empty() => pair,
                _ => (auth.username, auth.password),
            };
            let config = AuthConfig {
                username,
                password,
                identity_token: auth.identitytoken,
                server_address: server.clone(),
                ..AuthConfig::default()
            };
            self.entries.push((pattern.to_owned(), config));
        }
    }

    /// Credentials for `registry/path`.
    pub fn lookup(&self, repository: &str) -> Vec<AuthConfig> {
        self.entries
            .iter()
            .filter(|(pattern, _)| matches(pattern, repository))
            .map(|(_, auth)| auth.clone())
            .collect()
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// `*.example.com/path` matches one label of the host per star, the same port, and any path below.
fn matches(pattern: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        (host.to_owned(), path.to_owned())
    };
    let ((pattern_host, pattern_path), (host, path)) = (split(pattern), split(repository));
    let labels = |host: &str| host.split(['.', ':']).map(str::to_owned).collect::<Vec<_>>();
    let (wanted, actual) = (labels(&pattern_host), labels(&host));
    wanted.len() == actual.len()
        && wanted.iter().zip(&actual).all(|(pattern, label)| glob(pattern, label))
        && path.starts_with(&pattern_path)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn secret(key: &str, value: &Value) -> Arc<Secret> {
        let encoded = STANDARD.encode(value.to_string());
        Arc::new(serde_json::from_value(json!({"data": {key: encoded}})).expect("a secret"))
    }

    #[test]
    fn the_most_exact_credential_comes_first() {
        let auths = json!({
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:h")},
            "*.example.com": {"username": "any", "password": "a"},
            "r.example.com/team": {"username": "team", "password": "t"},
            "localhost:5000": {"username": "local", "password": "l"},
        });
        let keyring = Keyring::from_secrets(&[secret(".dockerconfigjson", &json!({"auths": auths}))]);
        let users = |repository: &str| -> Vec<String> {
            keyring.lookup(repository).into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("docker.io/library/busybox"), ["hub"]);
        assert_eq!(users("r.example.com/team/app"), ["team", "any"]);
        assert_eq!(users("x.example.com/app"), ["any"]);
        assert_eq!(users("localhost:5000/app"), ["local"]);
        assert!(users("example.com/app").is_empty() && users("a.b.example.com/app").is_empty());
        let old = Keyring::from_secrets(&[secret(
            ".dockercfg",
            &json!({"q.io": {"username": "u", "password": "p"}}),
        )]);
        assert_eq!(old.lookup("q.io/x").len(), 1);
        assert!(Keyring::from_secrets(&[secret(".dockercfg", &json!("x"))]).lookup("q.io/x").is_empty());
    }
}
