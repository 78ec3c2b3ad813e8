//! Who the server is to a webhook: users of a kubeconfig that are named after the webhooks' hosts, as upstream looks
//! them up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{AuthInfo, Kubeconfig};
use secrecy::ExposeSecret;

use crate::pki::KeyAndCertificate;

/// What a kubeconfig has for webhooks.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    users: BTreeMap<String, Arc<Credential>>,
    /// The user of the current context, for hosts that nothing else is for.
    current: Option<Arc<Credential>>,
}

/// What one webhook is shown.
pub struct Credential {
    pub name: String,
    /// A certificate for the handshake, with its key.
    pub identity: Option<KeyAndCertificate>,
    authorization: Authorization,
}

enum Authorization {
    None,
    Header(String),
    /// A token that others may put a new one in the place of.
    TokenFile(PathBuf),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credentials {
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::of(Kubeconfig::read_from(path).map_err(|error| error.to_string())?)
    }

    fn of(config: Kubeconfig) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for user in config.auth_infos {
            let credential = Credential::of(&user.name, &user.auth_info.unwrap_or_default())
                .map_err(|error| format!("user {:?}: {error}", user.name))?;
            users.insert(user.name, Arc::new(credential));
        }
        let context = config.current_context.filter(|name| !name.is_empty());
        let context =
            context.and_then(|name| config.contexts.into_iter().find(|context| context.name == name));
        let current = context.and_then(|context| users.get(&context.context?.user?).cloned());
        Ok(Self { users, current })
    }

    /// The user for a host: by its name with the port, then with stars for ever more of its first labels; the same
    /// without the port where that is 443; the one for all; the current one.
    pub fn for_host(&self, host: &str, port: u16) -> Option<&Arc<Credential>> {
        let named = |target: &str| {
            let stars = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
            self.users.get(target).or_else(|| stars.into_iter().find_map(|name| self.users.get(&name)))
        };
        named(&format!("{host}:{port}"))
            .or_else(|| if port == 443 { named(host) } else { None })
            .or_else(|| self.users.get("*"))
            .or(self.current.as_ref())
    }
}

impl Credential {
    fn of(name: &str, user: &AuthInfo) -> Result<Self, String> {
        let data = |data: Option<&str>, file: Option<&String>| match (data, file) {
            (Some(data), _) => BASE64_STANDARD.decode(data).map(Some).map_err(|error| error.to_string()),
            (None, Some(file)) => std::fs::read(file).map(Some).map_err(|error| format!("{file}: {error}")),
            (None, None) => Ok(None),
        };
        let key_data = user.client_key_data.as_ref().map(|key| key.expose_secret());
        let certificates = data(user.client_certificate_data.as_deref(), user.client_certificate.as_ref())?;
        let key = data(key_data, user.client_key.as_ref())?;
        let identity = match (certificates, key) {
            (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
            (None, None) => None,
            _ => return Err("a client certificate and its key come together".into()),
        };
        let authorization = match (&user.token_file, &user.token, &user.username) {
            (Some(file), _, _) => Authorization::TokenFile(file.into()),
            (None, Some(token), _) => Authorization::Header(format!("Bearer {}", token.expose_secret())),
            (None, None, Some(username)) => {
                let password = user.password.as_ref().map(|word| word.expose_secret()).unwrap_or_default();
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                Authorization::Header(format!("Basic {pair}"))
            }
            (None, None, None) => Authorization::None,
        };
        Ok(Self { name: name.to_owned(), identity, authorization })
    }

    /// What the `Authorization` header says, if there is one.
    pub async fn authorization(&self) -> Result<Option<String>, String> {
        match &self.authorization {
            Authorization::None => Ok(None),
            Authorization::Header(value) => Ok(Some(value.clone())),
            Authorization::TokenFile(path) => {
                let read = tokio::fs::read_to_string(path).await;
                let token = read.map_err(|error| format!("failed to read token file: {error}"))?;
                Ok(Some(format!("Bearer {}", token.trim())))
            }
        }
    }
}

/// A certificate and its key, when they can be read.
fn identity(certificate: Vec<u8>, key: Vec<u8>) -> Result<KeyAndCertificate, String> {
    let text = |pem: Vec<u8>| String::from_utf8(pem).map_err(|error| error.to_string());
    let own = KeyAndCertificate { certificate_pem: text(certificate)?, key_pem: text(key)? };
    own.certificates().map_err(|error| format!("client certificate: {error}"))?;
    own.key().map_err(|error| format!("client key: {error}"))?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(yaml: &str) -> Credentials {
        Credentials::of(Kubeconfig::from_yaml(yaml).expect("a kubeconfig")).expect("credentials")
    }

    #[tokio::test]
    async fn users_are_named_after_hosts() {
        let all = credentials(
            "
users:
- {name: 'hook.ns.svc', user: {token: exact}}
- {name: '*.ns.svc', user: {token: namespace}}
- {name: '*.svc', user: {token: service}}
- {name: 'example.com:8443', user: {token: port}}
- {name: '*.example.com', user: {username: jane, password: word}}
- {name: '*', user: {token: all}}
",
        );
        for (host, port, wanted) in [
            ("hook.ns.svc", 443, "Bearer exact"),
            ("hook.ns.svc", 8443, "Bearer all"),
            ("other.ns.svc", 443, "Bearer namespace"),
            ("other.else.svc", 443, "Bearer service"),
            ("example.com", 8443, "Bearer port"),
            ("a.example.com", 443, "Basic amFuZTp3b3Jk"),
            ("elsewhere.org", 443, "Bearer all"),
        ] {
            let credential = all.for_host(host, port).expect("a user");
            assert_eq!(credential.authorization().await.unwrap().as_deref(), Some(wanted), "{host}:{port}");
            assert!(!format!("{credential:?}").contains("Bearer"), "secrets are not shown");
        }
    }

    #[tokio::test]
    async fn the_current_user_is_for_all_others() {
        let current = credentials(
            "
current-context: c
contexts: [{name: c, context: {cluster: x, user: me}}]
users: [{name: me, user: {tokenFile: /no/such/file}}]
",
        );
        let credential = current.for_host("a.b.svc", 443).expect("a user");
        assert!(credential.authorization().await.is_err());
        assert!(credentials("users: [{name: me, user: {}}]").for_host("a.b.svc", 443).is_none());
    }

    #[test]
    fn half_an_identity_is_refused() {
        let config = "users: [{name: me, user: {client-certificate-data: eA==}}]";
        assert!(Credentials::of(Kubeconfig::from_yaml(config).expect("a kubeconfig")).is_err());
    }
}
