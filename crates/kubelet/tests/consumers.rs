//! What programs in containers find: volumes of every source and mode, environments, identities, commands. Each case is a
//! pod that runs to its end and prints what it found.

mod common;

use std::collections::BTreeMap;

use common::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Pods that run at once.
const BATCH: usize = 12;

struct Case {
    name: String,
    /// Of the pod, but for what every case has in common.
    spec: Value,
    container: Value,
    expected: Vec<String>,
}

fn case(name: &str, script: &str, container: Value, spec: Value, expected: &[&str]) -> Case {
    let mut container = container;
    if container.get("command").is_none() && !script.is_empty() {
        container["command"] = json!(["sh", "-c", script]);
    }
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    Case { name: name.to_owned(), spec, container, expected }
}

/// A case of one volume at /v.
fn volume(name: &str, script: &str, source: Value, more: Value, expected: &[&str]) -> Case {
    let mut source = source;
    source["name"] = json!("v");
    let mut spec = json!({"volumes": [source]});
    if let Some(context) = more.get("pod") {
        spec["securityContext"] = context.clone();
    }
    let mut container = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    if let Some(resources) = more.get("resources") {
        container["resources"] = resources.clone();
    }
    if let Some(mounts) = more.get("mounts") {
        container["volumeMounts"] = mounts.clone();
    }
    case(name, script, container, spec, expected)
}

/// Runs all cases, some at once, and tells every difference.
async fn run(cluster: &Cluster, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for batch in cases.chunks(BATCH) {
        for case in batch {
            let mut container = case.container.clone();
            container["name"] = json!("c");
            container["image"] = json!(common::DEMO);
            let mut spec = case.spec.clone();
            spec["restartPolicy"] = json!("Never");
            spec["containers"] = match spec.get("beside") {
                Some(other) => json!([container, other.clone()]),
                None => json!([container]),
            };
            spec.as_object_mut().expect("a spec").remove("beside");
            cluster.create(&case.name, spec).await;
        }
        for case in batch {
            let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            let pod = cluster.wait(&case.name, "ended", 60, ended).await;
            let log = cluster.log(&pod, "c");
            let lines: Vec<&str> = log.lines().map(str::trim).collect();
            if pod["status"]["phase"] != "Succeeded" || lines != case.expected {
                wrong.push(format!(
                    "{}: {:?} instead of {:?}: {}",
                    case.name, lines, case.expected, pod["status"]
                ));
            }
            cluster.delete(&case.name, Some(0)).await;
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

async fn make_sources(cluster: &Cluster) {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "default");
    let map =
        json!({"metadata": {"name": "m"}, "data": {"k": "v1\n", "l": "v2\n"}, "binaryData": {"b": "AP8="}});
    let map: ConfigMap = serde_json::from_value(map).expect("a map");
    maps.create(&PostParams::default(), &map).await.expect("made");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "s1\n", "l": "s2\n"}});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    secrets.create(&PostParams::default(), &secret).await.expect("made");
}

const LIMITS: &str =
    r#"{"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}}"#;

fn limits() -> Value {
    serde_json::from_str(LIMITS).expect("resources")
}

/// The same cases for a source by itself and within a projected volume.
fn both(name: &str, script: &str, kind: &str, body: Value, more: Value, expected: &[&str]) -> [Case; 2] {
    let mut alone = body.clone();
    let mut part = body;
    // a projected volume has the mode, its sources have none
    let mode = part.as_object_mut().expect("a source").remove("defaultMode");
    if kind == "secret" {
        let name = alone.as_object_mut().expect("a source").remove("name");
        alone["secretName"] = name.expect("a name");
    }
    let mut projected = json!({"sources": [{kind: part}]});
    if let Some(mode) = mode {
        projected["defaultMode"] = mode;
    }
    [
        volume(
            &format!("{}-{name}", kind.to_lowercase()),
            script,
            json!({kind: alone}),
            more.clone(),
            expected,
        ),
        volume(
            &format!("projected-{}-{name}", kind.to_lowercase()),
            script,
            json!({"projected": projected}),
            more,
            expected,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_hold_what_their_sources_say() {
    if !common::isolated("volumes_hold_what_their_sources_say", "10.99.15.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 15, 1]).await;
    make_sources(&cluster).await;
    let mut cases = Vec::new();
    let non_root = json!({"pod": {"runAsUser": 1000}});
    let non_root_group = json!({"pod": {"runAsUser": 1000, "fsGroup": 1001}});
    let twice = json!({"mounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w", "readOnly": true}]});
    let items = json!([{"key": "l", "path": "path/to/it"}]);
    let items_mode = json!([{"key": "l", "path": "path/to/it", "mode": 256}]);
    for (kind, name, k, l) in [("configMap", "m", "v1", "v2"), ("secret", "s", "s1", "s2")] {
        let plain = json!({"name": name});
        cases.extend(both(
            "plain",
            "cat /v/k; stat -Lc %a /v/k",
            kind,
            plain.clone(),
            json!({}),
            &[k, "644"],
        ));
        cases.extend(both(
            "non-root",
            "cat /v/k; stat -Lc %a /v/k; id -u",
            kind,
            plain.clone(),
            non_root.clone(),
            &[k, "644", "1000"],
        ));
        cases.extend(both("twice", "cat /v/k /w/k", kind, plain.clone(), twice.clone(), &[k, k]));
        let mode = json!({"name": name, "defaultMode": 256});
        cases.extend(both("mode", "cat /v/k; stat -Lc %a /v/k", kind, mode, json!({}), &[k, "400"]));
        let group = json!({"name": name, "defaultMode": 288});
        cases.extend(both(
            "group",
            "cat /v/k; stat -Lc '%a %g' /v/k",
            kind,
            group,
            non_root_group.clone(),
            &[k, "440 1001"],
        ));
        let mapped = json!({"name": name, "items": items});
        cases.extend(both(
            "mapped",
            "cat /v/path/to/it; ls /v; stat -Lc %a /v/path/to/it",
            kind,
            mapped.clone(),
            json!({}),
            &[l, "path", "644"],
        ));
        cases.extend(both(
            "mapped-non-root",
            "cat /v/path/to/it; id -u",
            kind,
            mapped,
            non_root.clone(),
            &[l, "1000"],
        ));
        let moded = json!({"name": name, "items": items_mode});
        cases.extend(both(
            "mapped-mode",
            "cat /v/path/to/it; stat -Lc %a /v/path/to/it",
            kind,
            moded,
            json!({}),
            &[l, "400"],
        ));
        let optional = json!({"name": "none", "optional": true});
        cases.extend(both(
            "optional",
            "ls -A /v | grep -v '^[.][.]'; echo ok",
            kind,
            optional,
            json!({}),
            &["ok"],
        ));
        let sub = json!({"mounts": [{"name": "v", "mountPath": "/etc/passwd", "subPath": "k"}, {"name": "v", "mountPath": "/sub/l", "subPath": "l"}]});
        cases.extend(both("subpath", "cat /etc/passwd /sub/l", kind, plain, sub, &[k, l]));
    }
    cases.push(volume(
        "binary",
        "od -An -tx1 /v/b",
        json!({"configMap": {"name": "m"}}),
        json!({}),
        &["00 ff"],
    ));

    // what the pod says of itself, in files
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let resource = |path: &str, resource: &str| json!({"path": path, "resourceFieldRef": {"containerName": "c", "resource": resource}});
    let bound = json!({"resources": limits()});
    for (name, more, items, script, expected) in [
        (
            "name",
            json!({}),
            json!([field("f", "metadata.name")]),
            "cut -d- -f1-2 /v/f",
            vec!["downwardapi-name"],
        ),
        (
            "mode",
            json!({}),
            json!([field("f", "metadata.namespace")]),
            "stat -Lc %a /v/f; cat /v/f",
            vec!["644", "default"],
        ),
        ("cpu-limit", bound.clone(), json!([resource("f", "limits.cpu")]), "cat /v/f", vec!["2"]),
        ("cpu-request", bound.clone(), json!([resource("f", "requests.cpu")]), "cat /v/f", vec!["1"]),
        (
            "memory-limit",
            bound.clone(),
            json!([resource("f", "limits.memory")]),
            "cat /v/f",
            vec!["67108864"],
        ),
        (
            "memory-request",
            bound.clone(),
            json!([resource("f", "requests.memory")]),
            "cat /v/f",
            vec!["33554432"],
        ),
        (
            "node-cpu",
            json!({}),
            json!([resource("f", "limits.cpu")]),
            "[ $(cat /v/f) -gt 0 ] && echo ok",
            vec!["ok"],
        ),
        (
            "node-memory",
            json!({}),
            json!([resource("f", "limits.memory")]),
            "[ $(cat /v/f) -gt 100000000 ] && echo ok",
            vec!["ok"],
        ),
    ] {
        let [alone, projected] = both(name, script, "downwardAPI", json!({"items": items}), more, &expected);
        cases.push(alone);
        cases.push(Case {
            expected: projected
                .expected
                .iter()
                .map(|line| line.replace("downwardapi-name", "projected-downwardapi"))
                .collect(),
            ..projected
        });
    }
    for (name, body) in [
        ("default-mode", json!({"items": [field("f", "metadata.namespace")], "defaultMode": 256})),
        (
            "item-mode",
            json!({"items": [{"path": "f", "fieldRef": {"fieldPath": "metadata.namespace"}, "mode": 256}]}),
        ),
    ] {
        cases.extend(both(
            name,
            "stat -Lc %a /v/f; cat /v/f",
            "downwardAPI",
            body,
            json!({}),
            &["400", "default"],
        ));
    }
    let all = json!({"projected": {"sources": [
        {"secret": {"name": "s", "items": [{"key": "k", "path": "from/secret"}]}},
        {"configMap": {"name": "m", "items": [{"key": "k", "path": "from/map"}]}},
        {"downwardAPI": {"items": [field("name", "metadata.name"), resource("cpu", "limits.cpu")]}},
    ]}});
    cases.push(volume(
        "combined",
        "cat /v/from/secret /v/from/map /v/name /v/cpu",
        all,
        bound,
        &["s1", "v1", "combined2"],
    ));
    let mounts = json!({"mounts": [{"name": "v", "mountPath": "/one", "subPath": "f"}]});
    let downward = json!({"downwardAPI": {"items": [field("f", "metadata.namespace")]}});
    cases.push(volume("downward-subpath", "cat /one", downward, mounts, &["default"]));
    run(&cluster, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_dirs_have_their_medium_and_modes() {
    if !common::isolated("empty_dirs_have_their_medium_and_modes", "10.99.16.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 16, 1]).await;
    let mut cases = Vec::new();
    for (medium, source) in
        [("default", json!({"emptyDir": {}})), ("memory", json!({"emptyDir": {"medium": "Memory"}}))]
    {
        let tmpfs = if medium == "memory" { "tmpfs" } else { "disk" };
        let kind = "grep ' /v ' /proc/mounts | grep -q '^tmpfs' && echo tmpfs || echo disk";
        cases.push(volume(
            &format!("{medium}-mode"),
            &format!("stat -c %a /v; {kind}"),
            source.clone(),
            json!({}),
            &["777", tmpfs],
        ));
        for (who, more, id) in
            [("root", json!({}), "0"), ("user", json!({"pod": {"runAsUser": 1001}}), "1001")]
        {
            for mode in ["644", "666", "777"] {
                let script =
                    format!("echo content >/v/f; chmod {mode} /v/f; cat /v/f; stat -c '%a %u' /v/f; {kind}");
                let owned = format!("{mode} {id}");
                let name = format!("{medium}-{who}-{mode}");
                cases.push(volume(&name, &script, source.clone(), more.clone(), &["content", &owned, tmpfs]));
            }
        }
    }
    let mut shared = volume(
        "shared",
        "until [ -e /v/f ]; do sleep 0.1; done; cat /v/f",
        json!({"emptyDir": {}}),
        json!({}),
        &["from beside"],
    );
    shared.spec["beside"] = json!({"name": "beside", "image": common::DEMO, "command": ["sh", "-c", "echo from beside >/v/g; mv /v/g /v/f"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    cases.push(shared);
    run(&cluster, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_and_commands_are_expanded() {
    if !common::isolated("environments_and_commands_are_expanded", "10.99.17.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 17, 1]).await;
    make_sources(&cluster).await;
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let resource = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}});
    let env = |list: Value| json!({"env": list});
    let none = || json!({});
    let mut bound = env(json!([
        resource("A", "limits.cpu"),
        resource("B", "limits.memory"),
        resource("C", "requests.cpu"),
        resource("D", "requests.memory")
    ]));
    bound["resources"] = limits();
    let unbound = env(json!([resource("A", "limits.cpu"), resource("B", "limits.memory")]));
    let key = |kind: &str, name: &str| json!({"name": "A", "valueFrom": {kind: {"name": name, "key": "k"}}});
    let composed = env(json!([{"name": "A", "value": "a"}, {"name": "B", "value": "$(A);$$(A);$(NONE)"}]));
    let mut args = env(json!([{"name": "A", "value": "value"}]));
    args["command"] = json!(["sh", "-c"]);
    args["args"] = json!(["echo test-$(A)"]);
    let mut command = env(json!([{"name": "A", "value": "value"}]));
    command["command"] = json!(["sh", "-c", "echo $(A) \"$A\""]);
    let cases = vec![
        case(
            "ids",
            "echo $A $B; echo $C | grep -cE '^[0-9]+[.]'",
            env(json!([
                field("A", "metadata.name"),
                field("B", "metadata.namespace"),
                field("C", "status.podIP")
            ])),
            none(),
            &["ids default", "1"],
        ),
        case("host-ip", "echo $A", env(json!([field("A", "status.hostIP")])), none(), &["10.99.17.1"]),
        case("uid", "echo $A | wc -c", env(json!([field("A", "metadata.uid")])), none(), &["37"]),
        case(
            "node",
            "echo $A $B",
            env(json!([field("A", "spec.nodeName"), field("B", "spec.serviceAccountName")])),
            none(),
            &[&format!("{} default", cluster.config.node_name)],
        ),
        case("resources", "echo $A $B $C $D", bound, none(), &["2 67108864 1 33554432"]),
        case("node-resources", "[ $A -gt 0 ] && [ $B -gt 100000000 ] && echo ok", unbound, none(), &["ok"]),
        case("map-key", "echo $A", env(json!([key("configMapKeyRef", "m")])), none(), &["v1"]),
        case("secret-key", "echo $A", env(json!([key("secretKeyRef", "s")])), none(), &["s1"]),
        case(
            "map-all",
            "echo $k $p_l",
            json!({"envFrom": [{"configMapRef": {"name": "m"}}, {"prefix": "p_", "configMapRef": {"name": "m"}}]}),
            none(),
            &["v1 v2"],
        ),
        case(
            "secret-all",
            "echo $k $p_l",
            json!({"envFrom": [{"secretRef": {"name": "s"}}, {"prefix": "p_", "secretRef": {"name": "s"}}]}),
            none(),
            &["s1 s2"],
        ),
        case("composed", "echo \"$B\"", composed, none(), &["a;$(A);$(NONE)"]),
        case("args", "", args, none(), &["test-value"]),
        case("command", "", command, none(), &["value value"]),
        case("command-alone", "", json!({"command": ["echo", "own"]}), none(), &["own"]),
        case("both", "", json!({"command": ["echo"], "args": ["one", "two"]}), none(), &["one two"]),
    ];
    run(&cluster, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_contexts_bound_containers() {
    if !common::isolated("security_contexts_bound_containers", "10.99.18.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 18, 1]).await;
    let context = |context: Value| json!({"securityContext": context});
    let none = || json!({});
    let sysctls = json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}});
    let cases = vec![
        case("user", "id -u", context(json!({"runAsUser": 65534})), none(), &["65534"]),
        case(
            "group",
            "id -u; id -g",
            context(json!({"runAsUser": 1001, "runAsGroup": 2002})),
            none(),
            &["1001", "2002"],
        ),
        case(
            "pod-group",
            "id -u; id -g",
            none(),
            context(json!({"runAsUser": 1001, "runAsGroup": 2002})),
            &["1001", "2002"],
        ),
        case(
            "groups",
            "id -G",
            none(),
            context(
                json!({"runAsUser": 1001, "runAsGroup": 2002, "fsGroup": 3003, "supplementalGroups": [4004]}),
            ),
            &["2002 3003 4004"],
        ),
        case(
            "unprivileged",
            "ip link add d0 type dummy 2>/dev/null || echo refused",
            context(json!({"privileged": false})),
            none(),
            &["refused"],
        ),
        case(
            "privileged",
            "ip link add d0 type bridge 2>/dev/null && echo made",
            context(json!({"privileged": true})),
            none(),
            &["made"],
        ),
        case(
            "read-only",
            "echo x 2>/dev/null >/file || echo refused",
            context(json!({"readOnlyRootFilesystem": true})),
            none(),
            &["refused"],
        ),
        case(
            "writable",
            "echo x >/file && cat /file",
            context(json!({"readOnlyRootFilesystem": false})),
            none(),
            &["x"],
        ),
        case(
            "no-escalation",
            "grep NoNewPrivs /proc/self/status | tr '\\t' ' '; id -u",
            context(json!({"allowPrivilegeEscalation": false, "runAsUser": 1000})),
            none(),
            &["NoNewPrivs: 1", "1000"],
        ),
        case(
            "escalation",
            "grep NoNewPrivs /proc/self/status | tr '\\t' ' '",
            context(json!({"allowPrivilegeEscalation": true, "runAsUser": 1000})),
            none(),
            &["NoNewPrivs: 0"],
        ),
        case(
            "dropped",
            "grep CapEff /proc/self/status | tr '\\t' ' '",
            context(json!({"capabilities": {"drop": ["ALL"]}})),
            none(),
            &["CapEff: 0000000000000000"],
        ),
        case(
            "added",
            "grep CapEff /proc/self/status | tr '\\t' ' '",
            context(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})),
            none(),
            &["CapEff: 0000000000000400"],
        ),
        case("sysctl", "cat /proc/sys/kernel/shm_rmid_forced", none(), sysctls, &["1"]),
    ];
    run(&cluster, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_follow_sources_that_come_change_and_go() {
    if !common::isolated("volumes_follow_sources_that_come_change_and_go", "10.99.19.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 19, 1]).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "default");
    for name in ["changed", "gone"] {
        let object = json!({"metadata": {"name": name}, "data": {"k": "v1"}});
        maps.create(&PostParams::default(), &serde_json::from_value(object).expect("a map"))
            .await
            .expect("made");
        let object = json!({"metadata": {"name": name}, "stringData": {"k": "v1"}});
        secrets
            .create(&PostParams::default(), &serde_json::from_value(object).expect("a secret"))
            .await
            .expect("made");
    }
    let mut volumes = vec![json!({"name": "labels", "downwardAPI": {"items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
    ]}})];
    for name in ["come", "changed", "gone"] {
        volumes.push(json!({"name": format!("map-{name}"), "configMap": {"name": name, "optional": true}}));
        volumes.push(
            json!({"name": format!("secret-{name}"), "secret": {"secretName": name, "optional": true}}),
        );
        let sources = json!([{"configMap": {"name": name, "optional": true}}, {"downwardAPI": {"items": [{"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}, {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]);
        volumes.push(json!({"name": format!("projected-map-{name}"), "projected": {"sources": sources}}));
        let sources = json!([{"secret": {"name": name, "optional": true}}]);
        volumes.push(json!({"name": format!("projected-secret-{name}"), "projected": {"sources": sources}}));
    }
    let names: Vec<String> =
        volumes.iter().map(|volume| volume["name"].as_str().expect("a name").to_owned()).collect();
    let mounts: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "mountPath": format!("/all/{name}")})).collect();
    // what the container itself sees, until it is as it must be in the end
    let shown = "for f in $(ls -d /all/*); do echo $(basename $f): $(cat $f/k 2>/dev/null); done; cat /all/labels/labels; echo; cat /all/projected-map-come/annotations; echo; sed s/^/own-/ /all/labels/annotations; echo; sed s/^/projected-/ /all/projected-map-come/labels; echo; echo round";
    let mut c = common::cluster::container("c", &format!("while true; do {shown}; sleep 0.5; done"));
    c["volumeMounts"] = json!(mounts);
    cluster
        .create_labelled(
            "p",
            json!({"app": "x"}),
            json!({"containers": [c], "volumes": volumes, "terminationGracePeriodSeconds": 0}),
        )
        .await;
    let pod = cluster.wait_until_ready("p").await;
    let rounds = |log: &str| -> Vec<BTreeMap<String, String>> {
        let lines = |round: &str| {
            let pairs = round.lines().filter_map(|line| line.split_once([':', '=']));
            pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
        };
        log.split("round\n").map(lines).filter(|round: &BTreeMap<_, _>| !round.is_empty()).collect()
    };
    cluster.log_up_to("round", &pod, "c").await;
    let first = rounds(&cluster.log(&pod, "c")).swap_remove(0);
    for name in names.iter().filter(|name| *name != "labels") {
        assert_eq!(first[name], if name.ends_with("come") { "" } else { "v1" }, "{name}: {first:?}");
    }
    assert_eq!(first["app"], "\"x\"");

    let object = json!({"metadata": {"name": "come"}, "data": {"k": "v2"}});
    maps.create(&PostParams::default(), &serde_json::from_value(object).expect("a map")).await.expect("made");
    let object = json!({"metadata": {"name": "come"}, "stringData": {"k": "v2"}});
    secrets
        .create(&PostParams::default(), &serde_json::from_value(object).expect("a secret"))
        .await
        .expect("made");
    let params = PatchParams::default();
    maps.patch("changed", &params, &Patch::Merge(json!({"data": {"k": "v2"}}))).await.expect("changed");
    secrets
        .patch("changed", &params, &Patch::Merge(json!({"stringData": {"k": "v2"}})))
        .await
        .expect("changed");
    maps.delete("gone", &Default::default()).await.expect("deleted");
    secrets.delete("gone", &Default::default()).await.expect("deleted");
    let change = json!({"metadata": {"labels": {"app": "y"}, "annotations": {"note": "z"}}});
    cluster.pods().patch("p", &params, &Patch::Merge(change)).await.expect("changed");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let all = rounds(&cluster.log(&pod, "c"));
        let last = all.last().expect("a round").clone();
        let follows = |name: &String| {
            last.get(name).map(String::as_str) == Some(if name.ends_with("gone") { "" } else { "v2" })
        };
        let own = last.get("app").map(String::as_str) == Some("\"y\"")
            && ["note", "own-note"].iter().all(|name| last.get(*name).map(String::as_str) == Some("\"z\""))
            && last.get("projected-app").map(String::as_str) == Some("\"y\"");
        if own && names.iter().filter(|name| *name != "labels").all(follows) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "not all follows: {last:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    cluster.delete("p", Some(0)).await;
    cluster.wait_until_gone("p", 20).await;
}
