//! Pods on a real node: containerd, runc, CNI and the API server, in a network namespace of the test.

mod common;

use std::time::{Duration, Instant};

use common::cluster::{Cluster, condition, container};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{LogParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Long-running, and quick to end.
const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn status_of<'a>(pod: &'a Value, list: &str, name: &str) -> &'a Value {
    let all = pod["status"][list].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn main_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    status_of(pod, "containerStatuses", name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_goes() {
    if !common::isolated("a_pod_runs_and_goes", "10.99.2.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 2, 1]).await;
    let started = Instant::now();
    let script = format!("echo hello; {SLEEP}");
    cluster.create("p", json!({"containers": [container("c", &script)]})).await;
    let pod = cluster.wait_until_ready("p").await;
    eprintln!("the pod is ready after {:?}", started.elapsed());
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Initialized"), "True");
    let ready =
        &pod["status"]["conditions"].as_array().expect("conditions").iter().find(|c| c["type"] == "Ready");
    assert_eq!(ready.map(|c| &c["reason"]), Some(&Value::Null));
    let text = cluster.pods().logs("p", &LogParams::default()).await.expect("a log through the API server");
    assert_eq!(text, "hello\n");
    cluster.wait_for_event("p", "Started").await;
    assert_eq!(
        cluster.events("p").await,
        [
            "Normal Pulled: Container image \"xebec.local/demo:1\" already present on machine and can be accessed by the pod",
            "Normal Created: Container created",
            "Normal Started: Container started",
        ]
    );
    let started = Instant::now();
    cluster.delete("p", None).await;
    cluster.wait_until_gone("p", 20).await;
    eprintln!("the pod is gone after {:?}", started.elapsed());
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let deadline = Instant::now() + Duration::from_secs(10);
    while cluster.config.paths().pod(uid).exists() {
        assert!(Instant::now() < deadline, "the pod's folder stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_end_and_come_back() {
    if !common::isolated("containers_end_and_come_back", "10.99.3.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 3, 1]).await;
    cluster.create("done", json!({"restartPolicy": "Never", "containers": [container("c", "echo bye >/dev/termination-log")]})).await;
    cluster
        .create("failed", json!({"restartPolicy": "Never", "containers": [container("c", "exit 3")]}))
        .await;
    cluster
        .create(
            "again",
            json!({"restartPolicy": "OnFailure", "containers": [
        container("c", "[ -e /v/x ] || { touch /v/x; exit 1; }")
    ], "volumes": [{"name": "v", "emptyDir": {}}]}),
        )
        .await;
    let mut looping = container("c", "echo oops; exit 1");
    looping["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    cluster.create("loops", json!({"containers": [looping]})).await;
    let mut hungry = container("c", "tail /dev/zero");
    hungry["resources"] = json!({"limits": {"memory": "16Mi"}});
    cluster.create("hungry", json!({"restartPolicy": "Never", "containers": [hungry]})).await;

    let done = cluster.wait_for_phase("done", "Succeeded").await;
    let ended = &main_status(&done, "c")["state"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["exitCode"], &ended["message"]),
        (&json!("Completed"), &json!(0), &json!("bye\n"))
    );
    assert_eq!(condition(&done, "Ready"), "False");
    let failed = cluster.wait_for_phase("failed", "Failed").await;
    let ended = &main_status(&failed, "c")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("Error"), &json!(3)));
    let hungry = cluster.wait_for_phase("hungry", "Failed").await;
    let ended = &main_status(&hungry, "c")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{ended:#}");
    let loops = cluster
        .wait("loops", "backing off", 30, |pod| {
            main_status(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let status = main_status(&loops, "c");
    assert_eq!((&status["restartCount"], &loops["status"]["phase"]), (&json!(1), &json!("Running")));
    assert_eq!(status["lastState"]["terminated"]["message"], "oops\n");
    let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=loops_default("),
        "{message}"
    );
    let text = cluster.pods().logs("loops", &LogParams { previous: true, ..LogParams::default() }).await;
    assert_eq!(text.expect("the previous log"), "oops\n");
    cluster.delete("loops", Some(0)).await;
    cluster.wait_until_gone("loops", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_sidecars_and_hooks_keep_their_order() {
    if !common::isolated("init_containers_sidecars_and_hooks_keep_their_order", "10.99.4.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 4, 1]).await;
    let host = cluster.node.folder.path().join("shared");
    let note = |text: &str| format!("echo {text} >>/v/log");
    let mount = |mut c: Value| {
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        c
    };
    let first = mount(container("first", &note("first")));
    let long =
        format!("trap 'echo side-end >>/v/log; exit 0' TERM; {}; while :; do sleep 0.05; done", note("side"));
    let mut side = mount(container("side", &long));
    side["restartPolicy"] = "Always".into();
    side["startupProbe"] = json!({"exec": {"command": ["grep", "side", "/v/log"]}, "periodSeconds": 1});
    let second = mount(container("second", &note("second")));
    let long = format!(
        "trap 'echo main-end >>/v/log; sleep 0.3; exit 0' TERM; {}; while :; do sleep 0.05; done",
        note("main")
    );
    let mut main = mount(container("main", &long));
    main["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", note("post-start")]}},
        "preStop": {"exec": {"command": ["sh", "-c", note("pre-stop")]}},
    });
    cluster
        .create(
            "p",
            json!({
                "initContainers": [first, side, second], "containers": [main],
                "volumes": [{"name": "v", "hostPath": {"path": host, "type": "DirectoryOrCreate"}}],
            }),
        )
        .await;
    let pod = cluster.wait_until_ready("p").await;
    assert_eq!(
        status_of(&pod, "initContainerStatuses", "first")["state"]["terminated"]["reason"],
        "Completed"
    );
    assert_eq!(status_of(&pod, "initContainerStatuses", "side")["ready"], true);
    cluster.delete("p", None).await;
    cluster.wait_until_gone("p", 20).await;
    let log = std::fs::read_to_string(host.join("log")).expect("a log");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..3], ["first", "side", "second"]);
    assert!(lines.contains(&"post-start") && lines.contains(&"main"), "{lines:?}");
    assert_eq!(lines[5..], ["pre-stop", "main-end", "side-end"]);

    // a failed init container fails a pod that may not restart
    cluster
        .create(
            "q",
            json!({"restartPolicy": "Never",
        "initContainers": [container("i", "exit 1")], "containers": [container("c", SLEEP)]}),
        )
        .await;
    let pod = cluster.wait_for_phase("q", "Failed").await;
    assert_eq!(main_status(&pod, "c")["state"]["waiting"]["reason"], "PodInitializing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_and_volumes_come_from_objects_and_follow_them() {
    if !common::isolated("environment_and_volumes_come_from_objects_and_follow_them", "10.99.5.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 5, 1]).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "default");
    let mut c = container(
        "c",
        &format!(
            "env | sort; cat /sec/s; stat -c '%a %g' /work /sec/..data/s; cat /down/labels; echo; cat /sub; \
         cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; \
         wc -c </var/run/secrets/kubernetes.io/serviceaccount/token; id -G; cat /proc/self/mountinfo | grep -c ' /mem '; echo that is all; {SLEEP}"
        ),
    );
    c["env"] = json!([
        {"name": "A", "value": "a"}, {"name": "B", "value": "$(A)b"},
        {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "s"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]);
    c["envFrom"] = json!([{"prefix": "F_", "configMapRef": {"name": "m"}}]);
    c["resources"] = json!({"limits": {"cpu": "250m", "memory": "64Mi"}});
    c["volumeMounts"] = json!([
        {"name": "map", "mountPath": "/map"}, {"name": "sec", "mountPath": "/sec"}, {"name": "down", "mountPath": "/down"},
        {"name": "work", "mountPath": "/work"}, {"name": "map", "mountPath": "/sub", "subPath": "k"},
        {"name": "mem", "mountPath": "/mem"},
    ]);
    cluster
        .create_labelled("p", json!({"app": "x"}), json!({
            "containers": [c], "securityContext": {"fsGroup": 4321},
            "volumes": [
                {"name": "map", "configMap": {"name": "m"}},
                {"name": "sec", "secret": {"secretName": "s", "defaultMode": 256}},
                {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "work", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}},
            ],
        }))
        .await;
    // the pod waits for what it refers to, and says so
    let missing =
        "Warning FailedMount: MountVolume.SetUp failed for volume \"map\" : configmap \"m\" not found";
    cluster.wait_for_event("p", missing).await;
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": "v1\n"}})).expect("a map");
    maps.create(&PostParams::default(), &map).await.expect("made");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"s": "secret\n"}}))
            .expect("a secret");
    secrets.create(&PostParams::default(), &secret).await.expect("made");
    let pod = cluster.wait_until_ready("p").await;
    let log = cluster.log_up_to("that is all", &pod, "c").await;
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    for line in [
        "B=ab",
        "M=v1",
        "S=secret",
        "F_k=v1",
        "CPU=250",
        &format!("IP={ip}"),
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "secret",
        "2777 4321",
        "440 4321",
        "app=\"x\"",
        "v1",
        "default",
        "1",
    ] {
        assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
    }
    assert!(log.lines().any(|l| l.split(' ').any(|g| g == "4321")), "{log}");
    let token = log.lines().find_map(|l| l.trim().parse::<u32>().ok().filter(|n| *n > 300));
    assert!(token.is_some(), "no token: {log}");

    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let file = cluster.config.paths().pod_volume(uid, "configmap", "map").join("k");
    let changed = Instant::now();
    maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v2\n", "new": "n"}})))
        .await
        .expect("changed");
    while std::fs::read_to_string(&file).expect("a file") != "v2\n" {
        assert!(changed.elapsed() < Duration::from_secs(10), "the file does not follow");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eprintln!("a config map's change took {:?}", changed.elapsed());
    assert_eq!(std::fs::read_to_string(file.with_file_name("new")).expect("a file"), "n");
    cluster.delete("p", None).await;
    cluster.wait_until_gone("p", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide_over_readiness_and_life() {
    if !common::isolated("probes_decide_over_readiness_and_life", "10.99.6.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 6, 1]).await;
    let mut web = container("web", "sleep 0.5; mkdir /w; echo ok >/w/ready; exec httpd -f -p 8080 -h /w");
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["startupProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 10});
    web["readinessProbe"] =
        json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.create("web", json!({"containers": [web], "terminationGracePeriodSeconds": 1})).await;
    let mut frail = container("frail", &format!("touch /alive; (sleep 1; rm /alive) & {SLEEP}"));
    frail["livenessProbe"] =
        json!({"exec": {"command": ["cat", "/alive"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.create("frail", json!({"containers": [frail]})).await;
    let pod = cluster.wait("web", "running", 20, |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(main_status(&pod, "web")["ready"], false);
    let pod = cluster.wait_until_ready("web").await;
    assert_eq!(main_status(&pod, "web")["restartCount"], 0);
    let pod =
        cluster.wait("frail", "restarted", 20, |pod| main_status(pod, "frail")["restartCount"] == 1).await;
    assert_eq!(main_status(&pod, "frail")["lastState"]["terminated"]["exitCode"], 0);
    cluster
        .wait_for_event("frail", "Warning Unhealthy: Liveness probe failed: cat: can't open '/alive'")
        .await;
    cluster
        .wait_for_event("frail", "Killing: Container frail failed liveness probe, will be restarted")
        .await;
    let web = cluster.wait_until_ready("web").await;
    let id = main_status(&web, "web")["containerID"].as_str().expect("an id").to_owned();
    let gone = cluster.exec(&id, &["rm", "/w/ready"]).await;
    assert_eq!(gone, 0);
    cluster.wait("web", "unready", 10, |pod| condition(pod, "Ready") == "False").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_kubelet_and_containerd() {
    if !common::isolated("containers_outlive_kubelet_and_containerd", "10.99.7.1") {
        return;
    }
    let mut cluster = Cluster::start([10, 99, 7, 1]).await;
    let mut probed = container("c", SLEEP);
    probed["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 5});
    cluster.create("p", json!({"containers": [probed]})).await;
    cluster.create("orphan", json!({"containers": [container("c", SLEEP)]})).await;
    let before = cluster.wait_until_ready("p").await;
    cluster.wait_until_ready("orphan").await;
    let id = |pod: &Value| main_status(pod, "c")["containerID"].clone();

    cluster.stop_kubelet().await;
    // deleted for good while nobody looks
    cluster.delete("orphan", Some(0)).await;
    cluster.start_kubelet();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = cluster.wait_until_ready("p").await;
    assert_eq!((id(&after), &main_status(&after, "c")["restartCount"]), (id(&before), &json!(0)));
    let transition = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == "Ready").map(|c| c["lastTransitionTime"].clone())
    };
    assert_eq!(
        transition(&after),
        transition(&before),
        "a restart of the kubelet takes no pod out of service"
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    while cluster.running_pods().await.len() != 1 {
        assert!(Instant::now() < deadline, "the orphan stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    cluster.kill_containerd();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = cluster.wait_until_ready("p").await;
    assert_eq!(id(&after), id(&before));
    // and the kubelet goes on with the new one
    cluster.create("q", json!({"containers": [container("c", SLEEP)]})).await;
    cluster.wait_until_ready("q").await;
    cluster.delete("p", None).await;
    cluster.wait_until_gone("p", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    if !common::isolated("what_cannot_start_says_why", "10.99.8.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 8, 1]).await;
    let image = |name: &str, policy: &str| json!({"name": "c", "image": name, "imagePullPolicy": policy});
    cluster.create("never", json!({"containers": [image("none.local/x:1", "Never")]})).await;
    cluster.create("missing", json!({"containers": [image("127.0.0.1:1/x:1", "IfNotPresent")]})).await;
    cluster.create("invalid", json!({"containers": [image("UPPER:1", "IfNotPresent")]})).await;
    let mut command = container("c", "");
    command["command"] = json!(["/none"]);
    cluster.create("command", json!({"containers": [command]})).await;
    let mut root = container("c", SLEEP);
    root["securityContext"] = json!({"runAsNonRoot": true});
    cluster.create("root", json!({"containers": [root]})).await;
    let mut big = container("c", SLEEP);
    big["resources"] = json!({"requests": {"cpu": "1000"}});
    cluster.create("big", json!({"containers": [big]})).await;
    let waiting = |reason: &'static str| {
        move |pod: &Value| main_status(pod, "c")["state"]["waiting"]["reason"] == reason
    };
    let pod = cluster.wait("never", "refused", 20, waiting("ErrImageNeverPull")).await;
    assert_eq!(
        main_status(&pod, "c")["state"]["waiting"]["message"],
        "Container image \"none.local/x:1\" is not present with pull policy of Never"
    );
    assert_eq!(pod["status"]["phase"], "Pending");
    cluster.wait("invalid", "refused", 20, waiting("InvalidImageName")).await;
    cluster.wait("missing", "backing off", 40, waiting("ImagePullBackOff")).await;
    cluster.wait_for_event("missing", "Warning Failed: Error: ErrImagePull").await;
    cluster.wait_for_event("missing", "Normal BackOff: Back-off pulling image \"127.0.0.1:1/x:1\"").await;
    let pod = cluster.wait("root", "refused", 20, waiting("CreateContainerConfigError")).await;
    let message = main_status(&pod, "c")["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");
    let pod = cluster
        .wait("command", "refused", 20, |pod| {
            let status = main_status(pod, "c");
            status["state"]["waiting"].is_object() && status["lastState"]["terminated"].is_object()
                || waiting("RunContainerError")(pod)
        })
        .await;
    assert!(pod["status"]["containerStatuses"][0].to_string().contains("/none"), "{pod:#}");
    let pod = cluster.wait_for_phase("big", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    for name in ["never", "missing", "invalid", "command", "root", "big"] {
        cluster.delete(name, None).await;
        cluster.wait_until_gone(name, 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_reach_the_cgroups_and_pods_start_together() {
    if !common::isolated("resources_reach_the_cgroups_and_pods_start_together", "10.99.9.1") {
        return;
    }
    let cluster = Cluster::start([10, 99, 9, 1]).await;
    let mut c = container("c", SLEEP);
    c["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    cluster.create("p", json!({"containers": [c]})).await;
    let pod = cluster.wait_until_ready("p").await;
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let group = format!("{}/kubepods/pod{uid}", cluster.node.cgroup);
    let read = |v1: &str, v2: &str| {
        let of = |path: String| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
        of(format!("/sys/fs/cgroup/{v1}")).or_else(|_| of(format!("/sys/fs/cgroup/{v2}"))).unwrap_or_default()
    };
    let memory = read(&format!("memory/{group}/memory.limit_in_bytes"), &format!("{group}/memory.max"));
    assert_eq!(memory, (64 << 20).to_string());
    let cpu = read(&format!("cpu/{group}/cpu.cfs_quota_us"), &format!("{group}/cpu.max"));
    assert!(cpu.starts_with("50000"), "{cpu}");

    let started = Instant::now();
    for n in 0..20 {
        cluster.create(&format!("n{n}"), json!({"containers": [container("c", SLEEP)]})).await;
    }
    for n in 0..20 {
        cluster.wait_until_ready(&format!("n{n}")).await;
    }
    eprintln!("20 pods are ready after {:?}", started.elapsed());
    let started = Instant::now();
    for n in 0..20 {
        cluster.delete(&format!("n{n}"), None).await;
    }
    for n in 0..20 {
        cluster.wait_until_gone(&format!("n{n}"), 40).await;
    }
    eprintln!("20 pods are gone after {:?}", started.elapsed());
}
