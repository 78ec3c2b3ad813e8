//! The load generator, against a cluster it knows nothing of.

use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Cluster, or_skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn bench(cluster: &Cluster) -> Command {
    let mut command = cluster.network.command(e2e::xebec().with_file_name("xebec-bench"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).stdin(Stdio::null());
    command
}

/// Runs it and gives back its JSON lines.
fn lines(mut command: Command, arguments: &[&str]) -> Vec<Value> {
    let out = command.args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn line<'a>(lines: &'a [Value], what: &str) -> &'a Value {
    lines.iter().find(|line| line["what"] == what).unwrap_or_else(|| panic!("no {what} in {lines:?}"))
}

fn nothing_is_left(cluster: &Cluster) {
    let kinds = "ns,nodes,pc,clusterroles,clusterrolebindings,validatingwebhookconfigurations";
    let left = cluster.run(&["get", kinds, "-l", "app.kubernetes.io/managed-by=xebec-bench"]).unwrap();
    assert_eq!(left, "", "everything it made is gone");
}

#[test]
fn authorization_and_admission_are_measured_and_left_as_they_were() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let arguments = ["access", "--concurrency", "2", "--seconds", "0.5", "--roles", "3", "--bindings", "7"];
    let lines = lines(bench(&cluster), &arguments);
    for what in [
        "get",
        "create",
        "create, a webhook asked",
        "create, a quota charged",
        "get beside 3 roles, 7 bindings",
    ] {
        let line = line(&lines, what);
        assert!(line["count"].as_u64().unwrap() > 0 && line["failures"].is_null(), "{line}");
    }
    nothing_is_left(&cluster);
}

#[test]
fn the_api_is_measured_and_left_as_it_was() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let plot = cluster.scratch("plot.svg");
    let drawn = format!("--plot={}", plot.display());
    for format in ["json", "protobuf"] {
        for protocol in ["http1", "http2"] {
            let options = [
                "api",
                &drawn,
                "--concurrency=4",
                "--most=30",
                "--page=7",
                "--format",
                format,
                "--protocol",
                protocol,
            ];
            let found = lines(bench(&cluster), &options);
            for verb in
                ["create", "get", "update", "patch", "apply", "list", "list-paged", "list-label", "delete"]
            {
                let line = line(&found, verb);
                assert_eq!((&line["count"], line.get("failures")), (&30.into(), None), "{line}");
                assert!(line["p99_ms"].as_f64() >= line["p50_ms"].as_f64(), "{line}");
            }
        }
    }
    let text = std::fs::read_to_string(&plot).unwrap();
    assert!(text.starts_with("<svg") && text.contains("list-paged"));
    let open = lines(bench(&cluster), &["api", "--rate=100", "--seconds=1", "--verbs=create,get"]);
    let count = line(&open, "get")["count"].as_u64().unwrap();
    assert!((90..=101).contains(&count), "an open loop sends by the clock: {count}");
    nothing_is_left(&cluster);
}

#[test]
fn watchers_informers_and_schedulers_are_measured() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let pid = cluster.server_pid().to_string();
    for connections in ["0", "2"] {
        let options = [
            "watch",
            "--watchers=8",
            "--changes=50",
            "--seconds=1",
            "--server-pid",
            &pid,
            "--connections",
            connections,
        ];
        let found = lines(bench(&cluster), &options);
        let delivered = line(&found, "deliver");
        assert_eq!((&delivered["missed"], &delivered["repeated"]), (&0.into(), &0.into()), "{delivered}");
        assert!(delivered["count"].as_u64().unwrap() >= 8 * 45, "{delivered}");
        assert!(delivered["server_kb_after"].as_u64().unwrap() > 0, "{delivered}");
    }
    for (way, format) in
        [("list", "json"), ("list", "protobuf"), ("watch-list", "json"), ("watch-list", "protobuf")]
    {
        let options = ["informers", "--clients=5", "--objects=400", "--way", way, "--format", format];
        let found = lines(bench(&cluster), &options);
        assert_eq!(line(&found, "read")["count"], 5, "{found:?}");
    }
    let options = ["informers", "--clients=2", "--objects=100", "--kind=pods", "--server-pid", &pid];
    let found = lines(bench(&cluster), &options);
    assert_eq!(line(&found, "read")["count"], 2, "{found:?}");
    assert!(line(&found, "read")["server_bytes_per_object"].is_number(), "{found:?}");
    for case in ["basic", "node-affinity", "unschedulable-churn"] {
        let found = lines(bench(&cluster), &["scheduler", "--nodes=5", "--pods=30", "--case", case]);
        assert_eq!(line(&found, case)["count"], 30, "{found:?}");
    }
    nothing_is_left(&cluster);
}

#[test]
fn pods_and_routes_are_measured() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    let pod = ["--image=xebec.local/demo:1", "--command=sleep", "--command=1000"];
    let found = lines(bench(&cluster), &[&["pods", "--at-once=2", "--rounds=2"][..], &pod].concat());
    for step in ["scheduled", "running", "ready", "deleted"] {
        assert_eq!(line(&found, step)["count"], 4, "{found:?}");
    }
    let address = format!("--address={}", cluster.network.node_ip);
    let found = lines(bench(&cluster), &["services", "--services=5", "--rounds=3", &address]);
    assert_eq!(line(&found, "routed")["count"], 3, "{found:?}");
    nothing_is_left(&cluster);
}

#[test]
fn kills_and_starts_are_measured() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let data = cluster.scratch("other");
    let server = format!(
        "{} server --disable-agent --data-dir {} --node-ip 10.77.0.1 --secure-port 7443",
        e2e::xebec().display(),
        data.display()
    );
    let other = || {
        let mut command = cluster.network.command(e2e::xebec().with_file_name("xebec-bench"));
        command.arg("--kubeconfig").arg(data.join("admin.kubeconfig"));
        command
    };
    let during: [&[&str]; 5] = [
        &[],
        &["--", "api", "--concurrency=4", "--seconds=0.3", "--format=protobuf", "--protocol=http2"],
        &["--", "watch", "--watchers=5", "--changes=200", "--seconds=1"],
        &["--", "informers", "--clients=4", "--objects=300", "--way=watch-list"],
        &["--", "scheduler", "--nodes=5", "--pods=60"],
    ];
    for workload in during {
        let kills = ["chaos", "--kills=3", "--within=0.5", "--command", &server];
        let found = lines(other(), &[&kills[..], workload].concat());
        let killed = line(&found, "kill -9");
        assert_eq!((&killed["lost_writes"], &killed["missed_events"]), (&0.into(), &0.into()), "{killed}");
        assert!(killed["acknowledged_writes"].as_u64().unwrap() > 0, "{killed}");
        assert_eq!(killed["watch_relists"], 0, "watches resume from the store's log: {killed}");
        assert_eq!(killed["during"], *workload.get(1).unwrap_or(&"api"), "{killed}");
    }
    let clean = format!("rm -rf {}", data.display());
    let found =
        lines(other(), &["start", "--rounds=2", "--idle=0.2", "--before", &clean, "--command", &server]);
    assert_eq!(line(&found, "readyz")["count"], 2, "{found:?}");
    assert!(line(&found, "idle")["rss_kb"].as_u64().unwrap() > 0, "{found:?}");
}

#[test]
fn what_goes_wrong_is_one_line_and_an_interrupted_run_cleans_up() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let fails = |kubeconfig: &str, arguments: &[&str]| {
        let mut command = cluster.network.command(e2e::xebec().with_file_name("xebec-bench"));
        let out = command.arg("--kubeconfig").arg(kubeconfig).args(arguments).output().unwrap();
        assert!(!out.status.success(), "{arguments:?}");
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = fails("/nowhere", &["api"]);
    assert!(said.contains("cannot read the kubeconfig /nowhere"), "{said}");
    let own = cluster.kubeconfig().display().to_string();
    let moved = cluster.scratch("moved");
    let text = std::fs::read_to_string(&own).unwrap().replace(":6443", ":6449");
    std::fs::write(&moved, text).unwrap();
    let said = fails(&moved.display().to_string(), &["watch"]);
    assert!(said.contains("cannot be reached; is the server running?"), "{said}");
    let scheduler = cluster.data_dir().join("scheduler.kubeconfig").display().to_string();
    let said = fails(&scheduler, &["api"]);
    assert!(said.contains("403") && said.contains("namespaces is forbidden"), "{said}");

    let mut command = bench(&cluster);
    command.args(["api", "--seconds=60"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    cluster
        .until(Duration::from_secs(20), &["get", "ns", "-o", "name"], |out| out.contains("xebec-bench-"))
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stdout).contains("\"what\":\"create\""), "it still reports");
    nothing_is_left(&cluster);
}
