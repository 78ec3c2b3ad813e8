//! Runs the iptables programs. Knows nothing of Services.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may wait for the lock of older iptables.
const LOCK_SECONDS: &str = "5";
/// How long a program may take: thousands of Services take seconds.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{program} cannot be run ({source}); install the package `{}`, or put {program} into one of the \
         directories of PATH",
        package(program)
    )]
    NotFound { program: &'static str, source: std::io::Error },
    #[error("{program} failed: {message}")]
    Failed { program: &'static str, message: String },
    #[error("{program} did not end within {DEADLINE:?}")]
    Late { program: &'static str },
}

/// Where Debian keeps a program.
fn package(program: &str) -> &str {
    match program {
        "modprobe" => "kmod",
        program => program.split('-').next().unwrap_or(program),
    }
}

/// iptables as it is on this machine. Only one value of this type writes.
#[derive(Clone, Debug)]
pub struct Iptables {
    pub version: String,
}

impl Iptables {
    /// Finds iptables and sees that it may be used: one clear error otherwise.
    pub async fn open() -> Result<Self, Error> {
        let version = run("iptables", &["--version"], None).await?;
        run("iptables-restore", &["--version"], None).await?;
        let opened = Self { version: version.trim().to_owned() };
        opened.list("nat", "POSTROUTING").await?;
        Ok(opened)
    }

    /// `--random-fully` came with 1.6.2.
    pub fn has_random_fully(&self) -> bool {
        let number = self.version.split(" v").nth(1).unwrap_or_default();
        let mut parts = number.split(['.', ' ']).map(|part| part.parse::<u32>().unwrap_or_default());
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next()) >= (1, 6, 2)
    }

    /// The rules of one chain; an error when there is no such chain.
    pub async fn list(&self, table: &'static str, chain: &str) -> Result<Vec<String>, Error> {
        let listed = run("iptables", &["-w", LOCK_SECONDS, "-t", table, "-S", chain], None).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    pub async fn save(&self, table: &'static str) -> Result<Vec<String>, Error> {
        let saved = run("iptables-save", &["-t", table], None).await?;
        Ok(saved.lines().map(str::to_owned).collect())
    }

    /// Each table of the input changes at once or not at all; other chains stay as they are.
    pub async fn restore(&self, input: &str) -> Result<(), Error> {
        let arguments = ["-w", LOCK_SECONDS, "--noflush", "--counters"];
        run("iptables-restore", &arguments, Some(input)).await.map(drop)
    }
}

/// Runs a program that may live where only root's PATH leads.
pub(crate) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::NotFound { program, source })?;
    let stdin = child.stdin.take();
    let feed = async move {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // a program that ends early says why on its standard error
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let finished = tokio::time::timeout(DEADLINE, async { tokio::join!(feed, child.wait_with_output()).1 });
    let output = match finished.await {
        Ok(output) => output.map_err(|source| Error::NotFound { program, source })?,
        Err(_) => return Err(Error::Late { program }),
    };
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Failed { program, message: complaint(&output) }),
    }
}

fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    match said.trim() {
        "" => output.status.to_string(),
        said => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_is_one_clear_line() {
        let error = run("iptables-nothing", &[], None).await.unwrap_err().to_string();
        assert!(error.starts_with("iptables-nothing cannot be run ("), "{error}");
        assert!(error.contains("install the package `iptables`"), "{error}");
    }

    #[test]
    fn random_fully_depends_on_the_version() {
        for (version, has) in [
            ("iptables v1.8.9 (nf_tables)", true),
            ("iptables v1.6.2", true),
            ("iptables v1.6.1", false),
            ("iptables v1.10.0 (legacy)", true),
            ("", false),
        ] {
            assert_eq!(Iptables { version: version.into() }.has_random_fully(), has, "{version}");
        }
    }
}
