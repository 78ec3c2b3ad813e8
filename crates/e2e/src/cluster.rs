//! One cluster under test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::network::{Network, eventually};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// What a command said.
#[derive(Debug)]
pub struct Output {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// A server in a network of its own.
pub struct Cluster {
    pub network: Network,
    dir: TempDir,
    kind: Kind,
    /// Flags of the server besides those of every cluster.
    flags: Vec<String>,
    server: Option<Child>,
    /// The other components, when each is a process of its own.
    others: Vec<Child>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ControlPlane,
    AllInOne,
    Apart,
    /// The API server alone; tests start what else they need.
    ApiServer,
}

/// The folder of build results that this test is from.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.ancestors().nth(2).expect("tests lie two folders deep").to_owned()
}

/// The program under test.
pub fn xebec() -> PathBuf {
    target().join("xebec")
}

impl Cluster {
    /// The control plane alone.
    pub fn control_plane() -> anyhow::Result<Self> {
        Self::start(Kind::ControlPlane)
    }

    /// The control plane with more flags, for which there may be something to prepare where it will run.
    pub fn control_plane_with(
        prepare: impl FnOnce(&Self) -> anyhow::Result<Vec<String>>,
    ) -> anyhow::Result<Self> {
        Self::start_with(Kind::ControlPlane, prepare)
    }

    /// A control plane with a node that runs pods of the demo image.
    pub fn with_node() -> anyhow::Result<Self> {
        Self::start(Kind::AllInOne)
    }

    /// The same as a process each: API server, controllers, scheduler, kubelet, proxy, DNS.
    pub fn apart() -> anyhow::Result<Self> {
        Self::start(Kind::Apart)
    }

    /// The API server alone, with more flags.
    pub fn api_server(flags: &[&str]) -> anyhow::Result<Self> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_with(Kind::ApiServer, |_| Ok(flags))
    }

    fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_with(kind, |_| Ok(Vec::new()))
    }

    fn start_with(
        kind: Kind,
        prepare: impl FnOnce(&Self) -> anyhow::Result<Vec<String>>,
    ) -> anyhow::Result<Self> {
        let mut cluster = Self {
            network: Network::new()?,
            dir: tempfile::Builder::new().prefix("xebec-e2e-").tempdir()?,
            kind,
            server: None,
            others: Vec::new(),
            flags: Vec::new(),
        };
        let images = cluster.data_dir().join("images");
        std::fs::create_dir_all(&images)?;
        let archive = target().parent().context("the target folder")?.join("images/busybox.tar");
        if archive.exists() {
            std::fs::copy(archive, images.join("busybox.tar"))?;
        } else if cluster.has_node() {
            bail!("the demo image is missing; make demo-image makes it");
        }
        cluster.flags = prepare(&cluster)?;
        cluster.start_server()?;
        Ok(cluster)
    }

    fn has_node(&self) -> bool {
        matches!(self.kind, Kind::AllInOne | Kind::Apart)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The `xebec` command inside the cluster's network.
    pub fn xebec(&self) -> Command {
        self.network.command(xebec())
    }

    /// Starts the server, again after it was stopped or killed, and waits until it is ready.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        let ip = self.network.node_ip;
        let data = self.data_dir().display().to_string();
        let mut arguments = vec!["--node-name", "node-1", "--node-ip", ip, "--data-dir", &data];
        arguments.extend(self.flags.iter().map(String::as_str));
        let alone = matches!(self.kind, Kind::Apart | Kind::ApiServer);
        if !alone && !self.has_node() {
            arguments.push("--disable-agent");
        }
        let server = self.component(if alone { "apiserver" } else { "server" }, &arguments)?;
        self.server = Some(server);
        if self.kind == Kind::Apart {
            self.start_others(&data)?;
        }
        let ready = eventually(START, || {
            if let Some(status) = self.server.as_mut().and_then(|server| server.try_wait().transpose()) {
                bail!("the server ended with {:?}", status);
            }
            let answer = self.kubectl(&["get", "--raw", "/readyz"])?;
            if answer.stdout != "ok" {
                bail!("not ready: {}", answer.stderr);
            }
            if self.has_node() {
                self.run(&["wait", "--for=condition=Ready", "node/node-1", "--timeout=30s"])?;
            }
            Ok(())
        });
        ready.with_context(|| format!("the server's log:\n{}", self.log()))
    }

    /// Starts a component besides the server; it ends with the cluster.
    pub fn start_component(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let child = self.component(name, arguments)?;
        self.others.push(child);
        Ok(())
    }

    /// Starts one component with its output in the log.
    fn component(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = self.xebec();
        command.arg(name).args(["-v", "1"]).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting xebec {name}"))
    }

    fn start_others(&mut self, data: &str) -> anyhow::Result<()> {
        eventually(START, || match self.kubectl(&["get", "--raw", "/readyz"])?.ok {
            true => Ok(()),
            false => bail!("the API server is not ready"),
        })?;
        let ip = self.network.node_ip;
        let config = |name: &str| format!("--kubeconfig={data}/{name}.kubeconfig");
        let file = |flag: &str, name: &str| format!("--{flag}={data}/pki/{name}");
        let node = ["--node-name", "node-1", "--node-ip", ip];
        let ca = file("root-ca-file", "ca.crt");
        let key = file("service-account-private-key-file", "sa.key");
        let kubelet = [
            config("kubelet"),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "kubelet.crt"),
            file("tls-private-key-file", "kubelet.key"),
            format!("--data-dir={data}"),
        ];
        let kubelet: Vec<&str> = kubelet.iter().map(String::as_str).chain(node).collect();
        let (proxy, dns) = (config("kube-proxy"), config("coredns"));
        let others = [
            self.component("controller-manager", &[&config("controller-manager"), &ca, &key])?,
            self.component("scheduler", &[&config("scheduler")])?,
            self.component("kubelet", &kubelet)?,
            self.component("proxy", &[[proxy.as_str()].as_slice(), &node].concat())?,
            self.component("dns", &[[dns.as_str()].as_slice(), &node].concat())?,
        ];
        self.others.extend(others);
        Ok(())
    }

    pub fn server_pid(&self) -> Pid {
        let id = self.server.as_ref().map(Child::id).unwrap_or_default();
        Pid::from_raw(i32::try_from(id).unwrap_or_default())
    }

    /// Asks the server, and the components beside it before, to end and waits; gives back whether all ended with
    /// success.
    pub fn stop(&mut self) -> anyhow::Result<bool> {
        let mut in_order = true;
        for process in std::mem::take(&mut self.others).into_iter().rev().chain(self.server.take()) {
            in_order &= end(process)?;
        }
        Ok(in_order)
    }

    /// Ends the server, and the components beside it, without warning.
    pub fn kill_server(&mut self) -> anyhow::Result<()> {
        for mut process in std::mem::take(&mut self.others).into_iter().chain(self.server.take()) {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// The pid of the containerd that the server started.
    pub fn containerd_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data_dir().join("containerd/containerd.pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        self.kubectl_of("kubectl", arguments)
    }

    /// A command of one of several versions of kubectl.
    pub fn kubectl_of(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = self.network.command(program);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).env("HOME", self.dir.path());
        command
    }

    /// Runs kubectl, whatever comes of it.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        output(self.kubectl_command(arguments), None)
    }

    /// Runs kubectl; a failure is an error that shows what it said.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.kubectl(arguments)?;
        if !said.ok {
            bail!("kubectl {}: {}{}", arguments.join(" "), said.stdout, said.stderr);
        }
        Ok(said.stdout)
    }

    /// Runs kubectl with something on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        output(self.kubectl_command(arguments), Some(input))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let said = self.feed(&["apply", "-f", "-"], manifest)?;
        if !said.ok {
            bail!("kubectl apply: {}", said.stderr);
        }
        Ok(())
    }

    /// Starts kubectl and lets it run.
    pub fn spawn(&self, arguments: &[&str], out: &Path) -> anyhow::Result<Child> {
        let out = std::fs::File::create(out)?;
        let mut command = self.kubectl_command(arguments);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(command.spawn()?)
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Tries until kubectl's output is as `right` wants it.
    pub fn until(
        &self,
        within: Duration,
        arguments: &[&str],
        right: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        eventually(within, || {
            let said = self.kubectl(arguments)?;
            if right(&said.stdout) && said.ok {
                return Ok(said.stdout);
            }
            bail!("kubectl {}: {}{}", arguments.join(" "), said.stdout, said.stderr)
        })
        .with_context(|| format!("the server's log:\n{}", tail(&self.log())))
    }
}

/// Asks a process to end and waits; gives back whether it ended with success.
fn end(mut process: Child) -> anyhow::Result<bool> {
    kill(Pid::from_raw(i32::try_from(process.id())?), Signal::SIGTERM)?;
    let ended = eventually(STOP, || process.try_wait()?.context("a process did not end on SIGTERM"));
    if ended.is_err() {
        process.kill()?;
        process.wait()?;
    }
    Ok(ended?.success())
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn output(mut command: Command, input: Option<&str>) -> anyhow::Result<Output> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    Ok(Output {
        ok: out.status.success(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.kind != Kind::ControlPlane && self.server.is_some() {
            // pods first, so that no container outlives its test
            let _ = self.kubectl(&[
                "delete",
                "deploy,rs,pods",
                "--all",
                "-A",
                "--force",
                "--grace-period=0",
                "--wait=true",
                "--timeout=20s",
            ]);
            std::thread::sleep(Duration::from_millis(500));
        }
        let _ = self.stop();
        if self.containerd_pid().is_some() {
            let _ = self.xebec().args(["reset", "--data-dir"]).arg(self.data_dir()).status();
        }
    }
}
