//! The server's process, when a workload starts or kills it: any command that serves the kubeconfig's cluster.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STOP: Duration = Duration::from_secs(30);

/// A command that runs; it is ended with this.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a command line by the shell's rules. Its output goes to a file, or nowhere.
    pub fn start(command: &str, log: Option<&std::path::Path>) -> anyhow::Result<Self> {
        let output = || -> anyhow::Result<Stdio> {
            let Some(path) = log else { return Ok(Stdio::null()) };
            let file = std::fs::File::options().create(true).append(true).open(path);
            Ok(file.with_context(|| format!("{} cannot be written", path.display()))?.into())
        };
        // exec, so that signals reach the server and not a shell
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn()
            .with_context(|| format!("{command} cannot be started"))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when the process is over.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself: {status}"),
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and SIGKILL when that does not help.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > STOP {
                return self.kill().context("the server did not end on SIGTERM");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
