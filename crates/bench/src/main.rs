//! `xebec-bench`: measures a cluster through its API, whatever implements it, and writes JSON lines.

mod command;
mod events;
mod fleet;
mod journal;
mod load;
mod objects;
mod plot;
mod process;
mod progress;
mod record;
mod report;
mod sandbox;
mod stop;
mod target;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use report::Report;
use stop::Stop;
use target::Target;
use workloads::{Workload, chaos, start};

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
    let report = Report::new(cli.workload.name(), cli.plot.as_deref());
    let outcome = measure(cli, &report, &stop).await;
    report.finish()?;
    outcome
}

async fn measure(cli: &Cli, report: &Report, stop: &Stop) -> anyhow::Result<()> {
    let path = cli.kubeconfig.as_path();
    match &cli.workload {
        // those that start a server themselves find the kubeconfig when it is there
        Workload::Start(args) => start::run(args, path, report, stop).await,
        Workload::Chaos(args) => chaos::run(args, path, report, stop).await,
        workload => workload.measure(&Target::from_kubeconfig(path).await?, report, stop).await,
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
