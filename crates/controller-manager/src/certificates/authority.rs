//! An authority and the certificates it makes: what a request asks for, within what upstream's signer lets pass.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use component_helpers::pem::pem;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag};

use super::AuthorityFiles;
use super::request::Request;
use super::usages::Usages;

/// Certificates start a little in the past, for clocks that are slow.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Shorter lives than this are not made shorter by what they are backdated.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// Requests that ask for less get this: twice what certificates are backdated.
const SHORTEST: Duration = Duration::from_secs(600);

/// What may sign.
pub struct Authority {
    key: KeyPair,
    /// Its subject, in DER.
    name: Vec<u8>,
    /// The identifier of its key.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
}

fn block(pem: &[u8]) -> anyhow::Result<Pem> {
    Pem::iter_from_buffer(pem).next().and_then(Result::ok).context("the file holds no PEM")
}

fn timestamp(time: x509_parser::time::ASN1Time) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_second(time.timestamp())?)
}

impl Authority {
    pub fn read(files: &AuthorityFiles) -> anyhow::Result<Self> {
        let read = |path: &Path, what: &str| {
            std::fs::read(path).with_context(|| format!("error reading CA {what} file {:?}", path.display()))
        };
        let certificate = read(&files.certificate, "cert")?;
        let key = read(&files.key, "key")?;
        Self::new(&certificate, &key).with_context(|| {
            format!("error parsing CA files {:?}, {:?}", files.certificate.display(), files.key.display())
        })
    }

    /// From a certificate and its key in PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let block = block(certificate)?;
        let (_, parsed) = X509Certificate::from_der(&block.contents)
            .map_err(|error| anyhow!("the certificate cannot be read: {error}"))?;
        let key = private_key(key)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            bail!("the key is not that of the certificate");
        }
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            key,
            name: parsed.subject().as_raw().to_vec(),
            key_id,
            not_after: timestamp(parsed.validity().not_after)?,
        })
    }

    /// A certificate in PEM.
    pub fn sign(
        &self,
        request: &Request,
        usages: &[String],
        life: Duration,
        now: Timestamp,
        serial: [u8; 16],
    ) -> anyhow::Result<String> {
        let usages = Usages::of(usages)?;
        let not_before = now - BACKDATE;
        let end = if life < SHORT { now + life } else { now + (life - BACKDATE) };
        let not_after = end.min(self.not_after);
        if not_before >= self.not_after {
            bail!("the signer has expired: NotAfter={}", self.not_after);
        }
        if now >= self.not_after {
            bail!("refusing to sign a certificate that expired in the past: NotAfter={}", self.not_after);
        }
        let algorithm = signature_algorithm(&self.key)?;
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|fields| {
                // version 3
                fields.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
                fields.next().write_bigint_bytes(&serial, true);
                fields.next().write_der(&algorithm);
                fields.next().write_der(&self.name);
                fields.next().write_sequence(|validity| {
                    write_time(validity.next(), not_before);
                    write_time(validity.next(), not_after);
                });
                write_subject(fields.next(), request);
                fields.next().write_der(&request.public_key);
                fields.next().write_tagged(Tag::context(3), |extensions| {
                    extensions.write_sequence(|list| {
                        usages.write(list);
                        // not an authority
                        extension(list, &[2, 5, 29, 19], true, |writer| writer.write_sequence(|_| {}));
                        if let Some(id) = &self.key_id {
                            extension(list, &[2, 5, 29, 35], false, |writer| {
                                writer.write_sequence(|fields| {
                                    fields
                                        .next()
                                        .write_tagged_implicit(Tag::context(0), |it| it.write_bytes(id));
                                });
                            });
                        }
                        write_names(list, request);
                    });
                });
            });
        });
        let signature = self.key.sign(&body).context("failed to sign certificate")?;
        let certificate = yasna::construct_der(|writer| {
            writer.write_sequence(|fields| {
                fields.next().write_der(&body);
                fields.next().write_der(&algorithm);
                fields.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem("CERTIFICATE", &certificate))
    }
}

/// How long a certificate lives: as asked for, within bounds.
pub fn life(longest: Duration, asked: Option<i32>) -> Duration {
    match asked {
        None => longest,
        Some(seconds) => {
            let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            if asked > longest { longest } else { asked.max(SHORTEST) }
        }
    }
}

/// The key of a PEM: PKCS#8, or what openssl and kubeadm write for RSA and elliptic curves.
fn private_key(text: &[u8]) -> anyhow::Result<KeyPair> {
    const RSA: &[u64] = &[1, 2, 840, 113549, 1, 1, 1];
    const ELLIPTIC: &[u64] = &[1, 2, 840, 10045, 2, 1];
    const CURVES: [&[u64]; 2] = [&[1, 2, 840, 10045, 3, 1, 7], &[1, 3, 132, 0, 34]];
    let wrapped = |oid: &[u64], curve: Option<&[u64]>, key: &[u8]| {
        yasna::construct_der(|writer| {
            writer.write_sequence(|fields| {
                fields.next().write_u8(0);
                fields.next().write_sequence(|algorithm| {
                    algorithm.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    match curve {
                        Some(curve) => algorithm.next().write_oid(&ObjectIdentifier::from_slice(curve)),
                        None => algorithm.next().write_null(),
                    }
                });
                fields.next().write_bytes(key);
            });
        })
    };
    let candidates = |block: &Pem| match block.label.as_str() {
        "PRIVATE KEY" => vec![block.contents.clone()],
        "RSA PRIVATE KEY" => vec![wrapped(RSA, None, &block.contents)],
        "EC PRIVATE KEY" => CURVES.map(|curve| wrapped(ELLIPTIC, Some(curve), &block.contents)).into(),
        // such as parameters of a curve before its key
        _ => Vec::new(),
    };
    let blocks = Pem::iter_from_buffer(text).filter_map(Result::ok);
    let mut keys = blocks.flat_map(|block| candidates(&block)).filter_map(|der| KeyPair::try_from(der).ok());
    keys.next()
        .context("the key cannot be used: it is to be RSA, Ed25519, or ECDSA on P-256 or P-384, in PEM")
}

/// The algorithm by which a key signs, in DER.
fn signature_algorithm(key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    let algorithm = key.algorithm();
    let (oid, null): (&[u64], bool) = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        (&[1, 2, 840, 10045, 4, 3, 2], false)
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10045, 4, 3, 3], false)
    } else if algorithm == &rcgen::PKCS_ED25519 {
        (&[1, 3, 101, 112], false)
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113549, 1, 1, 11], true)
    } else {
        bail!("the authority's key is of a kind that cannot sign")
    };
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|fields| {
            fields.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if null {
                fields.next().write_null();
            }
        });
    }))
}

/// UTCTime up to 2049, GeneralizedTime after.
fn write_time(writer: DERWriter<'_>, time: Timestamp) {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let long = time.strftime("%Y%m%d%H%M%SZ").to_string();
    let (tag, text) =
        if long.as_str() < "2050" { (UTC_TIME, &long[2..]) } else { (GENERALIZED_TIME, &long[..]) };
    let length = u8::try_from(text.len()).expect("a time is short");
    writer.write_der(&[&[tag, length], text.as_bytes()].concat());
}

fn write_text(writer: DERWriter<'_>, text: &str) {
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    match text.bytes().all(printable) {
        true => writer.write_printable_string(text),
        false => writer.write_utf8_string(text),
    }
}

pub(super) fn write_subject(writer: DERWriter<'_>, request: &Request) {
    writer.write_sequence(|names| {
        for (oid, values) in &request.subject {
            names.next().write_set_of(|set| {
                for value in values {
                    set.next().write_sequence(|pair| {
                        pair.next().write_oid(&ObjectIdentifier::from_slice(oid));
                        write_text(pair.next(), value);
                    });
                }
            });
        }
    });
}

/// Adds an extension of a certificate.
pub(super) fn extension(
    list: &mut yasna::DERWriterSeq<'_>,
    oid: &[u64],
    critical: bool,
    value: impl FnOnce(DERWriter<'_>),
) {
    list.next().write_sequence(|fields| {
        fields.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            fields.next().write_bool(true);
        }
        fields.next().write_bytes(&yasna::construct_der(value));
    });
}

/// Names besides the subject; they are critical where there is no subject.
pub(super) fn write_names(list: &mut yasna::DERWriterSeq<'_>, request: &Request) {
    let texts = [(2, &request.dns_names), (1, &request.emails), (6, &request.uris)];
    if texts.iter().all(|(_, names)| names.is_empty()) && request.ip_addresses.is_empty() {
        return;
    }
    extension(list, &[2, 5, 29, 17], request.subject.is_empty(), |writer| {
        writer.write_sequence(|names| {
            let mut name = |tag: u64, bytes: &[u8]| {
                names.next().write_tagged_implicit(Tag::context(tag), |it| it.write_bytes(bytes));
            };
            for (tag, texts) in &texts[..2] {
                texts.iter().for_each(|text| name(*tag, text.as_bytes()));
            }
            for address in &request.ip_addresses {
                match address {
                    IpAddr::V4(four) => name(7, &four.octets()),
                    IpAddr::V6(sixteen) => name(7, &sixteen.octets()),
                }
            }
            request.uris.iter().for_each(|text| name(6, text.as_bytes()));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::testing::{authority, authority_pems, request_pem, usages};

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn request(common_name: &str, organizations: &[&str], names: &[&str]) -> Request {
        Request::parse(request_pem(common_name, organizations, names).as_bytes()).unwrap()
    }

    fn der(pem: &str) -> Vec<u8> {
        block(pem.as_bytes()).unwrap().contents
    }

    #[test]
    fn a_certificate_says_what_was_asked_for_and_is_verified_by_its_authority() {
        let (authority_pem, key) = authority_pems();
        let authority = Authority::new(authority_pem.as_bytes(), key.as_bytes()).unwrap();
        let request = request("ann", &["a-team", "b-team"], &["x.example", "10.0.0.1"]);
        let life = Duration::from_secs(24 * 3600);
        let usages = usages(&["client auth", "digital signature", "any", "s/mime", "decipher only"]);
        let signed = der(&authority.sign(&request, &usages, life, now(), [0xff; 16]).unwrap());
        let (rest, certificate) = X509Certificate::from_der(&signed).unwrap();
        assert!(rest.is_empty());
        let authority_der = der(&authority_pem);
        let (_, own) = X509Certificate::from_der(&authority_der).unwrap();
        certificate.verify_signature(Some(own.public_key())).unwrap();
        assert_eq!(certificate.issuer().as_raw(), own.subject().as_raw());
        assert_eq!(certificate.subject().to_string(), "O=a-team + O=b-team, CN=ann");
        assert_eq!(certificate.validity().not_before.timestamp(), NOW - 300);
        assert_eq!(certificate.validity().not_after.timestamp(), NOW + 24 * 3600 - 300);
        assert!(!certificate.is_ca());
        assert_eq!(certificate.public_key().raw, request.public_key);
        let key_usage = certificate.key_usage().unwrap().unwrap();
        assert!(key_usage.critical && key_usage.value.digital_signature() && key_usage.value.decipher_only());
        assert!(!key_usage.value.key_encipherment());
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.any && purposes.client_auth && purposes.email_protection && !purposes.server_auth);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(!names.critical);
        assert_eq!(certificate.serial.to_bytes_be(), [0xff; 16], "a serial number is positive");
    }

    #[test]
    fn a_subject_is_written_as_it_was_checked() {
        // two common names: upstream's library keeps the last
        let mut request = request("first", &[], &[]);
        let twice = yasna::construct_der(|writer| {
            writer.write_sequence(|names| {
                for text in ["first", "last"] {
                    names.next().write_set(|set| {
                        set.next().write_sequence(|pair| {
                            pair.next().write_oid(&ObjectIdentifier::from_slice(&[2, 5, 4, 3]));
                            write_text(pair.next(), text);
                        });
                    });
                }
            });
        });
        let (_, name) = x509_parser::x509::X509Name::from_der(&twice).unwrap();
        request.subject = crate::certificates::request::read_subject(&name).unwrap();
        let signed = der(&authority().sign(&request, &usages(&["any"]), SHORT, now(), [1; 16]).unwrap());
        let (_, certificate) = X509Certificate::from_der(&signed).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=last");
    }

    #[test]
    fn lives_are_bounded() {
        let (hour, year) = (Duration::from_secs(3600), Duration::from_secs(365 * 24 * 3600));
        let cases = [
            (year, None, year),
            (year, Some(3600), hour),
            (hour, Some(7200), hour),
            (year, Some(60), SHORTEST),
        ];
        for (longest, asked, wanted) in cases {
            assert_eq!(life(longest, asked), wanted, "{longest:?} {asked:?}");
        }
        let ends = |authority: &Authority, life: Duration, now: Timestamp| {
            let pem = authority.sign(&request("a", &[], &[]), &usages(&["any"]), life, now, [1; 16])?;
            let der = der(&pem);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            anyhow::Ok(certificate.validity().not_after.timestamp() - now.as_second())
        };
        let authority = authority();
        assert_eq!(ends(&authority, hour, now()).unwrap(), 3600, "a short life is whole");
        assert_eq!(ends(&authority, SHORT, now()).unwrap(), 8 * 3600 - 300);
        // never longer than the authority's own
        let late = authority.not_after - Duration::from_secs(60);
        assert_eq!(ends(&authority, hour, late).unwrap(), 60);
        let over = ends(&authority, hour, authority.not_after).unwrap_err().to_string();
        assert!(
            over.starts_with("refusing to sign a certificate that expired in the past: NotAfter="),
            "{over}"
        );
        let long_over = ends(&authority, hour, authority.not_after + BACKDATE).unwrap_err().to_string();
        assert!(long_over.starts_with("the signer has expired: NotAfter="), "{long_over}");
    }

    #[test]
    fn times_far_away_are_written_out() {
        let time = |year: i16| {
            let time =
                jiff::civil::date(year, 2, 3).at(4, 5, 6, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
            yasna::construct_der(|writer| write_time(writer, time.timestamp()))
        };
        assert_eq!(time(2049), b"\x17\x0d490203040506Z");
        assert_eq!(time(2050), b"\x18\x0f20500203040506Z");
    }

    #[test]
    fn keys_come_as_openssl_and_kubeadm_write_them() {
        for (name, text) in [
            ("RSA, PKCS#1", include_str!("testdata/rsa.key")),
            ("P-384, SEC 1", include_str!("testdata/p384.key")),
            ("Ed25519, PKCS#8", include_str!("testdata/ed25519.key")),
        ] {
            let key = private_key(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let own = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            let authority = Authority::new(own.pem().as_bytes(), text.as_bytes()).unwrap();
            let signed =
                authority.sign(&request("a", &[], &[]), &usages(&["any"]), SHORT, now(), [1; 16]).unwrap();
            let signed = der(&signed);
            let (_, certificate) = X509Certificate::from_der(&signed).unwrap();
            let (_, own) = X509Certificate::from_der(own.der()).unwrap();
            certificate
                .verify_signature(Some(own.public_key()))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(private_key(b"nothing").is_err());
        let (certificate, _) = authority_pems();
        let other = KeyPair::generate().unwrap().serialize_pem();
        let error = Authority::new(certificate.as_bytes(), other.as_bytes()).err().unwrap().to_string();
        assert_eq!(error, "the key is not that of the certificate");
    }
}
