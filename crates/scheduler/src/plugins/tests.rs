//! Tables for the plugins, run through the whole default profile.

use serde_json::{Value, json};

use super::default_framework;
use crate::algorithm::{Algorithm, Failure};
use crate::cache::Cache;
use crate::framework::CycleState;
use crate::testing::{MemoryPort, node, pod, requests};

/// Nodes, and pods on them.
fn cluster(nodes: &[(&str, Value)], pods: &[(&str, &str, Value)]) -> Cache {
    let mut cache = Cache::default();
    for (name, over) in nodes {
        cache.set_node(node(name, over.clone()));
    }
    for (name, on, over) in pods {
        let mut over = over.clone();
        over["spec"]["nodeName"] = json!(on);
        cache.set_pod(pod(name, over));
    }
    cache
}

/// Where a pod goes, or why nowhere.
fn schedule(cache: &mut Cache, incoming: Value) -> Result<String, String> {
    let framework = default_framework(MemoryPort::new());
    let pod = pod("incoming", incoming);
    let snapshot = cache.snapshot();
    let found = Algorithm::new(0, 1).schedule(&framework, &mut CycleState::default(), &pod, snapshot);
    match found {
        Ok(id) => Ok(snapshot.node(id).name.to_string()),
        Err(Failure::Fit(error)) => Err(error.to_string()),
        Err(other) => Err(format!("{other:?}")),
    }
}

/// Checks what becomes of a pod when there is but one node.
fn check(on: Value, others: Value, incoming: Value, want: Result<(), &str>) {
    let mut cache = cluster(&[("n", on.clone())], &[("other", "n", others.clone())]);
    let want = want.map(|()| "n".to_owned()).map_err(|why| format!("0/1 nodes are available: {why}."));
    assert_eq!(schedule(&mut cache, incoming.clone()), want, "{on} {others} {incoming}");
}

#[test]
fn resources_must_fit() {
    let half = requests(json!({"cpu": "2", "memory": "4Gi"}));
    let node = json!({"status": {"allocatable": {"ephemeral-storage": "10Gi", "example.com/gpu": "2"}}});
    let cases: Vec<(Value, Result<(), &str>)> = vec![
        (json!({"cpu": "2", "memory": "4Gi"}), Ok(())),
        (json!({"cpu": "2001m"}), Err("1 Insufficient cpu")),
        (json!({"memory": "4097Mi"}), Err("1 Insufficient memory")),
        (json!({"cpu": "3", "memory": "5Gi"}), Err("1 Insufficient cpu, 1 Insufficient memory")),
        (json!({"ephemeral-storage": "11Gi"}), Err("1 Insufficient ephemeral-storage")),
        (json!({"example.com/gpu": "2"}), Ok(())),
        (json!({"example.com/gpu": "3"}), Err("1 Insufficient example.com/gpu")),
        (json!({"example.com/fpga": "1"}), Err("1 Insufficient example.com/fpga")),
        (json!({"example.com/fpga": "0"}), Ok(())),
        (json!({}), Ok(())),
    ];
    for (wanted, want) in cases {
        check(node.clone(), half.clone(), requests(wanted), want);
    }
    let full = json!({"status": {"allocatable": {"pods": "1"}}});
    check(full, json!({}), json!({}), Err("1 Too many pods"));
}

#[test]
fn an_overcommitted_node_still_takes_pods_that_ask_for_nothing() {
    let too_much = requests(json!({"cpu": "5", "memory": "9Gi"}));
    check(json!({}), too_much.clone(), json!({}), Ok(()));
    check(json!({}), too_much, requests(json!({"cpu": "1m"})), Err("1 Insufficient cpu"));
}

#[test]
fn cordons_and_taints_keep_pods_away() {
    let cordoned = json!({"spec": {"unschedulable": true}});
    let tainted = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let tolerating = |toleration: Value| json!({"spec": {"tolerations": [toleration]}});
    let untolerated = Err("1 node(s) had untolerated taint(s)");
    check(cordoned.clone(), json!({}), json!({}), Err("1 node(s) were unschedulable"));
    let unschedulable = json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"});
    check(cordoned, json!({}), tolerating(unschedulable), Ok(()));
    check(tainted("NoSchedule"), json!({}), json!({}), untolerated);
    check(tainted("NoExecute"), json!({}), json!({}), untolerated);
    check(tainted("PreferNoSchedule"), json!({}), json!({}), Ok(()));
    check(tainted("NoSchedule"), json!({}), tolerating(json!({"key": "k", "value": "v"})), Ok(()));
    check(tainted("NoSchedule"), json!({}), tolerating(json!({"key": "k", "value": "w"})), untolerated);
}

#[test]
fn ports_are_taken_once() {
    let with = |ip: &str, port: u16, protocol: &str| {
        json!({"spec": {"containers": [{"name": "c", "ports": [
            {"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol}]}]}})
    };
    let taken = Err("1 node(s) didn't have free ports for the requested pod ports");
    check(json!({}), with("", 80, "TCP"), with("", 80, "TCP"), taken);
    check(json!({}), with("10.0.0.1", 80, "TCP"), with("", 80, "TCP"), taken);
    check(json!({}), with("10.0.0.1", 80, "TCP"), with("10.0.0.2", 80, "TCP"), Ok(()));
    check(json!({}), with("", 80, "TCP"), with("", 80, "UDP"), Ok(()));
    check(json!({}), with("", 80, "TCP"), with("", 81, "TCP"), Ok(()));
}

#[test]
fn selectors_and_affinity_choose_nodes() {
    let labelled = json!({"metadata": {"labels": {"zone": "a"}}});
    let selecting = |value: &str| json!({"spec": {"nodeSelector": {"zone": value}}});
    let requiring = |terms: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
    };
    let named = |names: &[&str]| json!({"key": "metadata.name", "operator": "In", "values": names});
    let other = Err("1 node(s) didn't match Pod's node affinity/selector");
    check(labelled.clone(), json!({}), selecting("a"), Ok(()));
    check(labelled.clone(), json!({}), selecting("b"), other);
    let in_zones = |zones: &[&str]| {
        requiring(json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": zones}]}]))
    };
    check(labelled.clone(), json!({}), in_zones(&["b", "a"]), Ok(()));
    check(labelled.clone(), json!({}), in_zones(&["b"]), other);
    let one_of = requiring(json!([{"matchFields": [named(&["m"])]}, {"matchFields": [named(&["n"])]}]));
    check(labelled.clone(), json!({}), one_of, Ok(()));
    let elsewhere = requiring(json!([{"matchFields": [named(&["m"])]}]));
    check(labelled.clone(), json!({}), elsewhere, Err("1 node(s) didn't satisfy plugin(s) [NodeAffinity]"));
    let conflict = requiring(json!([{"matchFields": [named(&["m"]), named(&["n"])]}]));
    check(labelled, json!({}), conflict, Err("pod affinity terms conflict"));
}

#[test]
fn reasons_of_many_nodes_are_counted() {
    let nodes = [
        ("a", json!({"spec": {"unschedulable": true}})),
        ("b", json!({"status": {"allocatable": {"cpu": "1"}}})),
        ("c", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Mi"}}})),
    ];
    let got = schedule(&mut cluster(&nodes, &[]), requests(json!({"cpu": "2", "memory": "1Gi"})));
    let want =
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu.";
    assert_eq!(got, Err(want.to_owned()));
}

#[test]
fn the_better_node_wins() {
    let on = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let preferring = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}}});
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let with_image =
        |size: i64| json!({"status": {"images": [{"names": ["example.com/app:latest"], "sizeBytes": size}]}});
    let app = json!({"spec": {"containers": [{"name": "c", "image": "example.com/app"}]}});
    let little = json!({"status": {"allocatable": {"cpu": "2"}}});
    let cases: Vec<(&str, Vec<(&str, Value)>, Vec<(&str, &str, Value)>, Value)> = vec![
        ("room", vec![("a", little.clone()), ("b", json!({}))], vec![], requests(json!({"cpu": "1"}))),
        (
            "load",
            vec![("a", json!({})), ("b", json!({}))],
            vec![("x", "a", json!({}))],
            requests(json!({"cpu": "1"})),
        ),
        (
            "balance",
            vec![("a", json!({})), ("b", json!({}))],
            vec![
                ("x", "a", requests(json!({"cpu": "2"}))),
                ("y", "b", requests(json!({"cpu": "1", "memory": "2Gi"}))),
            ],
            requests(json!({"cpu": "1", "memory": "1"})),
        ),
        ("preference", vec![("a", on("a")), ("b", on("b"))], vec![], preferring),
        ("soft taint", vec![("a", soft), ("b", json!({}))], vec![], json!({})),
        ("image", vec![("a", json!({})), ("b", with_image(2 << 30))], vec![], app.clone()),
        ("larger image", vec![("a", with_image(30 << 20)), ("b", with_image(1 << 30))], vec![], app),
    ];
    for (what, nodes, pods, incoming) in cases {
        // several times: among equals chance would decide
        for _ in 0..8 {
            assert_eq!(schedule(&mut cluster(&nodes, &pods), incoming.clone()), Ok("b".to_owned()), "{what}");
        }
    }
}
