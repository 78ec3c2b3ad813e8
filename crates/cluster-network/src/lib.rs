//! The pod network: CNI configuration.
