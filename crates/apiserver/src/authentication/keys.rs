//! The keys of service account tokens, and the documents by which others can check such tokens.

use std::collections::HashMap;

use api::validation::url;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use component_helpers::pem::pem;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::es512;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a PEM-encoded public key: {0}")]
    PublicPem(String),
    #[error("not a PEM-encoded private key: {0}")]
    PrivatePem(String),
    #[error("service account keys are RSA or ECDSA with the curves P-256, P-384 and P-521")]
    Unsupported,
}

/// A key that tokens are checked with.
#[derive(Clone)]
pub struct PublicKey {
    key_id: String,
    verifying: Verifying,
    jwk: Value,
}

#[derive(Clone)]
enum Verifying {
    Common(Algorithm, DecodingKey),
    P521(p521::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// All keys of a PEM file such as `sa.pub`: public ones, those of certificates, and the public halves of private
    /// ones.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let wrong = |error: &dyn std::fmt::Display| KeyError::PublicPem(error.to_string());
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| wrong(&error))?;
            match block.label.as_str() {
                "PUBLIC KEY" => keys.push(Self::from_der(&block.contents)?),
                "RSA PUBLIC KEY" => keys.push(Self::from_der(&spki::rsa_pkcs1(&block.contents))?),
                "CERTIFICATE" => {
                    let (_, certificate) =
                        X509Certificate::from_der(&block.contents).map_err(|e| wrong(&e))?;
                    keys.push(Self::from_der(certificate.public_key().raw)?);
                }
                "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                    keys.push(private(&block.label, &block.contents)?.public);
                }
                _ => {}
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
        let (verifying, jwk) = match parsed {
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
                let decoding = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
                (Verifying::Common(Algorithm::RS256, decoding), jwk)
            }
            Parsed::EC(point) => {
                let [4, coordinates @ ..] = point.data() else { return Err(KeyError::Unsupported) };
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let common = |algorithm| {
                    let decoding = DecodingKey::from_ec_components(&encode(x), &encode(y));
                    Ok(Verifying::Common(algorithm, decoding.map_err(|error| wrong(&error))?))
                };
                let (verifying, name, curve) = match x.len() {
                    32 => (common(Algorithm::ES256)?, "ES256", "P-256"),
                    48 => (common(Algorithm::ES384)?, "ES384", "P-384"),
                    es512::LENGTH => {
                        let key =
                            es512::verifying_key(x, y).ok_or_else(|| wrong(&"no point of its curve"))?;
                        (Verifying::P521(key), es512::NAME, "P-521")
                    }
                    _ => return Err(KeyError::Unsupported),
                };
                let jwk = json!({
                    "use": "sig", "kty": "EC", "kid": key_id, "crv": curve, "alg": name,
                    "x": encode(x), "y": encode(y),
                });
                (verifying, jwk)
            }
            _ => return Err(KeyError::Unsupported),
        };
        Ok(Self { key_id, verifying, jwk })
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What a token says that this key has signed; times and audiences are for others to check.
    fn verify<C: DeserializeOwned + Clone>(&self, token: &str) -> Result<C, String> {
        // the algorithm is the key's, whatever the token says
        match &self.verifying {
            Verifying::Common(algorithm, decoding) => {
                let mut validation = Validation::new(*algorithm);
                validation.required_spec_claims.clear();
                validation.validate_exp = false;
                validation.validate_aud = false;
                let decoded = jsonwebtoken::decode::<C>(token, decoding, &validation);
                decoded.map(|decoded| decoded.claims).map_err(|error| error.to_string())
            }
            Verifying::P521(key) => es512::decode(key, token),
        }
    }
}

/// All keys that tokens are checked with.
#[derive(Clone)]
pub struct PublicKeys(HashMap<String, PublicKey>);

impl FromIterator<PublicKey> for PublicKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.key_id().to_owned(), key)).collect())
    }
}

impl PublicKeys {
    /// What a token says whose signature is good. Times and audiences are for others to check.
    pub(super) fn verify<C: DeserializeOwned + Clone>(&self, token: &str) -> Result<C, String> {
        let key_id = match es512::header(token) {
            Some(header) => header["kid"].as_str().map(str::to_owned),
            None => jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?.kid,
        };
        let keys: Vec<&PublicKey> = match key_id.as_deref() {
            None | Some("") => self.0.values().collect(),
            Some(kid) => self.0.get(kid).into_iter().collect(),
        };
        let mut errors = Vec::new();
        for key in keys {
            match key.verify(token) {
                Ok(claims) => return Ok(claims),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Err("invalid signature, no keys found".into())
        } else {
            Err(errors.join(", "))
        }
    }
}

/// The key that tokens are signed with.
#[derive(Clone)]
pub struct SigningKey {
    public: PublicKey,
    signing: Signing,
}

#[derive(Clone)]
enum Signing {
    Common(Algorithm, EncodingKey),
    P521(p521::ecdsa::SigningKey),
}

impl SigningKey {
    /// From a private key alone, RSA or ECDSA, in whichever form openssl writes it.
    pub fn from_private_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| KeyError::PrivatePem(error.to_string()))?;
            if ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].contains(&block.label.as_str()) {
                return private(&block.label, &block.contents);
            }
        }
        Err(KeyError::PrivatePem("data does not contain a valid RSA or ECDSA private key".into()))
    }

    /// From files such as `sa.key` and `sa.pub`.
    pub fn from_pem(private: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        let public = PublicKey::from_pem(public)?.swap_remove(0);
        let signing = match &public.verifying {
            Verifying::Common(algorithm, _) => {
                let encoding = match algorithm {
                    Algorithm::RS256 => EncodingKey::from_rsa_pem(private),
                    _ => EncodingKey::from_ec_pem(private),
                };
                Signing::Common(
                    *algorithm,
                    encoding.map_err(|error| KeyError::PrivatePem(error.to_string()))?,
                )
            }
            Verifying::P521(_) => Self::from_private_pem(private)?.signing,
        };
        Ok(Self { public, signing })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A token that says `claims`.
    pub fn sign<C: Serialize>(&self, claims: &C) -> Result<String, jsonwebtoken::errors::Error> {
        match &self.signing {
            Signing::Common(algorithm, encoding) => {
                // As upstream's signer writes it: no type.
                let mut header = Header::new(*algorithm);
                header.typ = None;
                header.kid = Some(self.public.key_id().to_owned());
                jsonwebtoken::encode(&header, claims, encoding)
            }
            Signing::P521(key) => Ok(es512::sign(key, self.public.key_id(), claims)?),
        }
    }
}

/// A private key with its public half, which is worked out of it.
fn private(label: &str, der: &[u8]) -> Result<SigningKey, KeyError> {
    let wrong = |error: &dyn std::fmt::Display| KeyError::PrivatePem(error.to_string());
    // the same key in the one form that is taken
    let (pem_label, der) = match label {
        "EC PRIVATE KEY" => ("PRIVATE KEY", spki::pkcs8_of_sec1(der).ok_or(KeyError::Unsupported)?),
        label => (label, der.to_vec()),
    };
    if let Some(key) = es512::signing_key(&der) {
        let (x, y) = es512::coordinates(&key).ok_or(KeyError::Unsupported)?;
        let public = PublicKey::from_der(&spki::of_point(spki::P521, &x, &y))?;
        return Ok(SigningKey { public, signing: Signing::P521(key) });
    }
    let pem = pem(pem_label, &der);
    let pem = pem.as_bytes();
    let found = EncodingKey::from_rsa_pem(pem).map(|key| (key, &[Algorithm::RS256][..])).or_else(|_| {
        EncodingKey::from_ec_pem(pem).map(|key| (key, &[Algorithm::ES256, Algorithm::ES384][..]))
    });
    let (encoding, algorithms) = found.map_err(|error| wrong(&error))?;
    // only the algorithm of its own curve has a use for a key
    let jwk = algorithms.iter().find_map(|algorithm| Jwk::from_encoding_key(&encoding, *algorithm).ok());
    let jwk = serde_json::to_value(jwk.ok_or(KeyError::Unsupported)?).map_err(|error| wrong(&error))?;
    let public = PublicKey::from_der(&spki::of_jwk(&jwk).ok_or(KeyError::Unsupported)?)?;
    let Verifying::Common(algorithm, _) = public.verifying else { return Err(KeyError::Unsupported) };
    Ok(SigningKey { public, signing: Signing::Common(algorithm, encoding) })
}

/// The few structures of DER that keys come in.
mod spki {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
    const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 4, 0, 0x22];
    pub const P521: &[u8] = &[0x06, 5, 0x2b, 0x81, 4, 0, 0x23];

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
        let mut out = vec![tag];
        match (content.len(), u8::try_from(length.len())) {
            (short @ 0..128, _) => out.push(short as u8),
            (_, Ok(count)) => {
                out.push(0x80 | count);
                out.extend(length);
            }
            _ => {}
        }
        out.extend(content);
        out
    }

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        tagged(0x30, &parts.concat())
    }

    fn bits(content: &[u8]) -> Vec<u8> {
        tagged(0x03, &[&[0], content].concat())
    }

    fn integer(bytes: &[u8]) -> Vec<u8> {
        // a leading bit would be a sign
        let sign: &[u8] = if bytes.first().is_some_and(|first| *first >= 128) { &[0] } else { &[] };
        tagged(0x02, &[sign, bytes].concat())
    }

    /// The `SubjectPublicKeyInfo` of a PKCS #1 public key.
    pub fn rsa_pkcs1(der: &[u8]) -> Vec<u8> {
        sequence(&[&sequence(&[RSA]), &bits(der)])
    }

    /// The `SubjectPublicKeyInfo` of a JWK.
    pub fn of_jwk(jwk: &Value) -> Option<Vec<u8>> {
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok();
        let curve = match (jwk.get("kty")?.as_str()?, jwk.get("crv").and_then(Value::as_str)) {
            ("RSA", _) => {
                return Some(rsa_pkcs1(&sequence(&[&integer(&bytes("n")?), &integer(&bytes("e")?)])));
            }
            ("EC", Some("P-256")) => P256,
            ("EC", Some("P-384")) => P384,
            _ => return None,
        };
        Some(of_point(curve, &bytes("x")?, &bytes("y")?))
    }

    /// The `SubjectPublicKeyInfo` of a point of a curve.
    pub fn of_point(curve: &[u8], x: &[u8], y: &[u8]) -> Vec<u8> {
        sequence(&[&sequence(&[EC, curve]), &bits(&[&[4], x, y].concat())])
    }

    /// PKCS #8 around the form that `openssl ecparam -genkey` writes.
    pub fn pkcs8_of_sec1(der: &[u8]) -> Option<Vec<u8>> {
        let curve =
            [P256, P384, P521].into_iter().find(|curve| der.windows(curve.len()).any(|at| at == *curve))?;
        Some(sequence(&[&integer(&[0]), &sequence(&[EC, curve]), &tagged(0x04, der)]))
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

    /// Nothing is published for an issuer that is no URL by which others could find it; the error says why.
    pub fn for_issuer(issuer: &str, jwks_uri: &str, keys: &[PublicKey]) -> Result<Self, String> {
        let url = url::parse(issuer).map_err(|error| error.to_string())?;
        let wrong = [
            (url.scheme != "https", "issuer URL must use https scheme"),
            (!url.query.is_empty(), "issuer URL may not include a query"),
            (!url.fragment.is_empty(), "issuer URL may not include a fragment"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(format!("{why}, got: {issuer}")),
            None => Ok(Self::new(issuer, jwks_uri, keys)),
        }
    }

    fn new(issuer: &str, jwks_uri: &str, keys: &[PublicKey]) -> Self {
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
        for (issuer, why) in [
            ("kubernetes/serviceaccount", "issuer URL must use https scheme, got: kubernetes/serviceaccount"),
            ("https://i?q=1", "issuer URL may not include a query, got: https://i?q=1"),
        ] {
            assert_eq!(OpenIdMetadata::for_issuer(issuer, "", &[]), Err(why.to_owned()));
        }
        // A verifier that knows only the document accepts the key.
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwks["keys"][1].clone()).expect("a JWK");
        assert!(DecodingKey::from_jwk(&jwk).is_ok());
    }

    /// Made with `openssl ecparam -genkey`, for P-256, P-384 and P-521, with the ids that openssl works out of
    /// `openssl ec -pubout -outform DER`.
    const EC_PRIVATE: [(&str, &str); 3] = [
        (include_str!("testdata/p256.key"), include_str!("testdata/p256.kid")),
        (include_str!("testdata/p384.key"), include_str!("testdata/p384.kid")),
        (include_str!("testdata/p521.key"), include_str!("testdata/p521.kid")),
    ];

    #[test]
    fn a_private_key_is_enough() {
        let rsa = SigningKey::from_private_pem(include_bytes!("testdata/rsa.key")).expect("a key");
        assert_eq!(rsa.public().key_id(), include_str!("testdata/rsa.kid").trim());
        for (pem, id) in EC_PRIVATE {
            let key = SigningKey::from_private_pem(pem.as_bytes()).expect("a key");
            assert_eq!(key.public().key_id(), id.trim());
            let keys: PublicKeys = [key.public().clone()].into_iter().collect();
            let token = key.sign(&json!({"sub": "jane"})).expect("a token");
            assert_eq!(
                keys.verify::<Value>(&token),
                Ok(json!({"sub": "jane"})),
                "the halves belong together"
            );
            let (message, signature) = token.rsplit_once('.').expect("three parts");
            let (header, _) = message.split_once('.').expect("three parts");
            let other = URL_SAFE_NO_PAD.encode(json!({"sub": "jim"}).to_string());
            let forged = format!("{header}.{other}.{signature}");
            assert_eq!(keys.verify::<Value>(&forged), Err("InvalidSignature".into()));
        }
        let pair = rcgen::KeyPair::generate().expect("a key");
        let both = SigningKey::from_pem(pair.serialize_pem().as_bytes(), pair.public_key_pem().as_bytes());
        let alone = SigningKey::from_private_pem(pair.serialize_pem().as_bytes()).expect("a key");
        assert_eq!(alone.public().key_id(), both.expect("a key").public().key_id());
        assert!(SigningKey::from_private_pem(pair.public_key_pem().as_bytes()).is_err());
    }

    #[test]
    fn a_file_may_hold_several_keys_in_several_forms() {
        let certificate = rcgen::generate_simple_self_signed(vec!["x".into()]).expect("a certificate");
        let [p256, p384, p521] = EC_PRIVATE.map(|(pem, _)| pem);
        let all = [RSA_PUBLIC, p256, p384, p521, &certificate.cert.pem()].concat();
        let ids: Vec<String> = PublicKey::from_pem(all.as_bytes())
            .expect("keys")
            .iter()
            .map(|key| key.key_id().to_owned())
            .collect();
        assert_eq!(ids.len(), 5);
        assert_eq!(ids[0], include_str!("testdata/rsa.kid").trim());
        assert_eq!(ids[1..4], EC_PRIVATE.map(|(_, id)| id.trim()));
    }

    #[test]
    fn other_files_are_refused() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        assert!(PublicKey::from_pem(b"").is_err());
        let public = pair.public_key_pem();
        assert!(SigningKey::from_pem(public.as_bytes(), public.as_bytes()).is_err());
        assert!(SigningKey::from_pem(pair.serialize_pem().as_bytes(), public.as_bytes()).is_ok());
    }
}
