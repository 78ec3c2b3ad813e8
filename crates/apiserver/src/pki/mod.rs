//! The cluster's certificates and keys, under kubeadm's names, and the kubeconfigs made from them.
//!
//! [`files`] reads and writes them whole or not at all, [`certificates`] makes and judges them, [`kubeconfig`]
//! writes what clients use, [`tls`] serves with them. What is there and good is used as it is; what expires soon
//! or lacks a name that is asked for is made anew; what somebody else made is never touched.

mod certificates;
mod files;
mod kubeconfig;
mod rotation;
mod serving;
mod sni;
mod tls;
mod trust;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::authentication::keys::{KeyError, SigningKey};
use crate::authentication::{
    COREDNS, KUBE_CONTROLLER_MANAGER, KUBE_PROXY, KUBE_SCHEDULER, NODES_GROUP, node_username,
};
use crate::authorization::bootstrap::CLUSTER_ADMINS_GROUP;

pub use certificates::{KeyAndCertificate, Profile, Usage};
pub use kubeconfig::Kubeconfig;
pub use rotation::Rotating;
pub use serving::{CIPHER_SUITES, CaFile, Serving, TlsVersion};
pub use sni::SniCertificate;
pub use tls::ServingTls;
pub use trust::{Authorities, Trust};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The file is not what its name says. It is left as it is.
    #[error("{}: {reason}; put the right file there or move it away to have a new one made", path.display())]
    Unusable { path: PathBuf, reason: String },
    /// One of two files that belong together is missing.
    #[error("{} is there without {}; put it back or move both away", present.display(), missing.display())]
    Incomplete { present: PathBuf, missing: PathBuf },
    #[error("cannot make a certificate for {name}: {reason}")]
    Certificate { name: String, reason: String },
    #[error("cannot use the certificates for TLS: {0}")]
    Tls(String),
}

#[derive(Clone, Debug)]
pub struct PkiOptions {
    /// Where the files are, such as `<data-dir>/pki`.
    pub dir: PathBuf,
    /// Names and addresses that clients reach the API server by, besides the usual ones.
    pub sans: Vec<String>,
    /// The node of this process; also a name of the API server.
    pub node_name: String,
    pub cluster_domain: String,
    /// The address of the Service `default/kubernetes`.
    pub service_ip: IpAddr,
}

impl PkiOptions {
    fn server_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let usual = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let own = [
            format!("kubernetes.default.svc.{}", self.cluster_domain),
            self.node_name.to_lowercase(),
            self.service_ip.to_string(),
        ];
        for name in usual.into_iter().chain(own).chain(local).chain(self.sans.iter().cloned()) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// All of it, read or made.
pub struct Pki {
    options: PkiOptions,
    now: SystemTime,
    ca: KeyAndCertificate,
    front_proxy_ca: KeyAndCertificate,
    pub apiserver: KeyAndCertificate,
    /// What the API server shows to kubelets.
    pub apiserver_kubelet_client: KeyAndCertificate,
    /// What the API server shows to extension API servers.
    pub front_proxy_client: KeyAndCertificate,
    service_account_key: (String, String),
    serving: Serving,
    trust: Arc<Trust>,
}

impl Pki {
    /// Reads what is in the directory and makes what is missing.
    pub fn load_or_create(options: PkiOptions) -> Result<Self, PkiError> {
        Self::load_or_create_at(options, SystemTime::now())
    }

    fn load_or_create_at(options: PkiOptions, now: SystemTime) -> Result<Self, PkiError> {
        let dir = options.dir.as_path();
        files::make_directory(dir)?;
        let ca = certificates::load_or_create_ca(dir, "ca", "kubernetes", now)?;
        let front_proxy_ca = certificates::load_or_create_ca(dir, "front-proxy-ca", "front-proxy-ca", now)?;
        let leaf = |name: &str, profile: &Profile, ca: &KeyAndCertificate| {
            certificates::load_or_create(dir, name, profile, ca, now)
        };
        let server = Profile::server("kube-apiserver", options.server_names());
        let kubelet_client = Profile::client("kube-apiserver-kubelet-client", &[CLUSTER_ADMINS_GROUP]);
        let front_proxy_client = Profile::client("front-proxy-client", &[]);
        let trust = Trust::new((&ca, None), (&front_proxy_ca, None))?;
        Ok(Self {
            trust: Arc::new(trust),
            apiserver: leaf("apiserver", &server, &ca)?,
            apiserver_kubelet_client: leaf("apiserver-kubelet-client", &kubelet_client, &ca)?,
            front_proxy_client: leaf("front-proxy-client", &front_proxy_client, &front_proxy_ca)?,
            service_account_key: certificates::load_or_create_key(dir, "sa")?,
            ca,
            front_proxy_ca,
            now,
            options,
            serving: Serving::default(),
        })
    }

    /// Shows and believes what was chosen besides what is in the directory.
    pub fn with_serving(self, serving: Serving) -> Result<Self, PkiError> {
        let trust = Trust::new(
            (&self.ca, serving.client_ca.as_ref()),
            (&self.front_proxy_ca, serving.front_proxy_ca.as_ref()),
        )?;
        let chosen = Self { serving, trust: Arc::new(trust), ..self };
        chosen.serving_tls()?;
        Ok(chosen)
    }

    /// Whose certificates are believed.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The cluster's authority, as clients need it to trust the API server.
    pub fn ca_pem(&self) -> &str {
        &self.ca.certificate_pem
    }

    /// The cluster's authority, for a TLS client to trust.
    pub fn ca_certificates(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        self.ca.certificates()
    }

    /// What the API server listens with: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. Clients are asked for a
    /// certificate and may come without; whether one is good is judged with [`Trust`] per request.
    pub fn serving_tls(&self) -> Result<ServingTls, PkiError> {
        let provider = Arc::new(self.serving.provider());
        let shown = match &self.serving.certificate {
            Some((certificate, key)) => Rotating::open(certificate, key, provider.clone())?,
            None => Rotating::new(&self.options.dir, "apiserver", &self.apiserver, provider.clone())?,
        };
        let certificates = sni::ByName::open(shown, &self.serving.sni, &provider)?;
        ServingTls::new(certificates, provider, self.serving.versions(), &self.trust)
    }

    /// The key that signs service account tokens.
    pub fn service_account_key(&self) -> Result<SigningKey, PkiError> {
        let (private, public) = &self.service_account_key;
        SigningKey::from_pem(private.as_bytes(), public.as_bytes()).map_err(|error: KeyError| {
            PkiError::Unusable { path: self.options.dir.join("sa.pub"), reason: error.to_string() }
        })
    }

    /// What the kubelet of this machine listens with, kept as `kubelet.crt` and `kubelet.key`.
    pub fn kubelet_serving(&self, names: Vec<String>) -> Result<KeyAndCertificate, PkiError> {
        let profile = Profile::server(&node_username(&self.options.node_name), names);
        certificates::load_or_create(&self.options.dir, "kubelet", &profile, &self.ca, self.now)
    }

    /// A certificate of the cluster's authority that is kept by whoever asked, such as a kubelet.
    pub fn issue(&self, profile: &Profile) -> Result<KeyAndCertificate, PkiError> {
        certificates::issue(profile, &self.ca, self.now)
    }

    /// Writes a kubeconfig unless the one that is there will do.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, user: &Profile) -> Result<(), PkiError> {
        if kubeconfig::is_good(path, server, user, &self.ca, self.now)? {
            return Ok(());
        }
        let issued = self.issue(user)?;
        let config = Kubeconfig {
            server,
            ca_pem: self.ca_pem(),
            user: &user.common_name,
            certificate_pem: &issued.certificate_pem,
            key_pem: &issued.key_pem,
        };
        files::write(path, config.to_string().as_bytes(), files::PRIVATE)
    }

    /// Writes `admin.kubeconfig` and those of the components into a directory.
    pub fn write_kubeconfigs(&self, dir: &Path, server: &str) -> Result<(), PkiError> {
        for (name, user) in self.identities() {
            self.write_kubeconfig(&dir.join(format!("{name}.kubeconfig")), server, &user)?;
        }
        Ok(())
    }

    /// Who gets a kubeconfig.
    pub fn identities(&self) -> Vec<(&'static str, Profile)> {
        let kubelet = Profile::client(&node_username(&self.options.node_name), &[NODES_GROUP]);
        let mut identities = vec![
            ("admin", Profile::client("kubernetes-admin", &[CLUSTER_ADMINS_GROUP])),
            ("controller-manager", Profile::client(KUBE_CONTROLLER_MANAGER, &[])),
            ("scheduler", Profile::client(KUBE_SCHEDULER, &[])),
            ("kube-proxy", Profile::client(KUBE_PROXY, &[])),
            ("coredns", Profile::client(COREDNS, &[])),
        ];
        if !self.options.node_name.is_empty() {
            identities.push(("kubelet", kubelet));
        }
        identities
    }
}

/// How long before its end a certificate is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests;
