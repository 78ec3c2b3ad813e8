//! The HTTP front of the cluster: the one crate that touches storage.

mod admission;
pub mod authentication;
pub mod authorization;
mod cache;
mod context;
mod discovery;
mod handlers;
mod health;
pub mod http;
mod kinds;
mod kubelet_client;
mod metrics;
mod nonresource;
mod openapi;
mod registry;
pub mod server;
mod stream_proxy;
pub struct Identity {
    pub kubelet_client: rustls::ClientConfig,
}
pub mod bootstrap;
mod access {
    use crate::*;
    use std::sync::Arc;
    pub fn wire(
        _r: &Arc<registry::Registry>,
        _i: &Identity,
        _c: &server::Config,
    ) -> (authentication::Authenticator, Arc<dyn authorization::Authorizer>, authentication::TokenIssuer)
    {
        (
            authentication::Authenticator,
            Arc::new(authorization::Union::new(vec![Arc::new(authorization::PrivilegedGroups)])),
            authentication::TokenIssuer,
        )
    }
}
pub mod inprocess;
