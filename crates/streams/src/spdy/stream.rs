//! One stream of a connection, to be read and written like any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Shared;
use super::frame::reset;
use super::state::ReadEnd;

/// A stream. Shutting it down ends our side alone; dropping it before both sides are through resets it.
pub struct Stream {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u32,
    pub(super) headers: HeaderMap,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("headers", &self.headers).finish()
    }
}

impl Stream {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the stream was opened with.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header as text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Ends both sides at once. What was received and not read yet can still be read.
    pub fn reset(&self) {
        self.shared.state.lock().reset(self.id, reset::CANCEL);
        self.shared.changed();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.state.lock().release(self.id);
        self.shared.changed();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the stream is closed")
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.state.lock();
        let Some(entry) = state.streams.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        let mut size = 0;
        while let Some(front) = entry.received.front_mut().filter(|_| out.remaining() > 0) {
            let part = front.len().min(out.remaining());
            out.put_slice(&front[..part]);
            front.advance(part);
            size += part;
            if front.is_empty() {
                entry.received.pop_front();
            }
        }
        if size > 0 {
            entry.buffered -= size;
            state.consumed(self.id, size);
            drop(state);
            self.shared.changed();
            return Poll::Ready(Ok(()));
        }
        match &entry.read_end {
            // a server resets the streams that it is done with
            Some(ReadEnd::Fin | ReadEnd::Reset(reset::CANCEL)) => Poll::Ready(Ok(())),
            Some(ReadEnd::Reset(status)) => {
                let message = format!("the stream was reset with status {status}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, message)))
            }
            Some(ReadEnd::Gone(error)) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string())))
            }
            None => {
                entry.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.state.lock();
        let room = state.room(self.id, data.len());
        let Some(entry) = state.streams.get_mut(&self.id) else { return Poll::Ready(Err(gone())) };
        if entry.write_closed {
            return Poll::Ready(Err(gone()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(room) = room else {
            entry.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.send(self.id, Bytes::copy_from_slice(&data[..room]));
        drop(state);
        self.shared.changed();
        Poll::Ready(Ok(room))
    }

    /// The connection's own task sends as fast as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.state.lock().finish(self.id);
        self.shared.changed();
        Poll::Ready(Ok(()))
    }
}
