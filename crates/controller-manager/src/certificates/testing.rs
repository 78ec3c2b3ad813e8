//! Authorities and requests for tests.

use std::path::Path;

use component_helpers::pem::pem;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData, SigningKey};
use yasna::Tag;
use yasna::models::ObjectIdentifier;

use super::authority::{write_names, write_subject};
use super::request::{COMMON_NAME, ORGANIZATION, Request};
use super::{Authority, AuthorityFiles};

/// A certificate and its key.
pub fn authority_pems() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

pub fn authority() -> Authority {
    let (certificate, key) = authority_pems();
    Authority::new(certificate.as_bytes(), key.as_bytes()).unwrap()
}

pub fn authority_files(folder: &Path) -> AuthorityFiles {
    let (certificate, key) = authority_pems();
    let files = AuthorityFiles { certificate: folder.join("ca.crt"), key: folder.join("ca.key") };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

pub fn usages(usages: &[&str]) -> Vec<String> {
    usages.iter().map(|usage| (*usage).to_owned()).collect()
}

/// A request in PEM, of names and addresses.
pub fn request_pem(common_name: &str, organizations: &[&str], names: &[&str]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut request = Request::default();
    if !organizations.is_empty() {
        request.subject.push((ORGANIZATION, usages(organizations)));
    }
    request.subject.push((COMMON_NAME, vec![common_name.to_owned()]));
    for name in names {
        match name.parse() {
            Ok(address) => request.ip_addresses.push(address),
            Err(_) => request.dns_names.push((*name).to_owned()),
        }
    }
    let body = yasna::construct_der(|writer| {
        writer.write_sequence(|fields| {
            fields.next().write_u8(0);
            write_subject(fields.next(), &request);
            fields.next().write_der(&key.subject_public_key_info());
            fields.next().write_tagged_implicit(Tag::context(0), |attributes| {
                attributes.write_set(|set| {
                    set.next().write_sequence(|attribute| {
                        let extensions = [1, 2, 840, 113549, 1, 9, 14];
                        attribute.next().write_oid(&ObjectIdentifier::from_slice(&extensions));
                        attribute.next().write_set(|set| {
                            set.next().write_sequence(|list| write_names(list, &request));
                        });
                    });
                });
            });
        });
    });
    let signature = key.sign(&body).unwrap();
    let whole = yasna::construct_der(|writer| {
        writer.write_sequence(|fields| {
            fields.next().write_der(&body);
            fields.next().write_sequence(|algorithm| {
                let ecdsa_with_sha256 = [1, 2, 840, 10045, 4, 3, 2];
                algorithm.next().write_oid(&ObjectIdentifier::from_slice(&ecdsa_with_sha256));
            });
            fields.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    pem("CERTIFICATE REQUEST", &whole)
}

/// An object of the API that asks for what `pem` says.
pub fn object(pem: &str, signer: &str, wanted: &[&str]) -> CertificateSigningRequest {
    let mut object = CertificateSigningRequest::default();
    object.metadata.name = Some("csr-1".to_owned());
    object.spec.request = ByteString(pem.as_bytes().to_vec());
    object.spec.signer_name = signer.to_owned();
    object.spec.usages = Some(usages(wanted));
    object
}

/// Adds a condition that was written at `time`.
pub fn add(object: &mut CertificateSigningRequest, kind: &str, time: Timestamp) {
    super::add_condition(object, kind, "By", "hand");
    let conditions = object.status.as_mut().and_then(|status| status.conditions.as_mut());
    if let Some(condition) = conditions.and_then(|conditions| conditions.last_mut()) {
        condition.last_update_time = Some(Time(time));
    }
}
