//! Kubeconfig files: clients, where one says where a webhook is, whom to trust there and what to show; users alone, where
//! it says what to show to webhooks that are known otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::validation::url;
use apimachinery::codec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;

use super::{Credentials, HttpsClient, bearer};
use crate::configuration::drop_nulls;
use crate::pki::KeyAndCertificate;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context>>,
    current_context: String,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Default + Deserialize<'de>"))]
struct Named<T> {
    #[serde(default)]
    name: String,
    #[serde(default, alias = "cluster", alias = "user", alias = "context")]
    item: T,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
    certificate_authority: String,
    certificate_authority_data: String,
    proxy_url: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

/// Who the API server is to somebody.
#[derive(Default)]
pub struct Identity {
    /// A certificate for the handshake, with its key.
    pub own: Option<KeyAndCertificate>,
    pub credentials: Credentials,
}

/// The users of a kubeconfig.
pub struct Users {
    pub by_name: BTreeMap<String, Identity>,
    /// The one of the current context.
    pub current: Option<String>,
}

impl Users {
    pub fn read(path: &Path) -> Result<Self, String> {
        let config = Kubeconfig::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut by_name = BTreeMap::new();
        for named in &config.users {
            let identity =
                named.item.identity(folder).map_err(|error| format!("user {:?}: {error}", named.name))?;
            by_name.insert(named.name.clone(), identity);
        }
        let current = config.contexts.iter().find(|context| context.name == config.current_context);
        let current = current.map(|context| context.item.user.clone()).filter(|user| !user.is_empty());
        Ok(Self { by_name, current })
    }
}

impl HttpsClient {
    /// A client for the current context of a kubeconfig, and the URL that it names, which is called as it is.
    /// What the configuration cannot do is an error that says so.
    pub fn from_kubeconfig(path: &Path) -> Result<(Self, String), String> {
        let config = Kubeconfig::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.client(folder).map_err(|error| format!("invalid configuration: {error}"))
    }
}

impl Kubeconfig {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        let mut value = codec::parse_yaml(&text).map_err(|error| error.to_string())?;
        drop_nulls(&mut value);
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn client(&self, folder: &Path) -> Result<(HttpsClient, String), String> {
        // without contexts, as in the examples of webhooks: the one cluster and the one user
        let (cluster, user) = match self.contexts.iter().find(|context| context.name == self.current_context)
        {
            Some(context) => (context.item.cluster.as_str(), context.item.user.as_str()),
            None if !self.current_context.is_empty() => {
                return Err(format!("context was not found for specified context: {}", self.current_context));
            }
            None => {
                let first = |name: Option<&str>| name.unwrap_or_default().to_owned();
                let cluster = first(self.clusters.first().map(|named| named.name.as_str()));
                let user = first(self.users.first().map(|named| named.name.as_str()));
                return self.build(&cluster, &user, folder);
            }
        };
        self.build(cluster, user, folder)
    }

    fn build(&self, cluster: &str, user: &str, folder: &Path) -> Result<(HttpsClient, String), String> {
        let found = self.clusters.iter().find(|named| named.name == cluster);
        let cluster = &found.ok_or_else(|| format!("cluster {cluster:?} does not exist"))?.item;
        let nobody = User::default();
        let user = match self.users.iter().find(|named| named.name == user) {
            Some(named) => &named.item,
            None if user.is_empty() => &nobody,
            None => return Err(format!("user {user:?} does not exist")),
        };
        let server = url::parse(&cluster.server)?;
        if server.scheme != "https" || server.host.is_empty() {
            return Err(format!("server {:?}: webhooks are called over https alone", cluster.server));
        }
        if cluster.insecure_skip_tls_verify {
            return Err("insecure-skip-tls-verify is not supported; give a certificate-authority".into());
        }
        if !cluster.proxy_url.is_empty() {
            return Err("proxy-url is not supported".into());
        }
        let ca = content(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            "certificate-authority",
            folder,
        )?;
        let Identity { own, credentials } = user.identity(folder)?;
        let name = Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty());
        let ca = ca.unwrap_or_default();
        let mut client = HttpsClient::with_identity(ca.as_bytes(), own.as_ref(), name)?;
        client.credentials = credentials;
        Ok((client, cluster.server.clone()))
    }
}

impl User {
    fn identity(&self, folder: &Path) -> Result<Identity, String> {
        for (is_set, name) in [(self.exec.is_some(), "exec"), (self.auth_provider.is_some(), "auth-provider")]
        {
            if is_set {
                return Err(format!("{name} is not supported"));
            }
        }
        let certificate =
            content(&self.client_certificate_data, &self.client_certificate, "client-certificate", folder)?;
        let key = content(&self.client_key_data, &self.client_key, "client-key", folder)?;
        let own = match (certificate, key) {
            (Some(certificate_pem), Some(key_pem)) => {
                let own = KeyAndCertificate { certificate_pem, key_pem };
                own.certificates().map_err(|error| format!("client-certificate: {error}"))?;
                own.key().map_err(|error| format!("client-key: {error}"))?;
                Some(own)
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err("client-key-data or client-key must be specified to use the clientCert \
                    authentication method"
                    .into());
            }
            (None, Some(_)) => return Err("client-key is there without client-certificate".into()),
        };
        Ok(Identity { own, credentials: self.credentials(folder)? })
    }

    fn credentials(&self, folder: &Path) -> Result<Credentials, String> {
        if !self.token_file.is_empty() {
            return Ok(Credentials::TokenFile(folder.join(&self.token_file)));
        }
        if !self.token.is_empty() {
            return Ok(Credentials::Header(bearer(&self.token)?));
        }
        if !self.username.is_empty() {
            let pair = STANDARD.encode(format!("{}:{}", self.username, self.password));
            let mut value =
                HeaderValue::from_str(&format!("Basic {pair}")).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            return Ok(Credentials::Header(value));
        }
        Ok(Credentials::None)
    }
}

/// What is in the file itself, or in another that it names, from its own folder.
fn content(data: &str, file: &str, name: &str, folder: &Path) -> Result<Option<String>, String> {
    if !data.is_empty() {
        let bytes = STANDARD.decode(data).map_err(|error| format!("{name}-data: {error}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|error| format!("{name}-data: {error}"));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path: PathBuf = folder.join(file);
    let text = std::fs::read_to_string(&path);
    text.map(Some).map_err(|error| format!("unable to read {name} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            HttpsClient::from_kubeconfig(&path).map(|(_, url)| url)
        };
        let cluster = |more: &str, user: &str| {
            format!("clusters: [{{name: c, cluster: {{{more}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n")
        };
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), pair.cert.pem()).expect("a file");
        let here = "server: 'https://localhost:1/x', certificate-authority: ca.pem";
        assert_eq!(load(&cluster(here, "token: t")), Ok("https://localhost:1/x".into()));
        assert!(load(&cluster(here, "").replace(", user: {}", "")).is_ok(), "a user with nothing to show");
        let contexts = "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: ";
        assert!(load(&format!("{}{contexts}x\n", cluster(here, ""))).is_ok());
        for (text, why) in [
            (
                format!("{}{contexts}none\n", cluster(here, "")),
                "context was not found for specified context: none",
            ),
            (cluster("server: 'http://localhost:1'", ""), "over https alone"),
            (cluster("server: 'https://h', insecure-skip-tls-verify: true", ""), "insecure-skip-tls-verify"),
            (cluster("server: 'https://h', certificate-authority: none.pem", ""), "none.pem"),
            (cluster(here, "client-certificate: ca.pem"), "client-key"),
            (cluster(here, "exec: {command: x}"), "exec is not supported"),
            ("{}".to_owned(), "cluster \"\" does not exist"),
            ("[".to_owned(), ""),
        ] {
            let error = load(&text).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
    }
}
