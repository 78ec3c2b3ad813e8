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
