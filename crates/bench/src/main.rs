//! `xebec-bench`: measures a cluster through its API, whatever implements it, and writes JSON lines.

mod api;
mod pods;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Measure a cluster.
#[derive(Debug, Parser)]
#[command(name = "xebec-bench", version)]
struct Cli {
    /// The kubeconfig with address and identity.
    #[arg(long, global = true, env = "KUBECONFIG", default_value = "admin.kubeconfig", value_name = "FILE")]
    kubeconfig: PathBuf,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Creates, gets and lists of ConfigMaps, closed loop.
    Api {
        /// How many requests run at once, each over a connection of its own.
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
        /// How long each verb is measured, in seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// From the create of a pod until it is seen Running.
    Pods {
        /// How many pods are made at once.
        #[arg(long, default_value_t = 1)]
        at_once: usize,
        /// How often.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// The image; its shell sleeps.
        #[arg(long, default_value = "xebec.local/demo:1")]
        image: String,
    },
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
    let outcome = runtime.block_on(async {
        match cli.workload {
            Workload::Api { concurrency, seconds } => {
                api::run(&cli.kubeconfig, concurrency, Duration::from_secs(seconds)).await
            }
            Workload::Pods { at_once, rounds, image } => {
                pods::run(&cli.kubeconfig, at_once, rounds, &image).await
            }
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xebec-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Percentiles of latencies in milliseconds.
pub fn percentiles(mut latencies: Vec<Duration>) -> Value {
    latencies.sort_unstable();
    let at = |part: f64| -> Value {
        let index = ((latencies.len() as f64 * part).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
        latencies
            .get(index)
            .map_or(Value::Null, |latency| json!((latency.as_secs_f64() * 1_000_000.0).round() / 1000.0))
    };
    json!({"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted() {
        let all: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let found = percentiles(all);
        assert_eq!(
            (&found["p50_ms"], &found["p99_ms"], &found["max_ms"]),
            (&json!(50.0), &json!(99.0), &json!(100.0))
        );
        assert_eq!(percentiles(Vec::new())["p50_ms"], Value::Null);
    }
}
