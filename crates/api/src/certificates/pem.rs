//! What requests and certificates hold, as PEM.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The first block of a text.
fn first_block(text: &[u8]) -> Option<Pem> {
    Pem::iter_from_buffer(text).next()?.ok()
}

/// Why a certificate request is refused: it cannot be read, or is not signed by its own key.
pub fn check_request(text: &[u8]) -> Result<(), String> {
    with_request(text, |request| {
        request.verify_signature().map_err(|_| "x509: certificate request signature is invalid".to_owned())
    })?
}

fn with_request<T>(text: &[u8], read: impl Fn(&X509CertificationRequest<'_>) -> T) -> Result<T, String> {
    let wrong_type = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let block = first_block(text).ok_or_else(wrong_type)?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(wrong_type());
    }
    let (_, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|_| "asn1: structure error: malformed certificate request".to_owned())?;
    Ok(read(&request))
}

/// The organizations in the subject of a certificate request.
pub fn request_subject(text: &[u8]) -> Result<Vec<String>, String> {
    with_request(text, |request| {
        let organizations = request.certification_request_info.subject.iter_organization();
        organizations.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
    })
}

/// Why an issued certificate is refused. Nothing is fine: it has not been issued yet.
pub fn check_certificate(text: &[u8]) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(text) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            let label = apimachinery::field::quote(&block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        blocks += 1;
        if block.contents.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        X509Certificate::from_der(&block.contents).map_err(|_| "x509: malformed certificate".to_owned())?;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    Ok(())
}
