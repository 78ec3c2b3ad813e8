//! The frames of SPDY/3.1.

use bytes::Bytes;
use http::HeaderMap;

pub const VERSION: u16 = 3;

/// Bytes before the payload of every frame.
pub const HEAD: usize = 8;

/// The longest payload of a control frame that is taken; a frame's length could name 16 MB.
pub const MAX_CONTROL: usize = 64 * 1024;

/// The longest payload of a data frame.
pub const MAX_DATA: usize = (1 << 24) - 1;

pub const FLAG_FIN: u8 = 1;
pub const FLAG_UNIDIRECTIONAL: u8 = 2;

pub mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream was reset.
pub mod reset {
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INVALID_STREAM: u32 = 2;
    pub const REFUSED_STREAM: u32 = 3;
    pub const CANCEL: u32 = 5;
    pub const FLOW_CONTROL_ERROR: u32 = 7;
}

/// The setting that names the window of every new stream.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        stream: u32,
        associated: u32,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        headers: HeaderMap,
    },
    /// Accepts a stream.
    SynReply {
        stream: u32,
        fin: bool,
        headers: HeaderMap,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Settings(Vec<Setting>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: HeaderMap,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Data; a decoder gives long frames in pieces, of which only the last carries `fin`.
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub flags: u8,
    /// 24 bits.
    pub id: u32,
    pub value: u32,
}

/// What is wrong with bytes that should have been a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("version {0}")]
    Version(u16),
    #[error("a frame of type {0} with {1} bytes")]
    Length(u16, usize),
    #[error("stream id zero is disallowed")]
    ZeroStream,
    #[error("invalid control frame")]
    Control,
    #[error("a header block that does not inflate")]
    Deflated,
    #[error("a header block that is too large")]
    TooLarge,
    #[error("a header block that does not end where it should")]
    Block,
    #[error("a header name or value that HTTP does not know")]
    Header,
    #[error("multiple headers with same name")]
    DuplicateHeader,
    #[error("a window that is too large")]
    Window,
}
