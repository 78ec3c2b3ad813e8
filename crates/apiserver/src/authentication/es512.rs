//! ES512: ECDSA with the curve P-521, which the library for tokens does not know.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::ecdsa::signature::{Signer, Verifier};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::pkcs8::DecodePrivateKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The length of a coordinate.
pub const LENGTH: usize = 66;

pub const NAME: &str = "ES512";

/// The key of a point; leading zeros of coordinates may be left out.
pub fn verifying_key(x: &[u8], y: &[u8]) -> Option<VerifyingKey> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        point.extend(std::iter::repeat_n(0, LENGTH.checked_sub(coordinate.len())?));
        point.extend(coordinate);
    }
    VerifyingKey::from_sec1_bytes(&point).ok()
}

pub fn verifies(key: &VerifyingKey, message: &[u8], signature: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(signature).ok();
    let signature = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok());
    signature.is_some_and(|signature| key.verify(message, &signature).is_ok())
}

/// From PKCS #8.
pub fn signing_key(pkcs8: &[u8]) -> Option<SigningKey> {
    let secret = p521::SecretKey::from_pkcs8_der(pkcs8).ok()?;
    SigningKey::from_slice(&secret.to_bytes()).ok()
}

/// Both coordinates of a key's public half.
pub fn coordinates(key: &SigningKey) -> Option<(Vec<u8>, Vec<u8>)> {
    let point = VerifyingKey::from(key).to_encoded_point(false);
    Some((point.x()?.to_vec(), point.y()?.to_vec()))
}

/// A token that says `claims`.
pub fn sign<C: Serialize>(key: &SigningKey, key_id: &str, claims: &C) -> Result<String, serde_json::Error> {
    let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let header = json!({"alg": NAME, "kid": key_id}).to_string();
    let message = format!("{}.{}", part(header.as_bytes()), part(&serde_json::to_vec(claims)?));
    let signature: Signature = key.sign(message.as_bytes());
    Ok(format!("{message}.{}", part(&signature.to_bytes())))
}

/// The header of a token that says it is signed so.
pub fn header(token: &str) -> Option<Value> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    (header["alg"] == NAME).then_some(header)
}

/// What a token says whose signature is good.
pub fn decode<C: DeserializeOwned>(key: &VerifyingKey, token: &str) -> Result<C, String> {
    header(token).ok_or("InvalidAlgorithm")?;
    let (message, signature) = token.rsplit_once('.').ok_or("InvalidToken")?;
    if !verifies(key, message.as_bytes(), signature) {
        return Err("InvalidSignature".into());
    }
    let (_, claims) = message.split_once('.').ok_or("InvalidToken")?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|error| error.to_string())?;
    serde_json::from_slice(&claims).map_err(|error| error.to_string())
}
