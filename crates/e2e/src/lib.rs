//! Clusters for tests: each in a network namespace without a way out and a data directory of its own, driven by a real
//! `kubectl`, and gone without a trace afterwards.

use std::path::PathBuf;

mod cluster;
mod network;
pub mod websocket;

pub use cluster::{Cluster, Output, xebec};
pub use network::{Network, eventually};

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

/// The kubectl on the path and those of other versions beside it, with the minor version where the name says it.
pub fn kubectls() -> Vec<(PathBuf, Option<u32>)> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|path| path.is_file());
    let Some(default) = found else { return Vec::new() };
    let real = std::fs::canonicalize(&default).unwrap_or_default();
    let mut all = vec![(default, None)];
    let beside = real.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in beside.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(minor) = name.strip_prefix("kubectl.1.") {
            all.push((entry.path(), minor.parse().ok()));
        }
    }
    all.sort_by_key(|(_, minor)| *minor);
    all
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
