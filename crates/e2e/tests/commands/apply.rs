//! `apply`, on the client's side and on the server's, and `diff`.

use e2e::or_skip;

use crate::walk::{Walk, deployment, pod};

fn map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{data}}}\n---\n")
}

#[test]
fn what_was_applied_is_known_to_the_next_apply() {
    or_skip!();
    let walk = Walk::new("applied");
    let first = walk.file("first.yaml", &pod("a", "first"));
    let second = walk.file("second.yaml", &pod("a", "second"));
    walk.says(&format!("create -f {first}"), "pod/a created");
    assert_eq!(walk.ok("apply view-last-applied pod/a"), "");
    for dry in ["client", "server"] {
        walk.ok(&format!("apply set-last-applied --create-annotation --dry-run={dry} -f {first}"));
    }
    assert_eq!(walk.ok("apply view-last-applied pod/a"), "");
    walk.ok(&format!("apply set-last-applied --create-annotation -f {first}"));
    walk.says("apply view-last-applied pod/a", "name: first");
    let before = walk.field("pod a", "{.metadata.resourceVersion}");
    walk.says(&format!("apply --dry-run=server -f {second}"), "pod/a configured (server dry run)");
    walk.is("pod a", "{.metadata.labels.name}/{.metadata.resourceVersion}", &format!("first/{before}"));
    walk.says(&format!("apply -f {second}"), "pod/a configured");
    walk.says(&format!("apply -f {second}"), "pod/a unchanged");
    walk.says("apply view-last-applied pod/a", "name: second");

    // what has defaults goes when another choice has no room for it
    let plain = deployment("web", "web:1");
    walk.ok(&format!("apply -f {}", walk.file("plain.yaml", &plain)));
    walk.is("deployment web", "{.spec.strategy.rollingUpdate.maxSurge}", "25%");
    let recreated = plain.replace("replicas: 1", "replicas: 1\n  strategy: {type: Recreate}");
    walk.ok(&format!("apply -f {}", walk.file("recreated.yaml", &recreated)));
    walk.is("deployment web", "{.spec.strategy}", r#"{"type":"Recreate"}"#);

    // by force it is deleted and made anew, and what was there is put back when that fails
    let wrong = plain.replace("metadata: {name: web}", "metadata: {name: web, resourceVersion: '1'}");
    let wrong = wrong.replace("matchLabels: {of: web}", "matchLabels: {of: nobody}");
    let (before, path) = (walk.field("deployment web", "{.metadata.uid}"), "{.spec.selector.matchLabels.of}");
    walk.fails(&format!("apply --force -f {}", walk.file("wrong.yaml", &wrong)), "Invalid value");
    walk.is("deployment web", path, "web");
    assert_ne!(walk.field("deployment web", "{.metadata.uid}"), before);

    let headless = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None, selector: {a: b}, ports: [{port: 80}]}\n";
    walk.ok(&format!("apply -f {}", walk.file("headless.yaml", headless)));
    let addressed = walk.file("addressed.yaml", &headless.replace("None", "10.96.0.77"));
    walk.fails(&format!("apply -f {addressed}"), "may not change once set");
    walk.ok(&format!("apply --force -f {addressed}"));
    walk.is("service s", "{.spec.clusterIP}", "10.96.0.77");

    // one of several may fail
    let three = walk.file("three.yaml", &[pod("b", "b"), pod("WRONG", "w"), pod("c", "c")].concat());
    walk.fails(&format!("apply -f {three}"), "The Pod \"WRONG\" is invalid");
    walk.names("pods -l name", "a b c");
    let unknown = "apiVersion: example.com/v1\nkind: Bogus\nmetadata: {name: b}\n";
    let two = walk.file("two.yaml", &[&map("kept", "a: b"), unknown].concat());
    walk.fails(&format!("apply -f {two}"), "no matches for kind \"Bogus\" in version \"example.com/v1\"");
    walk.names("cm --field-selector=metadata.name=kept", "kept");
}

#[test]
fn prune_takes_what_is_no_longer_applied() {
    or_skip!();
    let walk = Walk::new("pruned");
    let group = |name: &str| pod(name, "grouped");
    let a = walk.file("prune/a.yaml", &group("a"));
    let b = walk.file("prune/b.yaml", &group("b"));
    walk.ok(&format!("apply -l name=grouped -f {a}"));
    walk.says(&format!("diff -l name=grouped -f {a}"), "");
    let shown = walk.fed(&format!("diff --prune -l name=grouped -f {b}"), "");
    assert!(
        !shown.ok && shown.stdout.contains("-  name: a") && shown.stdout.contains("+  name: b"),
        "{shown:?}"
    );
    walk.says(&format!("apply --prune -l name=grouped -f {b}"), "pod/a pruned");
    walk.becomes("pods", "{.items[*].metadata.name}", "b");
    let folder = a.trim_end_matches("/a.yaml");
    walk.fails(&format!("apply --prune -f {folder}"), "without explicitly passing --all");
    walk.ok(&format!("apply -f {folder}"));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {name: grouped}}\nspec: {ports: [{port: 80}]}\n";
    let service = walk.file("service.yaml", service);
    walk.ok(&format!("apply --prune -l name=grouped --prune-allowlist=core/v1/Service -f {service}"));
    walk.names("pods", "a b");
    walk.says(&format!("apply --prune -l name=grouped -f {service}"), "pod/b pruned");
    walk.becomes("pods", "{.items[*].metadata.name}", "");
    walk.names("services", "s");
}

#[test]
fn apply_moves_between_client_and_server() {
    or_skip!();
    let walk = Walk::new("moved");
    let file = |name: &str, data: &str| walk.file(name, &map("m", data));
    let (first, second) = (file("1.yaml", "key: a, legacy: b"), file("2.yaml", "key: a, ours: c"));
    let third = file("3.yaml", "key: a, theirs: d");
    walk.says(&format!("apply -f {first}"), "configmap/m created");
    walk.is(
        "cm m --show-managed-fields",
        "{.metadata.managedFields[*].manager}",
        "kubectl-client-side-apply",
    );
    let stranger = format!("apply --server-side --field-manager=stranger -f {}", file("4.yaml", "key: z"));
    walk.fails(&stranger, "conflict with \"kubectl-client-side-apply\" using v1: .data.key");
    walk.says(&format!("apply --server-side -f {first}"), "configmap/m serverside-applied");
    walk.ok(&format!("apply --server-side -f {second}"));
    walk.is("cm m", "{.data}", r#"{"key":"a","ours":"c"}"#);
    walk.says(&format!("apply -f {third}"), "configmap/m configured");
    walk.is("cm m", "{.data}", r#"{"key":"a","theirs":"d"}"#);
    walk.ok(&format!("apply --server-side -f {second}"));
    walk.is("cm m", "{.data}", r#"{"key":"a","ours":"c"}"#);
    let before = walk.field("cm m", "{.metadata.resourceVersion}");
    walk.fails(&format!("diff --server-side -f {third}"), "+  theirs: d");
    walk.says(&format!("diff --server-side -f {second}"), "");
    walk.ok(&format!("apply --server-side --dry-run=server -f {third}"));
    walk.is("cm m", "{.metadata.resourceVersion}", &before);
    walk.says(&format!("{stranger} --force-conflicts"), "configmap/m serverside-applied");
    walk.is("cm m", "{.data.key}", "z");
    walk.fails(&format!("apply --server-side -f {second}"), "conflict with \"stranger\": .data.key");

    // who applies by a name of their own on the client's side keeps it on the server's, without the annotation
    let mine = |line: &str, name: &str, data: &str| {
        let path = walk.file(name, &map("own", data));
        walk.ok(&format!("apply --field-manager=mine {line} -f {path}"));
    };
    let annotation = r"{.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}";
    mine("", "5.yaml", "key: a, legacy: b");
    assert!(walk.field("cm own", annotation).contains("legacy"));
    mine("--server-side", "5.yaml", "key: a, legacy: b");
    walk.is("cm own", annotation, "");
    mine("--server-side", "6.yaml", "key: b");
    walk.is("cm own", "{.data}", r#"{"key":"b"}"#);

    // a status is applied through its subresource
    walk.ok(&format!("apply --server-side -f {}", walk.file("pod.yaml", &pod("p", "p"))));
    let status = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {conditions: [{type: example.com/c, status: 'True'}]}\n";
    walk.ok(&format!("apply --server-side --subresource=status -f {}", walk.file("status.yaml", status)));
    walk.is("pod p", "{.status.conditions[?(@.type==\"example.com/c\")].status}", "True");
}
