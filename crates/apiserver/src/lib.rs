//! The HTTP front of the cluster: the one crate that touches storage.

pub mod authentication;
pub mod authorization;
pub mod pki;
