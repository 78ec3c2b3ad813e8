//! Pods on a node: real containerd, runc, iptables and CNI plugins, driven by a real kubectl.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use e2e::{Cluster, Network, eventually, or_skip};

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

/// Runs the same check on a server that is one process, and on one where each component is a process of its own.
fn in_both_forms(check: impl Fn(&mut Cluster)) {
    println!("in one process");
    check(&mut Cluster::with_node().unwrap());
    println!("as a process for each component");
    check(&mut Cluster::apart().unwrap());
}

#[test]
fn a_deployment_answers_and_rolls_without_a_failed_request() {
    or_skip!();
    in_both_forms(|cluster| answers_and_rolls(cluster));
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

    let endpoints = ["get", "endpoints", "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
    for replicas in [5, 2] {
        cluster.run(&["scale", "deploy", "web", &format!("--replicas={replicas}")]).unwrap();
        cluster.until(SOON, &endpoints, |out| out.split_whitespace().count() == replicas).unwrap();
    }
    cluster.run(&["rollout", "undo", "deploy/web"]).unwrap();
    cluster.run(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();
    eventually(SOON, || {
        let answer = fetch(cluster, &format!("http://{ip}/")).unwrap_or_default();
        anyhow::ensure!(answer.starts_with("v1 web-"), "after undo: {answer}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_watched_and_waited_for_comes() {
    or_skip!();
    in_both_forms(|cluster| {
        let watched = cluster.scratch("watched");
        let mut watching = cluster.spawn(&["get", "pods", "-w", "--no-headers"], &watched).unwrap();
        let waited = cluster.scratch("waited");
        let arguments = ["wait", "--for=jsonpath={.status.phase}=Running", "pod/seen", "--timeout=30s"];
        cluster.apply(&sleeper("seen").replace("Seconds: 0", "Seconds: 1")).unwrap();
        let mut waiting = cluster.spawn(&arguments, &waited).unwrap();
        cluster.run(&["wait", "--for=condition=Ready", "pod/seen", "--timeout=30s"]).unwrap();
        assert!(waiting.wait().unwrap().success(), "{}", std::fs::read_to_string(&waited).unwrap());
        assert_eq!(std::fs::read_to_string(&waited).unwrap(), "pod/seen condition met\n");
        let mut leaving = cluster
            .spawn(&["wait", "--for=delete", "pod/seen", "--timeout=30s"], &cluster.scratch("left"))
            .unwrap();
        cluster.run(&["delete", "pod", "seen", "--timeout=30s"]).unwrap();
        assert!(leaving.wait().unwrap().success());
        let states = ["Pending", "ContainerCreating", "Running", "Terminating"];
        let seen = eventually(SOON, || {
            let seen = std::fs::read_to_string(&watched)?;
            anyhow::ensure!(states.iter().all(|state| seen.contains(state)), "watched: {seen}");
            Ok(seen)
        });
        watching.kill().unwrap();
        watching.wait().unwrap();
        let seen = seen.unwrap();
        let at = |state: &str| seen.find(state).unwrap();
        assert!(states.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{seen}");
        let said =
            cluster.kubectl(&["wait", "--for=condition=Ready", "node/node-2", "--timeout=1s"]).unwrap();
        assert!(!said.ok && said.stderr.contains("nodes \"node-2\" not found"), "{said:?}");
        let never = ["wait", "--for=condition=MemoryPressure", "node/node-1", "--timeout=1s"];
        let said = cluster.kubectl(&never).unwrap();
        assert!(!said.ok && said.stderr.contains("timed out waiting for the condition"), "{said:?}");
    });
}

#[test]
fn deletes_take_running_pods_along_as_asked() {
    or_skip!();
    in_both_forms(|cluster| {
        let pods = ["get", "pods", "-l", "app=two", "-o", "name"];
        let two = WEB.replace("web", "two").replace("replicas: 3", "replicas: 2");
        for (cascade, left) in [("background", 0), ("foreground", 0), ("orphan", 2)] {
            cluster.apply(&two).unwrap();
            cluster.run(&["rollout", "status", "deploy/two", "--timeout=60s"]).unwrap();
            let cascade = format!("--cascade={cascade}");
            cluster.run(&["delete", "deploy", "two", &cascade, "--timeout=30s"]).unwrap();
            let sets = cluster.run(&["get", "rs", "-l", "app=two", "-o", "name"]).unwrap();
            if cascade.ends_with("foreground") {
                assert_eq!(sets, "", "what is owned goes before its owner");
                assert_eq!(cluster.run(&pods).unwrap(), "");
            }
            cluster.until(SOON, &pods, |out| out.lines().count() == left).unwrap();
        }
        // the orphans still run, and go with their namespace's other pods
        let phases = ["get", "pods", "-l", "app=two", "-o", "jsonpath={.items[*].status.phase}"];
        assert_eq!(cluster.run(&phases).unwrap(), "Running Running");
        cluster.run(&["create", "ns", "gone"]).unwrap();
        let made = cluster.feed(&["-n", "gone", "apply", "-f", "-"], &two).unwrap();
        assert!(made.ok, "{made:?}");
        cluster.run(&["-n", "gone", "rollout", "status", "deploy/two", "--timeout=60s"]).unwrap();
        cluster.run(&["delete", "ns", "gone", "--timeout=60s"]).unwrap();
        let all = ["get", "pods,rs,deploy,svc,endpointslices", "-n", "gone", "-o", "name"];
        assert_eq!(cluster.run(&all).unwrap(), "");
        assert_eq!(cluster.run(&pods).unwrap().lines().count(), 2, "another namespace's pods stay");
    });
}

#[test]
fn logs_exec_attach_cp_and_port_forward() {
    or_skip!();
    in_both_forms(|cluster| logs_exec_and_so_on(cluster));
}

fn logs_exec_and_so_on(cluster: &Cluster) {
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
    // a terminal, although the other side of kubectl is none
    let said = cluster.feed(&["exec", "-it", "p", "--", "tty"], "").unwrap();
    assert!(said.stderr.contains("Unable to use a TTY - input is not a terminal"), "{said:?}");
    let tty = format!("kubectl --kubeconfig {} exec -it p -- tty", cluster.kubeconfig().display());
    let said = cluster.network.command("script").args(["-qec", &tty, "/dev/null"]).output().unwrap();
    let shown = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && shown.trim().starts_with("/dev/pts/"), "{shown:?}");

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
        page = fetch(cluster, "http://127.0.0.1:18080/");
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
    in_both_forms(|cluster| come_back_and_say(cluster));
}

fn come_back_and_say(cluster: &Cluster) {
    let killed = r#"  containers: [{name: c, image: "xebec.local/demo:1", command: [sh, -c, "trap 'exit 9' TERM; while :; do sleep 0.1; done"]}]"#;
    cluster.apply(&pod("killed", killed)).unwrap();
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
    // killed from inside it comes back, the second time after a while only
    let state = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
    for restarts in 0..2 {
        let ready = format!("{restarts} true");
        cluster.until(SOON, &["get", "pod", "killed", "-o", state], |out| out == ready).unwrap();
        cluster.kubectl(&["exec", "killed", "--", "kill", "-TERM", "1"]).unwrap();
    }
    let told = cluster.until(SOON, &["get", "pod", "killed", "-o", "yaml"], |out| {
        out.contains("reason: CrashLoopBackOff") && out.contains("restartCount: 1")
    });
    let told = told.unwrap();
    assert!(
        told.contains("back-off 10s restarting failed container=c pod=killed_default")
            && told.contains("exitCode: 9"),
        "{told}"
    );
    cluster.until(SOON, &["get", "pod", "killed", "-o", state], |out| out == "2 true").unwrap();
    let described = cluster.run(&["describe", "pod", "killed"]).unwrap();
    assert!(
        described.contains("Back-off restarting failed container c in pod killed_default"),
        "{described}"
    );

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
    let described = cluster.run(&["describe", "pod", "hungry"]).unwrap();
    assert!(
        described.contains("Reason:       OOMKilled") && described.contains("Exit Code:    137"),
        "{described}"
    );
    cluster.until(SOON, &["get", "pod", "nowhere"], |out| out.contains("ErrImageNeverPull")).unwrap();
}

#[test]
fn readiness_and_configuration_follow_what_changes() {
    or_skip!();
    in_both_forms(|cluster| follow_what_changes(cluster));
}

fn follow_what_changes(cluster: &Cluster) {
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
    in_both_forms(outlive);
}

fn outlive(cluster: &mut Cluster) {
    cluster.apply(&sleeper("steady")).unwrap();
    cluster.apply(WEB).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"]).unwrap();
    cluster.run(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();
    let ip = cluster.run(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let answers = |cluster: &Cluster| fetch(cluster, &format!("http://{ip}/")).is_some();
    // which containers there are, since when, and how often they began anew
    let state = [
        "get",
        "pods",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[0].containerID} \
         {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}{'\\n'}{end}",
    ];
    let before = cluster.run(&state).unwrap();
    assert_eq!(before.matches(" Running containerd://").count(), 4, "{before}");

    cluster.kill_server().unwrap();
    assert!(answers(cluster), "Services are routed while nobody is there");
    cluster.start_server().unwrap();
    cluster.until(SOON, &["exec", "steady", "--", "echo", "alive"], |out| out == "alive\n").unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);

    let containerd = cluster.containerd_pid().expect("the server started a containerd");
    nix::sys::signal::kill(containerd, nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.until(SOON, &["exec", "steady", "--", "echo", "alive"], |out| out == "alive\n").unwrap();
    cluster.apply(&sleeper("new")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/new", "--timeout=60s"]).unwrap();
    cluster.run(&["delete", "pod", "new"]).unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);

    assert!(cluster.stop().unwrap(), "SIGTERM ends in order");
    assert!(answers(cluster));
    cluster.start_server().unwrap();
    assert_eq!(cluster.run(&state).unwrap(), before);
    assert!(answers(cluster));
}

#[test]
fn pods_reach_the_outside_with_the_address_of_their_node() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    // a machine on the node's network that knows no route to pods, and tells who asks
    let outside = Network::new().unwrap();
    outside.join(&cluster.network, "10.77.0.9").unwrap();
    let listener = outside.inside(|| Ok(TcpListener::bind("0.0.0.0:8080")?)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = write!(stream, "seen {}", from.ip());
        }
    });
    cluster.apply(&sleeper("p")).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]).unwrap();
    let ask = ["exec", "p", "--", "timeout", "3", "nc", "10.77.0.9", "8080"];
    let seen = cluster.until(SOON, &ask, |out| out.starts_with("seen ")).unwrap();
    assert_eq!(seen, "seen 10.77.0.1");
}

#[test]
fn what_the_proxy_wrote_is_taken_back_on_request() {
    or_skip!();
    let mut cluster = Cluster::with_node().unwrap();
    cluster.apply(WEB).unwrap();
    cluster.run(&["rollout", "status", "deploy/web", "--timeout=60s"]).unwrap();
    let run = |cluster: &Cluster, program: &str, arguments: &[&str]| {
        let out = cluster.network.command(program).args(arguments).output().unwrap();
        assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    run(&cluster, "iptables", &["-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "RETURN"]);
    assert!(cluster.stop().unwrap());
    assert!(run(&cluster, "iptables-save", &[]).contains("default/web"), "rules outlive the proxy");
    let out = cluster.xebec().args(["proxy", "--cleanup"]).output().unwrap();
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
    let left = run(&cluster, "iptables-save", &[]);
    // the one chain that is the kubelet's in upstream
    let of_proxy: Vec<&str> =
        left.lines().filter(|line| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL")).collect();
    assert_eq!(of_proxy, Vec::<&str>::new());
    assert!(left.contains("-A OUTPUT -d 192.0.2.1/32 -j RETURN"), "{left}");
    // once more, where there is nothing any more
    assert!(cluster.xebec().args(["proxy", "--cleanup"]).output().unwrap().status.success());
    // and the next proxy writes all of it again
    cluster.start_server().unwrap();
    let ip = cluster.run(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    eventually(SOON, || {
        let answer = fetch(&cluster, &format!("http://{ip}/")).unwrap_or_default();
        anyhow::ensure!(answer.starts_with("v1 web-"), "{answer:?}");
        Ok(())
    })
    .unwrap();
}
