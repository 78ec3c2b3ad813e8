//! The proxy and the cluster's DNS as clients of a real API server, each with its own identity: what is written
//! through the API is what packets and names do. Needs root; says so and passes without.

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::authentication::UserInfo;
use apiserver::pki::{Pki, PkiOptions};
use apiserver::{InProcess, Server};
use common::{NODE, Pod, ask, refused, step};
use k8s_openapi::api::core::v1::{Event, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const DNS_PORT: u16 = 10053;
const SOON: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    common::run(test())
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().chain(&["system:authenticated"]).map(|g| (*g).to_owned()).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

async fn start_server(folder: &std::path::Path, stop: &CancellationToken) -> Arc<Server> {
    let pki = Pki::load_or_create(PkiOptions {
        dir: folder.join("pki"),
        sans: Vec::new(),
        node_name: "node".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: [10, 96, 0, 1].into(),
    })
    .unwrap();
    let storage = storage::sqlite::Sqlite::open(folder.join("state.db")).unwrap();
    let config = apiserver::Config::new(SocketAddr::from((NODE, 6443)), "10.96.0.0/16".parse().unwrap());
    let server = Server::start(config, Arc::new(storage), &pki, stop.clone()).await.unwrap();
    apiserver::bootstrap::run(server.clone(), pki.trust().clone()).await.unwrap();
    server
}

fn slice(name: &str, pods: &[&Pod]) -> EndpointSlice {
    let endpoint = |pod: &&Pod| json!({"addresses": [pod.ip.to_string()], "nodeName": "node"});
    from(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
    }))
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Waits until it is so; says how long that took.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("     {what}: {:?}", started.elapsed());
}

async fn test() {
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let server = start_server(folder.path(), &stop).await;
    let client = |name: &str, groups: &[&str]| InProcess::client(server.clone(), user(name, groups));
    let admin: Client = client("admin", &["system:masters"]);
    let nodes: Api<Node> = Api::all(admin.clone());
    nodes.create(&PostParams::default(), &from(json!({"metadata": {"name": "node"}}))).await.unwrap();

    let mut config = kube_proxy::Config::new("node", NODE);
    config.cluster_cidr = Some("10.244.0.0/16".parse().unwrap());
    config.service_cidr = Some("10.96.0.0/16".parse().unwrap());
    config.sync_period = Duration::from_millis(300);
    let proxy_stop = CancellationToken::new();
    let proxy = client("system:kube-proxy", &[]);
    let proxy = tokio::spawn(kube_proxy::run(config.clone(), proxy, proxy_stop.clone()));
    let dns = cluster_dns::Config {
        bind: (NODE, DNS_PORT).into(),
        metrics_address: (NODE, cluster_dns::METRICS_PORT).into(),
        cluster_domain: "cluster.local".into(),
        cluster_dns: Some(DNS_IP.into()),
        resolv_conf: folder.path().join("none"),
    };
    tokio::spawn(cluster_dns::run(dns, admin.clone(), stop.clone()));
    // twice, since it is to be repeated whenever a node starts
    for _ in 0..2 {
        cluster_dns::ensure_service(admin.clone(), DNS_IP.into(), "node", NODE.into(), DNS_PORT)
            .await
            .unwrap();
    }

    step("a Service written to the API is routed and has a name");
    let (one, two) = (Pod::new(11), Pod::new(12));
    let services: Api<Service> = Api::namespaced(admin.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(admin.clone(), "default");
    let spec = json!({"type": "NodePort", "ports": [{"name": "http", "port": 80}]});
    let web: Service = from(json!({"metadata": {"name": "web"}, "spec": spec}));
    let web = services.create(&PostParams::default(), &web).await.unwrap();
    let spec = web.spec.unwrap();
    let address: Ipv4Addr = spec.cluster_ip.unwrap().parse().unwrap();
    let node_port = spec.ports.unwrap()[0].node_port.unwrap() as u16;
    until("refused without endpoints", || refused(two.ask((address, 80)))).await;
    slices.create(&PostParams::default(), &slice("web", &[&one])).await.unwrap();
    until("answered with one", || two.ask((address, 80)).is_ok_and(|answer| answer.pod == "pod11")).await;
    assert_eq!(ask((NODE, node_port)).unwrap().pod, "pod11");
    until("a pod finds the name", || lookup(&two, "web.default.svc.cluster.local") == Some(address)).await;
    assert_eq!(lookup(&two, "other.default.svc.cluster.local"), None);
    assert_eq!(lookup(&two, "kubernetes.default.svc.cluster.local"), Some([10, 96, 0, 1].into()));

    step("the cluster's DNS counts what it was asked");
    let metrics = two.run(|| get_from(DNS_IP, cluster_dns::METRICS_PORT, "/metrics"));
    for line in [
        r#"coredns_dns_requests_total{server="dns://192.168.77.2:10053",zone=".",view="",proto="udp",family="1",type="A"} "#,
        r#"coredns_dns_responses_total{server="dns://192.168.77.2:10053",zone=".",view="",rcode="NXDOMAIN",plugin="kubernetes"} "#,
        r#"coredns_dns_request_duration_seconds_count{server="dns://192.168.77.2:10053",zone=".",view=""} "#,
        "coredns_build_info{version=",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }

    step("changes follow");
    let patch = Patch::Merge(slice("web", &[&two]));
    slices.patch("web", &PatchParams::default(), &patch).await.unwrap();
    until("the endpoint moves", || ask((address, 80)).is_ok_and(|answer| answer.pod == "pod12")).await;
    slices.delete("web", &DeleteParams::default()).await.unwrap();
    until("refused when it is gone", || refused(ask((address, 80)))).await;
    slices.create(&PostParams::default(), &slice("web", &[&one])).await.unwrap();
    until("and back", || ask((address, 80)).is_ok()).await;
    for table in ["nat", "filter", "mangle"] {
        for argument in ["-F", "-X"] {
            let flushed = std::process::Command::new("iptables").args(["-t", table, argument]).status();
            assert!(flushed.unwrap().success());
        }
    }
    until("written anew after a flush", || ask((address, 80)).is_ok()).await;

    step("it says how it is doing");
    assert!(
        get(10256, "/healthz").starts_with("HTTP/1.1 200") && get(10256, "/livez").contains("lastUpdated")
    );
    assert_eq!(get(10249, "/proxyMode").lines().last(), Some("iptables"));
    let metrics = get(10249, "/metrics");
    assert!(metrics.contains("kubeproxy_sync_proxy_rules_duration_seconds_count"), "{metrics}");
    let events: Api<Event> = Api::all(admin.clone());
    let starting = events.list(&ListParams::default()).await.unwrap();
    assert!(starting.iter().any(|event| event.reason.as_deref() == Some("Starting")));

    step("a Service that keeps to its node tells load balancers where it is");
    let balancer = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let balancer: Service = from(json!({"metadata": {"name": "lb"}, "spec": balancer}));
    let balancer = services.create(&PostParams::default(), &balancer).await.unwrap();
    let check = balancer.spec.unwrap().health_check_node_port.unwrap() as u16;
    until("no endpoint here", || get(check, "/").contains("\"localEndpoints\":0")).await;
    let mut here = slice("lb", &[&one]);
    here.ports.as_mut().unwrap()[0].name = Some(String::new());
    slices.create(&PostParams::default(), &here).await.unwrap();
    until("one here", || get(check, "/").starts_with("HTTP/1.1 200")).await;

    step("rules stay when the proxy ends, and the next one takes them over");
    proxy_stop.cancel();
    proxy.await.unwrap().unwrap();
    assert!(ask((address, 80)).is_ok());
    let proxy_stop = CancellationToken::new();
    let proxy =
        tokio::spawn(kube_proxy::run(config.clone(), client("system:kube-proxy", &[]), proxy_stop.clone()));
    services.delete("web", &DeleteParams::default()).await.unwrap();
    until("a Service that went meanwhile is refused", || refused(ask((address, 80)))).await;

    step("a second proxy on the same node ends with one clear line");
    let second = kube_proxy::run(config, client("system:kube-proxy", &[]), CancellationToken::new());
    let error = tokio::time::timeout(SOON, second).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("cannot listen on 0.0.0.0:10256"), "{error:#}");
    proxy_stop.cancel();
    proxy.await.unwrap().unwrap();
    stop.cancel();
}

/// Asks the cluster's DNS from a pod, in bytes: the address of a name, if it has one.
fn lookup(pod: &Pod, name: &str) -> Option<Ipv4Addr> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    pod.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.connect((DNS_IP, 53)).unwrap();
        socket.send(&question).ok()?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).ok()?;
        // one answer, whose data comes last
        let found = buffer[7] == 1 && length > question.len();
        found.then(|| Ipv4Addr::from(<[u8; 4]>::try_from(&buffer[length - 4..length]).unwrap()))
    })
}

/// A page of the proxy, with its status line; empty when nobody listens.
fn get(port: u16, path: &str) -> String {
    get_from(Ipv4Addr::LOCALHOST, port, path)
}

fn get_from(ip: Ipv4Addr, port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect((ip, port)) else {
        return String::new();
    };
    let mut page = String::new();
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let _ = asked.and_then(|()| stream.read_to_string(&mut page));
    page
}
