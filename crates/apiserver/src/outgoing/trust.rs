//! Whom to believe at an address: the certificates that were given for it, or the system's without any.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::pki::KeyAndCertificate;

/// For HTTP/1.1, with the certificate to show where there is one.
pub fn client_config(ca_pem: &[u8], own: Option<&KeyAndCertificate>) -> Result<ClientConfig, String> {
    let mut config = client_config_as(ca_pem, own)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The same for whoever adds the protocols.
pub fn client_config_as(ca_pem: &[u8], own: Option<&KeyAndCertificate>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'static>> = match ca_pem.is_empty() {
        true => rustls_native_certs::load_native_certs().certs,
        false => CertificateDer::pem_slice_iter(ca_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("unable to load root certificates: {error}"))?,
    };
    roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let verifier = Arc::new(OrItself { verifier, certificates });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(own) = own else { return Ok(config.with_no_client_auth()) };
    let certificates = own.certificates().map_err(|error| error.to_string())?;
    let key = own.key().map_err(|error| error.to_string())?;
    config.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())
}

/// Checks as usual, and takes a certificate besides that is itself the one to trust: tools make such, with the mark
/// of an authority, and Go takes them where the usual rules do not.
#[derive(Debug)]
struct OrItself {
    verifier: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl OrItself {
    fn is_trusted(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if !self.certificates.iter().any(|own| own == shown) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(shown).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for OrItself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual =
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            Err(_) if self.is_trusted(end_entity, server_name, now).is_ok() => {
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Why a handshake failed, in Go's words where they are well known.
pub fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.and_then(explain_tls).unwrap_or_else(|| error.to_string())
}

/// The same for what TLS itself has to say; `None` where Go's words are not known.
pub fn explain_tls(error: &Error) -> Option<String> {
    let why = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "x509: certificate has expired or is not yet valid".to_owned(),
        Error::InvalidCertificate(other) => format!("x509: {other}"),
        _ => return None,
    };
    Some(format!("tls: failed to verify certificate: {why}"))
}
