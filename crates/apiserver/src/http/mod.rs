//! The HTTP side: what a request asks for, how its answer is written, and the chain every request goes through.

pub mod body;
pub mod chain;
mod gzip;
pub mod impersonation;
pub mod limits;
mod list_body;
pub mod max_in_flight;
pub mod negotiate;
pub mod request_info;
pub mod respond;
pub mod serve;

pub use body::{Body, Request, Response};
