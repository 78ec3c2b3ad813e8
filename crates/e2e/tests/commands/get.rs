//! `get` in its forms, `explain`, `api-resources` and `events`.

use e2e::or_skip;

use crate::walk::{Walk, deployment, pod};

#[test]
fn what_is_there_is_shown_as_asked() {
    or_skip!();
    let walk = Walk::new("shown");
    walk.fails("get pods nobody", "Error from server (NotFound): pods \"nobody\" not found");
    walk.fails("get oddities", "the server doesn't have a resource type \"oddities\"");
    walk.says("get pods", "No resources found in shown namespace.");
    for form in ["json", "yaml", "name", "jsonpath={.items}", "custom-columns=N:.metadata.name"] {
        let said = walk.fed(&format!("get pods -o {form}"), "");
        assert!(said.ok && said.stderr.is_empty(), "{form}: {said:?}");
    }
    assert_eq!(walk.ok("get pod nobody --ignore-not-found"), "");

    let sized = |name: &str, label: &str, memory: &str| {
        let resources = format!("image: 'c:1', resources: {{requests: {{memory: {memory}}}}}");
        pod(name, label).replace("image: 'c:1'", &resources)
    };
    let three = [sized("a", "z3", "64Mi"), sized("b", "z2", "1Gi"), sized("c", "z1", "900Ki")].concat();
    let three = walk.file("three.yaml", &three);
    walk.ok(&format!("create -f {three}"));
    let sorted = |by: &str, more: &str, wanted: &str| {
        let rows = walk.ok(&format!("get pods --no-headers --sort-by={by} {more}"));
        let names: Vec<_> = rows.lines().filter_map(|row| row.split(' ').next()).collect();
        assert_eq!(names.join(" "), wanted, "{by}");
    };
    for more in ["", "--server-print=false", "--chunk-size=1"] {
        sorted("{.metadata.labels.name}", more, "c b a");
        sorted("{.spec.containers[0].resources.requests.memory}", more, "c a b");
    }
    walk.is(&format!("-f {three}"), "{..metadata.name}", "a b c");
    walk.is("pod/a svc/kubernetes -n default --ignore-not-found", "{.items[*].kind}", "Service");
    assert_eq!(
        walk.ok("get pods -o custom-columns=N:.metadata.name,L:.metadata.labels.name").lines().nth(1),
        Some("a     z3")
    );
    walk.names("pods --field-selector=metadata.name!=b,status.phase=Pending", "a c");
    walk.fails("get pods --field-selector=spec.odd=1", "field label not supported: spec.odd");
    assert!(
        walk.ok("get pods -L name --show-labels")
            .starts_with("NAME   READY   STATUS    RESTARTS   AGE   NAME   LABELS\n")
    );
    walk.is("pod a", "{.missing}", "");
    walk.fails(
        "get pod a --allow-missing-template-keys=false -o jsonpath={.missing}",
        "missing is not found",
    );
    let template = "get pods -o 'go-template={{range .items}}{{.metadata.name}}:{{end}}'";
    assert_eq!(walk.ok(template), "a:b:c:");
    assert_eq!(walk.ok("get pod a --template={{.missing}}"), "<no value>");
    walk.fails("get pod a -n default", "not found");
    walk.fails("get pod a -A", "a resource cannot be retrieved by name across all namespaces");
    walk.says("get pods -A", "NAMESPACE");
    assert!(!walk.ok("get namespaces -A").contains("NAMESPACE"));

    walk.ok(&format!("create -f {}", walk.file("d.yaml", &deployment("d", "web:1"))));
    walk.becomes("deployment d", "{.status.replicas}", "1");
    let columns = |line: &str| {
        walk.ok(line).lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns("get deployment d --subresource=status"), "NAME READY UP-TO-DATE AVAILABLE AGE");
    assert_eq!(columns("get deployment d --subresource=scale"), "NAME DESIRED AVAILABLE AGE");
    walk.is(
        "deployment d --subresource=scale",
        "{.kind} {.spec.replicas} {.status.selector}",
        "Scale 1 of=d",
    );
    walk.fails("get pod a --subresource=scale", "the server could not find the requested resource");
    walk.says("get all", "deployment.apps/d");
    walk.says("describe deployment d", "ScalingReplicaSet");
    walk.says("describe replicasets", "Controlled By:  Deployment/d");
    assert!(!walk.ok("describe deployment d --show-events=false").contains("ScalingReplicaSet"));
    walk.says("events --for=Deployment/d --types=Normal", "ScalingReplicaSet");
    walk.says("events --for=Deployment/d --types=Warning", "No events found");
    walk.says("events -A -o json", "\"reason\": \"ScalingReplicaSet\"");
}

#[test]
fn pages_and_watches_show_the_same() {
    or_skip!();
    let walk = Walk::new("paged");
    for name in ["one", "two", "three"] {
        walk.ok(&format!("create configmap {name}"));
    }
    let said = walk.fed("get clusterroles --chunk-size=10 -v6", "");
    assert!(said.stderr.contains("clusterroles?limit=10"), "{said:?}");
    assert!(said.stderr.contains("clusterroles?continue="), "{said:?}");
    assert_eq!(said.stdout, walk.ok("get clusterroles --chunk-size=0"));
    assert_eq!(walk.ok("get cm --chunk-size=1 -o name"), walk.ok("get cm -o name"));
    walk.says("describe cm --chunk-size=1 -v6", "configmaps?limit=1");
    let watched = |line: &str| {
        let said = walk.fed(&format!("get {line} --request-timeout=1s"), "");
        said.stdout
    };
    let seen = watched("cm --chunk-size=1 --watch");
    for name in ["one", "two", "three"] {
        assert!(seen.contains(&format!("\n{name} ")), "{seen}");
    }
    assert_eq!(watched("cm --watch-only --no-headers"), "");
    assert_eq!(watched("cm/one --watch -o name"), "configmap/one\n");
    walk.fails("get cm/four --watch", "configmaps \"four\" not found");
    let out = walk.cluster.scratch("watch");
    let line = ["get", "cm", "-n", "paged", "--watch-only", "--output-watch-events", "-o", "name"];
    let mut watch = walk.cluster.spawn(&line, &out).unwrap();
    let told = |wanted: &str| {
        e2e::eventually(crate::walk::SOON, || {
            // until the watch is there, what happens is not told
            walk.ok("label cm one at=now --overwrite");
            walk.ok("label cm one at-");
            let said = std::fs::read_to_string(&out)?;
            anyhow::ensure!(said.contains(wanted), "{said}");
            Ok(())
        })
        .unwrap();
    };
    told("configmap/one");
    walk.ok("delete cm two");
    told("configmap/two");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn every_kind_is_found_and_explained() {
    or_skip!();
    let walk = Walk::new("kinds");
    let listed = walk.ok("api-resources --verbs=list -o name");
    let kinds: Vec<&str> = listed.lines().collect();
    assert!(kinds.len() > 50, "{listed}");
    walk.ok(&format!("get {} -A -o name", kinds.join(",")));
    for kind in ["pods", "po", "po.status.message", "cronjob.spec.schedule", "hpa", "scale.spec"] {
        let said = walk.fed(&format!("explain {kind}"), "");
        // a scale is no resource of its own
        assert_eq!(said.ok, !kind.starts_with("scale"), "{said:?}");
    }
    let document = walk.ok("get --raw /openapi/v2");
    for text in
        ["list of returned objects", "List of services", "Watch for changes to the described resources"]
    {
        assert!(document.contains(text), "{text}");
    }
    let core = walk.ok("get --raw /api/v1");
    let maps = r#"{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"storageVersionHash":"#;
    assert!(core.contains(maps), "{core}");
    assert!(core.contains(r#""shortNames":["po"],"categories":["all"]"#), "{core}");
}
