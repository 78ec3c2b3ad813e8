//! TLS of the kubelet's server: a certificate that was given, or one of its own making; client certificates are
//! asked for and checked against the cluster's authority.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::certificates::serving::{self, Shown};
use crate::config::{Config, Serving, ServingCertificate};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the serving certificate cannot be used: {0}")]
    Certificate(String),
    #[error("the client CA cannot be used: {0}")]
    ClientCa(String),
    #[error("cannot keep the serving certificate in {0}: {1}")]
    Store(PathBuf, io::Error),
}

fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError::Certificate(error.to_string())
}

/// The kubelet's own certificate, kept so that clients who trust it once can go on.
fn own_certificate(config: &Config) -> Result<ServingCertificate, TlsError> {
    let folder = config.paths().pki();
    let path = folder.join("kubelet.pem");
    if let Ok(both) = fs::read(&path)
        && CertificateDer::pem_slice_iter(&both).next().is_some()
        && PrivateKeyDer::from_pem_slice(&both).is_ok()
    {
        return Ok(ServingCertificate { certificate: both.clone(), key: both });
    }
    let names = vec![config.node_name.clone(), config.node_ip.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(unusable)?;
    let both = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()).into_bytes();
    fs::create_dir_all(&folder)
        .and_then(|()| crate::files::write_atomically(&path, &both, 0o600))
        .map_err(|error| TlsError::Store(path, error))?;
    Ok(ServingCertificate { certificate: both.clone(), key: both })
}

/// What the server shows at first; nothing while a certificate has to be asked for.
pub fn shown(config: &Config) -> Result<Arc<Shown>, TlsError> {
    let own = match &config.serving {
        Serving::SelfSigned => Some(own_certificate(config)?),
        Serving::Given(given) => Some(given.clone()),
        Serving::Files { certificate, key } => Some(serving::read(certificate, key).map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            TlsError::Certificate(format!("{certificate}, {key}: {error}"))
        })?),
        Serving::Requested => None,
    };
    let shown = Shown::default();
    if let Some(own) = own {
        shown.show(&own).map_err(unusable)?;
    }
    Ok(Arc::new(shown))
}

pub fn server_config(config: &Config, shown: Arc<Shown>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &config.client_ca {
        Some(pem) => {
            let bad = |error: &dyn std::fmt::Display| TlsError::ClientCa(error.to_string());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| bad(&error))?;
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                // others come with a token
                .allow_unauthenticated()
                .build()
                .map_err(|error| bad(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_cert_resolver(shown);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_certificate_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::new("n1", [10, 0, 0, 1].into(), folder.path());
        let first = own_certificate(&config).expect("a certificate");
        assert_eq!(own_certificate(&config).expect("the same").key, first.key);
        let shown = super::shown(&config).expect("a certificate");
        server_config(&config, shown).expect("a configuration");
        config.client_ca = Some(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_vec());
        let shown = super::shown(&config).expect("a certificate");
        assert!(matches!(server_config(&config, shown), Err(TlsError::ClientCa(_))));
        config.serving = Serving::Given(ServingCertificate { certificate: Vec::new(), key: Vec::new() });
        assert!(matches!(super::shown(&config), Err(TlsError::Certificate(_))));
    }
}
