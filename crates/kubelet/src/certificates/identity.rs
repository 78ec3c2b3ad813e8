//! Who the kubelet is to the API server: by its kubeconfig, or at first by a bootstrap token, which is good for one
//! thing: to ask for the certificate that the kubeconfig then names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use apimachinery::Object;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Reconnecting, kubeconfig};
use jiff::Timestamp;
use kube::Client;
use kube::config::{AuthInfo, Config, Kubeconfig};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::request::{self, Wanted};
use super::rotation::Rotation;
use super::store::{Pair, Store};
use crate::files;

/// How long a server that does not answer is waited for.
const SERVER: Duration = Duration::from_secs(60);
const SERVER_RETRY: Duration = Duration::from_secs(2);
/// How long the first certificate is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The key of a request that is not signed yet: a kubelet that starts again asks for the same.
const WAITING_KEY: &str = "kubelet-client.key.tmp";

#[derive(Clone, Debug)]
pub struct IdentityOptions {
    pub kubeconfig: PathBuf,
    /// With what the first certificate is asked for, when the kubeconfig has none that is good.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Where certificates are kept.
    pub cert_dir: PathBuf,
    pub node_name: String,
    /// Whether the certificate is renewed in time.
    pub rotate: bool,
}

/// An identity that may be renewed while its client is in use.
pub struct Identity {
    options: IdentityOptions,
    config: Config,
    store: Store,
    reconnecting: Reconnecting,
    current: Option<Pair>,
    at_once: bool,
}

impl Identity {
    /// Finds who the kubelet is, and asks for a first certificate where it must.
    pub async fn load(options: IdentityOptions) -> anyhow::Result<Self> {
        let store = Store::new(&options.cert_dir, "kubelet-client");
        if let Some(bootstrap) = &options.bootstrap_kubeconfig
            && !is_good(&options.kubeconfig).await?
        {
            bootstrap_certificate(&options, bootstrap, &store).await?;
        }
        let mut config = kubeconfig::config(&options.kubeconfig).await?;
        let kept = match options.rotate {
            true => store.current()?.filter(|pair| !pair.is_over(Timestamp::now())),
            false => None,
        };
        // one that others made is replaced by one of our own
        let at_once = kept.is_none();
        let current = match kept {
            Some(pair) => {
                config.auth_info = by_certificate(&store.current_path());
                Some(pair)
            }
            None => pair_of(&config.auth_info),
        };
        let client = connect(&config)?;
        Ok(Self { options, config, store, reconnecting: Reconnecting::new(client), current, at_once })
    }

    /// A client that goes by the newest certificate.
    pub fn client(&self) -> Client {
        self.reconnecting.client()
    }

    /// Renews the certificate in time, if that is wanted.
    pub async fn rotate(self, cancel: CancellationToken) {
        let Self { options, config, store, reconnecting, current, at_once } = self;
        if !options.rotate {
            return;
        }
        let bootstrap = match &options.bootstrap_kubeconfig {
            Some(path) => kubeconfig::config(path).await.ok(),
            None => None,
        };
        let client = reconnecting.client();
        let mut renewed = config;
        renewed.auth_info = by_certificate(&store.current_path());
        let rotation = Rotation { at_once, wanted: Wanted::client(&options.node_name), store };
        let asks = |current: Option<&Pair>| match (current, &bootstrap) {
            // who is nobody any more starts from the beginning
            (None, Some(bootstrap)) => connect(bootstrap),
            _ => Ok(client.clone()),
        };
        let changed = |_: &Pair| {
            reconnecting.replace(connect(&renewed)?);
            Ok(())
        };
        rotation.run(current, asks, changed, cancel).await;
    }
}

fn connect(config: &Config) -> anyhow::Result<Client> {
    Client::try_from(config.clone()).context("the kubelet's identity cannot be used")
}

/// An identity whose certificate and key are in one file.
fn by_certificate(path: &Path) -> AuthInfo {
    let path = path.display().to_string();
    AuthInfo { client_certificate: Some(path.clone()), client_key: Some(path), ..AuthInfo::default() }
}

/// The certificate and the key by which somebody is known, if it is by these.
fn pair_of(user: &AuthInfo) -> Option<Pair> {
    let certificate = client_certificate(user).ok()?;
    let key = match (&user.client_key_data, &user.client_key) {
        (Some(data), _) => STANDARD.decode(data.expose_secret()).ok()?,
        (None, Some(path)) => std::fs::read(path).ok()?,
        (None, None) => return None,
    };
    Pair::parse([certificate, b"\n".to_vec(), key].concat()).ok()
}

fn client_certificate(user: &AuthInfo) -> anyhow::Result<Vec<u8>> {
    match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => Ok(STANDARD.decode(data)?),
        (None, Some(path)) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
        (None, None) => bail!("it has no client certificate"),
    }
}

/// Whether a kubeconfig has a client certificate that has not expired.
async fn is_good(path: &Path) -> anyhow::Result<bool> {
    let found = path.try_exists();
    let found =
        found.with_context(|| format!("error reading existing bootstrap kubeconfig {}", path.display()));
    if !found? {
        return Ok(false);
    }
    let judged = async {
        let config = kubeconfig::config(path).await?;
        connect(&config)?;
        has_good_certificate(&config.auth_info, Timestamp::now())
    };
    match judged.await {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(kubeconfig = %path.display(), error = format!("{error:#}"), "the kubeconfig is of no use any more");
            Ok(false)
        }
    }
}

fn has_good_certificate(user: &AuthInfo, now: Timestamp) -> anyhow::Result<()> {
    let pem = client_certificate(user)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate?;
        let (_, parsed) = X509Certificate::from_der(&certificate)?;
        let end = parsed.validity().not_after;
        if end.timestamp() <= now.as_second() {
            bail!("part of the existing bootstrap client certificate is expired: {end}");
        }
        count += 1;
    }
    if count == 0 { bail!("its client certificate is empty") } else { Ok(()) }
}

/// Asks for a certificate as a bootstrapper, and writes the kubeconfig that goes by it.
async fn bootstrap_certificate(
    options: &IdentityOptions,
    bootstrap: &Path,
    store: &Store,
) -> anyhow::Result<()> {
    let client = kubeconfig::client(bootstrap).await.context("unable to load bootstrap kubeconfig")?;
    wait_for_server(&client).await;
    std::fs::create_dir_all(&options.cert_dir)
        .with_context(|| format!("--cert-dir {} cannot be made", options.cert_dir.display()))?;
    let waiting = options.cert_dir.join(WAITING_KEY);
    let key = waiting_key(&waiting)?;
    let wanted = Wanted::client(&options.node_name);
    let name = wanted.digested_name(&key);
    tracing::info!("waiting for client certificate to be issued");
    let asked = request::certificate(&client, &wanted, &key, Some(name));
    let certificate =
        tokio::time::timeout(PATIENCE, asked).await.context("timed out waiting for a certificate")??;
    store.update(&certificate, &key.serialize_pem(), Timestamp::now())?;
    files::remove_all(&waiting).context("cleaning up the key")?;
    write_kubeconfig(bootstrap, &options.kubeconfig, &std::path::absolute(store.current_path())?)
}

/// The key that was made by an earlier try, or a new one.
fn waiting_key(path: &Path) -> anyhow::Result<KeyPair> {
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().context("unable to generate a new private key")?;
    files::write_atomically(path, key.serialize_pem().as_bytes(), 0o600)
        .with_context(|| format!("cannot keep a key in {}", path.display()))?;
    Ok(key)
}

/// A node may be there before its control plane is.
async fn wait_for_server(client: &Client) {
    let answers = async || {
        let request = http::Request::get("/healthz").body(Vec::new());
        match request {
            Ok(request) => client.request_text(request).await.is_ok(),
            Err(_) => false,
        }
    };
    let wait = async {
        while !answers().await {
            tokio::time::sleep(SERVER_RETRY).await;
        }
    };
    if tokio::time::timeout(SERVER, wait).await.is_err() {
        tracing::warn!("timed out waiting to connect to apiserver");
    }
}

/// The cluster of the bootstrap kubeconfig with the certificate as its user, as upstream writes it.
fn write_kubeconfig(bootstrap: &Path, path: &Path, pair: &Path) -> anyhow::Result<()> {
    let from = Kubeconfig::read_from(bootstrap)?;
    let current = from.current_context.as_deref().unwrap_or_default();
    let context = from.contexts.iter().find(|context| context.name == current);
    let name = context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.as_str());
    let cluster = from.clusters.iter().find(|cluster| Some(cluster.name.as_str()) == name);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster.as_ref())
        .context("the bootstrap kubeconfig has no cluster")?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": serde_json::to_value(cluster)?}],
        "users": [{"name": "default-auth", "user": {
            "client-certificate": pair.display().to_string(), "client-key": pair.display().to_string(),
        }}],
        "contexts": [{"name": "default-context", "context": {
            "cluster": "default-cluster", "namespace": "default", "user": "default-auth",
        }}],
        "current-context": "default-context",
    });
    let mut text = Vec::new();
    apimachinery::codec::encode_yaml(&Object::from(config), &mut text);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    files::write_atomically(path, &text, 0o600)
        .with_context(|| format!("the kubeconfig {} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::store::tests::pair;

    const BOOTSTRAP: &str = "
apiVersion: v1
kind: Config
clusters:
- name: here
  cluster: {server: 'https://10.0.0.1:6443', tls-server-name: kubernetes}
users:
- name: me
  user: {token: abcdef.0123456789abcdef}
contexts:
- name: c
  context: {cluster: here, user: me}
current-context: c
";

    #[tokio::test]
    async fn the_kubeconfig_goes_by_the_certificate_and_is_good_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let (bootstrap, path) = (folder.path().join("bootstrap"), folder.path().join("kubeconfig"));
        std::fs::write(&bootstrap, BOOTSTRAP).unwrap();
        assert!(!is_good(&path).await.unwrap(), "there is none");
        assert!(!is_good(&bootstrap).await.unwrap(), "a token is no certificate");
        let store = Store::new(folder.path(), "kubelet-client");
        write_kubeconfig(&bootstrap, &path, &store.current_path()).unwrap();
        assert!(!is_good(&path).await.unwrap(), "the certificate is missing");
        let now = Timestamp::now();
        let (certificate, key) = pair(1000, now.as_second() + 3600, &[]);
        store.update(certificate.as_bytes(), &key, now).unwrap();
        assert!(is_good(&path).await.unwrap());
        let config = kubeconfig::config(&path).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://10.0.0.1:6443/");
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert!(config.auth_info.token.is_none());
        assert_eq!(pair_of(&config.auth_info).unwrap().common_name, "system:node:n1");
        assert_eq!(pair_of(&kubeconfig::config(&bootstrap).await.unwrap().auth_info), None);
        let later = now + Duration::from_secs(3601);
        let error = has_good_certificate(&config.auth_info, later).unwrap_err().to_string();
        assert!(error.starts_with("part of the existing bootstrap client certificate is expired"), "{error}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_waits_for_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WAITING_KEY);
        let first = waiting_key(&path).unwrap();
        assert_eq!(waiting_key(&path).unwrap().serialize_pem(), first.serialize_pem());
        std::fs::write(&path, "nonsense").unwrap();
        assert_ne!(waiting_key(&path).unwrap().serialize_pem(), first.serialize_pem());
    }
}
