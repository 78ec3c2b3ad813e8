//! Two API servers over one store: what there is only so much of is given away once, whoever is asked.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use apiserver::authentication::{InProcessUser, UserInfo};
use apiserver::{RequestOptions, Server};
use common::{Answer, Cluster};
use serde_json::{Value, json};

async fn send(server: &Arc<Server>, method: &str, uri: &str, body: Value) -> Answer {
    let admin = InProcessUser(Arc::new(UserInfo::new("admin", &["system:masters"])));
    Cluster::send_to(server, Some(admin), method, uri, body, &[]).await
}

/// Creates objects at once, each with every other server, again where a server says to try again.
async fn race(
    servers: &[Arc<Server>; 2],
    uri: &'static str,
    bodies: impl IntoIterator<Item = Value>,
) -> (Vec<Value>, Vec<Answer>) {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let server = servers[index % servers.len()].clone();
        tasks.spawn(async move {
            loop {
                let answer = send(&server, "POST", uri, body.clone()).await;
                if answer.code != 409 || answer.body["reason"] == "AlreadyExists" {
                    return answer;
                }
            }
        });
    }
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for answer in tasks.join_all().await {
        match answer.code.as_u16() {
            201 => made.push(answer.body),
            _ => refused.push(answer),
        }
    }
    (made, refused)
}

fn distinct(objects: &[Value], pointer: &str) -> usize {
    let values: BTreeSet<String> =
        objects.iter().map(|object| object.pointer(pointer).expect("a value").to_string()).collect();
    values.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_writers_take_what_a_quota_has() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
    let cluster = Cluster::start(RequestOptions::default()).await;
    let servers = [cluster.server.clone(), cluster.beside(|_| {}).await];
    for (name, hard) in [("narrow", "50"), ("wide", "60")] {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"count/configmaps": hard}}});
        assert_eq!(cluster.admin("POST", QUOTAS, quota).await.code, 201);
        let status =
            json!({"status": {"hard": {"count/configmaps": hard}, "used": {"count/configmaps": "0"}}});
        assert_eq!(cluster.admin("PATCH", &format!("{QUOTAS}/{name}/status"), status).await.code, 200);
    }
    let maps = (0..200).map(|index| json!({"metadata": {"name": format!("m{index}")}}));
    let (made, refused) = race(&servers, MAPS, maps).await;
    let why = "exceeded quota: narrow, requested: count/configmaps=1, used: count/configmaps=50, limited: count/configmaps=50";
    for answer in &refused {
        assert_eq!(answer.code, 403, "{answer:?}");
        assert!(answer.message().ends_with(why), "{answer:?}");
    }
    assert_eq!((made.len(), refused.len()), (50, 150));
    for server in &servers {
        assert_eq!(send(server, "GET", MAPS, Value::Null).await.body["items"].as_array().unwrap().len(), 50);
        for name in ["narrow", "wide"] {
            let quota = send(server, "GET", &format!("{QUOTAS}/{name}"), Value::Null).await.body;
            assert_eq!(quota["status"]["used"], json!({"count/configmaps": "50"}), "{name}");
        }
    }
}

fn service(index: usize, kind: &str) -> Value {
    json!({"metadata": {"name": format!("s{index}")}, "spec": {"type": kind, "ports": [{"port": 80}]}})
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_is_given_away_twice() {
    let small = |config: &mut apiserver::Config| config.service_cidr = "10.96.0.0/27".parse().unwrap();
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), small).await;
    let servers = [cluster.server.clone(), cluster.beside(small).await];
    // all but the first, the last, and that of the kubernetes Service
    let free = 29;
    for round in 0..2 {
        let (made, refused) =
            race(&servers, SERVICES, (0..200).map(|index| service(index, "ClusterIP"))).await;
        for answer in &refused {
            assert!(
                answer.message().ends_with("failed to allocate a serviceIP: range is full"),
                "{answer:?}"
            );
        }
        assert_eq!((made.len(), refused.len()), (free, 200 - free), "{round}");
        assert_eq!(distinct(&made, "/spec/clusterIP"), free, "{round}");
        let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
        let count = async |server| {
            send(server, "GET", addresses, Value::Null).await.body["items"].as_array().unwrap().len()
        };
        assert_eq!(count(&servers[1]).await, free + 1, "{round}");
        give_back(&servers, made).await;
        assert_eq!(count(&servers[0]).await, 1, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_node_port_is_given_away_twice() {
    let small = |config: &mut apiserver::Config| {
        config.node_ports = apiserver::PortRange { first: 30000, last: 30015 }
    };
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), small).await;
    let servers = [cluster.server.clone(), cluster.beside(small).await];
    for round in 0..2 {
        let (made, refused) =
            race(&servers, SERVICES, (0..200).map(|index| service(index, "NodePort"))).await;
        for answer in &refused {
            assert!(answer.message().contains("range is full"), "{answer:?}");
        }
        assert_eq!((made.len(), refused.len()), (16, 184), "{round}");
        assert_eq!(distinct(&made, "/spec/ports/0/nodePort"), 16, "{round}");
        assert_eq!(distinct(&made, "/spec/clusterIP"), 16, "{round}");
        give_back(&servers, made).await;
    }
}

/// Deletes Services at once, each with every other server.
async fn give_back(servers: &[Arc<Server>; 2], made: Vec<Value>) {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, object) in made.into_iter().enumerate() {
        let server = servers[(index + 1) % servers.len()].clone();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        tasks.spawn(async move { send(&server, "DELETE", &format!("{SERVICES}/{name}"), Value::Null).await });
    }
    for answer in tasks.join_all().await {
        assert_eq!(answer.code, 200, "{answer:?}");
    }
}

/// A page that one server gave is followed by pages of the other, which has them from the store: whatever part of the
/// past somebody else had it read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_go_on_at_the_other_server() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let [first, second] = [cluster.server.clone(), cluster.beside(|_| {}).await];
    let made = ["default", "kube-public", "kube-system"].map(|namespace| {
        ["a", "b", "c"].map(|name| (format!("/api/v1/namespaces/{namespace}/configmaps"), name))
    });
    for (uri, name) in made.iter().flatten() {
        let map = json!({"metadata": {"name": name, "labels": {"test": "pages"}}});
        assert_eq!(send(&first, "POST", uri, map).await.code, 201);
    }
    let one = |namespace: &str| format!("/api/v1{namespace}/configmaps?labelSelector=test%3Dpages&limit=1");
    let names = |answer: &Answer| -> Vec<String> {
        let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
        let name = |item: &Value| {
            format!("{}/{}", text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]))
        };
        items.iter().map(name).collect()
    };
    let all = send(&first, "GET", &one(""), Value::Null).await;
    let last = send(&first, "GET", &one("/namespaces/kube-system"), Value::Null).await;
    assert_eq!(all.body["metadata"]["resourceVersion"], last.body["metadata"]["resourceVersion"]);
    for (uri, name) in made.iter().flatten() {
        assert_eq!(send(&first, "DELETE", &format!("{uri}/{name}"), Value::Null).await.code, 200);
    }
    let rest = async |namespace: &str, page: &Answer| {
        let token = text(&page.body["metadata"]["continue"]);
        let uri = format!("{}0&continue={token}", one(namespace));
        names(&send(&second, "GET", &uri, Value::Null).await)
    };
    assert_eq!(rest("/namespaces/kube-system", &last).await, ["kube-system/b", "kube-system/c"]);
    let wanted = ["default/b", "default/c", "kube-public/a", "kube-public/b", "kube-public/c"];
    let wanted = [&wanted[..], &["kube-system/a", "kube-system/b", "kube-system/c"]].concat();
    assert_eq!(rest("", &all).await, wanted);
}

/// The Service of the API leads to all servers that live.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_server_is_named_until_it_leaves() {
    let cluster = Cluster::start(RequestOptions::default()).await;
    let first = cluster.server.clone();
    let named = async |server: &Arc<Server>| {
        let endpoints =
            send(server, "GET", "/api/v1/namespaces/default/endpoints/kubernetes", Value::Null).await;
        let subset = &endpoints.body["subsets"][0];
        assert_eq!(subset["ports"], json!([{"name": "https", "port": 6443, "protocol": "TCP"}]));
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        let slice = send(server, "GET", slices, Value::Null).await.body;
        assert_eq!((&slice["ports"], text(&slice["addressType"])), (&subset["ports"], "IPv4"));
        let list = |value: &Value, pointer: &str| -> Vec<String> {
            let items = value.as_array().unwrap().iter();
            items.map(|item| text(item.pointer(pointer).unwrap()).to_owned()).collect()
        };
        let ips = list(&subset["addresses"], "/ip");
        assert_eq!(list(&slice["endpoints"], "/addresses/0"), ips);
        ips
    };
    assert_eq!(named(&first).await, ["10.0.0.1"]);
    let second = cluster.beside(|_| {}).await;
    for server in [&first, &second] {
        assert_eq!(named(server).await, ["10.0.0.1", "10.0.0.2"]);
    }
    apiserver::bootstrap::stop(&first).await;
    for server in [&second, &first] {
        assert_eq!(named(server).await, ["10.0.0.2"]);
    }
    // there is nobody better to name
    apiserver::bootstrap::stop(&second).await;
    assert_eq!(named(&second).await, ["10.0.0.2"]);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
