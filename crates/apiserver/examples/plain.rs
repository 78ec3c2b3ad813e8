use http_body_util::BodyExt;
use std::sync::Arc;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt::init();
    let dir = std::env::args().nth(1).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let storage =
        Arc::new(storage::sqlite::Sqlite::open(std::path::Path::new(&dir).join("state.db")).unwrap());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let t = std::time::Instant::now();
    let server = apiserver::server::Server::start(
        apiserver::server::Config {
            advertise: "10.9.9.9:6443".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            node_ports: Default::default(),
            cluster_domain: "cluster.local".into(),
        },
        storage,
        apiserver::Identity { kubelet_client: tls },
        Default::default(),
    )
    .await
    .unwrap();
    apiserver::bootstrap::run(
        server.clone(),
        apiserver::bootstrap::Authorities { client_ca: "x".into(), front_proxy_ca: "y".into() },
    )
    .await
    .unwrap();
    println!("ready in {:?}", t.elapsed());
    let l = tokio::net::TcpListener::bind("127.0.0.1:8080").await.unwrap();
    loop {
        let (s, _) = l.accept().await.unwrap();
        let server = server.clone();
        tokio::spawn(async move {
            let svc = hyper::service::service_fn(move |r: http::Request<hyper::body::Incoming>| {
                let server = server.clone();
                async move {
                    let r = r.map(|b| b.map_err(|e| e.into()).boxed_unsync());
                    let peer = apiserver::http::chain::Peer {
                        in_process: Some(apiserver::authentication::UserInfo::new(
                            "admin",
                            &["system:masters"],
                        )),
                        ..Default::default()
                    };
                    Ok::<_, std::convert::Infallible>(apiserver::http::chain::handle(server, r, peer).await)
                }
            });
            let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection_with_upgrades(hyper_util::rt::TokioIo::new(s), svc)
                .await;
        });
    }
}
