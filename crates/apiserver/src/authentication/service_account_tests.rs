//! Tokens made and checked, with the objects that they are bound to coming and going.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: i64 = 1_800_000_000;

#[derive(Default)]
struct World(Mutex<HashMap<String, Arc<Object>>>);

impl World {
    fn set(&self, kind: &str, namespace: &str, name: &str, uid: &str) -> Object {
        let metadata = json!({"namespace": namespace, "name": name, "uid": uid});
        let object = Object::from(json!({ "metadata": metadata }));
        self.0.lock().insert(format!("{kind}/{namespace}/{name}"), Arc::new(object.clone()));
        object
    }

    fn delete_at(&self, key: &str, seconds: i64) {
        let mut objects = self.0.lock();
        let mut object = (*objects[key]).clone();
        let time = DateTime::from_timestamp(seconds, 0).expect("a time").to_rfc3339();
        object.set(&["metadata", "deletionTimestamp"], time);
        objects.insert(key.to_owned(), Arc::new(object));
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.lock().get(&format!("{kind}/{namespace}/{name}")).cloned()
    }
}

impl TokenGetter for World {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("sa", namespace, name)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("pod", namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get("secret", namespace, name)
    }

    fn node(&self, name: &str) -> Option<Arc<Object>> {
        self.get("node", "", name)
    }
}

fn ec_key() -> SigningKey {
    let pair = rcgen::KeyPair::generate().expect("a key");
    SigningKey::from_pem(pair.serialize_pem().as_bytes(), pair.public_key_pem().as_bytes()).expect("a key")
}

fn rsa_key() -> SigningKey {
    let (private, public) = (include_bytes!("testdata/rsa.key"), include_bytes!("testdata/rsa.pub"));
    SigningKey::from_pem(private, public).expect("a key")
}

struct Setup {
    world: Arc<World>,
    issuer: TokenIssuer,
    tokens: ServiceAccountTokens,
    account: Object,
}

fn setup(key: SigningKey) -> Setup {
    let world = Arc::new(World::default());
    let account = world.set("sa", "ns", "bot", "sa-uid");
    let audiences = vec![ISSUER.to_owned()];
    let keys = [key.public().clone(), ec_key().public().clone()];
    let tokens = ServiceAccountTokens::new(vec![ISSUER.into()], keys, audiences.clone(), world.clone());
    Setup { world, issuer: TokenIssuer::new(ISSUER, key, audiences, true), tokens, account }
}

impl Setup {
    fn issue(&self, bound_to: Option<BoundObject<'_>>, audiences: &[&str], seconds: i64) -> IssuedToken {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        let request = TokenRequest {
            service_account: &self.account,
            bound_to,
            audiences: &audiences,
            expiration_seconds: seconds,
        };
        self.issuer.issue_at(&request, NOW).expect("a token")
    }

    fn check(&self, token: &str, at: i64) -> Result<Option<Authenticated>, String> {
        self.tokens.authenticate_at(token, &[], at)
    }

    fn error(&self, token: &str, at: i64) -> String {
        self.check(token, at).expect_err("not good")
    }
}

fn payload(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("JSON")
}

#[test]
fn claims_are_upstreams() {
    let setup = setup(ec_key());
    let mut pod = setup.world.set("pod", "ns", "web", "pod-uid");
    pod.set(&["spec", "nodeName"], "n1");
    let node = setup.world.set("node", "", "n1", "node-uid");
    let bound = BoundObject::Pod { pod: &pod, node: Some(&node) };
    let issued = setup.issue(Some(bound), &[], WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS);
    assert_eq!(issued.expiration, NOW + WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS);
    let mut claims = payload(&issued.token);
    let jti = claims.as_object_mut().expect("a map").remove("jti").expect("an id");
    assert_eq!(issued.credential_id, format!("JTI={}", jti.as_str().expect("text")));
    assert_eq!(
        claims,
        json!({
            "aud": [ISSUER],
            "exp": NOW + EXPIRATION_EXTENSION_SECONDS,
            "iat": NOW,
            "iss": ISSUER,
            "kubernetes.io": {
                "namespace": "ns",
                "node": {"name": "n1", "uid": "node-uid"},
                "pod": {"name": "web", "uid": "pod-uid"},
                "serviceaccount": {"name": "bot", "uid": "sa-uid"},
                "warnafter": NOW + WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS,
            },
            "nbf": NOW,
            "sub": "system:serviceaccount:ns:bot",
        })
    );
    let header = jsonwebtoken::decode_header(&issued.token).expect("a header");
    assert_eq!(header.kid.as_deref(), Some(setup.issuer.key.public().key_id()));
    assert_eq!(header.typ, None);
    // Neither extended nor warned of: another lifetime, another audience, no pod.
    for (bound, audiences, seconds) in [
        (Some(bound), vec![], 600),
        (Some(bound), vec!["vault"], WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS),
        (None, vec![], WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS),
    ] {
        let claims = payload(&setup.issue(bound, &audiences, seconds).token);
        assert_eq!(claims["exp"], NOW + seconds);
        assert!(claims["kubernetes.io"].get("warnafter").is_none());
    }
}

#[test]
fn good_tokens_tell_who_and_where() {
    for key in [ec_key(), rsa_key()] {
        let setup = setup(key);
        let mut pod = setup.world.set("pod", "ns", "web", "pod-uid");
        pod.set(&["spec", "nodeName"], "n1");
        let bound = BoundObject::Pod { pod: &pod, node: None };
        let token = setup.issue(Some(bound), &[], 600).token;
        let found = setup.check(&token, NOW).expect("good").expect("ours");
        assert_eq!(found.user.name, "system:serviceaccount:ns:bot");
        assert_eq!(found.user.uid, "sa-uid");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"];
        assert_eq!(found.user.groups, groups);
        assert_eq!(found.audiences, [ISSUER]);
        assert_eq!(found.user.extra[POD_NAME_KEY], ["web"]);
        assert_eq!(found.user.extra[POD_UID_KEY], ["pod-uid"]);
        assert_eq!(found.user.extra[NODE_NAME_KEY], ["n1"]);
        assert!(!found.user.extra.contains_key(NODE_UID_KEY));
        assert!(found.user.extra[CREDENTIAL_ID_KEY][0].starts_with("JTI="));
    }
}

#[test]
fn tokens_end_with_their_time() {
    let setup = setup(ec_key());
    let token = setup.issue(None, &[], 600).token;
    assert!(setup.check(&token, NOW + 600 + LEEWAY).is_ok());
    assert_eq!(setup.error(&token, NOW + 601 + LEEWAY), "service account token has expired");
    assert!(setup.check(&token, NOW - LEEWAY).is_ok());
    assert_eq!(setup.error(&token, NOW - LEEWAY - 1), "service account token is not valid yet");
}

#[test]
fn tokens_end_with_what_they_are_bound_to() {
    let setup = setup(ec_key());
    let pod = setup.world.set("pod", "ns", "web", "pod-uid");
    let secret = setup.world.set("secret", "ns", "s", "secret-uid");
    let node = setup.world.set("node", "", "n1", "node-uid");
    let tokens = [
        ("pod/ns/web", setup.issue(Some(BoundObject::Pod { pod: &pod, node: None }), &[], 6000).token),
        ("secret/ns/s", setup.issue(Some(BoundObject::Secret(&secret)), &[], 6000).token),
        ("node//n1", setup.issue(Some(BoundObject::Node(&node)), &[], 6000).token),
    ];
    const INVALIDATED: &str = "service account token has been invalidated";
    for (key, token) in &tokens {
        assert!(setup.check(token, NOW).is_ok(), "{key}");
        setup.world.delete_at(key, NOW);
        assert!(setup.check(token, NOW + LEEWAY).is_ok(), "{key} was just deleted");
        assert_eq!(setup.error(token, NOW + LEEWAY + 1), INVALIDATED, "{key}");
        let mut parts = key.split('/');
        let (kind, namespace, name) = (parts.next(), parts.next(), parts.next());
        let (kind, namespace, name) = (kind.expect("kind"), namespace.expect("ns"), name.expect("name"));
        setup.world.set(kind, namespace, name, "other-uid");
        let expected =
            format!("{kind} UID (other-uid) does not match service account {kind} ref claim ({kind}-uid)");
        assert_eq!(setup.error(token, NOW), expected);
        setup.world.0.lock().remove(*key);
        assert_eq!(setup.error(token, NOW), INVALIDATED, "{key}");
    }
    let token = setup.issue(None, &[], 6000).token;
    setup.world.set("sa", "ns", "bot", "new-uid");
    assert_eq!(setup.error(&token, NOW), "service account UID (new-uid) does not match claim (sa-uid)");
    setup.world.0.lock().remove("sa/ns/bot");
    assert_eq!(setup.error(&token, NOW), "serviceaccounts \"bot\" not found");
}

#[test]
fn audiences_have_to_meet() {
    let setup = setup(ec_key());
    let token = setup.issue(None, &["vault", "api"], 600).token;
    let ask = |audiences: &[&str]| {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        setup.tokens.authenticate_at(&token, &audiences, NOW).map(|found| found.expect("ours").audiences)
    };
    assert_eq!(ask(&["api", "other"]), Ok(vec!["api".to_owned()]));
    assert_eq!(
        ask(&[]),
        Err(format!("token audiences [\"vault\", \"api\"] is invalid for the target audiences [{ISSUER:?}]"))
    );
}

#[test]
fn forgeries_are_refused() {
    let setup = setup(ec_key());
    let token = setup.issue(None, &[], 600).token;
    let mut parts: Vec<&str> = token.split('.').collect();
    let mut claims = payload(&token);
    claims["sub"] = json!("system:serviceaccount:kube-system:root");
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    parts[1] = &changed;
    assert!(setup.check(&parts.join("."), NOW).is_err(), "changed claims");
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let forged = format!("{unsigned}.{}.", token.split('.').nth(1).expect("claims"));
    assert!(setup.check(&forged, NOW).is_err(), "no signature");
    let stranger = super::tests::setup(ec_key());
    let foreign = stranger.issue(None, &[], 600).token;
    assert_eq!(setup.error(&foreign, NOW), "invalid signature, no keys found");
    // Not ours to judge.
    let other = TokenIssuer::new("https://other", ec_key(), vec![], false);
    let request = TokenRequest {
        service_account: &setup.account,
        bound_to: None,
        audiences: &["x".into()],
        expiration_seconds: 600,
    };
    let other = other.issue_at(&request, NOW).expect("a token").token;
    for token in [other.as_str(), "abc", "a.b.c", "", "{}.{}.{}"] {
        assert_eq!(setup.check(token, NOW), Ok(None), "{token}");
    }
}

#[test]
fn stale_tokens_are_noted() {
    let setup = setup(ec_key());
    let pod = setup.world.set("pod", "ns", "web", "pod-uid");
    let bound = BoundObject::Pod { pod: &pod, node: None };
    let token = setup.issue(Some(bound), &[], WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS).token;
    let notes = |at: i64| setup.check(&token, at).expect("good").expect("ours").audit_annotations;
    let threshold = NOW + WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS;
    assert_eq!(notes(threshold), []);
    let text = "subject: system:serviceaccount:ns:bot, seconds after warning threshold: 5".to_owned();
    assert_eq!(notes(threshold + 5), [("authentication.k8s.io/stale-token", text)]);
}
