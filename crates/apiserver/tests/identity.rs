//! Service account tokens and the keys behind them, and what the server shows and believes, through the whole server.

mod common;

use std::sync::Arc;

use apiserver::authentication::ServiceAccountOptions;
use apiserver::authentication::keys::SigningKey;
use apiserver::pki::{CaFile, Profile, Serving, TlsVersion};
use apiserver::{Config, RequestOptions};
use common::Cluster;
use common::tokens::{ACCOUNTS, WHO, account, claims, key, signed_by, token, who};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_through_restarts() {
    const JANE: Option<&str> = Some("system:serviceaccount:default:jane");
    let (old, new) = (key(), key());
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_in(folder, signed_by(&old, &[])).await;
    account(&cluster, "jane").await;
    let first = token(&cluster, "jane", json!({})).await;
    assert_eq!(who(&cluster, &first).await.as_deref(), JANE);

    // both are believed, the new one signs
    let cluster = Cluster::start_in(cluster.stop().await, signed_by(&new, &[&old])).await;
    let second = token(&cluster, "jane", json!({})).await;
    assert_eq!(who(&cluster, &first).await.as_deref(), JANE);
    assert_eq!(who(&cluster, &second).await.as_deref(), JANE);
    let jwks = cluster.admin("GET", "/openid/v1/jwks", Value::Null).await;
    let ids: Vec<&str> =
        jwks.body["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(ids, [new.public().key_id(), old.public().key_id()]);

    let cluster = Cluster::start_in(cluster.stop().await, signed_by(&new, &[])).await;
    assert_eq!(who(&cluster, &first).await, None, "the old key is gone");
    assert_eq!(who(&cluster, &second).await.as_deref(), JANE);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_and_audiences_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let chosen = |issuers: &[&str], audiences: &[&str], key: &SigningKey| {
        let list = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>();
        let options = ServiceAccountOptions {
            issuers: list(issuers),
            audiences: list(audiences),
            signing_key: Some(key.clone()),
            max_expiration: Some(7200),
            jwks_uri: "https://keys.example/jwks".into(),
            ..ServiceAccountOptions::default()
        };
        move |config: &mut Config| config.authentication.service_accounts = options
    };
    let key = key();
    let cluster = Cluster::start_in(folder, chosen(&["https://a.example"], &[], &key)).await;
    account(&cluster, "jane").await;
    let first = token(&cluster, "jane", json!({})).await;
    assert_eq!(claims(&first)["iss"], "https://a.example");
    assert_eq!(claims(&first)["aud"], json!(["https://a.example"]));
    let document = cluster.admin("GET", "/.well-known/openid-configuration", Value::Null).await;
    assert_eq!(document.body["issuer"], "https://a.example");
    assert_eq!(document.body["jwks_uri"], "https://keys.example/jwks");
    let long = json!({"spec": {"expirationSeconds": 100_000}});
    let long = cluster.admin("POST", &format!("{ACCOUNTS}/jane/token"), long).await;
    assert_eq!(long.body["spec"]["expirationSeconds"], 7200);
    assert_eq!(
        long.warnings(),
        ["299 - \"requested expiration of 100000 seconds shortened to 7200 seconds\""]
    );
    let lived = claims(long.body["status"]["token"].as_str().unwrap());
    assert_eq!(lived["exp"].as_i64().unwrap() - lived["iat"].as_i64().unwrap(), 7200);

    // the name of the issuer changes, and tokens of the one before stay good
    let both = chosen(&["https://b.example", "https://a.example"], &["api", "https://a.example"], &key);
    let cluster = Cluster::start_in(cluster.stop().await, both).await;
    let second = token(&cluster, "jane", json!({})).await;
    assert_eq!(claims(&second)["iss"], "https://b.example");
    assert_eq!(claims(&second)["aud"], json!(["api", "https://a.example"]));
    assert!(who(&cluster, &first).await.is_some() && who(&cluster, &second).await.is_some());

    // an issuer that is no URL has nothing published
    let cluster = Cluster::start_in(cluster.stop().await, chosen(&["kubernetes"], &[], &key)).await;
    assert_eq!(who(&cluster, &first).await, None);
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert_eq!(cluster.admin("GET", path, Value::Null).await.code, 404, "{path}");
    }
    let paths = cluster.admin("GET", "/", Value::Null).await.body["paths"].to_string();
    assert!(!paths.contains("openid"), "{paths}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_published_to_those_who_may_see_them() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    account(&cluster, "jane").await;
    let bearer = token(&cluster, "jane", json!({})).await;
    for (path, media_type) in [
        ("/.well-known/openid-configuration", "application/json"),
        ("/openid/v1/jwks", "application/jwk-set+json"),
    ] {
        let answer = cluster.with_token(&bearer, "GET", path, Value::Null).await;
        assert_eq!(answer.code, 200, "{path}: every service account may read them");
        assert_eq!(answer.headers["content-type"], media_type, "{path}");
        assert_eq!(answer.headers["cache-control"], "public, max-age=3600", "{path}");
        for (user, groups) in [("jane", vec![]), ("system:node:n1", vec!["system:nodes"])] {
            let answer = cluster.ask(user, &groups, "GET", path, Value::Null, &[]).await;
            assert_eq!(answer.code, 403, "{path} as {user}");
        }
        assert_eq!(cluster.send(None, "GET", path, Value::Null, &[]).await.code, 403, "{path}");
        assert_eq!(cluster.admin("POST", path, json!({})).await.code, 405, "{path}");
    }
}

/// A TLS client that shows a certificate, or none.
async fn whoami(
    address: std::net::SocketAddr,
    roots: &[rustls::pki_types::CertificateDer<'static>],
    own: Option<&apiserver::pki::KeyAndCertificate>,
    headers: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<String, std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(store);
    let config = match own {
        Some(own) => builder.with_client_auth_cert(own.certificates().unwrap(), own.key().unwrap()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let request = format!(
        "POST {WHO} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    tls.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // a server that closes without a word of farewell has answered all the same
    match tls.read_to_string(&mut answer).await {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shows_and_believes_what_it_is_told() {
    use rustls::version::{TLS12, TLS13};
    let folder = tempfile::tempdir().unwrap();
    let other =
        apiserver::pki::Pki::load_or_create(common::pki_options(&folder.path().join("other"))).unwrap();
    let own = other.issue(&Profile::server("own", vec!["127.0.0.1".into()])).unwrap();
    let (certificate, key) = (folder.path().join("own.crt"), folder.path().join("own.key"));
    std::fs::write(&certificate, &own.certificate_pem).unwrap();
    std::fs::write(&key, &own.key_pem).unwrap();
    let pki = apiserver::pki::Pki::load_or_create(common::pki_options(folder.path())).unwrap();
    let ca_file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        CaFile::read(&path).unwrap()
    };
    let serving = Serving {
        certificate: Some((certificate, key)),
        client_ca: Some(ca_file("client-ca", other.ca_pem())),
        front_proxy_ca: Some(ca_file("front-proxy-ca", &other.trust().authorities().front_proxy_ca)),
        min_version: TlsVersion::V13,
        ..Serving::default()
    };
    let pki = pki.with_serving(serving).unwrap();
    let cluster = Cluster::start_with(folder, pki, |_| {}).await;
    let tls = Arc::new(cluster.pki.serving_tls().unwrap());
    let listener = apiserver::http::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let served = apiserver::http::serve::serve(cluster.server.clone(), listener, tls, stop.clone());
    let served = tokio::spawn(served);

    let roots = other.ca_certificates().unwrap();
    let old_roots = cluster.pki.ca_certificates().unwrap();
    assert!(whoami(address, &old_roots, None, "", &[&TLS13]).await.is_err(), "it shows another certificate");
    assert!(whoami(address, &roots, None, "", &[&TLS12]).await.is_err(), "it speaks TLS 1.3 alone");
    let stranger =
        apiserver::pki::Pki::load_or_create(common::pki_options(tempfile::tempdir().unwrap().path()))
            .unwrap();
    let client = |pki: &apiserver::pki::Pki, name: &str| pki.issue(&Profile::client(name, &[])).unwrap();
    let proxy = "x-remote-user: joe\r\n";
    for (who, own, headers, wanted) in [
        ("own authority", Some(client(&cluster.pki, "jane")), "", "\"username\":\"jane\""),
        ("chosen authority", Some(client(&other, "jim")), "", "\"username\":\"jim\""),
        ("unknown authority", Some(client(&stranger, "eve")), "", "401 Unauthorized"),
        ("chosen proxy", Some(other.front_proxy_client.clone()), proxy, "\"username\":\"joe\""),
        ("own proxy", Some(cluster.pki.front_proxy_client.clone()), proxy, "\"username\":\"joe\""),
        ("no proxy", Some(client(&other, "jim")), proxy, "\"username\":\"jim\""),
    ] {
        let answer = whoami(address, &roots, own.as_ref(), headers, &[&TLS13]).await.unwrap();
        assert!(answer.contains(wanted), "{who}: {answer}");
    }
    let large = format!("authorization: Bearer {}\r\n", "x".repeat(2 << 20));
    match whoami(address, &roots, None, &large, &[&TLS13]).await {
        Ok(answer) => assert!(answer.starts_with("HTTP/1.1 431"), "{answer}"),
        // it need not wait for the end of what it refuses
        Err(error) => assert!(error.kind() != std::io::ErrorKind::InvalidData, "{error}"),
    }
    assert!(
        whoami(address, &roots, Some(&client(&other, "jim")), "", &[&TLS13]).await.unwrap().contains("jim"),
        "and goes on"
    );
    stop.cancel();
    served.await.unwrap();
}

/// A connection that stays.
struct Connection(tokio_rustls::client::TlsStream<tokio::net::TcpStream>);

impl Connection {
    async fn open(
        address: std::net::SocketAddr,
        pki: &apiserver::pki::Pki,
        own: &apiserver::pki::KeyAndCertificate,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pki.ca_certificates().unwrap().remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(own.certificates().unwrap(), own.key().unwrap())
            .unwrap();
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        Self(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
    }

    /// The status line of the answer to who this is.
    async fn whoami(&mut self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        let length = body.len();
        let request = format!(
            "POST {WHO} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1 << 16];
        let length = self.0.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_that_are_put_in_place_are_believed_and_those_taken_away_no_more() {
    use rustls::version::TLS13;
    let folder = tempfile::tempdir().unwrap();
    let other = |name: &str| {
        apiserver::pki::Pki::load_or_create(common::pki_options(&folder.path().join(name))).unwrap()
    };
    let (first, second) = (other("first"), other("second"));
    let (clients, proxies) = (folder.path().join("clients"), folder.path().join("proxies"));
    let front_proxy_ca = |pki: &apiserver::pki::Pki| pki.trust().authorities().front_proxy_ca;
    std::fs::write(&clients, first.ca_pem()).unwrap();
    std::fs::write(&proxies, front_proxy_ca(&first)).unwrap();
    let serving = Serving {
        client_ca: Some(CaFile::read(&clients).unwrap()),
        front_proxy_ca: Some(CaFile::read(&proxies).unwrap()),
        ..Serving::default()
    };
    let pki = apiserver::pki::Pki::load_or_create(common::pki_options(folder.path())).unwrap();
    let cluster = Cluster::start_with(folder, pki.with_serving(serving).unwrap(), |_| {}).await;
    let tls = Arc::new(cluster.pki.serving_tls().unwrap());
    let listener = apiserver::http::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(apiserver::http::serve::serve(cluster.server.clone(), listener, tls.clone(), stop.clone()));
    tokio::spawn(cluster.pki.trust().clone().follow(tls, stop.clone()));

    let roots = cluster.pki.ca_certificates().unwrap();
    let issue = |pki: &apiserver::pki::Pki, name: &str| pki.issue(&Profile::client(name, &[])).unwrap();
    let (jane, jim) = (issue(&first, "jane"), issue(&second, "jim"));
    let proxy = "x-remote-user: joe\r\n";
    let ask = async |own: &apiserver::pki::KeyAndCertificate, headers: &str, wanted: &str| {
        let answer = whoami(address, &roots, Some(own), headers, &[&TLS13]).await;
        answer.is_ok_and(|answer| answer.contains(wanted))
    };
    let refused = "401 Unauthorized";
    assert!(ask(&jane, "", "\"username\":\"jane\"").await);
    assert!(ask(&jim, "", refused).await);
    assert!(ask(&first.front_proxy_client, proxy, "\"username\":\"joe\"").await);
    assert!(ask(&second.front_proxy_client, proxy, refused).await);
    let mut open = Connection::open(address, &cluster.pki, &jane).await;
    assert_eq!(open.whoami().await, "HTTP/1.1 201 Created");

    // nonsense changes nothing
    std::fs::write(&clients, "nonsense").unwrap();
    std::fs::write(&proxies, front_proxy_ca(&second)).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let soon = async |own: &apiserver::pki::KeyAndCertificate, headers: &str, wanted: &str| {
        while !ask(own, headers, wanted).await {
            assert!(tokio::time::Instant::now() < deadline, "{wanted}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    soon(&second.front_proxy_client, proxy, "\"username\":\"joe\"").await;
    assert!(ask(&first.front_proxy_client, proxy, refused).await);
    assert!(ask(&jane, "", "\"username\":\"jane\"").await);
    std::fs::write(&clients, second.ca_pem()).unwrap();
    soon(&jim, "", "\"username\":\"jim\"").await;
    assert!(ask(&jane, "", refused).await);
    assert_eq!(open.whoami().await, "HTTP/1.1 401 Unauthorized", "nor on a connection that was there before");
    assert!(ask(&issue(&cluster.pki, "own"), "", "\"username\":\"own\"").await);

    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    loop {
        let data = cluster.admin("GET", map, Value::Null).await.body["data"].clone();
        let has = |key: &str, pem: &str| data[key].as_str().unwrap_or_default().contains(pem);
        let follows = has("client-ca-file", second.ca_pem())
            && has("requestheader-client-ca-file", &front_proxy_ca(&second));
        if follows {
            let told = has("client-ca-file", cluster.pki.ca_pem()) && has("client-ca-file", first.ca_pem());
            assert!(told, "what another server may believe stays: {data}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{data}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_name_is_shown_the_certificate_of_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let pki = apiserver::pki::Pki::load_or_create(common::pki_options(folder.path())).unwrap();
    let made = pki.issue(&Profile::server("other", vec!["api.example.com".into()])).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("sni.crt"), &made.certificate_pem).unwrap();
    std::fs::write(path("sni.key"), &made.key_pem).unwrap();
    let flag = format!("{},{}", path("sni.crt").display(), path("sni.key").display());
    let serving = Serving { sni: vec![flag.parse().unwrap()], ..Serving::default() };
    let cluster = Cluster::start_with(folder, pki.with_serving(serving).unwrap(), |_| {}).await;
    let tls = Arc::new(cluster.pki.serving_tls().unwrap());
    let listener = apiserver::http::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(apiserver::http::serve::serve(cluster.server.clone(), listener, tls, stop.clone()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.pki.ca_certificates().unwrap().remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let shown = async |name: &'static str| {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        let tls = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let own = cluster.pki.apiserver.certificates().unwrap().remove(0);
    assert_eq!(shown("api.example.com").await, made.certificates().unwrap()[0]);
    assert_eq!(shown("kubernetes.default").await, own);
    assert_eq!(shown("127.0.0.1").await, own, "who asks for an address names no host");
    stop.cancel();
}
