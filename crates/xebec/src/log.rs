//! Logging: to standard error, so that standard output stays calm.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, Logging};

/// Starts logging. `XEBEC_LOG` overrides `-v` with a filter per module.
pub fn init(logging: &Logging) -> anyhow::Result<()> {
    let level = match logging.verbosity {
        0 => "warn",
        1 => "info",
        2 | 3 => "debug",
        _ => "trace",
    };
    let default =
        format!("{level},hyper=warn,h2=warn,rustls=warn,tower=warn,hickory_server=warn,kube_runtime=error");
    let filter = match std::env::var("XEBEC_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            anyhow::anyhow!("XEBEC_LOG is not a filter such as \"info,apiserver=debug\": {error}")
        })?,
        Err(_) => EnvFilter::new(default),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match logging.logging_format {
        LogFormat::Text => builder.compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
