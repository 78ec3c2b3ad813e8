//! Images: their names, how they get onto the node, and when they go.

pub mod archives;
pub mod collect;
mod credentials;
pub mod puller;
pub mod reference;
