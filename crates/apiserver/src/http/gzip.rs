//! Large answers are compressed for clients that take gzip, as upstream does: above a size, at the fastest level.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::body::{Body, BoxError, Response};

/// Smaller bodies are not worth it.
const THRESHOLD: u64 = 128 * 1024;
/// How much is compressed between two looks at other connections.
const CHUNK: usize = 64 * 1024;

/// Whether a client takes gzip.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

/// Compresses the body of an answer that is known to be large; leaves others as they are.
pub fn compress(response: Response) -> Response {
    let large = response.body().size_hint().lower() > THRESHOLD;
    if !large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    let compressed = Compressed {
        inner: body,
        pending: Bytes::new(),
        encoder: Some(GzEncoder::new(Vec::with_capacity(CHUNK / 4), Compression::fast())),
    };
    Response::from_parts(parts, compressed.boxed_unsync())
}

/// A body that compresses another piece by piece, so that no second whole copy is made.
struct Compressed {
    inner: Body,
    pending: Bytes,
    /// Gone when its end has been written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let this = &mut *self;
            let Some(encoder) = this.encoder.as_mut() else { return Poll::Ready(None) };
            if this.pending.has_remaining() {
                let piece = this.pending.split_to(this.pending.len().min(CHUNK));
                encoder.write_all(&piece)?;
                let out = std::mem::take(encoder.get_mut());
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
                continue;
            }
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => this.pending = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let end = this.encoder.take().map(GzEncoder::finish).transpose()?.unwrap_or_default();
                    return Poll::Ready(Some(Ok(Frame::data(end.into()))));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::body::full;

    #[test]
    fn clients_say_whether_they_take_gzip() {
        let accepts = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
            is_accepted(&headers)
        };
        assert!(accepts("gzip") && accepts("deflate, gzip;q=0.8"));
        assert!(!accepts("identity") && !accepts("gzip;q=0") && !accepts("") && !accepts("xgzip"));
    }

    #[tokio::test]
    async fn only_large_bodies_are_compressed_and_come_out_whole() {
        let text: String = (0..100_000).map(|number| format!("{number} ")).collect();
        let small = compress(Response::new(full("small")));
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
        let large = compress(Response::new(full(text.clone())));
        assert_eq!(large.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(large.headers()[VARY], "Accept-Encoding");
        let body = large.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() < text.len() * 3 / 4, "{} of {}", body.len(), text.len());
        let mut back = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
