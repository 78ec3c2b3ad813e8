//! The pod network: CNI configuration.

pub mod cni;
