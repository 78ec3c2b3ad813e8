//! How a server starts, and what it says when it cannot.

use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{Cluster, or_skip};

#[test]
fn the_terminal_is_calm() {
    or_skip!();
    let mut cluster = Cluster::with_node().unwrap();
    assert!(cluster.stop().unwrap());
    let data = cluster.data_dir();
    // what a user sees who starts it by hand, without -v
    let mut command = cluster.xebec();
    command.args(["server", "--node-name", "node-1", "--node-ip", "10.77.0.1", "--data-dir"]).arg(&data);
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let patterns = [
        "API server   ready after * on https://127.0.0.1:6443",
        &format!("kubeconfig   {}/admin.kubeconfig", data.display()),
        "node         node-1 Ready after *",
        "",
        &format!("  export KUBECONFIG={}/admin.kubeconfig", data.display()),
        "  kubectl get nodes",
        "",
    ];
    for pattern in patterns {
        let line = lines.next().unwrap();
        let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        assert!(line.starts_with(start) && line.ends_with(end), "{line:?} is not {pattern:?}");
    }
    // nsenter has become the server
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.collect::<Vec<_>>(), ["stopping     (again to stop at once)"]);
    let out = server.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn what_is_logged_is_asked_for() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    assert!(!cluster.log().is_empty());
    let start = |flags: &str| {
        let folder = cluster.scratch("logging").display().to_string();
        let server = format!(
            "rm -rf {folder}; exec timeout --foreground --preserve-status 3 {} server --disable-agent --data-dir {folder} \
             --node-ip 10.77.0.1 --secure-port 7443 {flags}",
            e2e::xebec().display()
        );
        let out = cluster.network.command("sh").args(["-c", &server]).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    assert_eq!(start(""), "");
    let (some, more) = (start("-v 1"), start("-v 2"));
    assert!(some.lines().all(|line| line.contains(" INFO ")), "{some}");
    assert!(some.lines().count() < more.lines().count() && more.contains(" DEBUG "), "{more}");
    let json = start("-v 2 --logging-format json");
    assert!(json.contains("DEBUG"), "{json}");
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let known = ["timestamp", "level", "target"].iter().all(|field| line[field].is_string());
        assert!(known && (line["level"] == "DEBUG" || line["level"] == "INFO"), "{line}");
    }
}

#[test]
fn every_command_explains_itself() {
    let help = |arguments: &[&str]| {
        let out = Command::new(e2e::xebec()).args(arguments).arg("--help").output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let all = help(&[]);
    let commands = all.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // further lines of a description stand further to the right
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    for name in ["server", "apiserver", "controller-manager", "scheduler", "kubelet", "proxy", "dns", "reset"]
    {
        assert!(names.contains(&name), "{all}");
    }
    for name in names.iter().filter(|name| **name != "help") {
        let text = help(&[name]);
        assert!(text.contains(&format!("Usage: xebec {name} [OPTIONS]")), "{text}");
        // each flag has words below it or beside it
        let mut lines = text.lines().map(str::trim).peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("-") && !line.starts_with("- ") {
                let explained = line.contains("  ") || lines.peek().is_some_and(|next| next.len() > 5);
                assert!(explained, "{name} {line}");
            }
        }
    }
}

/// Runs the program where it has to fail: with a code that is not 0, and one line.
fn fails(cluster: &Cluster, code: i32, arguments: &[&str]) -> String {
    let out =
        cluster.network.command("timeout").arg("30").arg(e2e::xebec()).args(arguments).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.starts_with("xebec: ") && said.lines().count() == 1, "{arguments:?}: {said}");
    said
}

/// What lies in a folder, with each file's size and the time of its last change.
fn listing(folder: &Path) -> Vec<String> {
    let found =
        Command::new("find").arg(folder).args(["-type", "f", "-printf", "%p %s %T@\n"]).output().unwrap();
    let mut lines: Vec<String> =
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn starting_wrong_says_what_to_do() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let data = cluster.data_dir().display().to_string();
    let before = listing(&cluster.data_dir().join("pki"));
    let said = fails(&cluster, 1, &["server", "--data-dir", &data, "--node-ip", "10.77.0.1"]);
    assert!(said.contains("another server runs on this data directory; stop it, or choose"), "{said}");
    let said = fails(&cluster, 1, &["reset", "--data-dir", &data]);
    assert!(said.contains("a server runs on this data directory; stop it first"), "{said}");
    assert_eq!(listing(&cluster.data_dir().join("pki")), before);
    cluster.run(&["get", "--raw", "/readyz"]).unwrap();

    let other = cluster.scratch("other").display().to_string();
    let on_other = ["server", "--data-dir", &other, "--node-ip", "10.77.0.1"];
    let said = fails(&cluster, 1, &[on_other.as_slice(), &["--disable-agent"]].concat());
    assert!(said.contains("cannot listen on 0.0.0.0:6443") && said.contains("--secure-port"), "{said}");
    let said = fails(&cluster, 2, &["server", "--no-such-flag"]);
    assert!(said.contains("unexpected argument '--no-such-flag' found; for more information"), "{said}");
    let said = fails(&cluster, 2, &["scheduler"]);
    assert!(said.contains("--kubeconfig <FILE>"), "{said}");
    let said = fails(&cluster, 1, &["scheduler", "--kubeconfig", "/nowhere"]);
    assert!(said.contains("/nowhere"), "{said}");
}

#[test]
fn a_node_whose_ports_are_taken_says_which() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let other = cluster.scratch("other");
    let other = other.to_str().unwrap();
    // of the kubelet, the proxy, and the cluster's DNS
    for port in [10250, 10256, 10249, 10053, 9153] {
        let taken = cluster.network.inside(|| Ok(std::net::TcpListener::bind(("0.0.0.0", port))?)).unwrap();
        let start = ["server", "--data-dir", other, "--node-ip", "10.77.0.1", "--secure-port", "7443"];
        let said = fails(&cluster, 1, &start);
        assert!(said.contains("cannot listen on") && said.contains(&format!(":{port}")), "{said}");
        drop(taken);
    }
    let said = cluster.xebec().args(["reset", "--data-dir", other]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_data_directory_that_will_not_do_is_named() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let start = |data: &str| {
        fails(
            &cluster,
            1,
            &[
                "server",
                "--data-dir",
                data,
                "--node-ip",
                "10.77.0.1",
                "--secure-port",
                "7443",
                "--disable-agent",
            ],
        )
    };
    let said = start("/proc/nowhere");
    assert!(said.contains("the data directory /proc/nowhere cannot be made") && said.contains("--data-dir"));
    let file = cluster.scratch("file");
    std::fs::write(&file, "kept").unwrap();
    let said = start(file.to_str().unwrap());
    assert!(said.contains("/file cannot be made; choose another with --data-dir"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");

    let folder = cluster.scratch("read-only");
    std::fs::create_dir_all(&folder).unwrap();
    let shown = folder.display();
    let server = format!(
        "mount --bind {shown} {shown}; mount -o remount,bind,ro {shown}; exec {} server --disable-agent \
         --data-dir {shown} --node-ip 10.77.0.1 --secure-port 7443",
        e2e::xebec().display()
    );
    let mut command = cluster.network.command("timeout");
    let out = command.args(["30", "unshare", "--mount", "sh", "-c", &server]).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(
        said.contains("cannot be written; run as its owner, or choose another with --data-dir"),
        "{said}"
    );
}

#[test]
fn a_database_that_is_damaged_is_left_as_it_is() {
    or_skip!();
    let mut cluster = Cluster::control_plane().unwrap();
    cluster.run(&["create", "configmap", "kept", "--from-literal=a=b"]).unwrap();
    assert!(cluster.stop().unwrap());
    let state = cluster.data_dir().join("state.db");
    let whole = std::fs::read(&state).unwrap();
    let garbage = b"this is no page of a database ".repeat(1000);
    let mut torn = whole.clone();
    torn[4096..4096 + 20_000].copy_from_slice(&garbage[..20_000]);
    let damaged = [
        ("no database at all", garbage.clone()),
        ("a torn one", torn),
        ("one that was cut", whole[..whole.len() / 2].to_vec()),
    ];
    let data = cluster.data_dir().display().to_string();
    let start = ["server", "--disable-agent", "--data-dir", &data, "--node-ip", "10.77.0.1"];
    for (what, bytes) in damaged {
        std::fs::write(&state, &bytes).unwrap();
        let said = fails(&cluster, 1, &start);
        assert!(said.contains("the database cannot be opened; nothing was changed"), "{what}: {said}");
        assert!(std::fs::read(&state).unwrap() == bytes, "{what} is not as it was");
    }
    // what was put aside is as good as ever
    std::fs::write(&state, &whole).unwrap();
    cluster.start_server().unwrap();
    assert_eq!(cluster.run(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).unwrap(), "b");
}

/// Starts a node where something is not as it should be; gives back what it said before it gave up.
fn start_with(cluster: &Cluster, preparation: &str) -> String {
    let data = cluster.scratch("other").display().to_string();
    let server = format!(
        "{preparation}; exec {} server --data-dir {data} --node-ip 10.77.0.1 --secure-port 7443",
        e2e::xebec().display()
    );
    let mut command = cluster.network.command("timeout");
    let out = command.args(["30", "unshare", "--mount", "sh", "-c", &server]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said
}

#[test]
fn a_node_without_a_fitting_containerd_says_what_to_install() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let said = start_with(&cluster, "mount --bind /dev/null $(command -v containerd)");
    assert!(said.contains("containerd is not installed: install it"), "{said}");

    let folder = cluster.scratch("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let fake = folder.join("containerd");
    std::fs::write(&fake, "#!/bin/sh\necho containerd github.com/containerd/containerd 1.4.13 abc\n")
        .unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = start_with(&cluster, &format!("PATH={}:$PATH", folder.display()));
    assert!(said.contains("containerd 1.4.13") && said.contains("too old: 1.6 or newer"), "{said}");
}

#[test]
fn a_corrupt_image_archive_is_named_and_keeps_nothing_back() {
    or_skip!();
    let mut cluster = Cluster::with_node().unwrap();
    assert!(cluster.stop().unwrap());
    let images = cluster.data_dir().join("images");
    let whole = std::fs::read(images.join("busybox.tar")).unwrap();
    std::fs::write(images.join("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    cluster.start_server().unwrap();
    cluster.run(&["run", "p", "--image=xebec.local/demo:1", "--", "sleep", "1000"]).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]).unwrap();
    let log = cluster.log();
    assert!(log.contains("cut.tar cannot be imported"), "{log}");
    assert_eq!(std::fs::read(images.join("cut.tar")).unwrap().len(), whole.len() / 2, "left as it is");
}

/// What `make up` and `make down` run, with the program of this build.
fn script(cluster: &Cluster, name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = cluster.network.command("timeout");
    command.arg("100").arg(root.join("scripts").join(name)).arg(e2e::xebec()).arg(cluster.scratch("up"));
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{name}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn up_shows_an_answer_and_down_leaves_nothing() {
    or_skip!();
    let mut cluster = Cluster::control_plane().unwrap();
    assert!(cluster.stop().unwrap());
    let inside = |program: &str, arguments: &[&str]| {
        let out = cluster.network.command(program).args(arguments).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let links_before = inside("ip", &["-o", "link"]).lines().count();
    let data = cluster.scratch("up");
    let shown = data.display().to_string();
    let said = script(&cluster, "up");
    assert!(said.contains("hello        3 of 3 replicas available"), "{said}");
    assert_eq!(said.matches("             hello from hello-").count(), 3, "{said}");
    assert!(said.contains(&format!("export KUBECONFIG={shown}/admin.kubeconfig")), "{said}");
    // again, while it runs
    assert!(script(&cluster, "up").contains("hello from hello-"));
    let log = std::fs::read_to_string(data.join("xebec.log")).unwrap();
    assert!(log.contains(" INFO ") && !log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    let with_host_port = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "xebec.local/demo:1", "command": ["sleep", "1000"],
         "ports": [{"containerPort": 80, "hostPort": 8080}]}]}}"#;
    let kubeconfig = format!("--kubeconfig={shown}/admin.kubeconfig");
    let manifest = cluster.scratch("pod.json");
    std::fs::write(&manifest, with_host_port).unwrap();
    inside("kubectl", &[&kubeconfig, "apply", "-f", manifest.to_str().unwrap()]);
    let waited = inside("kubectl", &[&kubeconfig, "wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]);
    assert_eq!(waited, "pod/p condition met\n");
    let uids =
        inside("kubectl", &[&kubeconfig, "get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}"]);
    let networks = pod_networks(&shown);
    assert_eq!((uids.split(' ').count(), networks.len()), (4, 4), "{networks:?}");
    assert!(inside("iptables-save", &[]).contains("CNI-HOSTPORT-DNAT"));

    let said = script(&cluster, "down");
    assert!(said.starts_with("stopped the server\n"), "{said}");
    assert_eq!(processes(&shown), Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&shown), "{mounts}");
    let rules = inside("iptables-save", &[]);
    let ours = |line: &&str| ["KUBE-", "CNI-", "XEBEC-", "10.244."].iter().any(|name| line.contains(name));
    assert_eq!(rules.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
    let links = inside("ip", &["-o", "link"]);
    assert_eq!(links.lines().count(), links_before, "{links}");
    assert_eq!(networks.iter().filter(|path| path.exists()).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    for uid in uids.split(' ') {
        let found =
            Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{uid}*")]).output().unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "cgroups of {uid}");
    }
    // once more, where nothing is; and the state is still there
    script(&cluster, "down");
    let said = script(&cluster, "up");
    assert!(said.contains("hello from hello-"), "{said}");
    assert_eq!(inside("kubectl", &[&kubeconfig, "get", "pod", "p", "-o", "name"]), "pod/p\n");
    script(&cluster, "down");
}

/// The command lines of processes that were started for a folder.
fn processes(folder: &str) -> Vec<String> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let lines = pids.filter_map(|path| std::fs::read(path.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}

/// The files that keep the network namespaces of a folder's pods.
fn pod_networks(folder: &str) -> Vec<PathBuf> {
    let config = Command::new("grep")
        .args(["-rhoE", "/run/netns/cni-[-0-9a-f]+", "--include=config.json", folder])
        .output()
        .unwrap();
    let mut found: Vec<PathBuf> =
        String::from_utf8(config.stdout).unwrap().lines().map(PathBuf::from).collect();
    found.sort();
    found.dedup();
    found
}
