//! `kill -9` at random moments while another workload runs: every acknowledged write must be there afterwards, and every
//! watch complete.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::{Map, json};

use crate::command::Server;
use crate::report::Report;
use crate::stop::Stop;
use crate::target::{Request, Target};
use crate::workloads::Workload;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The command that serves the kubeconfig's cluster; it is started, killed and started again.
    #[arg(long, value_name = "COMMAND")]
    pub command: String,
    /// How many kills.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub kills: usize,
    /// The longest time between a start and the kill, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub within: f64,
    /// Where the server's output goes.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The workload that runs meanwhile, over and over, with its arguments, after `--`.
    #[arg(last = true, default_values_t = DEFAULT.map(str::to_owned), value_name = "WORKLOAD")]
    pub workload: Vec<String>,
}

/// Writes alone, as many as there is time for.
const DEFAULT: [&str; 5] = ["api", "--concurrency=16", "--verbs=create,update", "--most=5000", "--seconds=2"];

const START: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(10);

/// The arguments after `--`.
#[derive(Debug, Parser)]
#[command(name = "xebec-bench chaos --", no_binary_name = true)]
struct Inner {
    #[command(subcommand)]
    workload: Workload,
}

pub async fn run(args: &Args, kubeconfig: &Path, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    let inner = match Inner::try_parse_from(&args.workload) {
        Ok(inner) => inner.workload,
        Err(error) => bail!("the workload after `--`: {}", error.to_string().trim()),
    };
    if matches!(inner, Workload::Start(_) | Workload::Chaos(_)) {
        bail!("{} starts a server of its own and cannot run meanwhile", inner.name());
    }
    let mut server = Server::start(&args.command, args.log.as_deref())?;
    let target = ready(kubeconfig, &mut server).await?.under_kills();
    // set after the last kill: what runs comes to its end
    let over = stop.child();
    let (killed, loaded) = tokio::join!(
        async {
            let outcome = kills(args, kubeconfig, &target, server, &over).await;
            over.set();
            outcome
        },
        load(&inner, &target, report, &over)
    );
    let (kills, server) = killed?;
    let (rounds, loaded) = loaded;
    server.stop().await?;
    loaded?;
    let verdict = target.verdict();
    report.line(
        "kill -9",
        Map::from_iter([
            ("count".to_owned(), json!(kills)),
            ("during".to_owned(), json!(inner.name())),
            ("rounds".to_owned(), json!(rounds)),
            ("acknowledged_writes".to_owned(), json!(target.acknowledged())),
            ("lost_writes".to_owned(), json!(verdict.lost.len())),
            ("missed_events".to_owned(), json!(verdict.missed.len())),
            ("watch_relists".to_owned(), json!(verdict.relists)),
        ]),
    );
    match (verdict.lost.first(), verdict.missed.first()) {
        (Some(lost), _) => bail!("an acknowledged write was lost: {lost}"),
        (_, Some(missed)) => bail!("a watch was not complete: {missed}"),
        _ => Ok(()),
    }
}

/// Kills and starts; gives back how often, and the server that runs.
async fn kills(
    args: &Args,
    kubeconfig: &Path,
    target: &Target,
    mut server: Server,
    over: &Stop,
) -> anyhow::Result<(usize, Server)> {
    for kill in 1..=args.kills {
        let moment = Duration::from_secs_f64(rand::random::<f64>() * args.within.max(0.0));
        tokio::select! {
            () = tokio::time::sleep(moment) => {}
            () = over.wait() => return Ok((kill - 1, server)),
        }
        eprintln!("kill {kill} of {}, {} writes so far …", args.kills, target.acknowledged());
        server.kill()?;
        server = Server::start(&args.command, args.log.as_deref())?;
        ready(kubeconfig, &mut server).await?;
    }
    Ok((args.kills, server))
}

/// Runs a workload again and again until it is over; gives back how often it was begun.
async fn load(
    workload: &Workload,
    target: &Target,
    report: &Report,
    over: &Stop,
) -> (usize, anyhow::Result<()>) {
    let mut rounds = 0;
    while !over.is_set() {
        rounds += 1;
        let outcome = Box::pin(workload.measure(target, report, over)).await;
        match outcome {
            // a round that the end came upon need not be whole
            Err(error) if !over.is_set() => {
                over.set();
                return (rounds, Err(error.context(workload.name())));
            }
            _ => {}
        }
    }
    (rounds, Ok(()))
}

async fn ready(kubeconfig: &Path, server: &mut Server) -> anyhow::Result<Target> {
    let begun = Instant::now();
    loop {
        let attempt = async {
            let target = Target::from_kubeconfig(kubeconfig).await?;
            target.once(Request::get("/readyz")).await.map(|_| target)
        };
        let error = match attempt.await {
            Ok(target) => return Ok(target),
            Err(error) => error,
        };
        server.check()?;
        if begun.elapsed() > START {
            return Err(error).context("the server does not get ready");
        }
        tokio::time::sleep(RETRY).await;
    }
}
