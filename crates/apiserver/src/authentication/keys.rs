//! The keys of service account tokens, and the documents by which others can check such tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a PEM-encoded public key: {0}")]
    PublicPem(String),
    #[error("not a PEM-encoded private key: {0}")]
    PrivatePem(String),
    #[error("service account keys are RSA or ECDSA with the curves P-256 and P-384")]
    Unsupported,
}

/// A key that tokens are checked with.
#[derive(Clone)]
pub struct PublicKey {
    key_id: String,
    algorithm: Algorithm,
    decoding: DecodingKey,
    jwk: Value,
}

impl PublicKey {
    /// All public keys of a PEM file such as `sa.pub`.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let wrong = |error: &dyn std::fmt::Display| KeyError::PublicPem(error.to_string());
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| wrong(&error))?;
            if block.label == "PUBLIC KEY" {
                keys.push(Self::from_der(&block.contents)?);
            }
        }
        if keys.is_empty() { Err(wrong(&"it holds no public key")) } else { Ok(keys) }
    }

    /// From a `SubjectPublicKeyInfo`.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let wrong = |error: &dyn std::fmt::Display| KeyError::PublicPem(error.to_string());
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|error| wrong(&error))?;
        // Upstream's: it tells keys apart without telling the key.
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(info.raw));
        let parsed = info.parsed().map_err(|error| wrong(&error))?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (algorithm, decoding, jwk) = match parsed {
            Parsed::RSA(rsa) => {
                // DER puts a zero before a leading bit.
                let strip = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes[zeros..].to_vec()
                };
                let (modulus, exponent) = (strip(rsa.modulus), strip(rsa.exponent));
                let jwk = json!({
                    "use": "sig", "kty": "RSA", "kid": key_id, "alg": "RS256",
                    "n": encode(&modulus), "e": encode(&exponent),
                });
                (Algorithm::RS256, DecodingKey::from_rsa_raw_components(&modulus, &exponent), jwk)
            }
            Parsed::EC(point) => {
                let [4, coordinates @ ..] = point.data() else { return Err(KeyError::Unsupported) };
                let (algorithm, name, curve) = match coordinates.len() {
                    64 => (Algorithm::ES256, "ES256", "P-256"),
                    96 => (Algorithm::ES384, "ES384", "P-384"),
                    _ => return Err(KeyError::Unsupported),
                };
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let (x, y) = (encode(x), encode(y));
                let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|error| wrong(&error))?;
                let jwk = json!({
                    "use": "sig", "kty": "EC", "kid": key_id, "crv": curve, "alg": name, "x": x, "y": y,
                });
                (algorithm, decoding, jwk)
            }
            _ => return Err(KeyError::Unsupported),
        };
        Ok(Self { key_id, algorithm, decoding, jwk })
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// The key that tokens are signed with.
#[derive(Clone)]
pub struct SigningKey {
    public: PublicKey,
    encoding: EncodingKey,
}

impl SigningKey {
    /// From files such as `sa.key` and `sa.pub`.
    pub fn from_pem(private: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        let public = PublicKey::from_pem(public)?.swap_remove(0);
        let encoding = match public.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private),
            _ => EncodingKey::from_ec_pem(private),
        };
        let encoding = encoding.map_err(|error| KeyError::PrivatePem(error.to_string()))?;
        Ok(Self { public, encoding })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

/// The documents under `/.well-known/openid-configuration` and `/openid/v1/jwks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIdMetadata {
    pub configuration: String,
    pub jwks: String,
}

impl OpenIdMetadata {
    pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
    pub const JWKS_PATH: &str = "/openid/v1/jwks";
    pub const CONFIGURATION_TYPE: &str = "application/json";
    pub const JWKS_TYPE: &str = "application/jwk-set+json";
    pub const CACHE_CONTROL: &str = "public, max-age=3600";

    pub fn new(issuer: &str, jwks_uri: &str, keys: &[PublicKey]) -> Self {
        let mut algorithms: Vec<&Value> = keys.iter().map(|key| &key.jwk["alg"]).collect();
        algorithms.sort_by_key(|algorithm| algorithm.as_str());
        algorithms.dedup();
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        });
        let jwks: Vec<&Value> = keys.iter().map(|key| &key.jwk).collect();
        Self { configuration: configuration.to_string(), jwks: json!({"keys": jwks}).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl genrsa 2048 | openssl rsa -pubout`; the id by openssl as well.
    const RSA_PUBLIC: &str = include_str!("testdata/rsa.pub");

    #[test]
    fn documents_tell_how_to_check_tokens() {
        let rsa = PublicKey::from_pem(RSA_PUBLIC.as_bytes()).expect("a key").swap_remove(0);
        assert_eq!(rsa.key_id(), include_str!("testdata/rsa.kid").trim());
        let pair = rcgen::KeyPair::generate().expect("a key");
        let ec = PublicKey::from_pem(pair.public_key_pem().as_bytes()).expect("a key").swap_remove(0);
        let metadata = OpenIdMetadata::new("https://issuer", "https://host/openid/v1/jwks", &[rsa, ec]);
        let configuration: Value = serde_json::from_str(&metadata.configuration).expect("JSON");
        assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
        assert_eq!(configuration["issuer"], "https://issuer");
        let jwks: Value = serde_json::from_str(&metadata.jwks).expect("JSON");
        assert_eq!(jwks["keys"][0]["kty"], "RSA");
        assert_eq!(jwks["keys"][0]["e"], "AQAB");
        assert_eq!(jwks["keys"][1]["crv"], "P-256");
        // A verifier that knows only the document accepts the key.
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwks["keys"][1].clone()).expect("a JWK");
        assert!(DecodingKey::from_jwk(&jwk).is_ok());
    }

    #[test]
    fn other_files_are_refused() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        assert!(PublicKey::from_pem(b"").is_err());
        assert!(PublicKey::from_pem(pair.serialize_pem().as_bytes()).is_err(), "a private key");
        let public = pair.public_key_pem();
        assert!(SigningKey::from_pem(public.as_bytes(), public.as_bytes()).is_err());
        assert!(SigningKey::from_pem(pair.serialize_pem().as_bytes(), public.as_bytes()).is_ok());
    }
}
