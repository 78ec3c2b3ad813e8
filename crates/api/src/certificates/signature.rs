//! That a certificate request is signed by its own key, in Go's words where it is not.

use p521::ecdsa::signature::hazmat::PrehashVerifier;
use p521::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::public_key::PublicKey;

/// The length of a coordinate of the curve P-521.
const P521_LENGTH: usize = 66;

const ED25519: &str = "1.3.101.112";
const ECDSA: &str = "1.2.840.10045.";
const RSA: &str = "1.2.840.113549.1.1.";

pub fn verify(request: &X509CertificationRequest<'_>) -> Result<(), String> {
    let is_good = match p521_key(request) {
        Some(key) => is_of_p521(request, &key),
        None => request.verify_signature().is_ok(),
    };
    let why = match request.signature_algorithm.algorithm.to_id_string() {
        _ if is_good => return Ok(()),
        algorithm if algorithm == ED25519 => "x509: Ed25519 verification failure",
        algorithm if algorithm.starts_with(ECDSA) => "x509: ECDSA verification failure",
        algorithm if algorithm.starts_with(RSA) => "crypto/rsa: verification error",
        _ => "x509: cannot verify signature: algorithm unimplemented",
    };
    Err(why.to_owned())
}

/// The key of a request, where it is of the curve that the library for certificates does not verify.
fn p521_key(request: &X509CertificationRequest<'_>) -> Option<VerifyingKey> {
    match request.certification_request_info.subject_pki.parsed() {
        Ok(PublicKey::EC(point)) => VerifyingKey::from_sec1_bytes(point.data()).ok(),
        _ => None,
    }
}

fn is_of_p521(request: &X509CertificationRequest<'_>, key: &VerifyingKey) -> bool {
    let message = request.certification_request_info.raw;
    let digest = match request.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.4.3.2" => Sha256::digest(message).to_vec(),
        "1.2.840.10045.4.3.3" => Sha384::digest(message).to_vec(),
        "1.2.840.10045.4.3.4" => Sha512::digest(message).to_vec(),
        _ => return false,
    };
    // as a number: zeros in front are nothing
    let mut number = vec![0; P521_LENGTH - digest.len()];
    number.extend(digest);
    let signature = Signature::from_der(&request.signature_value.data);
    signature.is_ok_and(|signature| key.verify_prehash(&number, &signature).is_ok())
}
