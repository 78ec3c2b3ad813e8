//! The certificate that the kubelet's server shows. It may come late and change; connections that begin after that
//! see the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::request::Wanted;
use super::rotation::Rotation;
use super::store::{Pair, Store};
use crate::config::{Config, Serving, ServingCertificate};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What is shown to connections that begin now; without a certificate they fail.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    pub fn show(&self, own: &ServingCertificate) -> anyhow::Result<()> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&own.certificate).collect::<Result<_, _>>()?;
        anyhow::ensure!(!chain.is_empty(), "there is no certificate");
        let key = PrivateKeyDer::from_pem_slice(&own.key)?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)?;
        *self.0.write() = Some(Arc::new(certified));
        Ok(())
    }

    fn show_pair(&self, pair: &Pair) -> anyhow::Result<()> {
        self.show(&ServingCertificate { certificate: pair.pem.clone(), key: pair.pem.clone() })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().clone();
        if shown.is_none() {
            tracing::warn!("no serving certificate available for the kubelet");
        }
        shown
    }
}

/// Keeps what is shown fresh: asks for certificates, or looks at files, as the configuration says.
pub async fn keep_fresh(config: Config, shown: Arc<Shown>, client: Client, cancel: CancellationToken) {
    match config.serving {
        Serving::Requested => {
            let store = Store::new(&config.cert_dir(), "kubelet-server");
            let current = store.current().unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), "another serving certificate is asked for");
                None
            });
            let current = current.filter(|pair| !pair.is_over(jiff::Timestamp::now()));
            if let Some(Err(error)) = current.as_ref().map(|pair| shown.show_pair(pair)) {
                tracing::error!(error = format!("{error:#}"), "the serving certificate cannot be used");
            }
            let wanted = Wanted::serving(&config.node_name, config.node_ip);
            let rotation = Rotation { store, wanted, at_once: false };
            rotation.run(current, |_| Ok(client.clone()), |pair| shown.show_pair(pair), cancel).await;
        }
        Serving::Files { certificate, key } => {
            cancel.run_until_cancelled(follow(certificate, key, shown)).await;
        }
        Serving::Given(_) | Serving::SelfSigned => {}
    }
}

/// What two files hold.
pub fn read(certificate: &Path, key: &Path) -> std::io::Result<ServingCertificate> {
    Ok(ServingCertificate { certificate: std::fs::read(certificate)?, key: std::fs::read(key)? })
}

/// Looks at files again and again, and shows what they hold when that changes and is of use.
async fn follow(certificate: PathBuf, key: PathBuf, shown: Arc<Shown>) {
    let mut seen = read(&certificate, &key).ok();
    loop {
        tokio::time::sleep(LOOK).await;
        reload(&certificate, &key, &shown, &mut seen);
    }
}

fn reload(certificate: &Path, key: &Path, shown: &Shown, seen: &mut Option<ServingCertificate>) {
    let Ok(found) = read(certificate, key) else { return };
    if seen.as_ref() == Some(&found) {
        return;
    }
    match shown.show(&found) {
        Ok(()) => tracing::info!("the serving certificate changed; new connections are shown it"),
        // two files that belong together change one after the other: the next look may find both
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the new serving certificate is of no use")
        }
    }
    *seen = Some(found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::store::tests::pair;

    #[test]
    fn files_that_change_are_shown_once_they_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        let shown = Shown::default();
        let mut seen = None;
        let leaf = |shown: &Shown| shown.0.read().as_ref().map(|own| own.cert[0].to_vec());
        reload(&certificate, &key, &shown, &mut seen);
        assert_eq!(leaf(&shown), None, "there are no files");
        let (first, first_key) = pair(1000, 2000, &["n1"]);
        std::fs::write(&certificate, &first).unwrap();
        std::fs::write(&key, &first_key).unwrap();
        reload(&certificate, &key, &shown, &mut seen);
        let before = leaf(&shown);
        assert!(before.is_some());
        let (second, second_key) = pair(1000, 3000, &["n1"]);
        std::fs::write(&certificate, &second).unwrap();
        reload(&certificate, &key, &shown, &mut seen);
        assert_eq!(leaf(&shown), before, "the key is not that of the certificate yet");
        std::fs::write(&key, &second_key).unwrap();
        reload(&certificate, &key, &shown, &mut seen);
        assert_ne!(leaf(&shown), before);
    }
}
