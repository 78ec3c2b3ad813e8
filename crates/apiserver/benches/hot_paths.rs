//! What the server adds to a request: a decision by RBAC, a whole get, and an event on its way to many watchers.

use std::hint::black_box;
use std::sync::Arc;

use apimachinery::Object;
use apiserver::authentication::{InProcessUser, UserInfo};
use apiserver::authorization::Attributes;
use apiserver::authorization::rbac::{Kind, Rbac};
use apiserver::http::body::{Response, full};
use apiserver::http::chain;
use apiserver::pki::{Pki, PkiOptions};
use apiserver::{Config, RequestOptions, Server, bootstrap};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::BodyExt;
use serde_json::json;
use storage::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "rbac.authorization.k8s.io";

fn decide(criterion: &mut Criterion) {
    let rbac = Rbac::default();
    for number in 0..500 {
        let rules = json!([{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list", "watch"]}]);
        let role = json!({"metadata": {"name": format!("role-{number}")}, "rules": rules});
        rbac.upsert(Kind::ClusterRole, &Object::from(role));
    }
    for number in 0..2000 {
        let binding = json!({
            "metadata": {"name": format!("binding-{number}")},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": format!("role-{}", number % 500)},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": format!("user-{number}")}],
        });
        rbac.upsert(Kind::ClusterRoleBinding, &Object::from(binding));
    }
    let user = UserInfo::new("user-1999", &["system:authenticated"]);
    let request = Attributes { namespace: "a", ..Attributes::resource(&user, "get", "", "pods") };
    assert!(rbac.decide(&request).is_allowed());
    criterion.bench_function("decide by RBAC with 500 roles and 2,000 bindings", |b| {
        b.iter(|| rbac.decide(black_box(&request)));
    });
}

/// A server in this process, and what keeps it there.
struct Running {
    server: Arc<Server>,
    pki: Pki,
    _folder: tempfile::TempDir,
}

async fn start(requests: RequestOptions) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Arc::new(Sqlite::open(folder.path().join("state.db")).expect("a store"));
    let pki = Pki::load_or_create(PkiOptions {
        dir: folder.path().join("pki"),
        sans: Vec::new(),
        node_name: "n".into(),
        cluster_domain: "cluster.local".into(),
        service_ip: [10, 96, 0, 1].into(),
    })
    .expect("certificates");
    let config = Config {
        requests,
        ..Config::new(([10, 0, 0, 1], 6443).into(), "10.96.0.0/16".parse().expect("ranges"))
    };
    let server = Server::start(config, storage, &pki, CancellationToken::new()).await.expect("a server");
    Running { server, pki, _folder: folder }
}

async fn send(server: &Arc<Server>, method: &str, path: &str, body: String) -> Response {
    send_as(server, &UserInfo::new("admin", &["system:masters"]), method, path, body).await
}

async fn send_as(server: &Arc<Server>, user: &UserInfo, method: &str, path: &str, body: String) -> Response {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(full(body))
        .expect("a request");
    request.extensions_mut().insert(InProcessUser(Arc::new(user.clone())));
    chain::handle(server.clone(), request).await
}

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let running = runtime.block_on(start(RequestOptions::default()));
    let server = &running.server;
    let map = |number: u64| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"n": number.to_string()}})
            .to_string()
    };
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
    runtime.block_on(async {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        send(server, "POST", "/api/v1/namespaces", namespace.to_string()).await;
        assert!(send(server, "POST", MAPS, map(0)).await.status().is_success());
    });
    criterion.bench_function("get an object through the whole chain", |b| {
        b.iter(|| {
            runtime
                .block_on(async { send(server, "GET", MAP, String::new()).await.into_body().collect().await })
        });
    });

    let mut group = criterion.benchmark_group("an event on its way to all watchers");
    group.sample_size(20);
    let mut number = 0;
    for watchers in [1_usize, 100, 1000] {
        let mut bodies = runtime.block_on(async {
            let mut bodies = Vec::new();
            for _ in 0..watchers {
                bodies.push(send(server, "GET", &format!("{MAPS}?watch=1"), String::new()).await.into_body());
            }
            for body in &mut bodies {
                body.frame().await.expect("what is there").expect("a frame");
            }
            bodies
        });
        group.throughput(Throughput::Elements(watchers as u64));
        group.bench_function(BenchmarkId::new("watchers", watchers), |b| {
            b.iter(|| {
                number += 1;
                runtime.block_on(async {
                    assert!(send(server, "PUT", MAP, map(number)).await.status().is_success());
                    for body in &mut bodies {
                        body.frame().await.expect("an event").expect("a frame");
                    }
                });
            });
        });
    }
}

/// What it costs to find a place: 32 gets at once of a user whose level has queues, by both ways.
fn places(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
    const MAP: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let jane = UserInfo::new("jane", &["team"]);
    let mut group = criterion.benchmark_group("32 gets at once");
    group.throughput(Throughput::Elements(32));
    for (name, priority_and_fairness) in [("counted", false), ("by priority and fairness", true)] {
        let options = RequestOptions { priority_and_fairness, ..RequestOptions::default() };
        let running = runtime.block_on(start(options));
        let server = &running.server;
        runtime.block_on(async {
            let trust = running.pki.trust().clone();
            bootstrap::run(server.clone(), trust).await.expect("what every cluster has");
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": "team"},
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "admin"},
                "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "jane"}],
            });
            let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
            assert!(send(server, "POST", bindings, binding.to_string()).await.status().is_success());
            assert!(send_as(server, &jane, "GET", MAPS, String::new()).await.status().is_success());
        });
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let gets = (0..32).map(|_| {
                        let (server, jane) = (server.clone(), jane.clone());
                        tokio::spawn(async move {
                            let answer = send_as(&server, &jane, "GET", MAP, String::new()).await;
                            assert!(answer.status().is_success());
                            answer.into_body().collect().await
                        })
                    });
                    futures::future::join_all(gets).await
                })
            });
        });
        running.server.stopping.cancel();
    }
}

criterion_group!(benches, decide, requests, places);
criterion_main!(benches);
