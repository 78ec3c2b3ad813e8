//! Commands that change one thing of an object: `patch`, `replace`, `edit`, `label`, `annotate`, `set`.

use e2e::or_skip;

use crate::walk::{Walk, controller, deployment, pod};

/// An editor that puts one word in the place of another.
fn editor(from: &str, to: &str) -> String {
    format!("sed -i s/{from}/{to}/g")
}

fn edit(walk: &Walk, line: &str, with: &str) -> String {
    let mut words = vec!["edit", "--namespace=changed"];
    words.extend(line.split(' '));
    let mut command = walk.cluster.kubectl_of("kubectl", &words);
    let said = command.env("KUBE_EDITOR", with).env("EDITOR", "false").output().unwrap();
    assert!(said.status.success(), "{line}: {said:?}");
    [said.stdout, said.stderr].iter().map(|out| String::from_utf8_lossy(out).into_owned()).collect()
}

#[test]
fn one_thing_of_an_object_is_changed() {
    or_skip!();
    let walk = Walk::new("changed");
    let file = walk.file("pod.yaml", &pod("p", "p"));
    walk.ok(&format!("create -f {file}"));
    let image = |wanted: &str| walk.is("pod p", "{.spec.containers[0].image}", wanted);
    let patch = |more: &str, text: &str| format!("patch pod p {more} -p '{text}'");
    let to = |image: &str| format!(r#"{{"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}"#);
    walk.says(&patch("", &to("c:2")), "pod/p patched");
    image("c:2");
    walk.says(&patch("", &to("c:2")), "pod/p patched (no change)");
    walk.ok(&patch("--dry-run=server", &to("c:9")));
    let replace = r#"[{"op":"replace","path":"/spec/containers/0/image","value":"c:3"}]"#;
    walk.ok(&patch("--type=json", replace));
    image("c:3");
    walk.ok(&patch("", "spec: {containers: [{name: c, image: c:4}]}"));
    walk.ok(&format!("patch -f {file} -p '{}'", to("c:5")));
    image("c:5");
    walk.fails(&patch("", r#"{"metadata":{"labels":"x"}}"#), "cannot restore map from string");
    let at =
        |version: i64| format!(r#"{{"metadata":{{"resourceVersion":"{version}","labels":{{"at":"x"}}}}}}"#);
    let version: i64 = walk.field("pod p", "{.metadata.resourceVersion}").parse().unwrap();
    walk.fails(
        &patch("", &at(version + 100)),
        "please apply your changes to the latest version and try again",
    );
    walk.says(&patch("", &at(version)), "pod/p patched");

    let renamed = walk.ok("get pod p -o json").replace("\"name\": \"c\"", "\"name\": \"d\"");
    let renamed = walk.file("renamed.json", &renamed);
    walk.fails(
        &format!("replace -f {renamed}"),
        "spec: Forbidden: pod updates may not change fields other than",
    );
    walk.ok(&format!("replace --force --grace-period=0 -f {renamed}"));
    walk.is("pod p", "{.spec.containers[0].name}", "d");
    let raw = "/api/v1/namespaces/changed/configmaps";
    let map = |data: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"raw"}},"data":{data}}}"#)
    };
    walk.says(&format!("create --raw {raw} -f {}", walk.file("1.json", &map("{}"))), "\"uid\"");
    walk.ok(&format!("replace --raw {raw}/raw -f {}", walk.file("2.json", &map(r#"{"a":"b"}"#))));
    walk.says(&format!("get --raw {raw}/raw"), r#""data":{"a":"b"}"#);
    walk.ok(&format!("delete --raw {raw}/raw"));
    walk.fails("get configmap raw", "configmaps \"raw\" not found");

    let said = edit(&walk, "pod/p --output-patch", &editor("c:5", "c:6"));
    assert!(said.contains(r#"Patch: {"spec":{"#) && said.contains("pod/p edited"), "{said}");
    image("c:6");
    assert!(edit(&walk, "pod/p", "cat").contains("Edit cancelled, no changes made."));

    walk.says("label pod p new=x --dry-run=server", "pod/p labeled (server dry run)");
    walk.is("pod p", "{.metadata.labels.new}", "");
    walk.ok("label pod p new=x empty=");
    walk.fails("label pod p new=y", "'new' already has a value (x), and --overwrite is false");
    walk.ok("label pods --all --overwrite new=y");
    walk.names("pods -l 'new in (y),empty='", "p");
    walk.ok("label pod p new-");
    walk.names("pods -l '!new'", "p");
    walk.ok("annotate pod p empty= note=x");
    walk.is("pod p", "{.metadata.annotations}", r#"{"empty":"","note":"x"}"#);
    let managers = walk.field("pod p --show-managed-fields", "{.metadata.managedFields[*].manager}");
    for manager in ["kubectl-annotate", "kubectl-edit", "kubectl-label", "kubectl-replace"] {
        assert!(managers.split(' ').any(|name| name == manager), "{managers}");
    }

    // several of several kinds at once
    let all = walk.file("all.yaml", &[controller("one"), controller("two")].concat());
    walk.ok(&format!("create -f {all}"));
    walk.fails(&format!("get -f {all} --watch"), "watch is only supported on individual resources");
    let state = walk.file(
        "state.yaml",
        &std::fs::read_to_string(&all).unwrap().replace("}\nspec", ", labels: {is: new}}\nspec"),
    );
    walk.ok(&format!("replace --force --cascade=background -f {state}"));
    edit(&walk, &format!("-f {all}"), &editor("is:.new", "is:\\ edited"));
    walk.ok(&format!("label --overwrite -f {all} labeled=yes"));
    walk.is(
        "rc",
        "{.items[*].metadata.labels}",
        r#"{"is":"edited","labeled":"yes"} {"is":"edited","labeled":"yes"}"#,
    );
}

#[test]
fn each_thing_that_is_set_is_a_generation() {
    or_skip!();
    let walk = Walk::new("set");
    walk.ok(&format!("apply -f {}", walk.file("d.yaml", &deployment("d", "web:1"))));
    let daemons = deployment("e", "web:1")
        .replace("kind: Deployment", "kind: DaemonSet")
        .replace("  replicas: 1\n", "");
    walk.ok(&format!("apply -f {}", walk.file("e.yaml", &daemons)));
    walk.ok("create configmap m --from-literal=key-1=a --from-literal=key-2=b");
    walk.ok("create secret generic s --from-literal=user=a");
    for object in ["deployment/d", "daemonset/e"] {
        let steps = [
            "set image OBJECT web=web:2",
            "set image OBJECT *=web:3",
            "set env OBJECT --keys=key-2 --from=configmap/m",
            "set env OBJECT --from=secret/s",
            "set env OBJECT -c web a=b",
            "set resources OBJECT --limits=cpu=200m,memory=512Mi",
            "set resources OBJECT -c aside --requests=cpu=100m",
            "set serviceaccount OBJECT robot",
            "rollout restart OBJECT",
        ];
        for (index, step) in steps.iter().enumerate() {
            let step = step.replace("OBJECT", object);
            if !step.starts_with("rollout") {
                walk.ok(&format!("{step} --dry-run=server"));
            }
            walk.ok(&step);
            walk.is(object, "{.metadata.generation}", &(index + 2).to_string());
        }
        walk.ok(&format!("set image {object} *=web:3"));
        walk.is(object, "{.metadata.generation}", "10");
        walk.fails(&format!("set image {object} nobody=x"), "unable to find container named \"nobody\"");
        let spec = "{range .spec.template.spec.containers[*]}{.image} {.env[*].name} {.resources};{end}";
        walk.is(
            object,
            spec,
            "web:3 KEY_2 USER a {\"limits\":{\"cpu\":\"200m\",\"memory\":\"512Mi\"}};\
             web:3 KEY_2 USER {\"limits\":{\"cpu\":\"200m\",\"memory\":\"512Mi\"},\"requests\":{\"cpu\":\"100m\"}};",
        );
        walk.is(object, "{.spec.template.spec.serviceAccountName}", "robot");
    }
    walk.ok("create service clusterip c --tcp=80");
    walk.ok("set selector service c role=x");
    walk.is("service c", "{.spec.selector}", r#"{"role":"x"}"#);
    walk.fails("set selector service c role=y --resource-version=1", "Conflict");
}
