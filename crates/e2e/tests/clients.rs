//! Clients that nobody here wrote, against the API: the Python client, kube-rs, and every kubectl on the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use e2e::{Cluster, kubectls, or_skip};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, Discovery};
use serde_json::json;

/// Runs one of the files in `clients/python`.
fn python(file: &str) {
    or_skip!();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = root.join("../../target/clients/python/bin/python");
    assert!(interpreter.is_file(), "scripts/test-clients puts the Python client there");
    let cluster = Cluster::control_plane().unwrap();
    let mut command = cluster.network.command(interpreter);
    command.arg("-B").arg(root.join("clients/python").join(file)).arg(cluster.kubeconfig());
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}\n{}", String::from_utf8_lossy(&out.stderr), cluster.log());
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() > 5, "{said}");
}

#[test]
fn the_python_client_takes_every_kind_through_its_verbs() {
    python("operations.py");
}

#[test]
fn the_python_client_finds_what_it_relies_on() {
    python("behaviour.py");
}

/// Runs something inside a cluster's network with a kube-rs client of its administrator.
fn with_kube<F: Future<Output = anyhow::Result<()>>>(
    cluster: &Cluster,
    work: impl FnOnce(Client) -> F + Send,
) {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            tokio::time::timeout(Duration::from_secs(120), work(Client::try_from(config)?)).await?
        })
    };
    cluster.network.inside(inside).unwrap();
}

/// Lets a watcher of kube-rs run beside the test, and tells what it sees: `init`, or the name of a ConfigMap.
fn watch_config_maps(cluster: &Cluster, streaming: bool) -> mpsc::Receiver<String> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let (tell, told) = mpsc::channel();
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config)?, "default");
            let config = watcher::Config::default().labels("of=watch");
            let config = if streaming { config.streaming_lists() } else { config };
            let mut events = watcher(maps, config).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let seen = match event {
                    Ok(watcher::Event::Init) => "init".to_owned(),
                    Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                        map.metadata.name.unwrap_or_default()
                    }
                    // errors while nobody is there, which it gets over
                    _ => continue,
                };
                if tell.send(seen).is_err() {
                    break;
                }
            }
            anyhow::Ok(())
        })
    };
    cluster.network.spawn(watch).unwrap();
    told
}

#[test]
fn watches_go_on_after_a_kill_without_a_new_list() {
    or_skip!();
    let mut cluster = Cluster::control_plane().unwrap();
    let create = |cluster: &Cluster, name: &str| {
        cluster.run(&["create", "configmap", name]).unwrap();
        cluster.run(&["label", "configmap", name, "of=watch"]).unwrap();
    };
    create(&cluster, "before");
    let watches = [false, true].map(|streaming| (streaming, watch_config_maps(&cluster, streaming)));
    let next = |told: &mpsc::Receiver<String>| told.recv_timeout(Duration::from_secs(40)).unwrap();
    for (streaming, told) in &watches {
        assert_eq!([next(told), next(told)], ["init", "before"], "streaming: {streaming}");
    }
    for round in ["one", "two"] {
        cluster.kill_server().unwrap();
        cluster.start_server().unwrap();
        create(&cluster, round);
        for (streaming, told) in &watches {
            assert_eq!(
                next(told),
                round,
                "what came after the kill and nothing else; streaming: {streaming}"
            );
        }
    }
}

#[test]
fn kube_rs_lists_watches_applies_and_discovers() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    with_kube(&cluster, async |client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let of_test = |name: &str, value: &str| -> ConfigMap {
            let object =
                json!({"metadata": {"name": name, "labels": {"of": "kube-rs"}}, "data": {"k": value}});
            serde_json::from_value(object).expect("a ConfigMap")
        };
        // both ways to begin a watch: a list, and a stream that starts with everything
        for streaming in [false, true] {
            let config = watcher::Config::default().labels("of=kube-rs");
            let config = if streaming { config.streaming_lists() } else { config };
            let mut events = watcher(maps.clone(), config).boxed();
            let mut seen = Vec::new();
            maps.create(&PostParams::default(), &of_test("a", "1")).await?;
            maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "2"}}))).await?;
            while !seen.contains(&"2".to_owned()) {
                let event = events.try_next().await?.expect("a watch does not end");
                if let watcher::Event::Apply(map) | watcher::Event::InitApply(map) = event {
                    seen.push(map.data.unwrap_or_default()["k"].clone());
                }
            }
            maps.delete("a", &DeleteParams::default()).await?;
            while !matches!(events.try_next().await?, Some(watcher::Event::Delete(_))) {}
        }

        let apply = |manager: &str| PatchParams::apply(manager);
        maps.patch(
            "b",
            &apply("one"),
            &Patch::Apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": "1"}})),
        )
        .await?;
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "2"}});
        let refused = maps.patch("b", &apply("two"), &Patch::Apply(&other)).await.expect_err("a conflict");
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
        let forced = maps.patch("b", &apply("two").force(), &Patch::Apply(&other)).await?;
        assert_eq!(forced.data.unwrap_or_default()["k"], "2");
        let json_patch = serde_json::from_value(json!([{"op": "test", "path": "/data/k", "value": "2"},
            {"op": "add", "path": "/data/l", "value": "3"}]))?;
        let patched = maps.patch("b", &PatchParams::default(), &Patch::Json::<()>(json_patch)).await?;
        assert_eq!(patched.data.unwrap_or_default().len(), 2);
        let meta = maps.get_metadata("b").await?;
        assert_eq!(meta.metadata.name.as_deref(), Some("b"));

        let mut names = Vec::new();
        for number in 0..25 {
            maps.create(&PostParams::default(), &of_test(&format!("m-{number:02}"), "x")).await?;
        }
        let mut page = ListParams::default().labels("of=kube-rs").limit(10);
        loop {
            let list = maps.list(&page).await?;
            names.extend(list.items.into_iter().filter_map(|map| map.metadata.name));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        assert_eq!(names.len(), 25);
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("of=kube-rs")).await?;

        let discovery = Discovery::new(client.clone()).run().await?;
        let found: BTreeMap<String, usize> = discovery
            .groups()
            .map(|group| (group.name().to_owned(), group.recommended_resources().len()))
            .collect();
        assert!(found.len() > 15 && found["apps"] >= 5, "{found:?}");
        let aggregated = Discovery::new(client.clone()).run_aggregated().await?;
        assert_eq!(aggregated.groups().count(), found.len());
        let deployments = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let dynamic: Api<DynamicObject> = Api::namespaced_with(client, "default", &deployments);
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let made = dynamic.patch("d", &apply("dynamic"), &Patch::Apply(&body)).await?;
        assert_eq!(made.data["spec"]["strategy"]["type"], "RollingUpdate");
        assert_eq!(dynamic.get_scale("d").await?.spec.and_then(|spec| spec.replicas).unwrap_or_default(), 0);
        Ok(())
    });
}

const MANIFEST: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'example.com/a:1', ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

const CONTROLLER: &str = r"
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 0
  selector: {app: old}
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: 'example.com/a:1'}]}
";

/// One kubectl of the machine.
struct Kubectl<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
}

impl Kubectl<'_> {
    fn said(&self, arguments: &[&str], input: &str) -> (Option<i32>, String) {
        use std::io::Write;
        let mut command: Command = self.cluster.kubectl_of(&self.program, arguments);
        // an editor that changes what it is given
        command.env("KUBE_EDITOR", "sed -i s/a:2/a:3/").env("EDITOR", "false");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn ok(&self, arguments: &[&str], part: &str) -> String {
        self.fed(arguments, "", part)
    }

    fn fed(&self, arguments: &[&str], input: &str, part: &str) -> String {
        let (code, text) = self.said(arguments, input);
        assert!(
            code == Some(0) && text.contains(part),
            "{} {arguments:?}: {code:?} {text}",
            self.program.display()
        );
        text
    }
}

#[test]
fn every_kubectl_finds_applies_and_edits() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    for (program, minor) in kubectls() {
        let kubectl = Kubectl { cluster: &cluster, program };
        eprintln!("{} ({minor:?})", kubectl.program.display());
        kubectl.ok(&["version", "-o", "json"], "\"gitVersion\": \"v1.36");
        let versions = kubectl.ok(&["api-versions"], "apps/v1");
        assert!(versions.lines().any(|line| line == "v1"), "{versions}");
        kubectl.ok(&["cluster-info"], "Kubernetes control plane");
        let resources = kubectl.ok(&["api-resources", "--no-headers"], "deployments");
        assert!(resources.lines().count() > 60, "{resources}");
        kubectl.ok(&["explain", "deployment.spec.strategy", "--recursive"], "maxUnavailable");
        kubectl.ok(&["explain", "crd", "--recursive"], "x-kubernetes-preserve-unknown-fields");
        kubectl.ok(&["explain", "hpa.spec.metrics", "--api-version=autoscaling/v2"], "containerResource");

        kubectl.fed(&["apply", "-f", "-"], MANIFEST, "deployment.apps/web created");
        kubectl.fed(&["apply", "-f", "-"], MANIFEST, "deployment.apps/web unchanged");
        let changed = MANIFEST.replace("a:1", "a:2");
        let (code, text) = kubectl.said(&["diff", "-f", "-"], &changed);
        assert!(code == Some(1) && text.contains("+      - image: example.com/a:2"), "{code:?} {text}");
        kubectl.fed(&["apply", "-f", "-"], &changed, "deployment.apps/web configured");
        kubectl.ok(&["edit", "deployment", "web"], "deployment.apps/web edited");
        kubectl.ok(&["get", "deployment", "web", "-o", "wide"], "example.com/a:3");
        kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.strategy.type}"], "RollingUpdate");
        let patches = [
            (
                "strategic",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"example.com/a:4"}]}}}}"#,
            ),
            ("merge", r#"{"metadata":{"labels":{"x":"y"}}}"#),
            ("json", r#"[{"op":"replace","path":"/spec/paused","value":true}]"#),
        ];
        for (kind, patch) in patches {
            let (code, text) = kubectl.said(&["patch", "deployment", "web", "--type", kind, "-p", patch], "");
            // a path that is not there cannot be replaced
            let expected = if kind == "json" {
                (Some(1), "the server rejected our request due to an error in our request")
            } else {
                (Some(0), "deployment.apps/web patched")
            };
            assert!(code == expected.0 && text.contains(expected.1), "{kind}: {code:?} {text}");
        }
        kubectl.ok(&["scale", "deployment", "web", "--replicas=1"], "scaled");
        kubectl.ok(&["label", "service", "web", "l=m"], "labeled");
        kubectl.ok(&["get", "services", "-l", "l=m"], "web");
        kubectl.ok(&["label", "service", "web", "l-"], "service/web unlabeled");
        kubectl.ok(&["get", "services", "-l", "l=m"], "No resources found");
        kubectl.ok(&["annotate", "service", "web", "n=o"], "service/web annotate");
        kubectl.ok(&["set", "image", "deployment/web", "c=example.com/a:5"], "image updated");
        kubectl.ok(&["describe", "deployment", "web"], "example.com/a:5");
        kubectl.ok(&["get", "all", "-l", "app=web"], "deployment.apps/web");
        let wrong = MANIFEST.replace("replicas: 0", "replicsa: 0");
        let (code, text) = kubectl.said(&["apply", "-f", "-"], &wrong);
        assert!(code == Some(1) && text.contains("unknown field \"spec.replicsa\""), "{code:?} {text}");
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        kubectl.fed(&server_side, &changed, "deployment.apps/web serverside-applied");
        kubectl.fed(
            &["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"],
            MANIFEST,
            "(server dry run)",
        );
        kubectl.fed(&["apply", "-f", "-"], CONTROLLER, "replicationcontroller/old created");
        kubectl.ok(
            &["expose", "rc", "old", "--name=old", "--port=1234", "--target-port=6379"],
            "service/old exposed",
        );
        kubectl.ok(
            &["expose", "service", "old", "--name=older", "--port=2345", "--target-port=6379"],
            "service/older exposed",
        );
        let ports = [
            "get",
            "services",
            "old",
            "older",
            "-o",
            "jsonpath={range .items[*]}{.spec.ports[0].port}:{.spec.ports[0].targetPort} {end}",
        ];
        kubectl.ok(&ports, "1234:6379 2345:6379");
        kubectl.ok(&["describe", "rc", "old"], "example.com/a:1");
        kubectl.ok(&["delete", "rc,services", "old", "older", "--ignore-not-found"], "deleted");
        kubectl.ok(&["run", "alone", "--image=example.com/a:1", "--restart=Never"], "pod/alone created");
        let pod = kubectl.ok(&["get", "pod", "alone", "-o", "json"], "example.com/a:1");
        kubectl.fed(
            &["replace", "-f", "-"],
            &pod.replace("example.com/a:1", "example.com/a:2"),
            "pod/alone replaced",
        );
        let image = ["get", "pod", "alone", "-o", "jsonpath={.spec.containers[0].image}"];
        kubectl.ok(&image, "example.com/a:2");
        let tried = r#"{"spec":{"containers":[{"name":"alone","image":"example.com/a:3"}]}}"#;
        kubectl.ok(&["patch", "pod", "alone", "-p", tried, "--dry-run=server"], "pod/alone patched");
        kubectl.ok(&image, "example.com/a:2");
        kubectl.ok(&["delete", "pod", "alone", "--grace-period=0", "--force"], "deleted");
        kubectl.ok(&["auth", "can-i", "create", "pods"], "yes");
        kubectl.fed(&["delete", "-f", "-", "--wait=true", "--timeout=60s"], MANIFEST, "\"web\" deleted");
    }
}
