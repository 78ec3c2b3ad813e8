//! Pods on a node: real containerd, runc, iptables and CNI plugins, driven by a real kubectl.

use std::time::Duration;

use e2e::{Cluster, or_skip};

const SOON: Duration = Duration::from_secs(30);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: web
          image: xebec.local/demo:1
          command: [sh, -c, "mkdir -p /www; echo v1 $(hostname) > /www/index.html; httpd -p 8080 -h /www; trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done"]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

fn pod(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
}

fn sleeper(name: &str) -> String {
    pod(
        name,
        r#"  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "xebec.local/demo:1", command: [sh, -c, "echo started; sleep 100000"]}]"#,
    )
}

/// Asks an address with the node's own busybox.
fn fetch(cluster: &Cluster, address: &str) -> Option<String> {
    let out = cluster
        .network
        .command("timeout")
        .args(["3", "busybox", "wget", "-Y", "off", "-q", "-O", "-", address])
        .output()
        .ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[test]
fn a_deployment_answers_and_rolls_without_a_failed_request() {
    or_skip!();
    answers_and_rolls(&Cluster::with_node().unwrap());
}

#[test]
fn a_process_for_each_component_does_what_one_does() {
    or_skip!();
    let mut cluster = Cluster::apart().unwrap();
    answers_and_rolls(&cluster);
    cluster.apply(&sleeper("p")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]).unwrap();
    assert_eq!(cluster.run(&["exec", "p", "--", "echo", "a b"]).unwrap(), "a b\n");
    assert_eq!(cluster.run(&["logs", "p"]).unwrap(), "started\n");
    cluster.run(&["create", "ns", "gone"]).unwrap();
    cluster.run(&["delete", "ns", "gone", "--timeout=20s"]).unwrap();
    cluster.run(&["delete", "deploy,pod", "--all", "--timeout=30s"]).unwrap();
    assert!(cluster.stop().unwrap(), "SIGTERM ends in order");
}

fn answers_and_rolls(cluster: &Cluster) {
    cluster.apply(WEB).unwrap();
    cluster.run(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();
    let ip = cluster.run(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let port = cluster.run(&["get", "svc", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]).unwrap();
    for address in [format!("http://{ip}/"), format!("http://{}:{port}/", cluster.network.node_ip)] {
        let answer = fetch(cluster, &address);
        assert!(
            answer.as_deref().is_some_and(|answer| answer.starts_with("v1 web-")),
            "{address}: {answer:?}"
        );
    }
    // from a pod, by address
    cluster.apply(&sleeper("client")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/client", "--timeout=30s"]).unwrap();
    let answer = cluster
        .run(&["exec", "client", "--", "timeout", "3", "wget", "-q", "-O", "-", &format!("http://{ip}/")])
        .unwrap();
    assert!(answer.starts_with("v1 web-"), "{answer}");
    // by name, short and long, of the Service and of what is in no cluster
    for name in ["web", "web.default.svc.cluster.local"] {
        let script = format!(
            "for i in 1 2 3 4 5; do timeout 3 wget -q -O - http://{name}/ && exit; sleep 1; done; exit 1"
        );
        let answer = cluster.run(&["exec", "client", "--", "sh", "-c", &script]).unwrap();
        assert!(answer.starts_with("v1 web-"), "{name}: {answer}");
    }
    let resolv = cluster.run(&["exec", "client", "--", "cat", "/etc/resolv.conf"]).unwrap();
    assert!(resolv.contains("nameserver 10.96.0.10\n") && resolv.contains("options ndots:5"), "{resolv}");
    // a Service address that belongs to no Service is refused at once
    let out = cluster
        .network
        .command("timeout")
        .args(["3", "busybox", "wget", "-Y", "off", "-q", "-O", "-", "http://10.96.200.200/"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("refused"), "{out:?}");

    let script = format!("while :; do timeout 3 wget -q -O - http://{ip}/ || echo FAILED; done");
    let log = cluster.scratch("requests");
    let mut client = cluster.spawn(&["exec", "client", "--", "sh", "-c", &script], &log).unwrap();
    cluster.apply(&WEB.replace("echo v1", "echo v2")).unwrap();
    cluster.run(&["rollout", "status", "deploy/web", "--timeout=90s"]).unwrap();
    cluster
        .until(SOON, &["get", "pods", "-l", "app=web", "-o", "name"], |out| out.lines().count() == 3)
        .unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    let answers = std::fs::read_to_string(&log).unwrap();
    assert!(answers.contains("v1 ") && answers.contains("v2 "), "{answers}");
    assert!(
        !answers.contains("FAILED"),
        "{} of {} requests failed",
        answers.matches("FAILED").count(),
        answers.lines().count()
    );
}

#[test]
fn logs_exec_attach_cp_and_port_forward() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster
        .apply(&pod(
            "p",
            r#"  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "xebec.local/demo:1", command: [sh, -c, "mkdir /www; echo page > /www/index.html; httpd -p 8080 -h /www; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done"]}]"#,
        ))
        .unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]).unwrap();
    let follow = cluster.scratch("follow");
    let mut following = cluster.spawn(&["logs", "-f", "p"], &follow).unwrap();
    cluster
        .until(SOON, &["logs", "--tail=1", "p"], |out| out.starts_with("line ") && out != "line 0\n")
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    following.kill().unwrap();
    following.wait().unwrap();
    let followed = std::fs::read_to_string(&follow).unwrap();
    assert!(followed.starts_with("line 0\nline 1\n"), "{followed}");

    assert_eq!(cluster.run(&["exec", "p", "--", "echo", "a b"]).unwrap(), "a b\n");
    let said = cluster.kubectl(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).unwrap();
    assert_eq!((said.stdout.as_str(), said.ok), ("out\n", false), "{said:?}");
    assert!(said.stderr.contains("err") && said.stderr.contains("exit code 7"), "{said:?}");
    let said = cluster.feed(&["exec", "-i", "p", "--", "wc", "-c"], &"x".repeat(100_000)).unwrap();
    assert_eq!(said.stdout.trim(), "100000", "{said:?}");
    let said = cluster.feed(&["exec", "-it", "p", "--", "tty"], "").unwrap();
    assert!(said.stdout.contains("/dev/pts/") || said.stderr.contains("not a terminal"), "{said:?}");

    let file = cluster.scratch("file");
    std::fs::write(&file, "copied\n").unwrap();
    cluster.run(&["cp", &file.display().to_string(), "p:/tmp/file"]).unwrap();
    let back = cluster.scratch("back").display().to_string();
    cluster.run(&["cp", "p:/tmp/file", &back]).unwrap();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "copied\n");

    let log = cluster.scratch("forward");
    let mut forward = cluster.spawn(&["port-forward", "p", "18080:8080"], &log).unwrap();
    let mut page = None;
    for _ in 0..50 {
        page = fetch(&cluster, "http://127.0.0.1:18080/");
        if page.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert_eq!(page.as_deref(), Some("page"), "{}", std::fs::read_to_string(&log).unwrap());
    let described = cluster.run(&["describe", "pod", "p"]).unwrap();
    assert!(described.contains("Successfully assigned default/p to node-1"), "{described}");
}

#[test]
fn containers_come_back_with_back_off_and_say_how_they_ended() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster.apply(&pod("crash", r#"  containers: [{name: c, image: "xebec.local/demo:1", command: [sh, -c, "echo bye > /dev/termination-log; exit 3"]}]"#)).unwrap();
    cluster
        .apply(&pod(
            "once",
            r#"  restartPolicy: Never
  initContainers: [{name: i, image: "xebec.local/demo:1", command: [sh, -c, "echo init"]}]
  containers: [{name: c, image: "xebec.local/demo:1", command: ["true"]}]"#,
        ))
        .unwrap();
    cluster.apply(&pod("hungry", r#"  restartPolicy: Never
  containers: [{name: c, image: "xebec.local/demo:1", command: [sh, -c, "tail /dev/zero"], resources: {limits: {memory: 16Mi}}}]"#)).unwrap();
    cluster
        .apply(&pod(
            "nowhere",
            r#"  containers: [{name: c, image: "xebec.local/no-such-image:1", imagePullPolicy: Never}]"#,
        ))
        .unwrap();
    cluster.until(SOON, &["get", "pod", "crash"], |out| out.contains("CrashLoopBackOff")).unwrap();
    cluster
        .until(
            SOON,
            &["get", "pod", "crash", "-o", "jsonpath={.status.containerStatuses[0].lastState.terminated}"],
            |out| out.contains(r#""exitCode":3"#) && out.contains(r#""message":"bye\n""#),
        )
        .unwrap();
    cluster.until(SOON, &["get", "pod", "once"], |out| out.contains("Completed")).unwrap();
    cluster.until(SOON, &["get", "pod", "hungry"], |out| out.contains("OOMKilled")).unwrap();
    cluster.until(SOON, &["get", "pod", "nowhere"], |out| out.contains("ErrImageNeverPull")).unwrap();
}

#[test]
fn readiness_and_configuration_follow_what_changes() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster.run(&["create", "configmap", "settings", "--from-literal=color=red"]).unwrap();
    cluster
        .apply(&(pod(
            "p",
            r#"  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: xebec.local/demo:1
      command: [sh, -c, "touch /tmp/ready; sleep 100000"]
      env: [{name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
      volumeMounts: [{name: settings, mountPath: /settings}]
  volumes: [{name: settings, configMap: {name: settings}}]"#,
        )
        .replace("{name: p}", "{name: p, labels: {app: p}}")
            + "---\napiVersion: v1\nkind: Service\nmetadata: {name: p}\nspec: {selector: {app: p}, ports: [{port: 80}]}\n"))
        .unwrap();
    let endpoints = ["get", "endpoints", "p", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
    cluster.until(SOON, &endpoints, |out| out.starts_with("10.244.")).unwrap();
    let env = cluster.run(&["exec", "p", "--", "sh", "-c", "echo $COLOR $IP; cat /settings/color"]).unwrap();
    assert!(env.starts_with("red 10.244.") && env.ends_with("\nred"), "{env}");
    cluster.run(&["exec", "p", "--", "rm", "/tmp/ready"]).unwrap();
    cluster.until(SOON, &endpoints, str::is_empty).unwrap();
    cluster.run(&["exec", "p", "--", "touch", "/tmp/ready"]).unwrap();
    cluster.until(SOON, &endpoints, |out| out.starts_with("10.244.")).unwrap();
    cluster.run(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"blue"}}"#]).unwrap();
    cluster
        .until(Duration::from_secs(90), &["exec", "p", "--", "cat", "/settings/color"], |out| out == "blue")
        .unwrap();
}

#[test]
fn pods_outlive_the_server_and_containerd() {
    or_skip!();
    let mut cluster = Cluster::with_node().unwrap();
    cluster.apply(&sleeper("steady")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"]).unwrap();
    let state = [
        "get",
        "pod",
        "steady",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID} {.status.phase}",
    ];
    let before = cluster.run(&state).unwrap();
    cluster.kill_server().unwrap();
    cluster.start_server().unwrap();
    cluster.until(SOON, &["exec", "steady", "--", "echo", "alive"], |out| out == "alive\n").unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);
    let containerd = cluster.containerd_pid().expect("the server started a containerd");
    nix::sys::signal::kill(containerd, nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.until(SOON, &["exec", "steady", "--", "echo", "alive"], |out| out == "alive\n").unwrap();
    cluster.apply(&sleeper("new")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/new", "--timeout=60s"]).unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);
    assert!(cluster.stop().unwrap(), "SIGTERM ends in order");
    cluster.start_server().unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);
}
