//! Whose certificates are believed: the cluster's own authorities, and those of the administrator's files as they are
//! now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

use super::{CaFile, KeyAndCertificate, PkiError, ServingTls};
use crate::authentication::ClientCa;
use crate::reload;

/// Authorities in PEM, as extension servers need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    pub client_ca: String,
    pub front_proxy_ca: String,
}

/// Of clients and of front proxies.
#[derive(Debug)]
pub struct Trust {
    clients: Bundle,
    front_proxies: Bundle,
}

/// The cluster's own authority and those of a file.
#[derive(Debug)]
struct Bundle {
    flag: &'static str,
    own: String,
    path: Option<PathBuf>,
    /// What the file held when it was put to use last.
    chosen: ArcSwap<String>,
    ca: ClientCa,
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    all.map_err(|error| PkiError::Tls(error.to_string()))
}

fn authority(roots: Vec<CertificateDer<'static>>) -> Result<ClientCa, PkiError> {
    ClientCa::new(roots).map_err(|error| PkiError::Tls(error.to_string()))
}

impl Bundle {
    fn new(flag: &'static str, own: &KeyAndCertificate, chosen: Option<&CaFile>) -> Result<Self, PkiError> {
        let (own, pem) = (own.certificate_pem.clone(), chosen.map_or("", |file| &file.pem).to_owned());
        let ca = authority(certificates(&format!("{own}{pem}"))?)?;
        let path = chosen.map(|file| file.path.clone());
        Ok(Self { flag, own, path, chosen: ArcSwap::from_pointee(pem), ca })
    }

    fn pem(&self) -> String {
        format!("{}{}", self.own, self.chosen.load())
    }

    /// Believes those of the file alone that it holds now, besides the cluster's own.
    fn replace(&self, chosen: &[u8]) -> Result<(), PkiError> {
        let chosen = CaFile::check(chosen).map_err(PkiError::Tls)?;
        let all = certificates(&format!("{}{chosen}", self.own))?;
        self.ca.replace(all).map_err(|error| PkiError::Tls(error.to_string()))?;
        self.chosen.store(Arc::new(chosen));
        Ok(())
    }
}

impl Trust {
    pub(super) fn new(
        (ca, chosen): (&KeyAndCertificate, Option<&CaFile>),
        (front_proxy_ca, chosen_proxies): (&KeyAndCertificate, Option<&CaFile>),
    ) -> Result<Self, PkiError> {
        Ok(Self {
            clients: Bundle::new("--client-ca-file", ca, chosen)?,
            front_proxies: Bundle::new("--requestheader-client-ca-file", front_proxy_ca, chosen_proxies)?,
        })
    }

    /// What checks client certificates.
    pub fn clients(&self) -> ClientCa {
        self.clients.ca.clone()
    }

    /// What checks the certificates of front proxies.
    pub fn front_proxies(&self) -> ClientCa {
        self.front_proxies.ca.clone()
    }

    pub fn authorities(&self) -> Authorities {
        Authorities { client_ca: self.clients.pem(), front_proxy_ca: self.front_proxies.pem() }
    }

    /// All of them, to be named in the handshake: clients pick their certificate by that.
    pub(super) fn all(&self) -> Result<ClientCa, PkiError> {
        authority(certificates(&format!("{}{}", self.front_proxies.pem(), self.clients.pem()))?)
    }

    /// Follows the files: connections and requests that come after a change are judged by it.
    pub async fn follow(self: Arc<Self>, tls: Arc<ServingTls>, cancel: CancellationToken) {
        let clients = self.clone().follow_one(|trust| &trust.clients, tls.clone(), cancel.clone());
        tokio::join!(clients, self.follow_one(|trust| &trust.front_proxies, tls, cancel));
    }

    async fn follow_one(
        self: Arc<Self>,
        bundle: fn(&Self) -> &Bundle,
        tls: Arc<ServingTls>,
        cancel: CancellationToken,
    ) {
        let Bundle { flag, path, chosen, .. } = bundle(&self);
        let Some(path) = path.clone() else { return };
        let (flag, in_use) = (*flag, chosen.load().as_bytes().to_vec());
        let apply = async move |content: &[u8]| {
            let replaced = bundle(&self).replace(content);
            replaced.and_then(|()| tls.believe(&self)).map_err(|error| error.to_string())
        };
        reload::follow(flag, path, in_use, cancel, apply).await;
    }
}

impl CaFile {
    /// Reads a file of authorities.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let content = std::fs::read(path).map_err(|error| format!("{shown}: cannot be read: {error}"))?;
        let pem = Self::check(&content).map_err(|error| format!("{shown}: {error}"))?;
        Ok(Self { path: path.to_owned(), pem })
    }

    fn check(content: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(content).into_owned();
        match certificates(&text) {
            Ok(found) if !found.is_empty() => Ok(text),
            Ok(_) => Err("data does not contain any valid RSA or ECDSA certificates".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
