//! Tokens, certificates, requests for certificates and kubeconfigs: nobody gets to be somebody by changed bytes.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::catalogue::catalogue;
use apimachinery::Object;
use apiserver::authentication::keys::SigningKey;
use apiserver::authentication::{
    BootstrapTokens, ClientCa, PeerCertificates, ServiceAccountTokens, StaticTokens, TokenAuthenticator,
    TokenGetter, TokenIssuer, TokenRequest,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use controller_manager::certificates::{Authority, Request};
use futures::FutureExt;
use jiff::Timestamp;
use kube::config::Kubeconfig;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use x509_parser::pem::Pem;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const BOOTSTRAP: &str = "abcdef.0123456789abcdef";
const STATIC: &str = "a-static-token,ann,1,\"a,b\"";

/// The one service account and the one secret that there are.
struct World {
    account: Arc<Object>,
    secret: Arc<Object>,
}

impl TokenGetter for World {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        (namespace == "ns" && name == "bot").then(|| self.account.clone())
    }

    fn pod(&self, _: &str, _: &str) -> Option<Arc<Object>> {
        None
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        (namespace == "kube-system" && name == self.secret.name()).then(|| self.secret.clone())
    }

    fn node(&self, _: &str) -> Option<Arc<Object>> {
        None
    }
}

/// All that recognizes tokens, and the one token of a service account that is good.
struct Tokens {
    authenticators: Vec<Box<dyn TokenAuthenticator>>,
    issued: String,
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let pair = KeyPair::generate().expect("a key");
    let key = SigningKey::from_pem(pair.serialize_pem().as_bytes(), pair.public_key_pem().as_bytes());
    let key = key.expect("a signing key");
    let metadata = json!({"namespace": "ns", "name": "bot", "uid": "u"});
    let data = [
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-authentication", "true"),
    ];
    let data: serde_json::Map<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
    let world = Arc::new(World {
        account: Arc::new(Object::from(json!({ "metadata": metadata }))),
        secret: Arc::new(Object::from(json!({"metadata": {"name": "bootstrap-token-abcdef"}, "data": data,
            "type": "bootstrap.kubernetes.io/token"}))),
    });
    let audiences = vec![ISSUER.to_owned()];
    let tokens = ServiceAccountTokens::new(
        vec![ISSUER.into()],
        [key.public().clone()],
        audiences.clone(),
        world.clone(),
    );
    let issuer = TokenIssuer::new(ISSUER, key, audiences.clone(), false);
    let request = TokenRequest {
        service_account: &world.account,
        bound_to: None,
        audiences: &audiences,
        expiration_seconds: 30 * 24 * 3600,
    };
    let issued = issuer.issue(&request).expect("a token").token;
    let fixed = StaticTokens::from_csv("tokens", STATIC).expect("a file of tokens");
    Tokens {
        authenticators: vec![Box::new(tokens), Box::new(BootstrapTokens::new(world)), Box::new(fixed)],
        issued,
    }
});

/// Only the very tokens that were given out are good.
pub fn tokens(input: &[u8]) {
    let Ok(token) = std::str::from_utf8(input) else { return };
    let known = &*TOKENS;
    let given = [known.issued.as_str(), BOOTSTRAP, "a-static-token"].contains(&token);
    let answers = known
        .authenticators
        .iter()
        .map(|one| one.authenticate_token(token, &[]).now_or_never().expect("nobody else is asked"));
    let somebody = answers.filter_map(|answer| answer.ok().flatten()).count();
    assert_eq!(somebody, usize::from(given), "{token}");
    let _ = StaticTokens::from_csv("tokens", token);
}

/// Good tokens, and those that forgers try first.
pub fn token_seeds() -> Vec<Vec<u8>> {
    let issued = TOKENS.issued.clone();
    let mut parts = issued.split('.');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let mut out = vec![
        BOOTSTRAP.to_owned(),
        "a-static-token".to_owned(),
        STATIC.to_owned(),
        format!("{header}.{claims}."),
        format!("{none}.{claims}."),
        format!("{}.{claims}.a", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#)),
    ];
    out.push(issued);
    out.into_iter().map(String::into_bytes).collect()
}

/// An authority with a client's certificate of its own.
struct Clients {
    ca: ClientCa,
    der: Vec<u8>,
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

static CLIENTS: LazyLock<Clients> = LazyLock::new(|| {
    let mut own = parameters("authority");
    own.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let root = own.self_signed(&key).expect("a certificate");
    let mut client = parameters("ann");
    client.distinguished_name.push(DnType::OrganizationName, "team");
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::from_params(&own, &key);
    let client = client.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
    let ca = ClientCa::new([root.der().clone()]).expect("an authority");
    Clients { ca, der: client.der().to_vec() }
});

/// Who is let in by a certificate is the one that it was made for.
pub fn certificates(input: &[u8]) {
    let known = &*CLIENTS;
    let Some(peer) = PeerCertificates::new(&[CertificateDer::from(input)]) else { return };
    if let Ok(Some(user)) = known.ca.authenticate(&peer) {
        assert_eq!(user.name, "ann");
        assert_eq!(user.groups, ["team", "system:authenticated"]);
    } else {
        assert_ne!(input, known.der, "the good one is let in");
    }
    let _ = ClientCa::new([CertificateDer::from(input.to_vec())]);
    let _ = Authority::new(input, input);
}

pub fn certificate_seeds() -> Vec<Vec<u8>> {
    let other = parameters("ann").self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    vec![CLIENTS.der.clone(), other.der().to_vec(), other.pem().into_bytes()]
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let mut own = parameters("authority");
    own.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    own.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let root = own.self_signed(&key).expect("a certificate");
    Authority::new(root.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("an authority")
});

/// A request in PEM: the API may keep it, and what is signed for it says what it asked for.
pub fn requests(input: &[u8]) {
    let resource =
        catalogue().get("certificates.k8s.io", "v1", "certificatesigningrequests").expect("a kind");
    let object = Object::from(json!({"metadata": {"name": "a"}, "spec": {
        "request": STANDARD.encode(input), "signerName": "example.com/a", "usages": ["client auth"]},
        "status": {"certificate": STANDARD.encode(input)}}));
    let errors = resource.strategy.validate(&object);
    let Ok(request) = Request::parse(input) else { return };
    assert!(
        !errors.iter().any(|error| error.field == "spec.request"),
        "what is signed was let in: {errors:?}"
    );
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let usages = ["client auth".to_owned()];
    let signed =
        AUTHORITY.sign(&request, &usages, Duration::from_secs(3600), now, [1; 16]).expect("a certificate");
    let block = CertificateDer::from_pem_slice(signed.as_bytes()).expect("PEM");
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&block).expect("a certificate that can be read");
    let name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
    assert_eq!(name.unwrap_or_default(), request.common_name);
    assert_eq!(certificate.subject().iter_organization().count(), request.organizations.len());
    assert_eq!(certificate.public_key().raw, request.public_key);
    assert!(!certificate.is_ca());
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let request = |names: &[&str]| {
        let mut wanted = parameters("system:node:n1");
        wanted.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let sans = CertificateParams::new(names).expect("names");
        wanted.subject_alt_names = sans.subject_alt_names;
        let made = wanted.serialize_request(&KeyPair::generate().expect("a key")).expect("a request");
        made.pem().expect("PEM").into_bytes()
    };
    vec![
        request(&[]),
        request(&["n1.example", "10.0.0.1", "fd00::1"]),
        certificate_seeds().pop().unwrap_or_default(),
    ]
}

pub fn kubeconfigs(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(config) = Kubeconfig::from_yaml(text) else { return };
    let options = kube::config::KubeConfigOptions::default();
    let read = kube::Config::from_custom_kubeconfig(config, &options);
    // exec plug-ins are not run when a configuration is read
    if let Some(Ok(config)) = read.now_or_never() {
        let _ = config.cluster_url.host();
    }
    for block in Pem::iter_from_buffer(input).flatten() {
        let _ = block.parse_x509();
    }
}

pub fn kubeconfig_seeds() -> Vec<Vec<u8>> {
    let pem = certificate_seeds().pop().unwrap_or_default();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": STANDARD.encode(&pem),
            "tls-server-name": "a", "proxy-url": "http://b"}}],
        "users": [{"name": "u", "user": {"token": "t", "client-certificate-data": STANDARD.encode(&pem), "client-key-data": "YQ==",
            "as": "x", "username": "n", "password": "p"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "n"}}]});
    let mut yaml = Vec::new();
    apimachinery::codec::encode_yaml(&Object::from(config.clone()), &mut yaml);
    vec![config.to_string().into_bytes(), yaml]
}
