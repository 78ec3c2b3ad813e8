//! `taint`, `cordon`, `drain` and `debug` of a node that is but said to be there.

use e2e::or_skip;

use crate::walk::{Walk, pod};

#[test]
fn a_node_is_tainted_cordoned_and_drained() {
    or_skip!();
    let walk = Walk::new("nodes");
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a, labels: {of: test}}\nstatus: {capacity: {memory: 1Gi}}\n";
    walk.ok(&format!("create -f {}", walk.file("node.yaml", node)));
    let on = |name: &str| pod(name, name).replace("spec: {", "spec: {nodeName: node-a, ");
    let two = walk.file("two.yaml", &[on("a"), on("b")].concat());
    walk.ok(&format!("create -f {two}"));

    let taint = |wanted: &str| {
        walk.is(
            "node node-a",
            "{range .spec.taints[?(@.key==\"k\")]}{.key}={.value}:{.effect};{end}",
            wanted,
        );
    };
    for dry in ["client", "server"] {
        walk.ok(&format!("taint node node-a k=v:PreferNoSchedule --dry-run={dry}"));
    }
    taint("");
    walk.says("taint node node-a k=v:PreferNoSchedule k:NoSchedule", "node/node-a tainted");
    taint("k=v:PreferNoSchedule;k=:NoSchedule;");
    walk.fails(
        "taint node node-a k=w:PreferNoSchedule",
        "already has k taint(s) with same effect(s) and --overwrite is false",
    );
    walk.ok("taint node node-a k=w:PreferNoSchedule --overwrite");
    walk.ok("taint node node-a k:NoSchedule-");
    taint("k=w:PreferNoSchedule;");
    walk.says("taint node node-a k-", "node/node-a untainted");
    taint("");
    walk.fails("taint node node-a k=v:Odd", "invalid taint effect: Odd");

    let closed = |wanted: &str| walk.is("node node-a", "{.spec.unschedulable}", wanted);
    walk.says("cordon node-a --dry-run=server", "node/node-a cordoned (server dry run)");
    walk.says("drain node-a --force --dry-run=server", "evicting pod nodes/a (server dry run)");
    closed("");
    walk.fails(
        "drain node-a --pod-selector=name=a",
        "cannot delete cannot delete Pods that declare no controller",
    );
    closed("true");
    walk.says("uncordon node-a", "node/node-a uncordoned");
    walk.says("uncordon node-a", "node/node-a already uncordoned");
    // nobody runs the pods, so that they do not end
    walk.says(
        "drain node-a --force --grace-period=1 --pod-selector=name=a --skip-wait-for-delete-timeout=1",
        "evicting pod nodes/a",
    );
    walk.is(
        "pods",
        "{range .items[*]}{.metadata.name} {.metadata.deletionGracePeriodSeconds};{end}",
        "a 1;b ;",
    );
    walk.fails("drain node-a --selector=of=test", "cannot specify both a node name and a --selector option");
    let said = walk.fed("drain -v6 --force --selector=of=test --chunk-size=1 --dry-run=client", "");
    for asked in [
        "/nodes?labelSelector=of%3Dtest&limit=1",
        "/pods?fieldSelector=spec.nodeName%3Dnode-a&limit=1",
        "/pods?continue=",
    ] {
        assert!(said.stderr.contains(asked), "{asked}: {said:?}");
    }
    walk.ok("uncordon -l of=test");
    walk.says("cordon -l of=nothing", "");
    closed("");
    walk.says("cordon -l of=test", "node/node-a cordoned");
    walk.says("get node node-a", ",SchedulingDisabled");
    let patch = |value: &str| format!("patch node node-a -p '{{\"spec\":{{\"unschedulable\":{value}}}}}'");
    walk.ok(&patch("null"));
    closed("");
    walk.ok("delete pods a b --force");

    // a pod beside the node's own, and a container within a pod
    walk.ok("debug node/node-a --image=i:1 --profile=general --attach=false -- true");
    let form =
        "{.items[0].spec.nodeName} {.items[0].spec.hostNetwork} {.items[0].spec.volumes[0].hostPath.path}";
    walk.is("pods", form, "node-a true /");
    walk.ok("delete pods --all --force");
    walk.ok("run target --image=i:1");
    walk.ok("debug target --image=d:1 -c look --profile=general --attach=false");
    let added = "{.spec.ephemeralContainers[0].name} {.spec.ephemeralContainers[0].securityContext.capabilities.add[0]}";
    walk.is("pod target", added, "look SYS_PTRACE");
    walk.ok("debug target --image=d:1 -c look --copy-to=copy --profile=general --attach=false");
    walk.is("pod copy", "{.spec.containers[*].image} {.spec.shareProcessNamespace}", "i:1 d:1 true");
    walk.ok("debug target --image=d:1 -c target --copy-to=third --replace --profile=general --attach=false -- sleep 1m");
    walk.names("pods", "copy third");
    walk.is("pod third", "{.spec.containers[*].image}", "d:1");
}
