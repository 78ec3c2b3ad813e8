//! The streams of a remote command as SPDY streams, told apart by a header.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Options, Version};
use crate::spdy::{Accept, Connection, Error, Stream};

pub const STREAM_TYPE: HeaderName = HeaderName::from_static("streamtype");

/// The streams of one command.
#[derive(Debug)]
pub struct Streams {
    pub error: Stream,
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub resize: Option<Stream>,
}

/// Opens the streams that a client wants, before anything is sent: a server starts once it has all of them.
pub async fn open(connection: &Connection, version: Version, options: Options) -> Result<Streams, Error> {
    let open = async |wanted: bool, kind: &'static str| -> Result<Option<Stream>, Error> {
        if !wanted {
            return Ok(None);
        }
        let mut headers = HeaderMap::new();
        headers.insert(STREAM_TYPE, HeaderValue::from_static(kind));
        connection.open(headers).await.map(Some)
    };
    let error = open(true, "error").await?.ok_or(Error::Refused)?;
    Ok(Streams {
        error,
        stdin: open(options.stdin, "stdin").await?,
        stdout: open(options.stdout, "stdout").await?,
        stderr: open(options.stderr && !options.tty, "stderr").await?,
        resize: open(options.tty && version.resizes(), "resize").await?,
    })
}

/// Takes the streams that a client opens, until it has opened all that its request asked for.
pub async fn accept(
    accept: &mut Accept,
    version: Version,
    options: Options,
    within: Duration,
) -> Result<Streams, Error> {
    let gather = async {
        let wanted = [
            ("error", true),
            ("stdin", options.stdin),
            ("stdout", options.stdout),
            ("stderr", options.stderr && !options.tty),
            ("resize", options.tty && version.resizes()),
        ];
        let mut got = wanted.map(|_| None);
        while wanted.iter().zip(&got).any(|((_, wanted), got)| *wanted && got.is_none()) {
            let offer = accept.next().await.ok_or(Error::Closed)?;
            let kind = offer.header(STREAM_TYPE.as_str());
            match wanted.iter().position(|(name, wanted)| *wanted && *name == kind) {
                Some(at) if got[at].is_none() => got[at] = Some(offer.accept()),
                _ => offer.refuse(),
            }
        }
        let [error, stdin, stdout, stderr, resize] = got;
        Ok(Streams { error: error.ok_or(Error::Closed)?, stdin, stdout, stderr, resize })
    };
    tokio::time::timeout(within, gather).await.map_err(|_| Error::Timeout)?
}
