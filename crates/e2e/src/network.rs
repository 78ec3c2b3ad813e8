//! A network namespace: loopback and one bridge that carries the node's address and a default route to nowhere.

use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const SETUP: &str = r#"
set -e
ip link set lo up
ip link add node0 type bridge
ip addr add "$0/24" dev node0
ip link set node0 up
ip route add default dev node0
sysctl -qw net.ipv4.ip_forward=1
echo up
exec sleep infinity
"#;

/// Lives as long as the process that holds it.
pub struct Network {
    holder: Child,
    pub node_ip: &'static str,
}

impl Network {
    pub fn new() -> anyhow::Result<Self> {
        let node_ip = "10.77.0.1";
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "bash", "-c", SETUP, node_ip])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare --net")?;
        let out = holder.stdout.take().context("the holder's output")?;
        let mut first = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut first)?;
        if first.trim() != "up" {
            let _ = holder.kill();
            bail!("the network namespace could not be set up");
        }
        Ok(Self { holder, node_ip })
    }

    /// Connects this namespace's bridge to that of another one, in which it is known by this address.
    pub fn join(&self, other: &Self, address: &str) -> anyhow::Result<()> {
        let (here, there) = (self.holder.id().to_string(), other.holder.id().to_string());
        let script = r#"
            set -e
            nsenter -t "$0" -n ip link add joined type veth peer name joined netns "$1"
            nsenter -t "$0" -n ip link set joined master node0 up
            nsenter -t "$1" -n ip link set joined master node0 up
            nsenter -t "$0" -n ip addr flush dev node0
            nsenter -t "$0" -n ip addr add "$2/24" dev node0
        "#;
        let status = Command::new("bash").args(["-c", script, &here, &there, address]).status()?;
        match status.success() {
            true => Ok(()),
            false => bail!("two network namespaces could not be joined"),
        }
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "--"]).arg(program);
        command
    }

    /// Runs something inside, on a thread of its own that has gone there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let enter = self.enter(work)?;
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts something inside that goes on beside the test.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
        Ok(std::thread::spawn(self.enter(work)?))
    }

    /// What a thread does to go inside first.
    fn enter<T, W: FnOnce() -> anyhow::Result<T>>(
        &self,
        work: W,
    ) -> anyhow::Result<impl FnOnce() -> anyhow::Result<T> + use<T, W>> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        Ok(move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Tries until something is there, or fails with what was wrong last.
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > within => {
                return Err(error.context(format!("not within {within:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
