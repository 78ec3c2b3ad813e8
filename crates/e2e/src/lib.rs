//! Clusters for tests: each in a network namespace without a way out and a data directory of its own, driven by a real
//! `kubectl`, and gone without a trace afterwards.

mod cluster;
mod network;
pub mod websocket;

pub use cluster::{Cluster, Output, xebec};
pub use network::Network;

/// Why end-to-end tests cannot run here; `None` when they can.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("end-to-end tests need root");
    }
    if !on_path("kubectl") {
        return Some("end-to-end tests need a kubectl");
    }
    if !on_path("containerd") || !on_path("runc") {
        return Some("end-to-end tests need containerd and runc; make setup installs them");
    }
    None
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Leaves a test that cannot run here, and says why.
#[macro_export]
macro_rules! or_skip {
    () => {
        if let Some(why) = $crate::missing() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}
