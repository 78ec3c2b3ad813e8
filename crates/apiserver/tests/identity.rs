//! Service account tokens and the keys behind them, and what the server shows and believes, through the whole server.

mod common;

use std::sync::Arc;

use apiserver::authentication::ServiceAccountOptions;
use apiserver::authentication::keys::SigningKey;
use apiserver::pki::{Profile, Serving, TlsVersion};
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
    let serving = Serving {
        certificate: Some((certificate, key)),
        client_ca_pem: other.ca_pem().to_owned(),
        front_proxy_ca_pem: other.front_proxy_ca_pem(),
        min_version: TlsVersion::V13,
        ..Serving::default()
    };
    let pki = pki.with_serving(serving).unwrap();
    let cluster = Cluster::start_with(folder, pki, |_| {}).await;
    let (tls, _) = cluster.pki.rotating_server_config().unwrap();
    let listener = apiserver::http::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let served = apiserver::http::serve::serve(cluster.server.clone(), listener, Arc::new(tls), stop.clone());
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
