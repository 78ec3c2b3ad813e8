//! All the ways in which a service account's token can be no good: refused, logged once, audited. Alone in its process,
//! which has one log.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use apiserver::Config;
use apiserver::audit::{AuditOptions, LogOptions};
use apiserver::authentication::Anonymous;
use apiserver::authentication::keys::SigningKey;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::Cluster;
use common::tokens::{ACCOUNTS, account, claims, key, signed_by, token, who};
use serde_json::{Value, json};

/// What the log of this process says.
fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let shared = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || Shared(shared.clone()))
            .init();
        log
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_logged_once_and_audited() {
    let log = log();
    let folder = tempfile::tempdir().unwrap();
    let (policy, events) = (folder.path().join("policy"), folder.path().join("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
        .unwrap();
    let signing = key();
    let signing_pem = rcgen::KeyPair::generate().unwrap();
    let forger = jsonwebtoken::EncodingKey::from_ec_pem(signing_pem.serialize_pem().as_bytes()).unwrap();
    let ours = SigningKey::from_private_pem(signing_pem.serialize_pem().as_bytes()).unwrap();
    let change = {
        let path = events.display().to_string();
        let apply = signed_by(&signing, &[&ours]);
        move |config: &mut Config| {
            apply(config);
            let log = Some(LogOptions { path, ..LogOptions::default() });
            config.requests.audit = AuditOptions { policy_file: Some(policy), log };
            config.authentication.anonymous = Anonymous::Nowhere;
        }
    };
    let cluster = Cluster::start_in(folder, change).await;
    account(&cluster, "jane").await;
    let good = token(&cluster, "jane", json!({})).await;
    assert!(who(&cluster, &good).await.is_some());
    let elsewhere = token(&cluster, "jane", json!({"audiences": ["vault"]})).await;
    let base = claims(&good);
    let make = |header: Value, changes: Value| {
        let mut claims = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&header), part(&claims))
    };
    let sign_as = |id: &str, changes: Value| {
        let message = make(json!({"alg": "ES256", "kid": id}), changes);
        let algorithm = jsonwebtoken::Algorithm::ES256;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &forger, algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let sign = |changes: Value| sign_as(ours.public().key_id(), changes);
    assert!(who(&cluster, &sign(json!({}))).await.is_some(), "what is made here is good but for one thing");
    let now = base["iat"].as_i64().unwrap();
    let id = signing.public().key_id();
    let cases = [
        ("expired", sign(json!({"exp": now - 3600})), "service account token has expired"),
        ("early", sign(json!({"nbf": now + 3600})), "service account token is not valid yet"),
        ("audience", elsewhere, "is invalid for the target audiences"),
        ("forged", sign_as(id, json!({})), "InvalidSignature"),
        (
            "none",
            format!("{}.", make(json!({"alg": "none", "kid": id}), json!({}))),
            "unknown variant `none`",
        ),
        (
            "secret",
            {
                let message = make(json!({"alg": "HS256", "kid": id}), json!({}));
                let secret = jsonwebtoken::EncodingKey::from_secret(id.as_bytes());
                let algorithm = jsonwebtoken::Algorithm::HS256;
                let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, algorithm).unwrap();
                format!("{message}.{signature}")
            },
            "InvalidAlgorithm",
        ),
        ("kid", sign_as("x", json!({})), "no keys found"),
        ("stranger", "not.a.token".to_owned(), "invalid bearer token"),
    ];
    for (name, token, why) in cases {
        log.lock().unwrap().clear();
        assert_eq!(who(&cluster, &token).await, None, "{name}");
        let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("Unable to authenticate the request")).collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{name}: {text}");
        assert!(
            !text.contains(token.rsplit('.').next().filter(|end| end.len() > 9).unwrap_or("\u{0}")),
            "no token in it"
        );
        cluster.server.audit.clone().unwrap().flush().await;
        let audited = std::fs::read_to_string(&events).unwrap();
        let last: Value = serde_json::from_str(audited.lines().last().unwrap()).unwrap();
        assert_eq!(last["responseStatus"]["code"], 401, "{name}: {last}");
        let message = "Authentication failed, attempted: bearer";
        assert_eq!(last["responseStatus"]["message"], message, "{name}");
        std::fs::write(&events, "").unwrap();
    }
    // the account comes again under its name, and is another one
    assert_eq!(cluster.admin("DELETE", &format!("{ACCOUNTS}/jane"), Value::Null).await.code, 200);
    assert_eq!(who(&cluster, &good).await, None, "gone");
    account(&cluster, "jane").await;
    log.lock().unwrap().clear();
    assert_eq!(who(&cluster, &good).await, None, "recreated");
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(text.contains("does not match claim"), "{text}");
    assert!(who(&cluster, &token(&cluster, "jane", json!({})).await).await.is_some());
}
