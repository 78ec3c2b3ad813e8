//! Facts that several components need about pods, nodes and tokens, so that API server, scheduler, controllers and kubelet
//! agree on them.
//!
//! Pure functions over API types: no client, no clock, no IO.

pub mod amount;
pub mod backoff;
pub mod conditions;
pub mod legacy_tokens;
pub mod node_affinity;
pub mod pem;
pub mod pod;
pub mod qos;
pub mod quota;
pub mod resource;
pub mod taints;
