//! The HTTP front of the cluster: the one crate that touches storage.

mod access;
mod admission;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
mod cache;
mod configuration;
mod context;
mod discovery;
pub mod encryption;
mod flowcontrol;
mod handlers;
mod health;
pub mod http;
mod inprocess;
mod kinds;
mod kubelet_client;
mod metrics;
mod nonresource;
mod openapi;
mod outgoing;
pub mod pki;
mod registry;
mod reload;
mod server;
mod stream_proxy;
mod stream_translator;
#[cfg(test)]
mod testing;

pub use admission::Options as AdmissionOptions;
pub use inprocess::InProcess;
pub use nonresource::VERSION;
pub use registry::allocators::{Cidr, PortRange, ServiceRanges};
pub use server::{Config, RequestOptions, Server, StartError};
