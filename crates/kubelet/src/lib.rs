//! Runs the pods of one node.
//!
//! Decisions are pure (`pod::plan`, `pod::status` and their neighbours work on plain data); one task per pod
//! carries them out through the runtime port. The API server is reached by its client only, with the rights of
//! `system:node:NAME`.

mod admission;
pub mod certificates;
mod cgroups;
pub mod config;
pub mod containerd;
mod files;
mod housekeeping;
pub mod images;
mod logs;
mod node;
mod objects;
mod pod;
mod pods;
mod probes;
pub mod progress;
mod run;
pub mod runtime;
mod server;
mod shared;
mod status_manager;
mod teardown;
mod tokens;
mod volumes;

pub use config::Config;
pub use run::run;
pub use teardown::teardown;
