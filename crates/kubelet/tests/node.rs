//! What a node offers beside plain pods: image archives, the host's network, its server, and its end.

mod common;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::cluster::{Cluster, container};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// The demo image as `docker save` would write it.
fn as_docker_archive(oci: &std::path::Path, out: &std::path::Path) {
    let mut blobs = std::collections::HashMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(oci).expect("an archive"));
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").file_name().map(|n| n.to_string_lossy().into_owned());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("bytes");
        blobs.insert(name.unwrap_or_default(), bytes);
    }
    let parse = |name: &str| -> serde_json::Value { serde_json::from_slice(&blobs[name]).expect("JSON") };
    let digest = |value: &serde_json::Value| value["digest"].as_str().expect("a digest")[7..].to_owned();
    let manifest = parse(&digest(&parse("index.json")["manifests"][0]));
    let mut builder = tar::Builder::new(std::fs::File::create(out).expect("a file"));
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).expect("written");
    };
    let list = json!([{"Config": "config.json", "RepoTags": ["docker-made:2"], "Layers": ["abc/layer.tar"]}]);
    put("manifest.json", list.to_string().as_bytes());
    put("config.json", &blobs[&digest(&manifest["config"])]);
    put("abc/layer.tar", &blobs[&digest(&manifest["layers"][0])]);
    builder.finish().expect("an archive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_archives_are_imported_when_they_appear() {
    if !common::isolated("image_archives_are_imported_when_they_appear", "10.99.11.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 11, 1]).await;
    let images = cluster.config.paths().images();
    std::fs::write(images.join("broken.tar"), b"this is no archive at all").expect("a file");
    let whole = std::fs::read(images.join("demo.tar")).expect("an archive");
    std::fs::write(images.join("cut.tar"), &whole[..whole.len() / 2]).expect("a file");
    as_docker_archive(&images.join("demo.tar"), &images.join("docker.tar"));
    let mut c = container("c", SLEEP);
    c["image"] = "docker-made:2".into();
    c["imagePullPolicy"] = "Never".into();
    let started = Instant::now();
    loop {
        cluster.create("p", json!({"containers": [c]})).await;
        let pod = cluster
            .wait("p", "decided", 20, |pod| {
                let state = &pod["status"]["containerStatuses"][0]["state"];
                state["running"].is_object() || state["waiting"]["reason"] == "ErrImageNeverPull"
            })
            .await;
        if pod["status"]["phase"] == "Running" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "the archive is not imported");
        cluster.delete("p", Some(0)).await;
        cluster.wait_until_gone("p", 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_have_names_addresses_and_deadlines() {
    if !common::isolated("pods_have_names_addresses_and_deadlines", "10.99.12.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 12, 1]).await;
    let show = format!("hostname; cat /etc/hosts /etc/resolv.conf; echo that is all; {SLEEP}");
    cluster
        .create(
            "named",
            json!({"hostname": "me", "subdomain": "sub", "containers": [container("c", &show)],
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["elsewhere"]}]}),
        )
        .await;
    let host = container("c", "exec httpd -f -p 10.99.12.1:8088");
    cluster
        .create(
            "host",
            json!({"hostNetwork": true, "containers": [host], "terminationGracePeriodSeconds": 0}),
        )
        .await;
    let mut web = container("c", "mkdir /w; echo hi >/w/index.html; exec httpd -f -p 80 -h /w");
    web["ports"] = json!([{"containerPort": 80, "hostPort": 8099}]);
    cluster.create("web", json!({"containers": [web], "terminationGracePeriodSeconds": 0})).await;
    cluster.create("late", json!({"activeDeadlineSeconds": 1, "containers": [container("c", SLEEP)]})).await;

    let pod = cluster.wait_until_ready("named").await;
    let ip = pod["status"]["podIP"].as_str().expect("an address").to_owned();
    let log = cluster.log_up_to("that is all", &pod, "c").await;
    for line in [
        "me",
        "# Kubernetes-managed hosts file.",
        &format!("{ip}\tme.sub.default.svc.cluster.local\tme"),
        "1.2.3.4\telsewhere",
        "nameserver 10.96.0.10",
        "options ndots:5",
    ] {
        assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
    }
    assert!(log.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{log}");

    let pod = cluster.wait_until_ready("host").await;
    assert_eq!(
        (&pod["status"]["podIP"], &pod["status"]["hostIP"]),
        (&json!("10.99.12.1"), &json!("10.99.12.1"))
    );
    connects("10.99.12.1:8088", "the pod listens on the node").await;
    cluster.wait_until_ready("web").await;
    connects("10.99.12.1:8099", "the host port leads to the pod").await;
    let pod = cluster.wait_for_phase("late", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    // the port is taken
    let mut again = container("c", SLEEP);
    again["ports"] = json!([{"containerPort": 80, "hostPort": 8099}]);
    cluster.create("again", json!({"containers": [again]})).await;
    let pod = cluster.wait_for_phase("again", "Failed").await;
    assert_eq!(pod["status"]["reason"], "NodePorts");
}

/// Waits until something listens: a program gets there some time after its container has started.
async fn connects(address: &str, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < deadline, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type Answer = hyper::Response<hyper::body::Incoming>;

/// A request to the kubelet, with the client certificate or without.
async fn ask(cluster: &Cluster, identity: Option<(&str, &str)>, request: http::request::Builder) -> Answer {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.ca.as_bytes()).expect("a CA")).expect("added");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let tls = match identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"),
            )
            .expect("an identity"),
        None => builder.with_no_client_auth(),
    };
    let address = (cluster.config.node_ip, cluster.config.port);
    let tcp = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::from(cluster.config.node_ip);
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    let request = request.header("Host", "n1").body(Empty::<bytes::Bytes>::new()).expect("a request");
    sender.send_request(request).await.expect("an answer")
}

async fn body(answer: Answer) -> String {
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_answers_those_who_may_ask() {
    if !common::isolated("the_server_answers_those_who_may_ask", "10.99.13.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 13, 1]).await;
    let talk = format!("for n in 1 2 3; do echo line $n; done; {SLEEP}");
    cluster.create("p", json!({"containers": [container("c", &talk)]})).await;
    cluster.wait_until_ready("p").await;
    let get = |path: &str| http::Request::get(path);
    let anonymous = ask(&cluster, None, get("/pods")).await;
    assert_eq!(anonymous.status(), 401);
    let mere = cluster.pki.issue(&apiserver::pki::Profile::client("jane", &[])).expect("a certificate");
    let jane = Some((mere.certificate_pem.as_str(), mere.key_pem.as_str()));
    let refused = ask(&cluster, jane, get("/pods")).await;
    assert_eq!(refused.status(), 403);
    let text = body(refused).await;
    assert_eq!(text, "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods,proxy])\n");

    let own = &cluster.pki.apiserver_kubelet_client;
    let server = Some((own.certificate_pem.as_str(), own.key_pem.as_str()));
    assert_eq!(body(ask(&cluster, server, get("/healthz")).await).await, "ok");
    let pods: serde_json::Value =
        serde_json::from_str(&body(ask(&cluster, server, get("/pods")).await).await).expect("JSON");
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let logs = |query: &str| get(&format!("/containerLogs/default/p/c{query}"));
    assert_eq!(body(ask(&cluster, server, logs("?tailLines=2")).await).await, "line 2\nline 3\n");
    let missing = ask(&cluster, server, get("/containerLogs/default/p/none")).await;
    assert_eq!(missing.status(), 404);
    assert_eq!(body(missing).await, "container \"none\" not found in pod \"p\"\n");
    let metrics = body(ask(&cluster, server, get("/metrics/resource")).await).await;
    assert!(metrics.contains("node_memory_working_set_bytes"), "{metrics}");
    let run = http::Request::post("/run/default/p/c?cmd=echo%20hi");
    assert_eq!(body(ask(&cluster, server, run).await).await, "hi\n");
    let exec = http::Request::post("/exec/default/p/c?output=1&error=1&command=echo&command=hi")
        .header("Connection", "Upgrade")
        .header("Upgrade", "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "v4.channel.k8s.io");
    let upgraded = ask(&cluster, server, exec).await;
    assert_eq!(upgraded.status(), 101);
    assert_eq!(upgraded.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let nothing = http::Request::post("/exec/default/p/c?command=echo");
    let nothing = ask(&cluster, server, nothing).await;
    assert_eq!(nothing.status(), 400);

    // a log is followed until its container ends
    let follow = ask(&cluster, server, logs("?follow=true&tailLines=1")).await;
    cluster.delete("p", None).await;
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), body(follow)).await.expect("an end"),
        "line 3\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_can_be_taken_down() {
    if !common::isolated("a_node_can_be_taken_down", "10.99.14.1") {
        return;
    }
    let mut cluster = Cluster::start([10, 99, 14, 1]).await;
    cluster.create("p", json!({"containers": [container("c", SLEEP)]})).await;
    cluster.wait_until_ready("p").await;
    // a second one on the same port says so
    let other = common::Node::new();
    let mut config = other.config([10, 99, 14, 1]);
    config.container_runtime_endpoint = Some("unix:///none".into());
    let refused = kubelet::run(config, cluster.admin.clone(), CancellationToken::new()).await;
    let message = refused.expect_err("a refusal").to_string();
    assert!(message.starts_with("cannot listen on 0.0.0.0:10250"), "{message}");

    cluster.stop_kubelet().await;
    kubelet::teardown(&cluster.config).await.expect("down");
    let folder = cluster.node.folder.path().to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&folder), "{mounts}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !cluster.node.processes().is_empty() {
        assert!(Instant::now() < deadline, "{:?} go on", cluster.node.processes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
