//! Cold starts of a given command: until `/readyz` is `ok`, until a node is Ready, and what it takes when idle.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::command::Server;
use crate::process;
use crate::record::{Record, Samples};
use crate::report::Report;
use crate::stop::Stop;
use crate::target::{Protocol, Request, Target};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The command that serves the kubeconfig's cluster.
    #[arg(long, value_name = "COMMAND")]
    pub command: String,
    /// A command that makes each start a cold one, run before it, such as the removal of its state.
    #[arg(long, value_name = "COMMAND")]
    pub before: Option<String>,
    /// How many starts.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// Wait for a Ready node too.
    #[arg(long)]
    pub node: bool,
    /// How long the last one is left idle before its memory and CPU are read, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    pub idle: f64,
    /// Where the server's output goes.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(1);

/// The kubeconfig may be written by the command itself, so it is read at each start.
pub async fn run(args: &Args, kubeconfig: &Path, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    let (ready, node_ready) = (Record::default(), Record::default());
    let begun = Instant::now();
    for round in 0..args.rounds {
        if stop.is_set() {
            break;
        }
        eprintln!("start {} of {} …", round + 1, args.rounds);
        if let Some(before) = &args.before {
            let status = std::process::Command::new("sh").args(["-c", before]).status()?;
            if !status.success() {
                bail!("--before ended with {status}");
            }
        }
        let start = Instant::now();
        let mut server = Server::start(&args.command, args.log.as_deref())?;
        let target = until(&mut server, stop, async || {
            let target = Target::from_kubeconfig(kubeconfig).await?;
            match target.once(Request::get("/readyz")).await? {
                body if body.as_ref() == b"ok" => Ok(target),
                body => bail!("{}", String::from_utf8_lossy(&body)),
            }
        })
        .await?;
        push(&ready, start.elapsed());
        if args.node {
            until(&mut server, stop, async || node_is_ready(&target).await).await?;
            push(&node_ready, start.elapsed());
        }
        if round + 1 == args.rounds && !stop.is_set() {
            idle(args, server.pid(), report, stop).await?;
        }
        server.stop().await?;
    }
    let told = |what: &str, record: &Record| {
        let mut line = record.summary(begun.elapsed());
        line.remove("per_second");
        report.line(what, line);
    };
    told("readyz", &ready);
    if args.node {
        told("node ready", &node_ready);
    }
    Ok(())
}

fn push(record: &Record, time: Duration) {
    let mut samples = Samples::default();
    samples.push(time, 0);
    record.add(&mut samples);
}

/// Tries until something succeeds while the server lives.
async fn until<T>(
    server: &mut Server,
    stop: &Stop,
    attempt: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        server.check()?;
        if stop.is_set() || begun.elapsed() > PATIENCE {
            return Err(error).context("the server is not ready");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn node_is_ready(target: &Target) -> anyhow::Result<()> {
    let mut connection = target.connect(Protocol::Http1).await?;
    let (_, body) = connection.send(Request::get("/api/v1/nodes")).await?;
    let nodes: Value = serde_json::from_slice(&body)?;
    let ready = nodes["items"].as_array().into_iter().flatten().any(|node| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
    match ready {
        true => Ok(()),
        false => bail!("no node is Ready"),
    }
}

async fn idle(args: &Args, pid: u32, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    eprintln!("idle for {} s …", args.idle);
    let before = process::cpu_ms(pid).unwrap_or_default();
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs_f64(args.idle)) => {}
        () = stop.wait() => return Ok(()),
    }
    let spent = process::cpu_ms(pid).unwrap_or_default().saturating_sub(before);
    let line = Map::from_iter([
        ("rss_kb".to_owned(), json!(process::resident_kb(pid))),
        ("peak_kb".to_owned(), json!(process::peak_kb(pid))),
        ("cpu_percent".to_owned(), json!((spent as f64 / args.idle / 10.0 * 100.0).round() / 100.0)),
    ]);
    report.line("idle", line);
    Ok(())
}
