//! The control plane through a kubectl that nobody here wrote.

use std::time::Duration;

use e2e::{Cluster, eventually, or_skip};

const SOON: Duration = Duration::from_secs(20);

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "xebec.local/demo:1"}]}
"#;

#[test]
fn a_new_cluster_has_what_every_cluster_has() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let names = cluster.run(&["get", "ns", "-o", "name"]).unwrap();
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        assert!(names.contains(&format!("namespace/{name}\n")), "{names}");
    }
    let ip = cluster.run(&["get", "svc", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    assert_eq!(ip, "10.96.0.1");
    let endpoints = cluster
        .run(&["get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[0].addresses[0]}"])
        .unwrap();
    assert_eq!(endpoints, cluster.network.node_ip);
    cluster.run(&["get", "pc", "system-node-critical", "system-cluster-critical"]).unwrap();
    cluster.run(&["get", "servicecidr", "kubernetes"]).unwrap();
    cluster.run(&["-n", "kube-system", "get", "cm", "extension-apiserver-authentication"]).unwrap();
    cluster
        .until(SOON, &["get", "sa,cm", "-n", "kube-public", "-o", "name"], |out| {
            out.contains("serviceaccount/default") && out.contains("configmap/kube-root-ca.crt")
        })
        .unwrap();
    let who = cluster.run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).unwrap();
    assert_eq!(who, "kubernetes-admin");
}

#[test]
fn apply_diff_patch_explain_and_scale_work_as_they_come() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.apply(DEPLOYMENT).unwrap();
    cluster.apply(DEPLOYMENT).unwrap();
    let changed = DEPLOYMENT.replace("replicas: 3", "replicas: 2");
    let diff = cluster.feed(&["diff", "-f", "-"], &changed).unwrap();
    assert!(diff.stdout.contains("-  replicas: 3") && diff.stdout.contains("+  replicas: 2"), "{diff:?}");
    let server_side =
        cluster.feed(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &changed).unwrap();
    assert!(!server_side.ok && server_side.stderr.contains("conflict"), "{server_side:?}");
    let forced = cluster
        .feed(&["apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-"], &changed)
        .unwrap();
    assert!(forced.ok, "{forced:?}");
    for patch in [
        ["--type=json", r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#],
        ["--type=merge", r#"{"spec":{"replicas":5}}"#],
        [
            "--type=strategic",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"other:1"}]}}}}"#,
        ],
    ] {
        cluster.run(&["patch", "deploy", "web", patch[0], "-p", patch[1]]).unwrap();
    }
    let image = cluster
        .run(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"])
        .unwrap();
    assert_eq!(image, "other:1");
    cluster.run(&["scale", "deploy", "web", "--replicas=1"]).unwrap();
    let explained = cluster.run(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]).unwrap();
    assert!(explained.contains("FIELD: maxSurge"), "{explained}");
    // kubectl asks for v2 in protobuf
    let explained =
        cluster.run(&["explain", "pod.spec.containers.resources", "--output=plaintext-openapiv2"]).unwrap();
    assert!(explained.contains("requests\t<map[string]string>"), "{explained}");
}

#[test]
fn a_deployment_rolls_out_its_replica_sets() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.apply(DEPLOYMENT).unwrap();
    cluster
        .until(SOON, &["get", "pods", "-l", "app=web", "-o", "name"], |out| out.lines().count() == 3)
        .unwrap();
    cluster.run(&["set", "image", "deploy/web", "web=other:1"]).unwrap();
    cluster.until(SOON, &["rollout", "history", "deploy/web"], |out| out.contains("\n2 ")).unwrap();
    cluster.run(&["rollout", "undo", "deploy/web"]).unwrap();
    cluster
        .until(
            SOON,
            &["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"],
            |out| out == "xebec.local/demo:1",
        )
        .unwrap();
}

#[test]
fn deletes_cascade_as_asked() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    for (cascade, sets_left) in [("background", 0), ("foreground", 0), ("orphan", 1)] {
        cluster.apply(DEPLOYMENT).unwrap();
        cluster.until(SOON, &["get", "pods", "-o", "name"], |out| out.lines().count() == 3).unwrap();
        cluster.run(&["delete", "deploy", "web", &format!("--cascade={cascade}")]).unwrap();
        cluster.until(SOON, &["get", "rs", "-o", "name"], |out| out.lines().count() == sets_left).unwrap();
        let pods = if sets_left == 0 { 0 } else { 3 };
        cluster.until(SOON, &["get", "pods", "-o", "name"], |out| out.lines().count() == pods).unwrap();
    }
}

#[test]
fn a_deleted_namespace_takes_everything_along() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.run(&["create", "ns", "gone"]).unwrap();
    for what in [
        ["create", "configmap", "a", "--from-literal=a=b"],
        ["create", "deployment", "d", "--image=x:1"],
        ["create", "sa", "s", "--dry-run=none"],
    ] {
        cluster.run(&[&["-n", "gone"], what.as_slice()].concat()).unwrap();
    }
    cluster.run(&["delete", "ns", "gone", "--timeout=20s"]).unwrap();
    let said = cluster.kubectl(&["get", "ns", "gone"]).unwrap();
    assert!(said.stderr.contains("namespaces \"gone\" not found"), "{said:?}");
    let said = cluster.kubectl(&["-n", "gone", "create", "configmap", "a"]).unwrap();
    assert!(said.stderr.contains("namespaces \"gone\" not found"), "{said:?}");
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_watches_go_on() {
    or_skip!();
    let mut cluster = Cluster::control_plane().unwrap();
    cluster.run(&["create", "configmap", "before", "--from-literal=a=1"]).unwrap();
    let version =
        cluster.run(&["get", "cm", "before", "-o", "jsonpath={.metadata.resourceVersion}"]).unwrap();
    cluster.run(&["create", "configmap", "after", "--from-literal=a=1"]).unwrap();
    cluster.kill_server().unwrap();
    cluster.start_server().unwrap();
    cluster.run(&["get", "cm", "before", "after"]).unwrap();
    // a watch from before the kill sees what came after, without a new list
    let path =
        format!("/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let events = cluster.run(&["get", "--raw", &path]).unwrap();
    assert!(events.contains(r#""type":"ADDED""#) && events.contains(r#""name":"after""#), "{events}");
    assert!(!events.contains(r#""name":"before""#), "{events}");
    assert!(cluster.stop().unwrap(), "SIGTERM ends in order");
}

#[test]
fn invalid_objects_are_refused_in_upstreams_words() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.until(SOON, &["get", "sa", "default"], |out| out.contains("default")).unwrap();
    let cases = [
        (
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": []}}"#,
            "The Pod \"x\" is invalid: spec.containers: Required value",
        ),
        (
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "X"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}"#,
            "metadata.name: Invalid value: \"X\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
        ),
        (
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 70000}]}}"#,
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "datum": {}}"#,
            "unknown field \"datum\"",
        ),
    ];
    for (manifest, words) in cases {
        let said = cluster.feed(&["create", "-f", "-"], manifest).unwrap();
        assert!(!said.ok && said.stderr.contains(words), "{manifest}: {said:?}");
    }
}

#[test]
fn nobody_gets_in_without_being_known_and_allowed() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let with = |arguments: &[&str]| {
        let out = cluster
            .network
            .command("kubectl")
            .args(["--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify"])
            .args(arguments)
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    };
    // a password is no credential that the server knows: such a request is anonymous
    let nobody = ["--username=nobody", "--password=none", "get", "--raw"];
    assert_eq!(with(&[nobody.as_slice(), &["/readyz"]].concat()), "ok");
    let said = with(&[nobody.as_slice(), &["/api/v1/pods"]].concat());
    assert!(said.contains("User \"system:anonymous\" cannot list resource \"pods\""), "{said}");
    let said = with(&["--token=nonsense", "get", "--raw", "/readyz"]);
    assert!(said.contains("Unauthorized") || said.contains("must be logged in"), "{said}");
    cluster.run(&["create", "sa", "robot"]).unwrap();
    let token = cluster.run(&["create", "token", "robot"]).unwrap();
    let said =
        with(&[&format!("--token={}", token.trim()), "get", "--raw", "/api/v1/namespaces/default/pods"]);
    assert!(said.contains("system:serviceaccount:default:robot"), "{said}");
    cluster
        .run(&["create", "rolebinding", "robot", "--clusterrole=view", "--serviceaccount=default:robot"])
        .unwrap();
    let said =
        with(&[&format!("--token={}", token.trim()), "get", "--raw", "/api/v1/namespaces/default/pods"]);
    assert!(said.contains("PodList"), "{said}");
    cluster.run(&["delete", "sa", "robot"]).unwrap();
    let said =
        with(&[&format!("--token={}", token.trim()), "get", "--raw", "/api/v1/namespaces/default/pods"]);
    assert!(said.contains("Unauthorized") || said.contains("must be logged in"), "{said}");
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster
        .run(&[
            "create",
            "clusterrole",
            "granter",
            "--verb=create,get,update,patch",
            "--resource=roles,rolebindings",
        ])
        .unwrap();
    cluster
        .run(&["create", "clusterrolebinding", "granter", "--clusterrole=granter", "--user=granter"])
        .unwrap();
    let said = cluster
        .kubectl(&["--as=granter", "create", "role", "r", "--verb=get", "--resource=secrets"])
        .unwrap();
    let words = "user \"granter\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held";
    assert!(!said.ok && said.stderr.contains(words), "{said:?}");
    let said = cluster
        .kubectl(&["--as=granter", "create", "rolebinding", "b", "--clusterrole=admin", "--user=granter"])
        .unwrap();
    assert!(!said.ok && said.stderr.contains(words), "{said:?}");
    let role = ["--as=granter", "create", "role", "r", "--verb=get", "--resource=roles"];
    assert!(cluster.kubectl(&role).unwrap().ok);
}

const STORAGE: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: used}
spec: {accessModes: [ReadWriteOnce], volumeAttributesClassName: gold, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: free}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: bound}
spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /tmp}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: gold}
driverName: example.com
parameters: {iops: "1000"}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  nodeName: node-1
  containers: [{name: c, image: i}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: used}}]
"#;

#[test]
fn what_is_in_use_is_deleted_when_it_is_not() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let account = ["get", "sa", "default", "--ignore-not-found", "-o", "name"];
    cluster.until(SOON, &account, |out| out.contains("default")).unwrap();
    cluster.apply(STORAGE).unwrap();
    let bound = ["patch", "pv", "bound", "--subresource=status", "-p", r#"{"status":{"phase":"Bound"}}"#];
    cluster.run(&bound).unwrap();
    let all = ["pvc/used", "pv/bound", "vac/gold"];
    cluster.run(&["delete", "pvc/free", "--timeout=20s"]).unwrap();
    let waiting = cluster.kubectl(&[&["delete", "--timeout=3s"], &all[..]].concat()).unwrap();
    assert!(!waiting.ok && waiting.stderr.contains("timed out waiting for the condition"), "{waiting:?}");
    for object in all {
        let since = cluster.run(&["get", object, "-o", "jsonpath={.metadata.deletionTimestamp}"]).unwrap();
        assert!(!since.is_empty(), "{object}");
    }
    let shown = cluster.run(&["get", "pvc", "used"]).unwrap();
    assert!(shown.contains("Terminating"), "{shown}");

    cluster.run(&["delete", "pod", "user", "--force", "--grace-period=0"]).unwrap();
    let released =
        ["patch", "pv", "bound", "--subresource=status", "-p", r#"{"status":{"phase":"Released"}}"#];
    cluster.run(&released).unwrap();
    for object in all {
        let get = ["get", object, "--ignore-not-found", "-o", "name"];
        cluster.until(SOON, &get, str::is_empty).unwrap();
    }
}

#[test]
fn owners_in_a_circle_go_together() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    cluster.until(SOON, &["get", "sa", "-o", "name"], |out| out.contains("serviceaccount/default")).unwrap();
    let pods = ["pod1", "pod2", "pod3"];
    for name in pods {
        let spec = serde_json::json!({"containers": [{"name": "c", "image": "xebec.local/demo:1"}]});
        let pod =
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        cluster.apply(&pod.to_string()).unwrap();
    }
    let uid = |name: &str| cluster.run(&["get", "pod", name, "-o", "jsonpath={.metadata.uid}"]).unwrap();
    for (pod, owner) in [("pod1", "pod3"), ("pod2", "pod1"), ("pod3", "pod2")] {
        let uid = uid(owner);
        let patch = format!(
            r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"Pod","name":"{owner}","uid":"{uid}","controller":true,"blockOwnerDeletion":true}}]}}}}"#
        );
        cluster.run(&["patch", "pod", pod, "--type=merge", "-p", &patch]).unwrap();
    }
    cluster.run(&["delete", "pod", "pod1", "--cascade=foreground", "--wait=false"]).unwrap();
    cluster.until(SOON, &["get", "pods", "-o", "name"], str::is_empty).unwrap();
}

/// `kubectl proxy`, until it is dropped.
struct Proxy(std::process::Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kubectl_proxies_over_any_port_and_a_socket() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let start = |arguments: &[&str], name: &str| {
        let out = cluster.scratch(name);
        let proxy =
            Proxy(cluster.spawn(&[&["proxy", "--disable-filter"], arguments].concat(), &out).unwrap());
        let said = eventually(SOON, || {
            let said = std::fs::read_to_string(&out)?;
            anyhow::ensure!(said.contains("Starting to serve on "), "{said}");
            Ok(said)
        });
        (proxy, said.unwrap().trim().rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let versions = |arguments: &[&str]| {
        let out = cluster.network.command("curl").args(["-sS"]).args(arguments).output().unwrap();
        let versions: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(versions["versions"], serde_json::json!(["v1"]), "{versions}");
    };
    let (_by_port, address) = start(&["--port=0"], "by-port");
    assert!(!address.ends_with(":0"), "{address}");
    versions(&[&format!("http://{address}/api/")]);
    let socket = cluster.scratch("proxy.sock");
    let path = socket.to_str().unwrap();
    let (_by_socket, _) = start(&[&format!("--unix-socket={path}")], "by-socket");
    versions(&["--unix-socket", path, "http://localhost/api/"]);
}
