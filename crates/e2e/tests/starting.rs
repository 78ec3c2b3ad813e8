//! How a server starts, and what it says when it cannot.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use e2e::{Cluster, or_skip};

#[test]
fn the_terminal_is_calm() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let mut help = cluster.xebec();
    let out = help.args(["server", "--help"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    for flag in [
        "--data-dir",
        "--secure-port",
        "--cluster-cidr",
        "--service-cluster-ip-range",
        "--cluster-dns",
        "--disable-agent",
    ] {
        assert!(text.contains(flag), "{text}");
    }
    let log = cluster.log();
    assert!(log.contains("API server   ready after") && log.contains("admin.kubeconfig"), "{log}");
    std::io::stdout().flush().unwrap();
}

#[test]
fn starting_wrong_says_what_to_do() {
    or_skip!();
    let cluster = Cluster::control_plane().unwrap();
    let fails = |arguments: &[&str]| {
        let out = cluster.xebec().args(arguments).output().unwrap();
        assert!(!out.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let data = cluster.data_dir().display().to_string();
    let said = fails(&["server", "--data-dir", &data, "--node-ip", "10.77.0.1"]);
    assert!(said.contains("another server runs on this data directory"), "{said}");
    let other = cluster.scratch("other").display().to_string();
    let said = fails(&["server", "--disable-agent", "--data-dir", &other, "--node-ip", "10.77.0.1"]);
    assert!(said.contains("cannot listen on") && said.contains("--secure-port"), "{said}");
    let said = fails(&["server", "--no-such-flag"]);
    assert!(said.contains("unexpected argument '--no-such-flag'"), "{said}");
    let said = fails(&["server", "--data-dir", "/proc/nowhere"]);
    assert!(said.contains("--data-dir"), "{said}");
    let broken = cluster.scratch("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(
        broken.join("state.db"),
        "this is no database, and it is longer than a page header is".repeat(100),
    )
    .unwrap();
    let said = fails(&[
        "server",
        "--data-dir",
        &broken.display().to_string(),
        "--node-ip",
        "10.77.0.1",
        "--secure-port",
        "7443",
    ]);
    assert!(said.contains("the database cannot be opened; nothing was changed"), "{said}");
    assert!(std::fs::read_to_string(broken.join("state.db")).unwrap().starts_with("this is no database"));
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
    assert_eq!(out.status.code(), Some(1), "{said}");
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
