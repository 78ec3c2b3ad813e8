//! The `xebec` binary: arguments and wiring, nothing else.

mod all_in_one;
mod alone;
mod cli;
mod dns;
mod hello;
mod identities;
mod identity;
mod log;
mod node;
mod node_certificates;
mod resolve;
mod signals;
mod signing;
mod terminal;

use std::process::ExitCode;

use cli::Command;

#[global_allocator] // tuned by `.cargo/config.toml`
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::parse();
    if let Err(error) = log::init(&cli.logging) {
        eprintln!("xebec: {error:#}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("xebec: the runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Server(args) => all_in_one::run(args).await,
            Command::Apiserver(args) => alone::apiserver(args).await,
            Command::ControllerManager(args) => alone::controller_manager(args).await,
            Command::Scheduler(args) => alone::scheduler(args).await,
            Command::Kubelet(args) => alone::kubelet(args).await,
            Command::Proxy(args) => alone::proxy(args).await,
            Command::Dns(args) => alone::dns(args).await,
            Command::Reset(args) => node::reset(args).await,
            Command::Hello(args) => hello::run(args).await,
        }
    });
    // what is left waits for input that will never come
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("xebec: {error:#}");
    ExitCode::FAILURE
}
