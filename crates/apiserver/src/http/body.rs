//! One body type for requests and answers, whether they came over TLS or in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::Status;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;

/// Upstream's limit of a request body: 3 MiB.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that holds on to something until it has been written, or is given up.
pub fn holding(inner: Body, held: impl Send + Unpin + 'static) -> Body {
    Holding { inner, _held: held }.boxed_unsync()
}

struct Holding<T> {
    inner: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// How long, and up to what size, the rest of a body is taken that is too large. Who sends it all before it reads would
/// otherwise see a broken connection and no answer.
const DRAINED: Duration = Duration::from_millis(500);
const MAX_DRAINED: usize = 64 * 1024 * 1024;

async fn drain(mut body: Body) {
    let all = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await
            && size < MAX_DRAINED
        {
            size += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(DRAINED, all).await;
}

/// Reads a whole body within the limit.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Status::bad_request(format!("unable to read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = first.as_ref().map_or(0, Bytes::len).max(rest.len()) + data.len();
        if size > MAX_BODY {
            drop((first, rest));
            drain(body).await;
            return Err(Status::request_entity_too_large(format_args!("limit is {MAX_BODY}")));
        }
        // most bodies come in one piece, which needs no copy
        match (&first, rest.is_empty()) {
            (None, true) => first = Some(data),
            (Some(begun), true) => {
                rest.extend_from_slice(begun);
                rest.extend_from_slice(&data);
            }
            _ => rest.extend_from_slice(&data),
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}
