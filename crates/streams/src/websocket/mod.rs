//! WebSocket as Kubernetes' servers speak it: the handshake, messages that carry one of several channels, streams that go
//! one way, and another protocol's bytes.

pub mod channels;
mod feed;
pub mod handshake;
mod tunnel;

use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

pub use feed::{Reader, feed};
pub use tokio_tungstenite::tungstenite::{Bytes, Message};
pub use tunnel::tunnel;

/// The longest message that is taken, as upstream's servers have it.
const MAX_MESSAGE: usize = 32 << 20;

/// How long the other side may take to agree to an end.
const FAREWELL: Duration = Duration::from_secs(5);

pub type Socket<IO> = WebSocketStream<IO>;
type Sink<IO> = SplitSink<Socket<IO>, Message>;
pub(crate) type Source<IO> = SplitStream<Socket<IO>>;

/// The server's end of a byte stream on which the handshake is done.
pub async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> Socket<IO> {
    let config = WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .write_buffer_size(32 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Says that all is said, and waits for the other side to hang up, so that nothing under way is lost.
async fn close<IO: AsyncRead + AsyncWrite + Unpin>(mut sink: Sink<IO>, mut source: Source<IO>) {
    let goodbye = async {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
        // a client that was first has its answer on the way, which reading on sends
        if let Err(error) = sink.send(Message::Close(Some(frame))).await {
            tracing::trace!(%error, "a WebSocket was already closed");
        }
        while let Some(Ok(_)) = source.next().await {}
    };
    if tokio::time::timeout(FAREWELL, goodbye).await.is_err() {
        tracing::debug!("a WebSocket client did not answer a close");
    }
}
