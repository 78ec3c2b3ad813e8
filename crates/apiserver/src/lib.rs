//! The HTTP front of the cluster: the one crate that touches storage.
