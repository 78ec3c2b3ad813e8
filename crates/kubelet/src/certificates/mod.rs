//! The kubelet's certificates: [`identity`] is who it is to the API server, [`serving`] what its server shows. Both
//! are asked for by requests ([`request`]) that others approve and sign, kept in files ([`store`]), and renewed in time
//! ([`rotation`]).

mod identity;
mod request;
mod rotation;
pub mod serving;
mod store;

pub use identity::{Identity, IdentityOptions};

const NODES: &str = "system:nodes";

/// The common name of a node's certificates.
fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}
