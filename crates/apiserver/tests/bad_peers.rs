//! What can be no good about those who ask and those who are asked: refused, logged once, audited. One after the other and
//! alone in their process, which has one log.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use apiserver::Config;
use apiserver::audit::{AuditOptions, LogOptions};
use apiserver::authentication::keys::SigningKey;
use apiserver::authentication::{Anonymous, PeerCertificates};
use apiserver::http::{body, chain};
use apiserver::pki::{Pki, Profile};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::hook::{Does, Hook, allows, patches};
use common::tokens::{ACCOUNTS, WHO, account, claims, key, signed_by, token, who};
use common::{Cluster, pki_options};
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

/// Whose turn it is with the log.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn logged() -> String {
    String::from_utf8(log().lock().unwrap().clone()).unwrap()
}

/// A policy that records everything, and where.
fn audited(folder: &Path) -> (AuditOptions, PathBuf) {
    let (policy, events) = (folder.join("policy"), folder.join("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
        .unwrap();
    let log = LogOptions { path: events.display().to_string(), ..LogOptions::default() };
    (AuditOptions { policy_file: Some(policy), log: Some(log) }, events)
}

/// The last event that was recorded.
async fn last_event(cluster: &Cluster, events: &Path) -> Value {
    cluster.server.audit.clone().unwrap().flush().await;
    let recorded = std::fs::read_to_string(events).unwrap();
    let last = serde_json::from_str(recorded.lines().last().unwrap()).unwrap();
    std::fs::write(events, "").unwrap();
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_logged_once_and_audited() {
    let _turn = TURN.lock().await;
    let log = log();
    let folder = tempfile::tempdir().unwrap();
    let (audit, events) = audited(folder.path());
    let signing = key();
    let signing_pem = rcgen::KeyPair::generate().unwrap();
    let forger = jsonwebtoken::EncodingKey::from_ec_pem(signing_pem.serialize_pem().as_bytes()).unwrap();
    let ours = SigningKey::from_private_pem(signing_pem.serialize_pem().as_bytes()).unwrap();
    let change = {
        let apply = signed_by(&signing, &[&ours]);
        move |config: &mut Config| {
            apply(config);
            config.requests.audit = audit;
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
        let text = logged();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("Unable to authenticate the request")).collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{name}: {text}");
        assert!(
            !text.contains(token.rsplit('.').next().filter(|end| end.len() > 9).unwrap_or("\u{0}")),
            "no token in it"
        );
        let last = last_event(&cluster, &events).await;
        assert_eq!(last["responseStatus"]["code"], 401, "{name}: {last}");
        let message = "Authentication failed, attempted: bearer";
        assert_eq!(last["responseStatus"]["message"], message, "{name}");
    }
    // the account comes again under its name, and is another one
    assert_eq!(cluster.admin("DELETE", &format!("{ACCOUNTS}/jane"), Value::Null).await.code, 200);
    assert_eq!(who(&cluster, &good).await, None, "gone");
    account(&cluster, "jane").await;
    log.lock().unwrap().clear();
    assert_eq!(who(&cluster, &good).await, None, "recreated");
    let text = logged();
    assert!(text.contains("does not match claim"), "{text}");
    assert!(who(&cluster, &token(&cluster, "jane", json!({})).await).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_strangers_are_refused_logged_once_and_audited() {
    let _turn = TURN.lock().await;
    let log = log();
    let folder = tempfile::tempdir().unwrap();
    let (audit, events) = audited(folder.path());
    let cluster = Cluster::start_in(folder, |config| config.requests.audit = audit).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Pki::load_or_create(pki_options(elsewhere.path())).unwrap();
    let jane = Profile::client("jane", &["system:masters"]);
    let ask = async |certificates: &[rustls::pki_types::CertificateDer<'static>]| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let request = http::Request::post(WHO)
            .header("content-type", "application/json")
            .extension(PeerCertificates::new(certificates).unwrap())
            .body(body::full(review.to_string().into_bytes()))
            .unwrap();
        chain::handle(cluster.server.clone(), request).await.status().as_u16()
    };
    assert_eq!(ask(&cluster.pki.issue(&jane).unwrap().certificates().unwrap()).await, 201);
    let garbage = vec![rustls::pki_types::CertificateDer::from(vec![0x30, 3, 2, 1, 1])];
    let cases = [
        ("unknown authority", stranger.issue(&jane).unwrap().certificates().unwrap()),
        ("a server's", cluster.pki.apiserver.certificates().unwrap()),
        ("no certificate", garbage),
    ];
    for (name, certificates) in cases {
        log.lock().unwrap().clear();
        assert_eq!(ask(&certificates).await, 401, "{name}");
        let text = logged();
        let lines = text.lines().filter(|line| line.contains("Unable to authenticate the request: x509: "));
        assert_eq!((lines.count(), text.lines().count()), (1, 1), "{name}: {text}");
        let last = last_event(&cluster, &events).await;
        assert_eq!(last["responseStatus"]["code"], 401, "{name}: {last}");
        assert_eq!(last["responseStatus"]["message"], "Authentication failed, attempted: x509", "{name}");
        assert_eq!(last["user"], json!({}), "{name}: nobody is named: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_bad_webhooks_keep_from_happening_are_refused_logged_once_and_audited() {
    let _turn = TURN.lock().await;
    let log = log();
    let folder = tempfile::tempdir().unwrap();
    let (audit, events) = audited(folder.path());
    let cluster = Cluster::start_in(folder, |config| config.requests.audit = audit).await;
    let hook = Hook::start(&cluster.pki, |path, _| match path {
        "/hangs" => Does::Hangs,
        "/dies" => Does::Dies,
        "/garbage" => Does::Says(200, "<html>".into()),
        "/absent" => patches(json!([{"op": "remove", "path": "/data/absent"}])),
        "/type" => match patches(json!([{"op": "add", "path": "/data", "value": {}}])) {
            Does::Answers(mut answer) => {
                answer["patchType"] = json!("Other");
                Does::Answers(answer)
            }
            other => other,
        },
        _ => allows(),
    })
    .await;
    let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["hangs", "dies", "garbage", "absent", "type"] {
        let mut webhook = hook.webhook("bad.example.com", &format!("/{name}"));
        webhook["timeoutSeconds"] = json!(1);
        let configuration = json!({"metadata": {"name": name}, "webhooks": [webhook]});
        assert_eq!(cluster.admin("POST", configurations, configuration).await.code, 201, "{name}");
        log.lock().unwrap().clear();
        let refused = cluster.admin("POST", maps, json!({"metadata": {"name": name}})).await;
        assert_eq!(
            (refused.code.as_u16(), &refused.body["reason"]),
            (500, &json!("InternalError")),
            "{name}"
        );
        let text = logged();
        assert_eq!(text.lines().filter(|line| line.contains("bad.example.com")).count(), 1, "{name}: {text}");
        let last = last_event(&cluster, &events).await;
        assert_eq!(last["objectRef"]["resource"], "configmaps", "{name}: {last}");
        assert_eq!(last["responseStatus"]["code"], 500, "{name}: {last}");
        assert_eq!(last["responseStatus"]["message"].as_str(), Some(refused.message()), "{name}");
        let uri = format!("{configurations}/{name}");
        assert_eq!(cluster.admin("DELETE", &uri, Value::Null).await.code, 200, "{name}");
        assert_eq!(cluster.admin("GET", &format!("{maps}/{name}"), Value::Null).await.code, 404, "{name}");
    }
}
