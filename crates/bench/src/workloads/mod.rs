//! What can be measured. Each workload is a subcommand.

pub mod access;
pub mod api;
pub mod chaos;
pub mod informers;
pub mod pods;
pub mod scheduler;
pub mod services;
pub mod start;
pub mod watch;

use clap::Subcommand;

use crate::report::Report;
use crate::stop::Stop;
use crate::target::Target;

#[derive(Debug, Subcommand)]
pub enum Workload {
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

impl Workload {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Access(_) => "access",
            Self::Api(_) => "api",
            Self::Watch(_) => "watch",
            Self::Informers(_) => "informers",
            Self::Pods(_) => "pods",
            Self::Scheduler(_) => "scheduler",
            Self::Services(_) => "services",
            Self::Start(_) => "start",
            Self::Chaos(_) => "chaos",
        }
    }

    /// Measures a cluster that runs.
    pub async fn measure(&self, target: &Target, report: &Report, stop: &Stop) -> anyhow::Result<()> {
        match self {
            Self::Access(args) => access::run(args, target, report, stop).await,
            Self::Api(args) => api::run(args, target, report, stop).await,
            Self::Watch(args) => watch::run(args, target, report, stop).await,
            Self::Informers(args) => informers::run(args, target, report, stop).await,
            Self::Pods(args) => pods::run(args, target, report, stop).await,
            Self::Scheduler(args) => scheduler::run(args, target, report, stop).await,
            Self::Services(args) => services::run(args, target, report, stop).await,
            Self::Start(_) | Self::Chaos(_) => anyhow::bail!("{} starts its own server", self.name()),
        }
    }
}
