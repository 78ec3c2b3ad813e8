//! That a certificate request is signed by its own key, in Go's words where it is not.

use p521::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::traits::{PublicKeyParts, SignatureScheme};
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

const RSA_KEY: &str = "1.2.840.113549.1.1.1";
const ECDSA_KEY: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const MGF1: &str = "1.2.840.113549.1.1.8";

/// The length of the shortest key of RSA that Go takes.
const SHORTEST_RSA_KEY: usize = 1024;
/// And of the longest that is tried here, so that nobody can keep a server busy with one.
const LONGEST_RSA_KEY: usize = 16384;

const UNIMPLEMENTED: &str = "x509: cannot verify signature: algorithm unimplemented";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By the name of a hash function alone.
    fn named(oid: &str) -> Option<Self> {
        match oid {
            "1.3.14.3.2.26" => Some(Self::Sha1),
            "2.16.840.1.101.3.4.2.1" => Some(Self::Sha256),
            "2.16.840.1.101.3.4.2.2" => Some(Self::Sha384),
            "2.16.840.1.101.3.4.2.3" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

/// How a request says that it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Rsa(Hash),
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
}

impl Scheme {
    fn of(algorithm: &AlgorithmIdentifier<'_>) -> Result<Self, &'static str> {
        Ok(match algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.4" => {
                return Err("x509: cannot verify signature: insecure algorithm MD5-RSA");
            }
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => Self::Rsa(Hash::Sha1),
            "1.2.840.113549.1.1.11" => Self::Rsa(Hash::Sha256),
            "1.2.840.113549.1.1.12" => Self::Rsa(Hash::Sha384),
            "1.2.840.113549.1.1.13" => Self::Rsa(Hash::Sha512),
            "1.2.840.10045.4.1" => Self::Ecdsa(Hash::Sha1),
            "1.2.840.10045.4.3.2" => Self::Ecdsa(Hash::Sha256),
            "1.2.840.10045.4.3.3" => Self::Ecdsa(Hash::Sha384),
            "1.2.840.10045.4.3.4" => Self::Ecdsa(Hash::Sha512),
            ED25519 => Self::Ed25519,
            _ => Self::RsaPss(pss_hash(algorithm).ok_or(UNIMPLEMENTED)?),
        })
    }

    fn key(self) -> &'static str {
        match self {
            Self::Rsa(_) | Self::RsaPss(_) => "RSA",
            Self::Ecdsa(_) => "ECDSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// The hash function of RSA-PSS. Of all that could be chosen, Go knows three ways: one function for the message and the
/// mask, and as much salt as it makes bytes.
fn pss_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    let Ok(SignatureAlgorithm::RSASSA_PSS(params)) = SignatureAlgorithm::try_from(algorithm) else {
        return None;
    };
    let (hash, salt) = match Hash::named(&params.hash_algorithm_oid().to_id_string())? {
        Hash::Sha1 => return None,
        Hash::Sha256 => (Hash::Sha256, 32),
        Hash::Sha384 => (Hash::Sha384, 48),
        Hash::Sha512 => (Hash::Sha512, 64),
    };
    let mask = params.mask_gen_algorithm().ok()?;
    let is_mgf1 = mask.mgf.to_id_string() == MGF1 && Hash::named(&mask.hash.to_id_string()) == Some(hash);
    (is_mgf1 && params.salt_length() == salt && params.trailer_field() == 1).then_some(hash)
}

pub fn verify(request: &X509CertificationRequest<'_>) -> Result<(), String> {
    let info = &request.certification_request_info;
    let (message, signature) = (info.raw, request.signature_value.data.as_ref());
    let refused = |why: &str| Err(why.to_owned());
    let scheme = Scheme::of(&request.signature_algorithm);
    let mismatch = |scheme: Scheme, key: &str| {
        let wanted = scheme.key();
        Err(format!(
            "x509: signature algorithm specifies an {wanted} public key, but have public key of type {key}"
        ))
    };
    let key = &info.subject_pki;
    match key.algorithm.algorithm.to_id_string().as_str() {
        RSA_KEY => {
            let Ok(PublicKey::RSA(key)) = key.parsed() else {
                return refused("x509: invalid RSA public key");
            };
            let (modulus, exponent) =
                (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent));
            let Ok(key) = RsaPublicKey::new_with_max_size(modulus, exponent, LONGEST_RSA_KEY) else {
                return refused("x509: invalid RSA public key");
            };
            match scheme? {
                Scheme::Rsa(hash) => is_of_rsa(&key, pkcs1(hash), &hash.digest(message), signature),
                Scheme::RsaPss(hash) => is_of_rsa(&key, pss(hash), &hash.digest(message), signature),
                other => mismatch(other, "*rsa.PublicKey"),
            }
        }
        ECDSA_KEY => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let Some(curve) = curve.and_then(|oid| Curve::named(&oid.to_id_string())) else {
                return refused("x509: unsupported elliptic curve");
            };
            match scheme? {
                Scheme::Ecdsa(hash) => {
                    curve.verify(&key.subject_public_key.data, &hash.digest(message), signature)
                }
                other => mismatch(other, "*ecdsa.PublicKey"),
            }
        }
        ED25519 => match scheme? {
            Scheme::Ed25519 if request.verify_signature().is_ok() => Ok(()),
            Scheme::Ed25519 => refused("x509: Ed25519 verification failure"),
            other => mismatch(other, "ed25519.PublicKey"),
        },
        _ => scheme.map_err(str::to_owned).and_then(|_| refused(UNIMPLEMENTED)),
    }
}

/// Checks a signature of RSA, whose keys are to have a decent length.
fn is_of_rsa(
    key: &RsaPublicKey,
    scheme: impl SignatureScheme,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let bits = key.n().bits();
    if bits < SHORTEST_RSA_KEY {
        return Err(format!(
            "crypto/rsa: {bits}-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)"
        ));
    }
    key.verify(scheme, digest, signature).map_err(|_| "crypto/rsa: verification error".to_owned())
}

fn pkcs1(hash: Hash) -> Pkcs1v15Sign {
    match hash {
        Hash::Sha1 => Pkcs1v15Sign::new::<Sha1>(),
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}

fn pss(hash: Hash) -> Pss {
    match hash {
        Hash::Sha1 => Pss::new::<Sha1>(),
        Hash::Sha256 => Pss::new::<Sha256>(),
        Hash::Sha384 => Pss::new::<Sha384>(),
        Hash::Sha512 => Pss::new::<Sha512>(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P224,
    P256,
    P384,
    P521,
}

/// What a curve's own library makes of a point, a number and a signature.
macro_rules! verify_on {
    ($curve:ident, $point:expr, $number:expr, $signature:expr) => {{
        use $curve::ecdsa::{Signature, VerifyingKey};
        let key = VerifyingKey::from_sec1_bytes($point)
            .map_err(|_| "x509: failed to unmarshal elliptic curve point")?;
        Signature::from_der($signature).is_ok_and(|signature| key.verify_prehash($number, &signature).is_ok())
    }};
}

impl Curve {
    fn named(oid: &str) -> Option<Self> {
        match oid {
            "1.3.132.0.33" => Some(Self::P224),
            "1.2.840.10045.3.1.7" => Some(Self::P256),
            "1.3.132.0.34" => Some(Self::P384),
            "1.3.132.0.35" => Some(Self::P521),
            _ => None,
        }
    }

    /// The length of a coordinate.
    fn length(self) -> usize {
        match self {
            Self::P224 => 28,
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn verify(self, point: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), String> {
        // as a number: zeros in front are nothing
        let mut number = vec![0; self.length().saturating_sub(digest.len())];
        number.extend(digest);
        let is_good = match self {
            Self::P224 => verify_on!(p224, point, &number, signature),
            Self::P256 => verify_on!(p256, point, &number, signature),
            Self::P384 => verify_on!(p384, point, &number, signature),
            Self::P521 => verify_on!(p521, point, &number, signature),
        };
        if is_good { Ok(()) } else { Err("x509: ECDSA verification failure".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::super::pem::{check_request, request_der};

    #[test]
    fn requests_of_all_keys_that_go_knows() {
        let too_short =
            "crypto/rsa: 512-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)";
        let ecdsa = Err("x509: ECDSA verification failure");
        let rsa = Err("crypto/rsa: verification error");
        macro_rules! request {
            ($name:literal) => {
                ($name, include_str!(concat!("testdata/", $name, ".csr")))
            };
        }
        for ((name, request), expected, forged) in [
            (request!("rsa-1024-sha1"), Ok(()), rsa),
            (request!("rsa-1024-sha256"), Ok(()), rsa),
            (request!("rsa-1024-pss-sha384"), Ok(()), rsa),
            (request!("rsa-1032-sha512"), Ok(()), rsa),
            (request!("rsa-512-sha256"), Err(too_short), Err(too_short)),
            (request!("p224-sha1"), Ok(()), ecdsa),
            (request!("p224-sha256"), Ok(()), ecdsa),
            (request!("p256-sha512"), Ok(()), ecdsa),
            (request!("p384-sha256"), Ok(()), ecdsa),
            (request!("p384-sha512"), Ok(()), ecdsa),
            (request!("p521-sha256"), Ok(()), ecdsa),
            (request!("p521-sha384"), Ok(()), ecdsa),
            (request!("ed25519"), Ok(()), Err("x509: Ed25519 verification failure")),
            (
                request!("secp256k1-sha256"),
                Err("x509: unsupported elliptic curve"),
                Err("x509: unsupported elliptic curve"),
            ),
        ] {
            let owned = |result: Result<(), &str>| result.map_err(str::to_owned);
            assert_eq!(check_request(request.as_bytes()), owned(expected), "{name}");
            let mut der = request_der(request.as_bytes()).unwrap();
            *der.last_mut().unwrap() ^= 1;
            let label = "CERTIFICATE REQUEST";
            let body = BASE64_STANDARD.encode(der);
            let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
            assert_eq!(check_request(text.as_bytes()), owned(forged), "{name}");
        }
    }

    /// What a request says of its signature and what key it shows need not fit.
    #[test]
    fn signatures_of_other_keys_and_of_no_known_sort() {
        let swapped = |request: &str, from: &[u8], to: &[u8]| {
            let mut der = request_der(request.as_bytes()).unwrap();
            let at = der.windows(from.len()).rposition(|part| part == from).unwrap();
            der[at..at + from.len()].copy_from_slice(to);
            let label = "CERTIFICATE REQUEST";
            let body = BASE64_STANDARD.encode(der);
            check_request(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").as_bytes())
                .unwrap_err()
        };
        let rsa = include_str!("testdata/rsa-1024-sha256.csr");
        // 1.2.840.113549.1.1, of which the last number follows
        let sha256 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
        let other = |last: u8| {
            let mut oid = sha256;
            oid[8] = last;
            oid
        };
        assert_eq!(
            swapped(rsa, &sha256, &other(4)),
            "x509: cannot verify signature: insecure algorithm MD5-RSA"
        );
        assert_eq!(
            swapped(rsa, &sha256, &other(14)),
            "x509: cannot verify signature: algorithm unimplemented"
        );
        assert_eq!(swapped(rsa, &sha256, &other(12)), "crypto/rsa: verification error");
        let ec = include_str!("testdata/p256-sha512.csr");
        // ecdsa-with-SHA512, and something as long
        let sha512 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
        let ed25519 = [0x06, 0x03, 0x2b, 0x65, 0x70, 0x02, 0x03, 0x01, 0x01, 0x01];
        assert_eq!(
            swapped(ec, &sha512, &ed25519),
            "x509: signature algorithm specifies an Ed25519 public key, but have public key of type *ecdsa.PublicKey"
        );
    }
}
