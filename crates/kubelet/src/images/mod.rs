//! Images: their names, how they get onto the node, and when they go.

pub mod archives;
pub mod reference;
