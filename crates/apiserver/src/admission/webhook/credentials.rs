//! Who the server is to a webhook: users of a kubeconfig that are named after the webhooks' hosts, as upstream looks
//! them up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;

use crate::outgoing;
use crate::outgoing::kubeconfig::Users;
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
    shown: outgoing::Credentials,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credentials {
    pub fn read(path: &Path) -> Result<Self, String> {
        let Users { by_name, current } = Users::read(path)?;
        let credential = |(name, identity): (String, outgoing::kubeconfig::Identity)| {
            let credential =
                Credential { name: name.clone(), identity: identity.own, shown: identity.credentials };
            (name, Arc::new(credential))
        };
        let users: BTreeMap<String, Arc<Credential>> = by_name.into_iter().map(credential).collect();
        let current = current.and_then(|name| users.get(&name).cloned());
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
    /// What the `Authorization` header says, if there is one.
    pub async fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        self.shown.authorization().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Credentials, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), yaml).expect("a file");
        Credentials::read(file.path())
    }

    fn credentials(yaml: &str) -> Credentials {
        read(yaml).expect("credentials")
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
            let header = credential.authorization().await.unwrap().unwrap();
            assert_eq!(header.as_bytes(), wanted.as_bytes(), "{host}:{port}");
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
        assert!(read(config).is_err());
    }
}
