//! `xebec-bench`: measures a cluster through its API, whatever implements it, and writes JSON lines.

mod command;
mod events;
mod load;
mod objects;
mod plot;
mod process;
mod record;
mod report;
mod sandbox;
mod stop;
mod target;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use report::Report;
use stop::Stop;
use target::Target;
use workloads::{access, api, chaos, informers, pods, scheduler, services, start, watch};

/// Measure a Kubernetes cluster.
///
/// JSON lines go to standard output, a table and what goes on to standard error. Whatever a run makes is in a namespace
/// of its own, which is removed at the end, also when the run is interrupted.
#[derive(Debug, Parser)]
#[command(name = "xebec-bench", version, max_term_width = 100)]
struct Cli {
    /// The kubeconfig with address and identity.
    #[arg(long, global = true, env = "KUBECONFIG", default_value = "admin.kubeconfig", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Where to draw throughput and latencies over time.
    #[arg(long, global = true, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Create, get, update, patch, apply, list and delete of ConfigMaps.
    Api(api::Args),
    /// Authorization and admission: gets beside many roles, creates that a webhook or a quota has a say in.
    Access(access::Args),
    /// Watch fan-out: how long events take to many watchers, and whether any is missed.
    Watch(watch::Args),
    /// Many clients that start at once and each read everything.
    Informers(informers::Args),
    /// How long a pod takes from its create until it is scheduled, runs, is ready, and is gone.
    Pods(pods::Args),
    /// Pods a second that get a node, with fake nodes and the workloads of upstream's scheduler_perf.
    Scheduler(scheduler::Args),
    /// From the write of a Service's endpoint until a packet is answered by it; runs on a node.
    Services(services::Args),
    /// Cold starts of a command: until /readyz, until a node is Ready, and memory and CPU when idle.
    Start(start::Args),
    /// Kill and restart a command under load: acknowledged writes stay, watches are complete.
    Chaos(chaos::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("xebec-bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xebec-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let name = match &cli.workload {
        Workload::Access(_) => "access",
        Workload::Api(_) => "api",
        Workload::Watch(_) => "watch",
        Workload::Informers(_) => "informers",
        Workload::Scheduler(_) => "scheduler",
        Workload::Services(_) => "services",
        Workload::Start(_) => "start",
        Workload::Chaos(_) => "chaos",
        Workload::Pods(_) => "pods",
    };
    let report = Report::new(name, cli.plot.as_deref());
    let outcome = measure(cli, &report, &stop).await;
    report.finish()?;
    outcome
}

async fn measure(cli: &Cli, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    let path = cli.kubeconfig.as_path();
    // those that start a server themselves find the kubeconfig when it is there
    match &cli.workload {
        Workload::Start(args) => return start::run(args, path, report, stop).await,
        Workload::Chaos(args) => return chaos::run(args, path, report, stop).await,
        _ => {}
    }
    let target = &Target::from_kubeconfig(path).await?;
    match &cli.workload {
        Workload::Access(args) => {
            let account = async |token: &str| Target::with_token(path, token).await;
            access::run(args, target, account, report, stop).await
        }
        Workload::Api(args) => api::run(args, target, report, stop).await,
        Workload::Watch(args) => watch::run(args, target, report, stop).await,
        Workload::Informers(args) => informers::run(args, target, report, stop).await,
        Workload::Pods(args) => pods::run(args, target, report, stop).await,
        Workload::Scheduler(args) => scheduler::run(args, target, report, stop).await,
        Workload::Services(args) => services::run(args, target, report, stop).await,
        Workload::Start(_) | Workload::Chaos(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound_and_all_documented() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        super::Cli::command().debug_assert();
        check(&super::Cli::command());
    }
}
