//! Tokens that lie in secrets, as the token controller puts them there: what makes one good, and what ends that.

mod common;

use std::time::Duration;

use apiserver::audit::{AuditOptions, LogOptions};
use apiserver::authentication::keys::SigningKey;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::Cluster;
use common::tokens::{ACCOUNTS, WHO, account, key, signed_by, who};
use serde_json::{Value, json};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const JANE: Option<&str> = Some("system:serviceaccount:default:jane");

/// A token of an account as the controller makes it, without putting it anywhere.
async fn made(cluster: &Cluster, key: &SigningKey, account: &str, secret: &str) -> String {
    let account = cluster.admin("GET", &format!("{ACCOUNTS}/{account}"), Value::Null).await.body;
    let name = account["metadata"]["name"].as_str().unwrap();
    key.sign(&json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:default:{name}"),
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
    }))
    .unwrap()
}

async fn put(cluster: &Cluster, account: &str, name: &str, token: &str) {
    let secret = json!({
        "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token", "data": {"token": BASE64_STANDARD.encode(token)},
    });
    let answer = cluster.admin("POST", SECRETS, secret).await;
    assert_eq!(answer.code, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_while_its_secret_and_its_account_are() {
    let key = key();
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("audit.log");
    let policy = folder.path().join("policy");
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
        .unwrap();
    let sign = signed_by(&key, &[]);
    let path = events.display().to_string();
    let cluster = Cluster::start_in(folder, move |config| {
        sign(config);
        let log = Some(LogOptions { path, ..LogOptions::default() });
        config.requests.audit = AuditOptions { policy_file: Some(policy), log };
    })
    .await;
    account(&cluster, "jane").await;
    let token = made(&cluster, &key, "jane", "s").await;
    assert_eq!(who(&cluster, &token).await, None, "no secret holds it");
    put(&cluster, "jane", "s", &token).await;
    assert_eq!(who(&cluster, &token).await.as_deref(), JANE);
    let other = made(&cluster, &key, "jane", "t").await;
    put(&cluster, "jane", "t", &token).await;
    assert_eq!(who(&cluster, &other).await, None, "the secret holds another");
    let forged = made(&cluster, &common::tokens::key(), "jane", "s").await;
    assert_eq!(who(&cluster, &forged).await, None, "signed by somebody else");

    // each use leaves its day
    let today = chrono::Utc::now();
    let days = [today, today - chrono::TimeDelta::hours(1)].map(|time| time.format("%Y-%m-%d").to_string());
    let noted = async {
        loop {
            let secret = cluster.admin("GET", &format!("{SECRETS}/s"), Value::Null).await.body;
            let label = secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
            if let Some(day) = label.as_str() {
                assert!(days.iter().any(|one| one == day), "{day}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noted).await.expect("in time");
    cluster.server.audit.clone().unwrap().flush().await;
    let audited = std::fs::read_to_string(&events).unwrap();
    assert!(audited.contains(r#""authentication.k8s.io/legacy-token-manual-secret":"s""#), "{audited}");

    // one of those that controllers once made
    let named = json!({"secrets": [{"name": "s"}]});
    assert_eq!(cluster.admin("PATCH", &format!("{ACCOUNTS}/jane"), named).await.code, 200);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let warned = cluster.with_token(&token, "POST", WHO, review).await;
    assert!(
        warned.warnings().iter().any(|line| line.contains("auto-generated secret-based tokens")),
        "{warned:?}"
    );

    let invalid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    assert_eq!(cluster.admin("PATCH", &format!("{SECRETS}/s"), invalid).await.code, 200);
    assert_eq!(who(&cluster, &token).await, None, "marked invalid");
    let valid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}});
    assert_eq!(cluster.admin("PATCH", &format!("{SECRETS}/s"), valid).await.code, 200);
    assert_eq!(who(&cluster, &token).await.as_deref(), JANE);

    let review = json!({"spec": {"token": token, "audiences": ["vault"]}});
    let review = cluster.admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(review.body["status"].get("authenticated"), None, "{review:?}");

    // an account of the same name is another account
    assert_eq!(cluster.admin("DELETE", &format!("{ACCOUNTS}/jane"), Value::Null).await.code, 200);
    assert_eq!(who(&cluster, &token).await, None);
    account(&cluster, "jane").await;
    assert_eq!(who(&cluster, &token).await, None);
    assert_eq!(cluster.admin("DELETE", &format!("{SECRETS}/s"), Value::Null).await.code, 200);
    assert_eq!(who(&cluster, &token).await, None);
}
