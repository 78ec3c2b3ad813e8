//! The remote command protocol: the streams of `exec` and `attach`, over SPDY (versions 1 to 4) and WebSocket (1, 4, 5).

mod bridge;
pub mod spdy;
pub mod status;
#[cfg(test)]
mod tests;

use crate::websocket::channels::Codec;

pub use bridge::{Session, bridge};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    /// Standard input can end before the command does.
    V2,
    /// Terminals can change their size.
    V3,
    /// The error stream carries a `Status`, with the exit code.
    V4,
    /// Over WebSocket, too, standard input can end.
    V5,
}

impl Version {
    /// What is offered to a SPDY server, best first.
    pub const SPDY: [Version; 4] = [Version::V4, Version::V3, Version::V2, Version::V1];

    pub const fn name(self) -> &'static str {
        match self {
            Version::V1 => "channel.k8s.io",
            Version::V2 => "v2.channel.k8s.io",
            Version::V3 => "v3.channel.k8s.io",
            Version::V4 => "v4.channel.k8s.io",
            Version::V5 => "v5.channel.k8s.io",
        }
    }

    /// The version of a name; a server that names none speaks the first.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Version::V1),
            _ => [Version::SPDY.as_slice(), &[Version::V5]].concat().into_iter().find(|v| v.name() == name),
        }
    }

    pub fn resizes(self) -> bool {
        self >= Version::V3
    }

    pub fn has_status(self) -> bool {
        self >= Version::V4
    }
}

/// The WebSocket protocols of the remote command that a server speaks which runs commands itself.
pub const WEBSOCKET: [&str; 6] = [
    "",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v5.channel.k8s.io",
];

/// The version and the form of messages of a WebSocket protocol.
pub fn websocket_protocol(name: &str) -> (Version, Codec) {
    match name {
        "base64.channel.k8s.io" => (Version::V1, Codec::Base64),
        "v4.channel.k8s.io" => (Version::V4, Codec::Raw),
        "v4.base64.channel.k8s.io" => (Version::V4, Codec::Base64),
        "v5.channel.k8s.io" => (Version::V5, Codec::Raw),
        _ => (Version::V1, Codec::Raw),
    }
}

/// The streams that a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    /// Never with a terminal, which has one output.
    pub stderr: bool,
    pub tty: bool,
}

/// The numbers of the streams where they are channels of one WebSocket.
pub mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
}
