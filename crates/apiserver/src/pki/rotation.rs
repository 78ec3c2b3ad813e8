//! The API server's certificate as clients are shown it: read again when its files change, without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::{KeyAndCertificate, PkiError, files};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// A certificate with its key, of which connections that begin later may see another.
pub struct Rotating {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: ArcSwap<CertifiedKey>,
    /// What the files held when they were last looked at, good or not.
    read: Mutex<KeyAndCertificate>,
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
                    tracing::info!("the server's certificate changed; new connections are shown it")
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

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

/// The pair, if it is one.
fn certified(own: &KeyAndCertificate, provider: &CryptoProvider) -> Result<CertifiedKey, PkiError> {
    let certificates = own.certificates()?;
    if certificates.is_empty() {
        return Err(PkiError::Tls("the file holds no certificate".into()));
    }
    CertifiedKey::from_der(certificates, own.key()?, provider)
        .map_err(|error| PkiError::Tls(error.to_string()))
}
