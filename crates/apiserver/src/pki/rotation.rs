//! The API server's certificate as clients are shown it: read again when its files change, without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::validation::is_dns1123_subdomain;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{KeyAndCertificate, PkiError, files};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// A certificate with its key, of which connections that begin later may see another.
pub struct Rotating {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: ArcSwap<Shown>,
    /// What the files held when they were last looked at, good or not.
    read: Mutex<KeyAndCertificate>,
}

struct Shown {
    key: Arc<CertifiedKey>,
    /// The names of hosts that the certificate says it is for.
    names: Vec<String>,
}

impl std::fmt::Debug for Rotating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotating").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Rotating {
    /// Begins with what was read from `<name>.crt` and `<name>.key`.
    pub fn new(
        dir: &Path,
        name: &str,
        own: &KeyAndCertificate,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, PkiError> {
        Ok(Self {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            shown: ArcSwap::from_pointee(certified(own, &provider)?),
            read: Mutex::new(own.clone()),
            provider,
        })
    }

    /// Begins with what is in two files.
    pub fn open(certificate: &Path, key: &Path, provider: Arc<CryptoProvider>) -> Result<Self, PkiError> {
        let read = |path: &Path| {
            files::read(path)?.ok_or_else(|| PkiError::Io {
                path: path.to_owned(),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            })
        };
        let own = KeyAndCertificate { certificate_pem: read(certificate)?, key_pem: read(key)? };
        let shown = certified(&own, &provider).map_err(|error| PkiError::Unusable {
            path: certificate.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            shown: ArcSwap::from_pointee(shown),
            read: Mutex::new(own),
            provider,
        })
    }

    /// Looks at the files; whether there is something new to show. What will not do is not shown.
    pub fn reload(&self) -> Result<bool, PkiError> {
        let (certificate, key) = (files::read(&self.certificate)?, files::read(&self.key)?);
        let missing = |missing: &Path, present: &Path| PkiError::Incomplete {
            present: present.to_owned(),
            missing: missing.to_owned(),
        };
        let found = KeyAndCertificate {
            certificate_pem: certificate.ok_or_else(|| missing(&self.certificate, &self.key))?,
            key_pem: key.ok_or_else(|| missing(&self.key, &self.certificate))?,
        };
        let mut read = self.read.lock();
        if found.certificate_pem == read.certificate_pem && found.key_pem == read.key_pem {
            return Ok(false);
        }
        let certified = certified(&found, &self.provider);
        *read = found;
        self.shown.store(Arc::new(certified?));
        Ok(true)
    }

    pub(super) fn shown(&self) -> Arc<CertifiedKey> {
        self.shown.load().key.clone()
    }

    /// Whether the certificate says this name, as it stands there.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.shown.load().names.iter().any(|one| one == name)
    }

    /// Looks at the files again and again.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(true)) => {
                    let certificate = self.certificate.display();
                    tracing::info!("{certificate} changed; new connections are shown it");
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    // two files that belong together change one after the other: the next look may find both
                    tracing::warn!(%error, "the server's new certificate will not do; the one before is shown");
                }
                Err(error) => tracing::error!(%error, "the server's certificate could not be looked at"),
            }
        }
    }
}

/// The pair, if it is one.
fn certified(own: &KeyAndCertificate, provider: &CryptoProvider) -> Result<Shown, PkiError> {
    let certificates = own.certificates()?;
    let Some(first) = certificates.first() else {
        return Err(PkiError::Tls("the file holds no certificate".into()));
    };
    let names = host_names(first)?;
    let key = CertifiedKey::from_der(certificates, own.key()?, provider)
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(Shown { key: Arc::new(key), names })
}

/// Its common name where that is a host's, and its DNS names. Addresses cannot be asked for by SNI.
fn host_names(der: &CertificateDer<'_>) -> Result<Vec<String>, PkiError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| PkiError::Tls(error.to_string()))?;
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).last();
    let is_host =
        |name: &str| name == "*" || is_dns1123_subdomain(name.strip_prefix("*.").unwrap_or(name)).is_empty();
    let mut names: Vec<String> = common.into_iter().filter(|name| is_host(name)).map(str::to_owned).collect();
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|found| &found.value.general_names);
    names.extend(alternatives.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }));
    Ok(names)
}
