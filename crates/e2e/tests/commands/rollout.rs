//! `rollout` of Deployments: their history, the way back, and pauses.

use e2e::or_skip;

use crate::walk::{Walk, deployment};

#[test]
fn a_deployment_goes_back_and_forth() {
    or_skip!();
    let walk = Walk::new("rolled");
    let image = |wanted: &str| walk.is("deployment d", "{.spec.template.spec.containers[0].image}", wanted);
    let revision = |wanted: &str| {
        let path = r"{.metadata.annotations.deployment\.kubernetes\.io/revision}";
        walk.becomes("deployment d", path, wanted);
    };
    walk.ok(&format!("create -f {}", walk.file("1.yaml", &deployment("d", "web:1"))));
    revision("1");
    walk.says(
        "rollout undo deployment d --to-revision=1",
        "skipped rollback (current template already matches revision 1)",
    );
    walk.fails("rollout undo deployment d", "no rollout history found for deployment \"d\"");
    walk.ok("set image deployment d web=web:2");
    walk.ok("annotate deployment d kubernetes.io/change-cause=second");
    revision("2");
    walk.says("rollout history deployment d", "2         second");
    walk.says("rollout history deployment d --revision=1", "web:1");
    walk.says("rollout undo deployment d --dry-run=client", "web:1");
    walk.ok("rollout undo deployment d --dry-run=server");
    image("web:2");
    walk.says("rollout undo deployment d --to-revision=1", "deployment.apps/d rolled back");
    image("web:1");
    revision("3");
    walk.fails(
        "rollout undo deployment d --to-revision=100",
        "unable to find specified revision 100 in history",
    );
    walk.ok("rollout undo deployment d");
    image("web:2");
    revision("4");
    walk.ok("rollout pause deployment d");
    for line in ["undo", "restart", "pause"] {
        walk.fails(&format!("rollout {line} deployment d"), "paused");
    }
    walk.ok("set image deployment d web=web:3");
    revision("4");
    walk.ok("rollout resume deployment d");
    revision("5");
    walk.ok("rollout undo deployment d");
    revision("6");
    let of = r".metadata.annotations.deployment\.kubernetes\.io/revision";
    let sets = format!("{{range .items[*]}}{{{of}}} {{{of}-history}}{{\";\"}}{{end}}");
    let sets = walk.field("replicasets", &sets);
    let mut sets: Vec<&str> = sets.split(';').filter(|set| !set.is_empty()).collect();
    sets.sort_unstable();
    assert_eq!(sets, ["3 1", "5 ", "6 2,4"]);
    walk.fails(
        "rollout status deployment d --revision=3",
        "desired revision (3) is different from the running revision (6)",
    );
    walk.ok("rollout restart deployment d");
    revision("7");
    let managers = walk.field("deployment d --show-managed-fields", "{.metadata.managedFields[*].manager}");
    for manager in ["kubectl-rollout", "kube-controller-manager"] {
        assert!(managers.split(' ').any(|name| name == manager), "{managers}");
    }

    // what waits for a scale is told when the controller has seen it
    walk.ok("scale deployment d --replicas=0");
    walk.says("rollout status deployment d --timeout=20s", "deployment \"d\" successfully rolled out");
    walk.becomes("deployment d", "{.status.replicas}", "");
    let seen = walk.field("deployment d", "{.metadata.generation} {.status.observedGeneration}");
    let (made, seen) = seen.split_once(' ').unwrap();
    assert_eq!(made, seen);
    walk.fails("rollout undo service/kubernetes -n default", "error retrieving rollbacker for \"Service\"");
}
