//! What controllers and the scheduler make of objects, on a control plane whose nodes and running pods are only said to be.

use std::time::Duration;

use e2e::{Cluster, or_skip};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

fn apply(cluster: &Cluster, object: &Value) {
    cluster.apply(&object.to_string()).unwrap();
}

fn get(cluster: &Cluster, what: &[&str]) -> Value {
    let arguments: Vec<&str> =
        ["get"].into_iter().chain(what.iter().copied()).chain(["-o", "json"]).collect();
    serde_json::from_str(&cluster.run(&arguments).unwrap()).unwrap()
}

fn pod(name: &str, labels: Value, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "xebec.local/demo:1"}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
}

fn say_status(cluster: &Cluster, what: &[&str], status: &Value) {
    let patch = json!({"status": status}).to_string();
    let arguments: Vec<&str> = ["patch"]
        .into_iter()
        .chain(what.iter().copied())
        .chain(["--subresource=status", "-p", &patch])
        .collect();
    cluster.run(&arguments).unwrap();
}

/// A node that is said to be there, with one processor.
fn node(cluster: &Cluster, name: &str) {
    apply(cluster, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
    let room = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    say_status(
        cluster,
        &["node", name],
        &json!({"capacity": room, "allocatable": room, "conditions": ready}),
    );
    let taints = r#"[{"op":"remove","path":"/spec/taints"}]"#;
    let _ = cluster.run(&["patch", "node", name, "--type=json", "-p", taints]);
}

fn is_on(cluster: &Cluster, pod: &str, node: &str) {
    cluster.until(SOON, &["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"], |out| out == node).unwrap();
}

fn fits_nowhere(cluster: &Cluster, pod: &str, why: &str) {
    let condition =
        "jsonpath={range .status.conditions[?(@.type==\"PodScheduled\")]}{.status}/{.reason}/{.message}{end}";
    cluster
        .until(SOON, &["get", "pod", pod, "-o", condition], |out| {
            out.starts_with("False/Unschedulable/") && out.contains(why)
        })
        .unwrap();
    assert_eq!(cluster.run(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]).unwrap(), "");
}

#[test]
fn pods_go_where_they_fit() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    for name in ["n1", "n2"] {
        node(&cluster, name);
    }
    cluster.run(&["label", "node", "n2", "example.com/e2e=42"]).unwrap();
    let select = |value: &str| json!({"nodeSelector": {"example.com/e2e": value}});
    apply(&cluster, &pod("selected", json!({}), &select("42")));
    apply(&cluster, &pod("elsewhere", json!({}), &select("nonempty")));
    is_on(&cluster, "selected", "n2");
    fits_nowhere(&cluster, "elsewhere", "2 node(s) didn't match Pod's node affinity/selector");
    // the label makes room
    cluster.run(&["label", "node", "n1", "example.com/e2e=nonempty"]).unwrap();
    is_on(&cluster, "elsewhere", "n1");

    let sized = |cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        json!({"containers": [{"name": "c", "image": "i:1", "resources": resources}]})
    };
    for name in ["filler-0", "filler-1"] {
        apply(&cluster, &pod(name, json!({"of": "filler"}), &sized("700m")));
    }
    let nodes = "jsonpath={.items[*].spec.nodeName}";
    cluster
        .until(SOON, &["get", "pods", "-l", "of=filler", "-o", nodes], |out| {
            let mut names: Vec<&str> = out.split_whitespace().collect();
            names.sort_unstable();
            names == ["n1", "n2"]
        })
        .unwrap();
    apply(&cluster, &pod("additional", json!({}), &sized("500m")));
    fits_nowhere(&cluster, "additional", "2 Insufficient cpu");

    let port = |ip: &str| {
        json!({"nodeSelector": {"example.com/e2e": "42"}, "containers": [{"name": "c", "image": "i:1",
            "ports": [{"containerPort": 8080, "hostPort": 54322, "hostIP": ip}]}]})
    };
    apply(&cluster, &pod("everywhere", json!({}), &port("")));
    is_on(&cluster, "everywhere", "n2");
    apply(&cluster, &pod("local", json!({}), &port("127.0.0.1")));
    fits_nowhere(&cluster, "local", "1 node(s) didn't have free ports for the requested pod ports");
}

#[test]
fn services_have_endpoints_as_long_as_they_are_there() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let service = |name: &str, selector: Value, port: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [port]}})
    };
    let slices_of = |name: &str| format!("kubernetes.io/service-name={name}");
    let port = json!({"name": "web", "port": 80, "targetPort": 3000});
    // nobody is selected, and yet there is something that says so
    apply(&cluster, &service("empty", json!({"does-not-match": "anything"}), port.clone()));
    let label = slices_of("empty");
    cluster
        .until(SOON, &["get", "endpoints", "-o", "name"], |out| out.contains("endpoints/empty\n"))
        .unwrap();
    cluster
        .until(SOON, &["get", "endpointslices", "-l", &label, "-o", "name"], |out| out.lines().count() == 1)
        .unwrap();
    cluster.run(&["delete", "service", "empty"]).unwrap();
    for what in ["endpoints", "endpointslices"] {
        cluster.until(SOON, &["get", what, "-o", "name"], |out| !out.contains("/empty")).unwrap();
    }

    let ports =
        json!([{"name": "c", "image": "i:1", "ports": [{"name": "example-name", "containerPort": 3000}]}]);
    for (name, ip, labels) in [
        ("pod1", "10.1.0.1", json!({"foo": "bar", "one": "x"})),
        ("pod2", "10.1.0.2", json!({"foo": "bar", "two": "y"})),
    ] {
        apply(&cluster, &pod(name, labels, &json!({"containers": ports})));
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready});
        say_status(&cluster, &["pod", name], &status);
    }
    let named = json!({"name": "example", "port": 80, "targetPort": "example-name"});
    apply(&cluster, &service("one", json!({"one": "x"}), named));
    apply(&cluster, &service("both", json!({"foo": "bar"}), port));
    for (name, wanted) in
        [("one", vec![("10.1.0.1", "pod1")]), ("both", vec![("10.1.0.1", "pod1"), ("10.1.0.2", "pod2")])]
    {
        let label = slices_of(name);
        let addresses = "jsonpath={.items[*].endpoints[*].addresses[0]}";
        cluster
            .until(SOON, &["get", "endpointslices", "-l", &label, "-o", addresses], |out| {
                out.split_whitespace().count() == wanted.len()
            })
            .unwrap();
        let slices = get(&cluster, &["endpointslices", "-l", &label]);
        let slice = &slices["items"][0];
        assert_eq!(slice["addressType"], "IPv4");
        assert_eq!(slice["ports"][0]["port"], 3000, "{slice}");
        let mut found: Vec<(String, String)> = slice["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| {
                assert_eq!(endpoint["conditions"]["ready"], true);
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&endpoint["addresses"][0]), text(&endpoint["targetRef"]["name"]))
            })
            .collect();
        found.sort();
        let wanted: Vec<_> = wanted.iter().map(|(ip, pod)| ((*ip).to_owned(), (*pod).to_owned())).collect();
        assert_eq!(found, wanted, "{name}");
        let endpoints = get(&cluster, &["endpoints", name]);
        let subset = &endpoints["subsets"][0];
        assert_eq!(subset["addresses"].as_array().map(Vec::len), Some(wanted.len()), "{endpoints}");
        assert_eq!(subset["ports"][0]["port"], 3000);
    }
}

fn replica_set(name: &str, labels: &Value, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

#[test]
fn replica_sets_adopt_what_matches_and_release_what_does_not() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let labels = json!({"name": "adoption-release"});
    apply(&cluster, &pod("orphan", labels.clone(), &json!({})));
    apply(&cluster, &replica_set("set", &labels, 1));
    let owner = "jsonpath={.metadata.ownerReferences[0].name}/{.metadata.ownerReferences[0].controller}";
    cluster.until(SOON, &["get", "pod", "orphan", "-o", owner], |out| out == "set/true").unwrap();
    let selected = ["get", "pods", "-l", "name=adoption-release", "-o", "name"];
    assert_eq!(cluster.run(&selected).unwrap(), "pod/orphan\n", "none was made beside it");
    cluster.run(&["label", "pod", "orphan", "name=released", "--overwrite"]).unwrap();
    cluster.until(SOON, &["get", "pod", "orphan", "-o", owner], |out| out == "/").unwrap();
    cluster.until(SOON, &selected, |out| out.lines().count() == 1 && !out.contains("orphan")).unwrap();
}

#[test]
fn what_has_another_owner_outlives_the_one_that_waits_for_it() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    apply(&cluster, &replica_set("goes", &json!({"of": "goes"}), 4));
    apply(&cluster, &replica_set("stays", &json!({"of": "stays"}), 0));
    let all = ["get", "pods", "-l", "of=goes", "-o", "name"];
    cluster.until(SOON, &all, |out| out.lines().count() == 4).unwrap();
    let pods: Vec<String> = cluster.run(&all).unwrap().lines().map(str::to_owned).collect();
    let uid = cluster.run(&["get", "rs", "stays", "-o", "jsonpath={.metadata.uid}"]).unwrap();
    let second = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "stays", "uid": uid});
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": second}]).to_string();
    for pod in &pods[..2] {
        cluster.run(&["patch", pod, "--type=json", "-p", &patch]).unwrap();
    }
    cluster.run(&["delete", "rs", "goes", "--cascade=foreground"]).unwrap();
    cluster.until(SOON, &["get", "rs", "-o", "name"], |out| out == "replicaset.apps/stays\n").unwrap();
    let mut left: Vec<String> = cluster.run(&all).unwrap().lines().map(str::to_owned).collect();
    left.sort();
    let mut kept = pods[..2].to_vec();
    kept.sort();
    assert_eq!(left, kept);
    let owners =
        "jsonpath={range .items[*]}{.metadata.ownerReferences[*].name} {.metadata.deletionTimestamp};{end}";
    let owners = cluster.run(&["get", "pods", "-l", "of=goes", "-o", owners]).unwrap();
    assert_eq!(owners, "stays ;stays ;");
}
