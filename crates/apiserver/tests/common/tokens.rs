//! Accounts, their tokens, and whom the server takes the bearers for.

use apiserver::Config;
use apiserver::authentication::ServiceAccountOptions;
use apiserver::authentication::keys::{PublicKey, SigningKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Cluster;

pub const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
pub const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A key that was never used.
pub fn key() -> SigningKey {
    let pair = rcgen::KeyPair::generate().unwrap();
    SigningKey::from_private_pem(pair.serialize_pem().as_bytes()).unwrap()
}

/// Has tokens signed by a key, and others believed besides.
pub fn signed_by(key: &SigningKey, others: &[&SigningKey]) -> impl FnOnce(&mut Config) + use<> {
    let keys: Vec<PublicKey> = others.iter().map(|key| key.public().clone()).collect();
    let key = key.clone();
    move |config| {
        config.authentication.service_accounts =
            ServiceAccountOptions { signing_key: Some(key), keys, ..ServiceAccountOptions::default() };
    }
}

pub async fn account(cluster: &Cluster, name: &str) {
    let answer = cluster.admin("POST", ACCOUNTS, json!({"metadata": {"name": name}})).await;
    assert_eq!(answer.code, 201, "{answer:?}");
}

pub async fn token(cluster: &Cluster, name: &str, spec: Value) -> String {
    let answer = cluster.admin("POST", &format!("{ACCOUNTS}/{name}/token"), json!({"spec": spec})).await;
    assert_eq!(answer.code, 201, "{answer:?}");
    answer.body["status"]["token"].as_str().unwrap().to_owned()
}

/// Whom the server takes the bearer of a token for.
pub async fn who(cluster: &Cluster, token: &str) -> Option<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = cluster.with_token(token, "POST", WHO, review).await;
    match answer.code.as_u16() {
        201 => Some(answer.body["status"]["userInfo"]["username"].as_str().unwrap().to_owned()),
        401 => {
            assert_eq!(answer.message(), "Unauthorized");
            None
        }
        _ => panic!("{answer:?}"),
    }
}

/// What a token says.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
