//! Probes: asking containers whether they have started, are alive, and are ready.

mod check;
mod state;

pub use check::{Target, run_http};
pub use state::Probes;
