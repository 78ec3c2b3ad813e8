//! SPDY/3.1: many streams over one connection, each of which either side may end on its own.
//!
//! [`frame`] and [`block`] turn bytes into frames and back, without IO; `state` is what both ends know of a connection and
//! what a frame does to it; [`Connection`] and [`Stream`] are what callers hold.

pub mod block;
mod connection;
pub mod decode;
pub mod encode;
pub mod frame;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{Accept, Config, Connection, Role};
pub use stream::Stream;

/// Why a connection cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("malformed SPDY: {0}")]
    Malformed(#[from] frame::Malformed),
    #[error("the other side does not read what it asks for")]
    Flooded,
    #[error("{0}")]
    Io(String),
    #[error("the connection broke off")]
    BrokenOff,
    #[error("nothing was sent or received for too long")]
    Idle,
    #[error("the other side did not answer in time")]
    Timeout,
    #[error("the other side refused the stream")]
    Refused,
    #[error("the connection is closed")]
    Closed,
}
