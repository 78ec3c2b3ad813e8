//! Streams that go one way: watches and logs.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::ready;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Bytes, Message, Socket, close};

/// How long a client may leave a message unread.
const STALLED: Duration = Duration::from_secs(4 * 3600);

/// The protocols of a stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Binary,
    Base64,
}

impl Reader {
    pub const SPOKEN: [&str; 3] = ["", "binary.k8s.io", "base64.binary.k8s.io"];

    pub fn of(protocol: &str) -> Self {
        if protocol == Self::SPOKEN[2] { Reader::Base64 } else { Reader::Binary }
    }

    fn message(self, data: &[u8]) -> Message {
        match self {
            Reader::Binary => Message::binary(data.to_vec()),
            Reader::Base64 => Message::text(STANDARD.encode(data)),
        }
    }

    /// A stream of bytes as messages, after an empty one that shows the client that it has begun. An error ends it.
    pub fn messages<E>(self, bytes: impl Stream<Item = Result<Bytes, E>>) -> impl Stream<Item = Message> {
        let whole = bytes.take_while(|chunk| ready(chunk.is_ok())).filter_map(|chunk| ready(chunk.ok()));
        let begin = futures::stream::iter([Bytes::new()]);
        begin.chain(whole).map(move |chunk| self.message(&chunk))
    }
}

/// Sends messages until they end or the client hangs up; what it says meanwhile is passed over.
pub async fn feed<IO>(socket: Socket<IO>, messages: impl Stream<Item = Message>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let mut messages = std::pin::pin!(messages);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    let sent = tokio::time::timeout(STALLED, sink.send(message)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                None => return close(sink, source).await,
            },
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return close(sink, source).await,
                Some(Ok(_)) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

    #[tokio::test]
    async fn a_stream_ends_with_a_normal_close() {
        let (a, b) = duplex(1024);
        let server = tokio::spawn(async move {
            let reader = Reader::of("base64.binary.k8s.io");
            let bytes = [Ok(Bytes::from_static(b"line\n")), Err(()), Ok(Bytes::from_static(b"late"))];
            let messages = reader.messages(futures::stream::iter(bytes));
            feed(crate::websocket::serve(a).await, messages).await;
        });
        let mut client = WebSocketStream::from_raw_socket(b, Role::Client, None).await;
        client.send(Message::text("nobody listens")).await.expect("sent");
        let mut got = Vec::new();
        while let Some(message) = client.next().await {
            got.push(message.expect("a message"));
        }
        let Some(Message::Close(Some(CloseFrame { code, .. }))) = got.pop() else { panic!("{got:?}") };
        assert_eq!(u16::from(code), 1000);
        assert_eq!(got, [Message::text(""), Message::text("bGluZQo=")]);
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_client_hangs_up() {
        let (a, b) = duplex(1024);
        let server = tokio::spawn(async move {
            feed(crate::websocket::serve(a).await, futures::stream::pending()).await;
        });
        let mut client = WebSocketStream::from_raw_socket(b, Role::Client, None).await;
        client.close(None).await.expect("closed");
        tokio::time::timeout(std::time::Duration::from_secs(4), server)
            .await
            .expect("in time")
            .expect("no panic");
    }
}
