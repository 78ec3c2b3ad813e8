//! Serving TLS: clients are asked for a certificate, and may come without one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use tokio_util::sync::CancellationToken;

use super::sni::ByName;
use super::{PkiError, Rotating, Trust};
use crate::authentication::ClientCa;

/// What the API server listens with, of which connections that begin later may see other certificates, and be asked for
/// those of other authorities.
pub struct ServingTls {
    certificates: Arc<ByName>,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    config: ArcSwap<ServerConfig>,
}

impl ServingTls {
    pub(super) fn new(
        certificates: ByName,
        provider: Arc<CryptoProvider>,
        versions: Vec<&'static SupportedProtocolVersion>,
        trust: &Trust,
    ) -> Result<Self, PkiError> {
        let certificates = Arc::new(certificates);
        let config = server_config(certificates.clone(), provider.clone(), &versions, &trust.all()?)?;
        Ok(Self { certificates, provider, versions, config: ArcSwap::from_pointee(config) })
    }

    /// For a connection that begins now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Names the authorities that are believed now in handshakes.
    pub(super) fn believe(&self, trust: &Trust) -> Result<(), PkiError> {
        let (certificates, provider) = (self.certificates.clone(), self.provider.clone());
        let config = server_config(certificates, provider, &self.versions, &trust.all()?)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// The certificates that are shown, the one for clients that name no host first.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Rotating>> {
        self.certificates.certificates()
    }

    /// Looks at the files of the certificates again and again.
    pub async fn follow(&self, cancel: CancellationToken) {
        let all = self.certificates().map(|one| one.clone().follow(cancel.clone()));
        futures::future::join_all(all).await;
    }
}

fn server_config(
    own: Arc<ByName>,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    authorities: &ClientCa,
) -> Result<ServerConfig, PkiError> {
    let failed = |error: Error| PkiError::Tls(error.to_string());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(AskOnly(authorities.verifier())))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Has the client prove that it holds the key of its certificate, and leaves it to authentication whether that
/// certificate is worth anything: a client with a bad one is to get an answer, 401, as from upstream.
#[derive(Debug)]
struct AskOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
