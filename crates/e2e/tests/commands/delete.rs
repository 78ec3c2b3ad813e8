//! `delete` in its forms, and `wait`.

use std::time::{Duration, Instant};

use e2e::or_skip;

use crate::walk::{Walk, controller, pod};

#[test]
fn what_is_named_goes_and_nothing_else() {
    or_skip!();
    let walk = Walk::new("deleted");
    let two = walk.file("two.yaml", &[pod("a", "a"), pod("b", "b")].concat());
    let made = || walk.ok(&format!("create -f {two}"));
    made();
    walk.fails("delete pods", "resource(s) were provided, but no name was specified");
    walk.fails("delete pods --all -l name=a", "setting 'all' parameter but found a non empty selector");
    walk.says("delete pods --all --dry-run=server", "pod \"a\" deleted (server dry run)");
    walk.names("pods", "a b");
    for line in ["delete pods a --now", "delete pods b --grace-period=0 --force"] {
        walk.ok(line);
    }
    made();
    walk.ok("delete pods -l 'name in (a)' --grace-period=0");
    walk.ok("delete pods --field-selector=metadata.name=b");
    walk.names("pods", "");
    walk.fails("delete pod a", "pods \"a\" not found");
    walk.says("delete pod a --ignore-not-found", "");
    made();
    walk.ok(&format!("delete -f {two}"));
    walk.names("pods", "");

    walk.namespace("beside");
    for namespace in ["deleted", "beside"] {
        walk.ok(&format!("create configmap m -n {namespace}"));
        walk.ok(&format!("label configmap m -n {namespace} goes=yes"));
    }
    walk.everywhere("delete configmaps -A -l goes=yes --dry-run=server");
    walk.is("configmaps -A -l goes=yes", "{.items[*].metadata.namespace}", "beside deleted");
    walk.everywhere("delete configmaps -A -l goes=yes");
    walk.names("configmaps -A -l goes=yes", "");

    walk.ok(&format!("create -f {}", walk.file("rc.yaml", &controller("rc"))));
    walk.ok("create service clusterip rc --tcp=80");
    walk.ok("label rc,service rc of=rc --overwrite");
    walk.ok("delete all -l of=rc");
    walk.names("all -l of=rc", "");

    let said = walk.fed("delete namespaces --all --wait=false", "");
    assert!(!said.ok && said.stdout.contains("namespace \"beside\" deleted"), "{said:?}");
    for name in ["default", "kube-public", "kube-system"] {
        let why = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert!(said.stderr.contains(&why), "{said:?}");
    }
    walk.ok("wait --for=delete namespace/beside --timeout=20s");
}

#[test]
fn wait_ends_when_it_is_so_or_too_late() {
    or_skip!();
    let walk = Walk::new("waited");
    walk.ok("create deployment one --image=i:1");
    walk.ok("create deployment two --image=i:1");
    walk.says(
        "wait --for=create configmap/kube-root-ca.crt --timeout=20s",
        "configmap/kube-root-ca.crt condition met",
    );
    walk.says(
        "wait --for=jsonpath={.status.replicas} deployment/one --timeout=20s",
        "deployment.apps/one condition met",
    );
    walk.says(
        "wait --for=jsonpath={.status.replicas}=1 deployment --all --timeout=20s",
        "deployment.apps/two condition met",
    );
    walk.says("wait --for=condition=Available=false deployment/one --timeout=20s", "condition met");
    walk.says("wait --for=condition=Progressing deployment/one --timeout=20s", "condition met");
    let began = Instant::now();
    walk.fails(
        "wait pods -l app=one --for=condition=Odd --timeout=1s",
        "timed out waiting for the condition on pods/one-",
    );
    assert!((1..5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    walk.fails("wait --for=delete deployment/one --timeout=1s", "timed out");
    let out = walk.cluster.scratch("waits");
    let line = ["wait", "-n", "waited", "deployment", "--all", "--for=delete", "--timeout=20s"];
    let mut waits = walk.cluster.spawn(&line, &out).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    walk.ok("delete deployment --all");
    assert!(waits.wait().unwrap().success());
    let said = std::fs::read_to_string(out).unwrap();
    for name in ["one", "two"] {
        assert!(said.contains(&format!("deployment.apps/{name} condition met")), "{said}");
    }
    walk.fails("wait --for=condition=Ready pod/nobody --timeout=1s", "pods \"nobody\" not found");
}
