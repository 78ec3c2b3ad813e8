//! Facts that several components need about pods and nodes, so that scheduler, controllers and kubelet agree on them.
//!
//! Pure functions over API types: no client, no clock, no IO.

pub mod amount;
pub mod backoff;
pub mod conditions;
pub mod node_affinity;
pub mod pod;
pub mod qos;
pub mod quota;
pub mod resource;
pub mod taints;
