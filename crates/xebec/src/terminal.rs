//! The few lines a user sees: where the cluster is, that it is ready, how to go on.

use std::path::Path;
use std::time::{Duration, Instant};

/// Tells of one start.
pub struct Terminal {
    started: Instant,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis < 1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

impl Terminal {
    pub fn api_ready(&self, address: &str, kubeconfig: &Path) {
        println!("API server   ready after {} on {address}", seconds(self.started.elapsed()));
        println!("kubeconfig   {}", kubeconfig.display());
    }

    pub fn node_ready(&self, name: &str) {
        println!("node         {name} Ready after {}", seconds(self.started.elapsed()));
    }

    pub fn how_to_go_on(&self, kubeconfig: &Path) {
        println!();
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl get nodes");
        println!();
    }

    pub fn stopping(&self) {
        println!("stopping     (again to stop at once)");
    }
}
