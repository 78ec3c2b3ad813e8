//! Certificates made, kept, renewed and refused; handshakes with good, bad and no client certificates.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConnection};

use super::*;
use crate::authentication::{Anonymous, Authenticator, FrontProxy, PeerCertificates, RequestHeaders};

fn options(dir: &Path) -> PkiOptions {
    PkiOptions {
        dir: dir.join("pki"),
        sans: vec!["192.0.2.1".into()],
        node_name: "Node-1".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: "10.96.0.1".parse().expect("an address"),
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("a name");
        entry.file_type().expect("a type").is_file().then(|| (name, fs::read(entry.path()).expect("a file")))
    };
    entries.filter_map(read).collect()
}

#[test]
fn files_have_kubeadms_names_and_keys_are_private() {
    let directory = directory();
    let pki = Pki::load_or_create(options(directory.path())).expect("made");
    pki.write_kubeconfigs(directory.path(), "https://127.0.0.1:6443").expect("written");
    let files = contents(&directory.path().join("pki"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "apiserver-kubelet-client.crt",
            "apiserver-kubelet-client.key",
            "apiserver.crt",
            "apiserver.key",
            "ca.crt",
            "ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "front-proxy-client.crt",
            "front-proxy-client.key",
            "sa.key",
            "sa.pub",
        ]
    );
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    for name in names {
        let wanted = if name.ends_with(".key") { 0o600 } else { 0o644 };
        assert_eq!(mode(&directory.path().join("pki").join(name)), wanted, "{name}");
    }
    let names: Vec<String> = contents(directory.path()).into_keys().collect();
    let wanted = ["admin", "controller-manager", "coredns", "kube-proxy", "kubelet", "scheduler"];
    assert_eq!(names, wanted.map(|name| format!("{name}.kubeconfig")));
    assert!(names.iter().all(|name| mode(&directory.path().join(name)) == 0o600));
}

#[test]
fn what_is_there_and_good_stays() {
    let directory = directory();
    let make = |options: PkiOptions, now: SystemTime, server: &str| {
        let pki = Pki::load_or_create_at(options, now).expect("loaded");
        pki.write_kubeconfigs(directory.path(), server).expect("written");
        let mut all = contents(&directory.path().join("pki"));
        all.extend(contents(directory.path()));
        all
    };
    let changed = |before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        after
            .iter()
            .filter(|(name, bytes)| before.get(*name) != Some(bytes))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let server = "https://127.0.0.1:6443";
    let first = make(options(directory.path()), now, server);
    let second = make(options(directory.path()), now + 300 * day, server);
    assert_eq!(changed(&first, &second), Vec::<String>::new(), "reused");

    let mut more = options(directory.path());
    more.sans.push("api.example.org".into());
    let third = make(more.clone(), now, server);
    assert_eq!(changed(&second, &third), ["apiserver.crt", "apiserver.key"], "a name was missing");
    let fourth = make(options(directory.path()), now, server);
    assert_eq!(changed(&third, &fourth), Vec::<String>::new(), "a name too many does not matter");

    let fifth = make(more.clone(), now, "https://127.0.0.1:7443");
    let moved = changed(&fourth, &fifth);
    assert!(moved.len() == 6 && moved.iter().all(|name| name.ends_with(".kubeconfig")), "{moved:?}");

    let sixth = make(more, now + 340 * day, "https://127.0.0.1:7443");
    let renewed = changed(&fifth, &sixth);
    assert_eq!(renewed.len(), 6 + 6, "{renewed:?}");
    assert!(!renewed.iter().any(|name| name.starts_with("ca.") || name.starts_with("sa.")));
}

#[test]
fn foreign_and_broken_files_are_left_alone() {
    type Break = fn(&Path);
    let cases: [(&str, Break); 6] = [
        ("authority without key", |dir| fs::remove_file(dir.join("ca.key")).expect("remove")),
        ("garbage", |dir| fs::write(dir.join("apiserver.crt"), "garbage").expect("write")),
        ("another's key", |dir| {
            fs::copy(dir.join("ca.key"), dir.join("apiserver.key")).expect("copy");
        }),
        ("another's authority", |dir| {
            for end in ["crt", "key"] {
                fs::copy(dir.join(format!("front-proxy-ca.{end}")), dir.join(format!("ca.{end}")))
                    .expect("copy");
            }
        }),
        ("public key without private", |dir| fs::remove_file(dir.join("sa.key")).expect("remove")),
        ("a directory", |dir| {
            fs::remove_file(dir.join("ca.crt")).expect("remove");
            fs::create_dir(dir.join("ca.crt")).expect("create");
        }),
    ];
    for (what, break_it) in cases {
        let directory = directory();
        Pki::load_or_create(options(directory.path())).expect("made");
        let dir = directory.path().join("pki");
        break_it(&dir);
        let before = contents(&dir);
        let Err(error) = Pki::load_or_create(options(directory.path())) else { panic!("{what}: accepted") };
        assert!(error.to_string().contains(dir.to_str().expect("text")), "{what}: {error}");
        assert!(contents(&dir) == before, "{what}: files were changed");
    }
}

#[test]
fn an_interrupted_start_is_completed() {
    let directory = directory();
    let dir = directory.path().join("pki");
    Pki::load_or_create(options(directory.path())).expect("made");
    for name in ["apiserver.crt", "front-proxy-ca.crt", "front-proxy-client.crt", "sa.pub"] {
        fs::remove_file(dir.join(name)).expect("remove");
    }
    let keys = || {
        ["apiserver.key", "front-proxy-ca.key", "sa.key"].map(|name| fs::read(dir.join(name)).expect("a key"))
    };
    let before = keys();
    let pki = Pki::load_or_create(options(directory.path())).expect("completed");
    assert!(keys() == before, "keys are not lost");
    pki.service_account_key().expect("a pair");
}

/// Runs a handshake in memory; answers with the certificates that the server saw.
fn handshake(
    pki: &Pki,
    client: ClientConfig,
    name: &str,
) -> Result<Option<Arc<PeerCertificates>>, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name)?);
    let server = ServerConnection::new(pki.serving_tls().expect("a configuration").config())?;
    let mut server = Connection::from(server);
    let pump = |from: &mut Connection, to: &mut Connection| -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).expect("memory");
            to.process_new_packets()?;
        }
        Ok(())
    };
    while client.is_handshaking() || server.is_handshaking() {
        pump(&mut client, &mut server)?;
        pump(&mut server, &mut client)?;
    }
    assert_eq!(server.alpn_protocol(), Some(b"h2".as_slice()));
    Ok(server.peer_certificates().and_then(|chain| PeerCertificates::new(chain)))
}

fn client(trusted: &Pki, identity: Option<&KeyAndCertificate>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.ca_certificates().expect("an authority").remove(0)).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(own) => config
            .with_client_auth_cert(own.certificates().expect("certificates"), own.key().expect("a key"))
            .expect("a client"),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[test]
fn clients_are_asked_and_judged() {
    let (directory, other) = (directory(), directory());
    let pki = Pki::load_or_create(options(directory.path())).expect("made");
    let stranger = Pki::load_or_create(options(other.path())).expect("made");
    let ca = pki.trust().clients();
    for name in ["kubernetes.default.svc.cluster.local", "node-1", "127.0.0.1", "10.96.0.1", "192.0.2.1"] {
        assert!(handshake(&pki, client(&pki, None), name).expect("connected").is_none(), "{name}");
    }
    assert!(handshake(&pki, client(&pki, None), "elsewhere").is_err());
    assert!(handshake(&pki, client(&stranger, None), "127.0.0.1").is_err(), "an unknown server");

    let who = |identity: &KeyAndCertificate| {
        let peer = handshake(&pki, client(&pki, Some(identity)), "127.0.0.1").expect("connected");
        ca.authenticate(&peer.expect("a certificate"))
    };
    for (name, profile) in pki.identities() {
        let user = who(&pki.issue(&profile).expect("issued")).expect("good").expect("named");
        assert_eq!(user.name, profile.common_name);
        let mut groups = profile.organizations.clone();
        groups.push("system:authenticated".into());
        assert_eq!(user.groups, groups, "{name}");
        let id = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
    }
    let admin = Profile::client("kubernetes-admin", &["system:masters"]);
    assert!(who(&stranger.issue(&admin).expect("issued")).is_err(), "another authority");
    assert!(who(&pki.apiserver).is_err(), "a server's certificate");
    let expired =
        certificates::issue(&admin, &pki.ca, SystemTime::now() - Duration::from_secs(366 * 24 * 3600));
    assert!(who(&expired.expect("issued")).is_err(), "expired");
    let nameless = Profile::client("", &["system:masters"]);
    assert_eq!(who(&pki.issue(&nameless).expect("issued")), Ok(None));
}

#[test]
fn clients_read_the_kubeconfigs() {
    let directory = directory();
    let pki = Pki::load_or_create(options(directory.path())).expect("made");
    pki.write_kubeconfigs(directory.path(), "https://127.0.0.1:6443").expect("written");
    for (name, profile) in pki.identities() {
        let path = directory.path().join(format!("{name}.kubeconfig"));
        let config = kube::config::Kubeconfig::read_from(path).expect("a kubeconfig");
        let user = &profile.common_name;
        assert_eq!(config.current_context, Some(format!("{user}@kubernetes")), "{name}");
        assert_eq!(config.auth_infos[0].name, *user);
        let cluster = config.clusters[0].cluster.as_ref().expect("a cluster");
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert!(cluster.certificate_authority_data.is_some());
    }
}

#[tokio::test]
async fn front_proxies_speak_for_others() {
    let (directory, other) = (directory(), directory());
    let pki = Pki::load_or_create(options(directory.path())).expect("made");
    let stranger = Pki::load_or_create(options(other.path())).expect("made");
    let named = |name: &str, ca: &KeyAndCertificate| {
        certificates::issue(&Profile::client(name, &[]), ca, SystemTime::now()).expect("issued")
    };
    let chain = |allowed_names: &[&str]| {
        let allowed_names = allowed_names.iter().map(|name| (*name).to_owned()).collect();
        let headers = RequestHeaders { allowed_names, ..RequestHeaders::default() };
        Authenticator::new()
            .with_front_proxy(FrontProxy::new(pki.trust().front_proxies(), headers))
            .with_client_ca(pki.trust().clients())
            .with_anonymous(Anonymous::Everywhere)
    };
    let usual: &[&str] = &["front-proxy-client"];
    let proxy = &pki.front_proxy_client;
    let client_of_cluster = named("front-proxy-client", &pki.ca);
    let other_name = named("someone", &pki.front_proxy_ca);
    let cases: [(&[&str], Option<&KeyAndCertificate>, bool, Option<&str>); 9] = [
        (usual, Some(proxy), true, Some("jane")),
        // A proxy that names nobody is nobody: its certificate is not one of the cluster's clients.
        (usual, Some(proxy), false, None),
        (usual, Some(&other_name), true, None),
        (&[], Some(&other_name), true, Some("jane")),
        (usual, Some(&stranger.front_proxy_client), true, None),
        // A client of the cluster is who its certificate says, whatever its headers say.
        (usual, Some(&client_of_cluster), true, Some("front-proxy-client")),
        (&[], Some(&client_of_cluster), true, Some("front-proxy-client")),
        (usual, None, true, Some("system:anonymous")),
        (usual, None, false, Some("system:anonymous")),
    ];
    for (allowed, identity, with_headers, wanted) in cases {
        let mut request = http::Request::new(());
        if let Some(peer) = handshake(&pki, client(&pki, identity), "127.0.0.1").expect("connected") {
            request.extensions_mut().insert(peer);
        }
        if with_headers {
            request.headers_mut().insert("x-remote-user", "jane".parse().expect("a value"));
            request.headers_mut().insert("x-remote-group", "devs".parse().expect("a value"));
        }
        let mut parts = request.into_parts().0;
        let found = chain(allowed).authenticate(&mut parts).await;
        let name = found.as_ref().ok().map(|found| found.user.name.as_str());
        assert_eq!(name, wanted, "{allowed:?} {with_headers} {found:?}");
        if found.is_ok() {
            assert!(parts.headers.is_empty(), "{:?}", parts.headers);
        }
        if name == Some("jane") {
            assert_eq!(found.expect("good").user.groups, ["devs", "system:authenticated"]);
        }
    }
}

#[test]
fn openssl_agrees() {
    let directory = directory();
    let pki = Pki::load_or_create(options(directory.path())).expect("made");
    let dir = directory.path().join("pki");
    for (ca, purpose, name) in [
        ("ca", "sslserver", "apiserver"),
        ("ca", "sslclient", "apiserver-kubelet-client"),
        ("front-proxy-ca", "sslclient", "front-proxy-client"),
    ] {
        let output = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .args([dir.join(format!("{ca}.crt")), dir.join(format!("{name}.crt"))])
            .output()
            .expect("openssl");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(
        pki.ca_pem().contains("BEGIN CERTIFICATE")
            && pki.trust().authorities().front_proxy_ca != pki.ca_pem()
    );
}
