//! The node's own object: registration, status, lease.

mod heartbeat;
mod machine;
mod object;

pub use heartbeat::{Heartbeat, NodeFacts};
pub use machine::Machine;
