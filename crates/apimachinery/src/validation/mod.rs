//! Validation that every kind shares: forms of names, addresses, and object metadata, with upstream's messages.

mod meta;
mod names;
mod net;

pub use meta::*;
pub use names::*;
pub use net::*;
