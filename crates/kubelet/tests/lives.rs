//! What pods go through while they live: volumes at expanded paths, probes over time, messages, deadlines, containers that
//! come later.

mod common;

use std::time::Duration;

use common::cluster::{Cluster, condition, container};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::Api;
use kube::api::{LogParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Long-running, and quick to end.
const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
/// Long enough for several probes.
const A_WHILE: Duration = Duration::from_secs(6);

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A pod that mounts a volume once at a path of its own and once whole.
fn at_subpath(expression: &str, env: Value, script: &str) -> Value {
    let mut c = container("c", script);
    c["env"] = json!([env, {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    c["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/sub", "subPathExpr": expression}, {"name": "v", "mountPath": "/all"},
    ]);
    json!({"containers": [c], "volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_mounted_at_expanded_paths() {
    if !common::isolated("volumes_are_mounted_at_expanded_paths", "10.99.41.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 41, 1]).await;
    let value = |value: &str| json!({"name": "A", "value": value});
    let annotation =
        json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}});
    let found = |name: &str| format!("echo written > /sub/f && cat /all/{name}/f");
    cluster.create("plain", at_subpath("$(POD_NAME)", value(""), &found("plain"))).await;
    cluster
        .create("deeper", at_subpath("$(A)/$(POD_NAME)", value("my/path"), &found("my/path/deeper")))
        .await;
    cluster.create("upwards", at_subpath("$(A)", value(".."), &found("x"))).await;
    cluster.create("absolute", at_subpath("$(A)", value("/tmp"), &found("x"))).await;
    cluster.create("later", at_subpath("$(A)/$(POD_NAME)", annotation, &found("mypath/later"))).await;
    for name in ["plain", "deeper"] {
        let pod = cluster.wait_for_phase(name, "Succeeded").await;
        assert_eq!(cluster.log(&pod, "c"), "written\n", "{name}");
    }
    for (name, why) in [
        ("upwards", "must not contain '..'"),
        ("absolute", "must not be an absolute path"),
        ("later", "must not be an absolute path"),
    ] {
        let pod = cluster
            .wait(name, "refused", 20, |pod| {
                main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
            })
            .await;
        let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{name}: {message}");
    }
    // what did not fit is looked at again
    let change = json!({"metadata": {"annotations": {"mysubpath": "mypath"}}});
    cluster.pods().patch("later", &PatchParams::default(), &Patch::Merge(change)).await.expect("changed");
    let pod = cluster.wait("later", "succeeded", 60, |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(cluster.log(&pod, "c"), "written\n");
    for name in ["upwards", "absolute"] {
        cluster.delete(name, Some(0)).await;
        cluster.wait_until_gone(name, 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_leave_alone_what_is_well() {
    if !common::isolated("probes_leave_alone_what_is_well", "10.99.42.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 42, 1]).await;
    let web = "mkdir -p /w && echo ok > /w/healthz && exec httpd -f -p 8080 -h /w";
    let probed = |script: &str, kind: &str, mut probe: Value| {
        let mut c = container("c", script);
        probe["periodSeconds"] = json!(1);
        probe["failureThreshold"] = json!(1);
        c[kind] = probe;
        json!({"containers": [c], "terminationGracePeriodSeconds": 1})
    };
    let exec = |command: &str| json!({"exec": {"command": ["sh", "-c", command]}});
    let late = |mut probe: Value, seconds: u32| {
        probe["initialDelaySeconds"] = json!(seconds);
        probe
    };
    let http = json!({"httpGet": {"path": "/healthz", "port": 8080}});
    let tcp = json!({"tcpSocket": {"port": 8080}});
    let healthy = "echo ok > /tmp/health; ";
    let pods = [
        ("exec", probed(&format!("{healthy}{SLEEP}"), "livenessProbe", late(exec("cat /tmp/health"), 1))),
        ("tcp", probed(web, "livenessProbe", late(tcp, 2))),
        ("http", probed(web, "livenessProbe", late(http.clone(), 2))),
        ("never", probed(SLEEP, "readinessProbe", exec("false"))),
        ("late", probed(web, "readinessProbe", late(http.clone(), 5))),
        ("ill", probed(&format!("(sleep 4; rm /w/healthz) & {web}"), "livenessProbe", late(http, 2))),
    ];
    for (name, spec) in pods {
        cluster.create(name, spec).await;
    }
    let pod = cluster.wait("ill", "restarted", 30, |pod| main_status(pod)["restartCount"] == 1).await;
    assert_eq!(pod["spec"]["restartPolicy"], "Always");
    cluster
        .wait_for_event(
            "ill",
            "Warning Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 404",
        )
        .await;
    let pod = cluster.wait_until_ready("late").await;
    let time =
        |value: &Value| -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time { object(value.clone()) };
    let ready =
        pod["status"]["conditions"].as_array().expect("conditions").iter().find(|c| c["type"] == "Ready");
    let ready = time(&ready.expect("ready")["lastTransitionTime"]);
    let started = time(&main_status(&pod)["state"]["running"]["startedAt"]);
    let delay = ready.0.as_second() - started.0.as_second();
    assert!((5..15).contains(&delay), "ready {delay} s after the start");
    tokio::time::sleep(A_WHILE).await;
    for name in ["exec", "tcp", "http", "never", "late"] {
        let pod = cluster.wait(name, "running", 10, |pod| pod["status"]["phase"] == "Running").await;
        assert_eq!(main_status(&pod)["restartCount"], 0, "{name}");
        let ready = if name == "never" { "False" } else { "True" };
        assert_eq!(condition(&pod, "Ready"), ready, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_leave_messages() {
    if !common::isolated("containers_leave_messages", "10.99.43.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 43, 1]).await;
    let fallback = |script: &str| {
        let mut c = container("c", script);
        c["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        json!({"containers": [c], "restartPolicy": "Never"})
    };
    let mut own = container("c", "echo -n DONE > /dev/termination-custom-log");
    own["terminationMessagePath"] = json!("/dev/termination-custom-log");
    own["securityContext"] = json!({"runAsUser": 10000});
    cluster.create("own", json!({"containers": [own], "restartPolicy": "Never"})).await;
    cluster.create("file", fallback("echo -n OK > /dev/termination-log; echo log")).await;
    cluster.create("none", fallback("echo DONE")).await;
    let first = container("first", "exit 0");
    let second = container("second", "exit 0");
    cluster
        .create(
            "once",
            json!({"initContainers": [first, second], "containers": [container("c", "exit 0")], "restartPolicy": "Never"}),
        )
        .await;
    for (name, message) in [("own", json!("DONE")), ("file", json!("OK")), ("none", Value::Null)] {
        let pod = cluster.wait_for_phase(name, "Succeeded").await;
        assert_eq!(main_status(&pod)["state"]["terminated"]["message"], message, "{name}");
    }
    let pod = cluster.wait_for_phase("once", "Succeeded").await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    for status in pod["status"]["initContainerStatuses"].as_array().expect("statuses") {
        assert_eq!(status["state"]["terminated"]["exitCode"], 0);
        assert_eq!(status["ready"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_know_services_and_change_while_they_run() {
    if !common::isolated("pods_know_services_and_change_while_they_run", "10.99.44.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 44, 1]).await;
    let services: Api<Service> = Api::namespaced(cluster.admin.clone(), "default");
    let service =
        json!({"metadata": {"name": "fooservice"}, "spec": {"ports": [{"port": 8765, "targetPort": 8080}]}});
    let service = services.create(&PostParams::default(), &object(service)).await.expect("made");
    let address = service.spec.and_then(|spec| spec.cluster_ip).expect("an address");
    let spaces: Api<Namespace> = Api::all(cluster.admin.clone());
    spaces
        .create(&PostParams::default(), &object(json!({"metadata": {"name": "other"}})))
        .await
        .expect("made");
    for (namespace, key) in [("default", "own"), ("other", "foreign")] {
        let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), namespace);
        let secret = json!({"metadata": {"name": "same"}, "stringData": {key: key}});
        secrets.create(&PostParams::default(), &object(secret)).await.expect("made");
    }
    let mut c = container("c", &format!("env | grep ^FOOSERVICE_ | sort; echo files $(ls /s); {SLEEP}"));
    c["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}]);
    let volumes = json!([{"name": "s", "secret": {"secretName": "same"}}]);
    // services are known to pods that start after the kubelet has heard of them
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster
        .create("p", json!({"containers": [c], "volumes": volumes, "terminationGracePeriodSeconds": 0}))
        .await;
    let pod = cluster.wait_until_ready("p").await;
    let log = cluster.log_up_to("files own", &pod, "c").await;
    for line in [
        format!("FOOSERVICE_PORT=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
        "FOOSERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        format!("FOOSERVICE_SERVICE_HOST={address}"),
        "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
        "files own".to_owned(),
    ] {
        assert!(log.lines().any(|found| found == line), "{line} in\n{log}");
    }

    // a container that comes later, and another one after it
    let later = |names: &[&str]| -> Vec<Value> {
        let one = |name: &&str| {
            let mut c = container(name, "echo polo; while :; do sleep 0.1; done");
            c["targetContainerName"] = json!("c");
            c
        };
        names.iter().map(one).collect()
    };
    let patch = json!({"spec": {"ephemeralContainers": later(&["debugger"])}});
    let params = PatchParams::default();
    cluster
        .pods()
        .patch_subresource("ephemeralcontainers", "p", &params, &Patch::Strategic(patch))
        .await
        .expect("patched");
    let running = |pod: &Value, name: &str| {
        let all = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        all.iter().any(|status| status["name"] == name && status["state"]["running"].is_object())
    };
    cluster.wait("p", "debugged", 20, |pod| running(pod, "debugger")).await;
    let of = |name: &str| LogParams { container: Some(name.to_owned()), ..LogParams::default() };
    let log = cluster.pods().logs("p", &of("debugger")).await.expect("a log");
    assert_eq!(log, "polo\n");
    let newest = cluster.pods().get("p").await.expect("the pod");
    let mut newest = serde_json::to_value(&newest).expect("JSON");
    newest["spec"]["ephemeralContainers"] = json!(later(&["debugger", "other"]));
    let replaced: Pod = cluster
        .pods()
        .replace_subresource("ephemeralcontainers", "p", &PostParams::default(), &newest)
        .await
        .expect("replaced");
    assert_eq!(replaced.spec.and_then(|spec| spec.ephemeral_containers).map(|list| list.len()), Some(2));
    cluster.wait("p", "debugged again", 20, |pod| running(pod, "debugger") && running(pod, "other")).await;

    // and an end that is decided late
    let deadline = json!({"spec": {"activeDeadlineSeconds": 5}});
    cluster.pods().patch("p", &params, &Patch::Merge(deadline)).await.expect("changed");
    let pod = cluster.wait("p", "failed", 30, |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}
