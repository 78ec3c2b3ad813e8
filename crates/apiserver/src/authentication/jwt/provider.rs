//! What an issuer publishes: its discovery document and its keys, fetched when they are needed and kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm as Known, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::authentication::es512;
use crate::outgoing::{HttpsClient, TIMEOUT, status_line};

/// The algorithms by which tokens may be signed: none that shares a secret, and never none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm(usize);

const ALGORITHMS: [(&str, Option<Known>); 9] = [
    ("ES256", Some(Known::ES256)),
    ("ES384", Some(Known::ES384)),
    ("ES512", None),
    ("PS256", Some(Known::PS256)),
    ("PS384", Some(Known::PS384)),
    ("PS512", Some(Known::PS512)),
    ("RS256", Some(Known::RS256)),
    ("RS384", Some(Known::RS384)),
    ("RS512", Some(Known::RS512)),
];

impl Algorithm {
    pub fn all() -> Vec<Self> {
        (0..ALGORITHMS.len()).map(Self).collect()
    }

    pub fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.iter().position(|(known, _)| *known == name).map(Self)
    }

    pub fn name(self) -> &'static str {
        ALGORITHMS[self.0].0
    }
}

/// One key of an issuer.
struct Key {
    id: String,
    material: Material,
}

enum Material {
    /// RSA, P-256 or P-384: which of them is told by which algorithms find it good.
    Common(DecodingKey, &'static str),
    P521(p521::ecdsa::VerifyingKey),
}

impl Key {
    /// `None` for a key that no algorithm of ours has a use for.
    fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |key: &str| jwk.get(key).and_then(Value::as_str).unwrap_or_default();
        let bytes = |key: &str| URL_SAFE_NO_PAD.decode(text(key)).ok();
        let material = match (text("kty"), text("crv")) {
            ("RSA", _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                // shorter ones are no protection, and Go refuses them as well
                (modulus.len() >= 128 && !exponent.is_empty()).then_some(())?;
                Material::Common(DecodingKey::from_rsa_raw_components(&modulus, &exponent), "RP")
            }
            ("EC", "P-256" | "P-384") => {
                Material::Common(DecodingKey::from_ec_components(text("x"), text("y")).ok()?, "E")
            }
            ("EC", "P-521") => Material::P521(es512::verifying_key(&bytes("x")?, &bytes("y")?)?),
            _ => return None,
        };
        Some(Self { id: text("kid").to_owned(), material })
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        let (name, known) = ALGORITHMS[algorithm.0];
        match (&self.material, known) {
            (Material::Common(key, family), Some(known)) => {
                name.starts_with(|c| family.contains(c))
                    && jsonwebtoken::crypto::verify(signature, message, key, known).unwrap_or(false)
            }
            (Material::P521(key), None) => es512::verifies(key, message, signature),
            _ => false,
        }
    }
}

/// A token as it was sent, taken apart but not believed.
#[derive(Clone, Copy)]
pub struct Signed<'t> {
    pub key_id: &'t str,
    pub algorithm: Algorithm,
    /// Header and payload.
    pub message: &'t [u8],
    pub signature: &'t str,
}

/// The keys behind a URL. They are kept until a token comes that none of them has signed.
pub struct RemoteKeys {
    url: String,
    keys: ArcSwap<Vec<Key>>,
    /// How often keys were fetched. Whoever waited for somebody else's fetch does not fetch again.
    fetched: AtomicU64,
    fetching: tokio::sync::Mutex<()>,
}

impl RemoteKeys {
    /// Asks the issuer where its keys are.
    pub async fn discover(client: &HttpsClient, issuer: &str, discovery_url: &str) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Provider {
            issuer: String,
            jwks_uri: String,
        }
        let usual =
            format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let url = if discovery_url.is_empty() { &usual } else { discovery_url };
        let answer = client.get(url, TIMEOUT).await.map_err(|failure| failure.message)?;
        let shown = String::from_utf8_lossy(&answer.body);
        if answer.code != StatusCode::OK {
            return Err(format!("{}: {shown}", status_line(answer.code)));
        }
        let provider: Provider = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?;
        if provider.issuer != issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {:?}",
                provider.issuer
            ));
        }
        if provider.jwks_uri.is_empty() {
            return Err("provider did not return JWKS URL".into());
        }
        Ok(Self {
            url: provider.jwks_uri,
            keys: ArcSwap::default(),
            fetched: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::new(()),
        })
    }

    /// Whether the issuer signed the token.
    pub async fn verify(&self, client: &HttpsClient, token: Signed<'_>) -> Result<(), String> {
        let seen = self.fetched.load(Ordering::Acquire);
        if self.any_verifies(token) {
            return Ok(());
        }
        self.fetch(client, seen).await.map_err(|error| format!("fetching keys {error}"))?;
        match self.any_verifies(token) {
            true => Ok(()),
            false => Err("failed to verify id token signature".into()),
        }
    }

    fn any_verifies(&self, token: Signed<'_>) -> bool {
        let keys = self.keys.load();
        let mut fitting = keys.iter().filter(|key| token.key_id.is_empty() || key.id == token.key_id);
        fitting.any(|key| key.verifies(token.algorithm, token.message, token.signature))
    }

    async fn fetch(&self, client: &HttpsClient, seen: u64) -> Result<(), String> {
        let _one_at_a_time = self.fetching.lock().await;
        if self.fetched.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        let answer = client.get(&self.url, TIMEOUT).await;
        let answer = answer.map_err(|failure| format!("oidc: get keys failed {}", failure.message))?;
        let shown = String::from_utf8_lossy(&answer.body);
        if answer.code != StatusCode::OK {
            return Err(format!("oidc: get keys failed: {} {shown}", status_line(answer.code)));
        }
        let set: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("oidc: failed to decode keys: {error} {shown}"))?;
        let keys = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        self.keys.store(Arc::new(keys.iter().filter_map(Key::from_jwk).collect()));
        self.fetched.fetch_add(1, Ordering::Release);
        Ok(())
    }
}
