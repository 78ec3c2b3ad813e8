//! A network namespace and a data directory for tests that run a real container runtime.

// each test binary uses a part of this
#![allow(dead_code)]

pub mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

const INSIDE: &str = "XEBEC_TEST_NETNS";

/// Runs the calling test again in a network namespace of its own, with loopback and one bridge that carries the
/// node's address, and no way out. The names of its pods' networks go with its mounts. Returns true inside, where the test goes on; false outside, when all is done
/// or when this machine cannot run it.
pub fn isolated(test: &str, node_ip: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() || kubelet::containerd::find("containerd").is_none() {
        eprintln!("{test}: skipped, it needs root and containerd");
        return false;
    }
    let script = "mount --make-rshared / && mkdir -p /run/netns && mount -t tmpfs pods /run/netns && \
                  ip link set lo up && ip link add node0 type bridge && ip addr add \"$0/24\" dev node0 && \
                  ip link set node0 up && ip route add default dev node0 && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--", "bash", "-c", script, node_ip])
        .arg(std::env::current_exe().expect("a test has a program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{test} failed in its namespace");
    false
}

/// The busybox demo image as an archive in `folder`.
pub fn demo_image(folder: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/demo-image");
    let out = folder.join("demo.tar");
    let status = Command::new(script).arg(&out).status().expect("the script runs");
    assert!(status.success(), "no demo image");
    out
}

pub const DEMO: &str = "xebec.local/demo:1";

/// A data directory whose containerd, shims, containers and mounts end with it, whatever the test did.
pub struct Node {
    pub folder: tempfile::TempDir,
    /// Below this cgroup the pods of the test run.
    pub cgroup: String,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cgroup = format!("xebec-test-{}", std::process::id());
        Self { folder, cgroup }
    }

    pub fn config(&self, ip: [u8; 4]) -> kubelet::Config {
        let mut config = kubelet::Config::new("n1", ip.into(), self.folder.path());
        config.cgroup_root = format!("/{}", self.cgroup);
        config
    }

    /// What runs for this data directory.
    pub fn processes(&self) -> Vec<i32> {
        let needle = self.folder.path().to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != std::process::id() as i32 && String::from_utf8_lossy(&command).contains(&needle)
        })
        .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;
        // what runs in the test's cgroups, then containerd and the shims that name the data directory
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            end_cgroup(&hierarchy.path().join(&self.cgroup));
        }
        end_cgroup(&Path::new("/sys/fs/cgroup").join(&self.cgroup));
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let needle = self.folder.path().to_string_lossy().into_owned();
        let mut points: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(1)).collect();
        points.retain(|point| point.starts_with(&needle));
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Kills what runs in a cgroup and removes it, children first.
fn end_cgroup(path: &Path) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        end_cgroup(&entry.path());
    }
    for _ in 0..50 {
        let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if std::fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
