//! The containerd that belongs to a node: started when needed, found again after a restart, started again when it
//! dies. Containers live in shims and outlive both containerd and the kubelet.

pub mod archive;
pub mod config;
pub mod events;
pub mod import;
pub mod pause;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::config::Config;
use crate::files;
use crate::runtime::cri;
use config::{Layout, Machine};

/// The oldest release line that serves CRI v1.
const OLDEST: (u32, u32) = (1, 6);
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// Longest path of a unix socket, and what containerd appends to it.
const MAX_SOCKET_PATH: usize = 107 - ".ttrpc".len();
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const PROGRAM_FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];
const CAP_SYS_RESOURCE: u32 = 24;
/// A log longer than this is moved aside when containerd starts.
const MAX_LOG: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    #[error(
        "{0} is not installed: install it (Debian: apt-get install containerd runc containernetworking-plugins) or pass --container-runtime-endpoint"
    )]
    NotInstalled(&'static str),
    #[error("containerd {found} at {path} is too old: 1.6 or newer is needed")]
    TooOld { found: String, path: PathBuf },
    #[error("cannot tell the version of {0}: {1}")]
    Version(PathBuf, String),
    #[error(
        "the data directory's path is too long for a unix socket ({0} has more than {MAX_SOCKET_PATH} characters): choose a shorter --data-dir"
    )]
    PathTooLong(PathBuf),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
    #[error("cannot start {0}: {1}")]
    Spawn(PathBuf, io::Error),
    #[error("containerd ended at once; the end of {log}:\n{tail}")]
    Ended { log: PathBuf, tail: String },
    #[error("containerd did not answer within 60 s; see {0}")]
    Silent(PathBuf),
}

/// A containerd under supervision.
#[derive(Debug)]
pub struct Containerd {
    layout: Layout,
    program: PathBuf,
}

impl Containerd {
    /// Checks what is installed and writes the configuration.
    pub async fn prepare(kubelet: &Config) -> Result<Self, ContainerdError> {
        let program = find("containerd").ok_or(ContainerdError::NotInstalled("containerd"))?;
        find("runc").ok_or(ContainerdError::NotInstalled("runc"))?;
        let cni = cni_folder().ok_or(ContainerdError::NotInstalled("containernetworking-plugins"))?;
        let version = version_of(&program).await?;
        if parse_version(&version).is_none_or(|version| version < OLDEST) {
            return Err(ContainerdError::TooOld { found: version, path: program });
        }
        let layout = Layout { base: absolute(&kubelet.paths().containerd()) };
        if layout.socket().as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ContainerdError::PathTooLong(layout.socket()));
        }
        let machine = Machine {
            restrict_oom_score_adj: !has_capability(CAP_SYS_RESOURCE),
            apparmor: Path::new("/sys/kernel/security/apparmor").exists(),
        };
        let write = |path: PathBuf, content: String| {
            let folder = path.parent().map(Path::to_owned).unwrap_or_default();
            fs::create_dir_all(folder)
                .and_then(|()| files::write_atomically(&path, content.as_bytes(), 0o600))
                .map_err(|error| ContainerdError::Write(path, error))
        };
        write(layout.config(), config::render(kubelet, &layout, machine, &cni))?;
        for registry in &kubelet.registries {
            let path = layout.registry_hosts().join(&registry.host).join("hosts.toml");
            write(path, config::render_hosts(registry))?;
        }
        let cni_config = kubelet.paths().cni_config();
        fs::create_dir_all(&cni_config).map_err(|error| ContainerdError::Write(cni_config, error))?;
        Ok(Self { layout, program })
    }

    pub fn socket(&self) -> PathBuf {
        self.layout.socket()
    }

    pub fn channel(&self) -> Channel {
        cri::connect(&self.layout.socket())
    }

    /// Starts containerd unless it runs already, and returns when it answers.
    pub async fn ensure_running(&self) -> Result<(), ContainerdError> {
        if self.accepts().await {
            tracing::info!(socket = %self.layout.socket().display(), "found the running containerd");
            return self.wait_until_ready(None).await;
        }
        // A stale one that no longer listens would hold the database's lock.
        self.end_stale().await;
        let log = self.layout.log();
        if fs::metadata(&log).is_ok_and(|file| file.len() > MAX_LOG) {
            let _ = fs::rename(&log, log.with_extension("log.1"));
        }
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| ContainerdError::Write(log.clone(), error))?;
        let errors = output.try_clone().map_err(|error| ContainerdError::Write(log.clone(), error))?;
        let mut command = std::process::Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.layout.config())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // signals of the terminal are for us, not for containerd
            .process_group(0);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(false)
            .spawn()
            .map_err(|error| ContainerdError::Spawn(self.program.clone(), error))?;
        if let Some(pid) = child.id() {
            let path = self.layout.pid_file();
            fs::write(&path, pid.to_string()).map_err(|error| ContainerdError::Write(path, error))?;
            tracing::info!(pid, program = %self.program.display(), "started containerd");
        }
        self.wait_until_ready(Some(child)).await
    }

    async fn accepts(&self) -> bool {
        UnixStream::connect(self.layout.socket()).await.is_ok()
    }

    async fn wait_until_ready(
        &self,
        mut child: Option<tokio::process::Child>,
    ) -> Result<(), ContainerdError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if self.accepts().await && self.serves_cri().await {
                if let Some(mut child) = child {
                    // reaps it should it end while we live; the watch notices its end by its socket
                    tokio::spawn(async move { child.wait().await });
                }
                return Ok(());
            }
            let ended = child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended {
                let log = self.layout.log();
                let tail = files::read_tail(&log, 2000).unwrap_or_default();
                return Err(ContainerdError::Ended {
                    log,
                    tail: String::from_utf8_lossy(&tail).into_owned(),
                });
            }
            if Instant::now() > deadline {
                return Err(ContainerdError::Silent(self.layout.log()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn serves_cri(&self) -> bool {
        use crate::runtime::Runtime as _;
        let runtime = cri::Cri::new(self.channel());
        matches!(tokio::time::timeout(Duration::from_secs(5), runtime.version()).await, Ok(Ok(_)))
    }

    /// Keeps containerd running until `cancel`; returns then and leaves it running.
    pub async fn supervise(&self, cancel: CancellationToken) {
        let mut delay = Duration::ZERO;
        loop {
            let period = WATCH_PERIOD + delay;
            if cancel.run_until_cancelled(tokio::time::sleep(period)).await.is_none() {
                return;
            }
            if self.accepts().await {
                delay = Duration::ZERO;
                continue;
            }
            tracing::warn!("containerd is gone; it is started again");
            if let Err(error) = self.ensure_running().await {
                tracing::error!(%error, "containerd could not be started again");
                delay = (delay * 2 + Duration::from_secs(1)).min(Duration::from_secs(60));
            }
        }
    }

    fn pid(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.layout.pid_file()).ok()?.trim().parse().ok()?;
        // The number may have gone to another process since.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.layout.config();
        let ours =
            command.split(|b| *b == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes());
        ours.then_some(pid)
    }

    async fn end_stale(&self) {
        if self.pid().is_some() {
            self.stop().await;
        }
    }

    /// Ends containerd; containers go on in their shims.
    pub async fn stop(&self) {
        let Some(pid) = self.pid() else { return };
        let target = Pid::from_raw(pid);
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut signal = Signal::SIGTERM;
        while self.pid().is_some() {
            if kill(target, signal).is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            if Instant::now() > deadline {
                signal = Signal::SIGKILL;
            }
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A program on the search path, or where distributions put it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PROGRAM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

pub fn cni_folder() -> Option<PathBuf> {
    CNI_FOLDERS.iter().map(PathBuf::from).find(|folder| folder.join("bridge").is_file())
}

async fn version_of(program: &Path) -> Result<String, ContainerdError> {
    let run = tokio::process::Command::new(program).arg("--version").kill_on_drop(true).output();
    let failed = |reason: String| ContainerdError::Version(program.to_owned(), reason);
    let output = tokio::time::timeout(Duration::from_secs(10), run)
        .await
        .map_err(|_| failed("it does not answer".into()))?
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3`
    text.split_whitespace().nth(2).map(str::to_owned).ok_or_else(|| failed(text.trim().to_owned()))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether this process may use a capability.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let cases =
            [("1.6.20~ds1", true), ("v2.1.0", true), ("1.7.0-rc.1", true), ("1.5.13", false), ("", false)];
        for (text, fits) in cases {
            assert_eq!(parse_version(text).is_some_and(|v| v >= OLDEST), fits, "{text}");
        }
    }
}
