//! Another protocol's bytes in binary messages, as `SPDY/3.1+portforward.k8s.io` has it.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Message, Socket, close};

const PIECE: usize = 32 * 1024;

/// Copies both ways until one side ends; the other is then ended too.
pub async fn tunnel<WS, IO>(socket: Socket<WS>, io: IO)
where
    WS: AsyncRead + AsyncWrite + Unpin,
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(io);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(data) => {
                    if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                        break;
                    }
                }
                // SPDY is no text
                Message::Text(_) | Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    };
    let outward = async {
        let mut piece = vec![0; PIECE];
        while let Ok(size) = reader.read(&mut piece).await {
            if size == 0 || sink.send(Message::binary(piece[..size].to_vec())).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    let ending = async { writer.shutdown().await };
    let _ = tokio::join!(close(sink, source), ending);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::duplex;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn bytes_pass_and_either_end_ends_both() {
        for client_ends in [true, false] {
            let (a, b) = duplex(1024);
            let (c, mut backend) = duplex(1024);
            let server = tokio::spawn(async move { tunnel(crate::websocket::serve(a).await, c).await });
            let mut client = WebSocketStream::from_raw_socket(b, Role::Client, None).await;
            let sent: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
            let mut got = vec![0; sent.len()];
            let (written, read) =
                tokio::join!(client.send(Message::binary(sent.clone())), backend.read_exact(&mut got));
            written.expect("sent");
            read.expect("read");
            assert!(got == sent);
            backend.write_all(b"back").await.expect("written");
            assert_eq!(client.next().await.expect("one").expect("a message"), Message::binary("back"));
            if client_ends {
                client.close(None).await.expect("closed");
                assert_eq!(backend.read(&mut [0; 8]).await.expect("read"), 0);
                while let Some(Ok(_)) = client.next().await {}
            } else {
                drop(backend);
                assert!(matches!(client.next().await, Some(Ok(Message::Close(Some(_))))));
                assert!(client.next().await.is_none());
            }
            tokio::time::timeout(Duration::from_secs(4), server).await.expect("in time").expect("no panic");
        }
    }
}
