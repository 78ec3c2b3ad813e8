//! Tokens of an issuer that runs here, over TLS.

use std::sync::atomic::AtomicUsize;

use jsonwebtoken::{EncodingKey, Header};
use p521::ecdsa::signature::Signer;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pki::Pki;
use crate::testing::https::{Asked, Https, Says};
use crate::testing::{self};

const RSA: &str = include_str!("../testdata/rsa.key");
const QUICK: Duration = Duration::from_millis(20);

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

/// A key pair with the JWK of its public half.
#[derive(Clone)]
struct Pair {
    id: String,
    encoding: EncodingKey,
    jwk: Value,
}

impl Pair {
    fn ec(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key");
        Self::new(
            id,
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
            jsonwebtoken::Algorithm::ES256,
        )
    }

    fn rsa(id: &str) -> Self {
        Self::new(id, EncodingKey::from_rsa_pem(RSA.as_bytes()), jsonwebtoken::Algorithm::RS256)
    }

    fn new(
        id: &str,
        encoding: jsonwebtoken::errors::Result<EncodingKey>,
        algorithm: jsonwebtoken::Algorithm,
    ) -> Self {
        let encoding = encoding.expect("a key");
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&encoding, algorithm).expect("a JWK");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!(id);
        Self { id: id.to_owned(), encoding, jwk }
    }

    fn sign(&self, algorithm: jsonwebtoken::Algorithm, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding).expect("a token")
    }
}

/// What the issuer does beyond serving its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Hangs,
    Dies,
    Garbage,
    Failing,
    Impostor,
    NoKeys,
}

struct World {
    _folder: TempDir,
    pki: Pki,
    server: Https,
    keys: Arc<Mutex<Vec<Value>>>,
    mood: Arc<Mutex<Mood>>,
    key_fetches: Arc<AtomicUsize>,
}

impl World {
    async fn new(keys: &[&Pair]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = testing::pki(folder.path());
        let serving = testing::serving(&pki);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let keys = Arc::new(Mutex::new(keys.iter().map(|pair| pair.jwk.clone()).collect::<Vec<_>>()));
        let mood = Arc::new(Mutex::new(Mood::Well));
        let key_fetches = Arc::new(AtomicUsize::new(0));
        let (shown, felt, counted) = (keys.clone(), mood.clone(), key_fetches.clone());
        let does = move |asked: &Asked| {
            let issuer = if *felt.lock() == Mood::Impostor { "https://other.example" } else { url.as_str() };
            match (*felt.lock(), asked.path.as_str()) {
                (Mood::Hangs, _) => Says::Hangs,
                (Mood::Dies, _) => Says::Dies,
                (Mood::Garbage, _) => Says::Text(200, "<html>".into()),
                (Mood::Failing, _) => Says::Text(500, "out of order".into()),
                (Mood::NoKeys, _) => Says::Json(json!({"issuer": issuer})),
                (_, "/.well-known/openid-configuration" | "/elsewhere") => {
                    Says::Json(json!({"issuer": issuer, "jwks_uri": format!("{url}/keys")}))
                }
                (_, "/keys") => {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Says::Json(json!({"keys": *shown.lock()}))
                }
                _ => Says::Text(404, "no such thing".into()),
            }
        };
        let (certificates, key) = (serving.certificates().expect("some"), serving.key().expect("a key"));
        let server = Https::start_on(listener, certificates, key, None, does);
        Self { _folder: folder, pki, server, keys, mood, key_fetches }
    }

    fn config(&self) -> JwtAuthenticatorConfig {
        let claim = |claim: &str, prefix: &str| PrefixedClaim {
            claim: claim.into(),
            prefix: Some(prefix.into()),
            ..PrefixedClaim::default()
        };
        JwtAuthenticatorConfig {
            issuer: Issuer {
                url: self.server.url(""),
                certificate_authority: self.pki.ca_pem().to_owned(),
                audiences: vec!["app".into()],
                ..Issuer::default()
            },
            claim_mappings: ClaimMappings {
                username: claim("sub", "o:"),
                groups: claim("groups", "g:"),
                uid: config::Claim { claim: "uid".into(), ..Default::default() },
                extra: Vec::new(),
            },
            ..JwtAuthenticatorConfig::default()
        }
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.server.url(""), "sub": "jane", "aud": "app", "exp": now().timestamp() + 600,
            "groups": ["devs", "ops"], "uid": "7", "jti": "id-1",
        })
    }
}

/// An authenticator whose issuer has answered.
async fn ready(config: JwtAuthenticatorConfig) -> JwtAuthenticator {
    let authenticator = JwtAuthenticator::new(config, Algorithm::all()).expect("an authenticator");
    authenticator.initialize(QUICK).await;
    authenticator
}

#[tokio::test]
async fn a_good_token_says_who_it_is() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let authenticator = ready(world.config()).await;
    let token = key.sign(jsonwebtoken::Algorithm::ES256, &world.claims());
    let user = authenticator.authenticate_at(&token, now()).await.expect("good").expect("of this issuer");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("o:jane", "7"));
    assert_eq!(user.groups, ["g:devs", "g:ops"]);
    assert_eq!(user.extra[CREDENTIAL_ID_KEY], ["JTI=id-1"]);
    // keys are kept
    for _ in 0..3 {
        assert!(authenticator.authenticate_at(&token, now()).await.is_ok());
    }
    assert_eq!(world.key_fetches.load(std::sync::atomic::Ordering::SeqCst), 1);
    let mut of_others = world.claims();
    of_others["iss"] = json!("https://other.example");
    for token in [key.sign(jsonwebtoken::Algorithm::ES256, &of_others), "x".into(), "a.b.c".into()] {
        assert_eq!(authenticator.authenticate_at(&token, now()).await, Ok(None));
    }
}

#[tokio::test]
async fn all_of_upstreams_algorithms_do_and_no_other() {
    use jsonwebtoken::Algorithm::{ES256, ES384, HS256, PS256, PS384, PS512, RS256, RS384, RS512};
    let (rsa, ec) = (Pair::rsa("r"), Pair::ec("e"));
    let ec384 = {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        Pair::new("e384", EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()), ES384)
    };
    let p521 = p521::ecdsa::SigningKey::from_slice(&[7; 66].map(|b: u8| b & 1)).expect("a key");
    let world = World::new(&[&rsa, &ec, &ec384]).await;
    let point = p521::ecdsa::VerifyingKey::from(&p521).to_encoded_point(false);
    let coordinate = |bytes: Option<&p521::FieldBytes>| URL_SAFE_NO_PAD.encode(bytes.expect("a point"));
    world.keys.lock().push(json!({
        "kty": "EC", "crv": "P-521", "kid": "e521", "x": coordinate(point.x()), "y": coordinate(point.y()),
    }));
    world.keys.lock().push(json!({"kty": "new", "kid": "unheard of"}));
    let authenticator = ready(world.config()).await;
    let claims = world.claims();
    for (pair, algorithm) in [
        (&rsa, RS256),
        (&rsa, RS384),
        (&rsa, RS512),
        (&rsa, PS256),
        (&rsa, PS384),
        (&rsa, PS512),
        (&ec, ES256),
        (&ec384, ES384),
    ] {
        let found = authenticator.authenticate_at(&pair.sign(algorithm, &claims), now()).await;
        assert!(matches!(found, Ok(Some(_))), "{algorithm:?}: {found:?}");
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |algorithm: &str, kid: &str| {
        format!("{}.{}", encode(&json!({"alg": algorithm, "kid": kid})), encode(&claims))
    };
    let message = unsigned("ES512", "e521");
    let signature: p521::ecdsa::Signature = p521.sign(message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()));
    assert!(matches!(authenticator.authenticate_at(&token, now()).await, Ok(Some(_))));

    let refused =
        async |token: String| authenticator.authenticate_at(&token, now()).await.expect_err("refused");
    let expected = r#"expected ["ES256" "ES384" "ES512" "PS256" "PS384" "PS512" "RS256" "RS384" "RS512"]"#;
    let why = |got: &str| {
        format!(
            "oidc: verify token: oidc: id token signed with unsupported algorithm, {expected} got {got:?}"
        )
    };
    assert_eq!(refused(format!("{}.", unsigned("none", "e"))).await, why("none"));
    // the public key taken for a secret
    let secret = EncodingKey::from_secret(rsa.jwk["n"].as_str().expect("text").as_bytes());
    let mut header = Header::new(HS256);
    header.kid = Some("r".into());
    let forged = jsonwebtoken::encode(&header, &claims, &secret).expect("a token");
    assert_eq!(refused(forged).await, why("HS256"));
    assert_eq!(refused(format!("{}.AAAA", unsigned("EdDSA", "e"))).await, why("EdDSA"));
    let bad = "oidc: verify token: failed to verify signature: failed to verify id token signature";
    for (algorithm, kid) in
        [("ES256", "r"), ("RS256", "e"), ("ES512", "e"), ("ES384", "e"), ("ES256", "e521")]
    {
        assert_eq!(refused(format!("{}.AAAA", unsigned(algorithm, kid))).await, bad, "{algorithm} {kid}");
    }
    let narrow = JwtAuthenticator::new(world.config(), vec![Algorithm::parse("RS256").expect("known")]);
    let narrow = narrow.expect("an authenticator");
    narrow.initialize(QUICK).await;
    let error = narrow.authenticate_at(&ec.sign(ES256, &claims), now()).await.expect_err("refused");
    assert!(error.ends_with("expected [\"RS256\"] got \"ES256\""), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_in_upstreams_words() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let mut config = world.config();
    config.claim_validation_rules = vec![ClaimValidationRule {
        claim: "hd".into(),
        required_value: "example.com".into(),
        ..ClaimValidationRule::default()
    }];
    let authenticator = ready(config).await;
    let base = {
        let mut claims = world.claims();
        claims["hd"] = json!("example.com");
        claims
    };
    let with = |changes: Value| {
        let mut claims = base.clone();
        for (name, value) in changes.as_object().expect("a map") {
            match value {
                Value::String(text) if text == "absent" => {
                    claims.as_object_mut().expect("a map").remove(name);
                }
                value => claims[name] = value.clone(),
            }
        }
        claims
    };
    let at = now().timestamp();
    let expiry = "2027-01-15 07:59:59 +0000 UTC";
    let cases: Vec<(Value, Option<String>)> = vec![
        (json!({}), None),
        (json!({"aud": ["x", "app"]}), None),
        (json!({"groups": "one"}), None),
        (json!({"groups": "absent"}), None),
        (json!({"nbf": at + 59}), None),
        (json!({"exp": 1.8e9 + 0.5}), None),
        (
            json!({"exp": at - 1}),
            Some(format!("verify token: oidc: token is expired (Token Expiry: {expiry})")),
        ),
        (
            json!({"exp": "absent"}),
            Some("verify token: oidc: token is expired (Token Expiry: 0001-01-01 00:00:00 +0000 UTC)".into()),
        ),
        (
            json!({"nbf": at + 61}),
            Some("verify token: oidc: current time 2027-01-15 08:00:00 +0000 UTC before the nbf (not before) time: 2027-01-15 08:01:01 +0000 UTC".into()),
        ),
        (json!({"aud": "x"}), Some("verify token: oidc: expected audience \"app\" got [\"x\"]".into())),
        (json!({"aud": "absent"}), Some("verify token: oidc: expected audience \"app\" got []".into())),
        (json!({"sub": "absent"}), Some("parse username claims \"sub\": claim not present".into())),
        (
            json!({"sub": 7}),
            Some("parse username claims \"sub\": json: cannot unmarshal number into Go value of type string".into()),
        ),
        (
            json!({"groups": {"a": 1}}),
            Some("parse groups claim \"groups\": json: cannot unmarshal object into Go value of type string".into()),
        ),
        (json!({"uid": "absent"}), Some("parse uid claim \"uid\": claim not present".into())),
        (json!({"hd": "absent"}), Some("required claim hd not present in ID token".into())),
        (
            json!({"hd": "evil"}),
            Some("required claim hd value does not match. Got = evil, want = example.com".into()),
        ),
        (
            json!({"groups": "absent", "_claim_names": {"groups": "src1"}}),
            Some("could not expand distributed claims: they are not supported".into()),
        ),
    ];
    for (changes, wanted) in cases {
        let token = key.sign(jsonwebtoken::Algorithm::ES256, &with(changes.clone()));
        let found = authenticator.authenticate_at(&token, now()).await;
        assert_eq!(found.as_ref().err().cloned(), wanted.map(|why| format!("oidc: {why}")), "{changes}");
    }
    let mut several = world.config();
    several.issuer.audiences = vec!["b".into(), "a".into()];
    let token = key.sign(jsonwebtoken::Algorithm::ES256, &base);
    let error = ready(several).await.authenticate_at(&token, now()).await.expect_err("refused");
    assert_eq!(error, r#"oidc: verify token: oidc: expected audience in ["a" "b"] got ["app"]"#);
}

#[tokio::test]
async fn addresses_have_to_be_verified() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let mut config = world.config();
    config.claim_mappings.username.claim = "email".into();
    let authenticator = ready(config).await;
    for (verified, wanted) in [
        (None, Ok("o:jane@example.com")),
        (Some(json!(true)), Ok("o:jane@example.com")),
        (Some(json!(false)), Err("oidc: email not verified")),
        (
            Some(json!("true")),
            Err(
                "oidc: parse 'email_verified' claim: json: cannot unmarshal string into Go value of type bool",
            ),
        ),
    ] {
        let mut claims = world.claims();
        claims["email"] = json!("jane@example.com");
        if let Some(verified) = verified {
            claims["email_verified"] = verified;
        }
        let token = key.sign(jsonwebtoken::Algorithm::ES256, &claims);
        let found = authenticator.authenticate_at(&token, now()).await;
        let found = found.map(|user| user.expect("of this issuer").name);
        assert_eq!(found.as_deref().map_err(String::as_str), wanted);
    }
}

#[tokio::test]
async fn a_token_by_a_new_key_has_the_keys_fetched_again() {
    use std::sync::atomic::Ordering::SeqCst;
    let (old, new, forged) = (Pair::ec("old"), Pair::ec("new"), Pair::ec("old"));
    let world = World::new(&[&old]).await;
    let authenticator = ready(world.config()).await;
    let sign = |pair: &Pair| pair.sign(jsonwebtoken::Algorithm::ES256, &world.claims());
    assert!(authenticator.authenticate_at(&sign(&old), now()).await.is_ok());
    *world.keys.lock() = vec![new.jwk.clone()];
    assert!(authenticator.authenticate_at(&sign(&old), now()).await.is_ok(), "nothing made it look again");
    assert_eq!(world.key_fetches.load(SeqCst), 1);
    let token = sign(&new);
    let many = (0..8).map(|_| authenticator.authenticate_at(&token, now()));
    for found in futures::future::join_all(many).await {
        assert!(matches!(found, Ok(Some(_))), "{found:?}");
    }
    assert_eq!(world.key_fetches.load(SeqCst), 2, "those who wait share one fetch");
    let gone = authenticator.authenticate_at(&sign(&old), now()).await.expect_err("the key is gone");
    assert!(gone.ends_with("failed to verify id token signature"), "{gone}");
    assert!(authenticator.authenticate_at(&sign(&forged), now()).await.is_err());
    // an issuer that is gone does not make the keys that are known any worse
    *world.mood.lock() = Mood::Dies;
    assert!(authenticator.authenticate_at(&token, now()).await.is_ok());
    let error = authenticator.authenticate_at(&sign(&old), now()).await.expect_err("no keys to be had");
    assert!(error.contains("fetching keys oidc: get keys failed Get"), "{error}");
    for (mood, why) in [
        (Mood::Failing, "fetching keys oidc: get keys failed: 500 Internal Server Error out of order"),
        (Mood::Garbage, "fetching keys oidc: failed to decode keys"),
    ] {
        *world.mood.lock() = mood;
        let error = authenticator.authenticate_at(&sign(&old), now()).await.expect_err("no keys to be had");
        assert!(error.contains(why), "{error}");
    }
    assert!(authenticator.authenticate_at(&token, now()).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_not_there_is_waited_for_in_the_background() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let url = world.server.url("");
    let token = key.sign(jsonwebtoken::Algorithm::ES256, &world.claims());
    for (mood, why) in [
        (Mood::Garbage, "oidc: failed to decode provider discovery object"),
        (Mood::Failing, "500 Internal Server Error: out of order"),
        (Mood::Impostor, "oidc: issuer did not match the issuer returned by provider, expected"),
        (Mood::Dies, "EOF"),
        (Mood::NoKeys, "provider did not return JWKS URL"),
        (Mood::Hangs, "is not initialized"),
    ] {
        *world.mood.lock() = mood;
        let authenticator = Arc::new(JwtAuthenticator::new(world.config(), Algorithm::all()).expect("one"));
        let waiting = tokio::spawn({
            let authenticator = authenticator.clone();
            async move { authenticator.initialize(QUICK).await }
        });
        eventually(|| authenticator.health().is_err_and(|error| error.contains(why))).await;
        let health = authenticator.health().expect_err("not healthy");
        assert!(health.starts_with(&format!("oidc: authenticator for issuer {url:?} is not healthy: ")));
        assert_eq!(
            authenticator.authenticate_at(&token, now()).await,
            Err("oidc: authenticator not initialized".into()),
            "{mood:?}"
        );
        if mood == Mood::Hangs {
            waiting.abort();
            continue;
        }
        *world.mood.lock() = Mood::Well;
        waiting.await.expect("an end");
        assert!(matches!(authenticator.authenticate_at(&token, now()).await, Ok(Some(_))), "{mood:?}");
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let soon = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), soon).await.expect("in time");
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_no_issuer() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let other = testing::pki(tempfile::tempdir().expect("a folder").path());
    let mut config = world.config();
    config.issuer.certificate_authority = other.ca_pem().to_owned();
    let authenticator = JwtAuthenticator::new(config, Algorithm::all()).expect("an authenticator");
    let client = &authenticator.client;
    let error = RemoteKeys::discover(client, &world.server.url(""), "").await.err().expect("refused");
    assert!(error.ends_with("x509: certificate signed by unknown authority"), "{error}");
    let plain = world.server.url("").replace("https", "http");
    assert!(RemoteKeys::discover(client, &plain, "").await.is_err(), "never without TLS");
}

#[tokio::test]
async fn discovery_may_be_elsewhere() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let mut config = world.config();
    config.issuer.discovery_url = world.server.url("/elsewhere");
    let authenticator = ready(config).await;
    let token = key.sign(jsonwebtoken::Algorithm::ES256, &world.claims());
    assert!(matches!(authenticator.authenticate_at(&token, now()).await, Ok(Some(_))));
    assert!(world.server.asked().iter().all(|asked| !asked.path.contains("well-known")));
}

#[tokio::test]
async fn a_new_configuration_takes_over_once_its_issuers_answer() {
    let key = Pair::ec("k1");
    let world = World::new(&[&key]).await;
    let options = Options { config: AuthenticationConfiguration::default(), ..Options::default() };
    let all = JwtAuthenticators::start(&options, &[], &CancellationToken::new()).expect("a start");
    let mut claims = world.claims();
    claims["exp"] = json!(Utc::now().timestamp() + 600);
    let token = key.sign(jsonwebtoken::Algorithm::ES256, &claims);
    let who = async || {
        let found = all.authenticate_token(&token, &[]).await;
        found.map(|found| found.map(|found| found.user.name.clone()))
    };
    assert_eq!(who().await, Ok(None));
    let file = |prefix: &str| {
        let config = world.config();
        serde_json::to_vec(&json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {
                    "url": config.issuer.url, "audiences": ["app"],
                    "certificateAuthority": config.issuer.certificate_authority,
                },
                "claimMappings": {"username": {"claim": "sub", "prefix": prefix}},
            }],
        }))
        .expect("JSON")
    };
    all.replace(&file("a:")).await.expect("in use");
    assert_eq!(who().await, Ok(Some("a:jane".into())));
    all.replace(&file("b:")).await.expect("in use");
    assert_eq!(who().await, Ok(Some("b:jane".into())));
    let error = all.replace(b"kind: x").await.expect_err("refused");
    assert!(error.contains("apiVersion"), "{error}");
    assert_eq!(who().await, Ok(Some("b:jane".into())), "the one before stays");
}
