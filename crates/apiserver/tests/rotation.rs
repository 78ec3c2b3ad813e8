//! The server's certificate changes on disk while it serves.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::RequestOptions;
use apiserver::http::serve;
use apiserver::pki::{KeyAndCertificate, Pki, Profile};
use common::Cluster;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// What a new connection is shown; nothing where the client does not believe it.
async fn shown(pki: &Pki, address: SocketAddr) -> Option<CertificateDer<'static>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in pki.ca_certificates().unwrap() {
        roots.add(certificate).unwrap();
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    Some(tls.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_are_shown_a_certificate_that_was_put_in_place() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let pki = &cluster.pki;
    let tls = Arc::new(pki.serving_tls().unwrap());
    let rotating = tls.certificates().next().unwrap().clone();
    let listener = serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    tokio::spawn(serve::serve(cluster.server.clone(), listener, tls, cancel.clone()));
    let write = |name: &str, text: &str| {
        std::fs::write(cluster.path().join("pki").join(name), text).unwrap();
    };
    let first = shown(pki, address).await.expect("a certificate");
    assert!(!rotating.reload().unwrap(), "nothing changed");

    let new: KeyAndCertificate =
        pki.issue(&Profile::server("kube-apiserver", vec!["127.0.0.1".into()])).unwrap();
    write("apiserver.crt", &new.certificate_pem);
    assert!(rotating.reload().is_err(), "the key is not that of the certificate");
    assert_eq!(shown(pki, address).await, Some(first.clone()), "half a change shows nothing");
    assert!(!rotating.reload().unwrap(), "what will not do is told once");
    write("apiserver.key", &new.key_pem);
    assert!(rotating.reload().unwrap());
    let second = shown(pki, address).await.expect("a certificate");
    assert_eq!(second, new.certificates().unwrap()[0]);
    assert_ne!(second, first);

    for broken in ["", "garbage"] {
        write("apiserver.crt", broken);
        assert!(rotating.reload().is_err(), "{broken:?}");
        assert_eq!(shown(pki, address).await, Some(second.clone()));
    }
    cancel.cancel();
}
