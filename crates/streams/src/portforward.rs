//! Port forwarding between a WebSocket client, which has a pair of channels for each port, and a SPDY server, which has a
//! pair of streams for each connection.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::remotecommand::spdy::STREAM_TYPE;
use crate::spdy::{Connection, Error, Stream};
use crate::websocket::Socket;
use crate::websocket::channels::{Client, Codec, Said};

/// The protocol of port forwarding over SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";

/// The WebSocket protocols of a server that forwards ports itself.
pub const WEBSOCKET: [&str; 3] = ["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

const PORT: HeaderName = HeaderName::from_static("port");
const REQUEST_ID: HeaderName = HeaderName::from_static("requestid");

/// The most that is sent in one message.
const PIECE: usize = 32 * 1024;

/// The most that is said of a port that cannot be forwarded.
const MAX_ERROR: u64 = 1 << 20;

/// A channel's number is one byte, and a port has two channels.
const MAX_PORTS: usize = 127;

/// The ports of a WebSocket request, from the values of its `port` parameter.
pub fn ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    let mut any = false;
    for value in values {
        any = true;
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for text in value.split(',') {
            match text.parse::<u64>() {
                Ok(0) => return Err(format!("port {value:?} must be > 0")),
                Ok(port) if u16::try_from(port).is_ok() => ports.push(port as u16),
                Ok(_) => {
                    let why = format!("strconv.ParseUint: parsing {text:?}: value out of range");
                    return Err(format!("unable to parse {value:?} as a port: {why}"));
                }
                Err(_) => {
                    let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                    return Err(format!("unable to parse {value:?} as a port: {why}"));
                }
            }
        }
    }
    match ports.len() {
        _ if !any => Err("query parameter \"port\" is required".to_owned()),
        ..=MAX_PORTS => Ok(ports),
        _ => Err(format!("at most {MAX_PORTS} ports can be forwarded over one connection")),
    }
}

pub fn codec(protocol: &str) -> Codec {
    if protocol == WEBSOCKET[2] { Codec::Base64 } else { Codec::Raw }
}

/// The streams of one connection to a port.
#[derive(Debug)]
pub struct Pair {
    pub error: Stream,
    pub data: Stream,
}

/// Asks a SPDY server to connect to a port.
pub async fn open(connection: &Connection, port: u16, request: u8) -> Result<Pair, Error> {
    let headers = |kind: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(STREAM_TYPE, HeaderValue::from_static(kind));
        headers.insert(PORT, HeaderValue::from(port));
        headers.insert(REQUEST_ID, HeaderValue::from(u16::from(request)));
        headers
    };
    let mut error = connection.open(headers("error")).await?;
    // nothing is ever said to the server here
    let _ = error.shutdown().await;
    Ok(Pair { error, data: connection.open(headers("data")).await? })
}

/// Forwards ports until the server has ended every connection, or the client hangs up.
pub async fn bridge<IO>(
    socket: Socket<IO>,
    codec: Codec,
    ports: &[u16],
    connection: &Connection,
    idle: Option<Duration>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, mut source) = socket.split();
    let client = Client::new(sink, codec);
    let forward = async {
        let mut writers: Vec<Option<WriteHalf<Stream>>> = Vec::new();
        let mut readers = Vec::new();
        for (data, port) in (0u8..).step_by(2).zip(ports) {
            // both channels begin with the port that they are for
            for channel in [data, data + 1] {
                if client.send(channel, &port.to_le_bytes()).await.is_err() {
                    return;
                }
            }
            match open(connection, *port, data / 2).await {
                Ok(pair) => {
                    let (reader, writer) = tokio::io::split(pair.data);
                    writers.push(Some(writer));
                    readers.push(pump(&client, data, reader, pair.error));
                }
                Err(error) => {
                    writers.push(None);
                    let message = format!("error forwarding port {port}: {error}");
                    if client.send(data + 1, message.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
        let input = async {
            while let Some(Ok(message)) = source.next().await {
                client.activity.touch();
                match codec.decode(message, false) {
                    // errors are the server's to tell
                    Said::Data { channel, data } if channel % 2 == 0 => {
                        let writer = writers.get_mut(usize::from(channel / 2));
                        if let Some(slot) = writer
                            && let Some(open) = slot
                            && open.write_all(&data).await.is_err()
                        {
                            *slot = None;
                        }
                    }
                    Said::Data { .. } | Said::Close { .. } | Said::Nothing => {}
                    Said::End => return,
                }
            }
        };
        tokio::select! {
            _ = join_all(readers) => {}
            () = input => {}
        }
    };
    tokio::select! {
        () = forward => {}
        () = client.activity.silence(idle) => {}
    }
    client.close(source).await;
}

/// Sends on what a connection gives, then what went wrong with it.
async fn pump<IO>(client: &Client<IO>, channel: u8, mut data: ReadHalf<Stream>, error: Stream)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut piece = vec![0; PIECE];
    while let Ok(size) = data.read(&mut piece).await {
        if size == 0 {
            break;
        }
        if client.send(channel, &piece[..size]).await.is_err() {
            return;
        }
    }
    let mut said = Vec::new();
    let read = error.take(MAX_ERROR).read_to_end(&mut said).await;
    if read.is_ok() && !said.is_empty() && client.send(channel + 1, &said).await.is_err() {
        tracing::debug!("a client left before it could be told what went wrong with a port");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::{Config, Role};
    use crate::websocket::Message;
    use futures::SinkExt;
    use tokio::io::duplex;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

    #[test]
    fn ports_are_read_as_upstream_reads_them() {
        let ok = |values: &[&str]| ports(values.iter().copied());
        assert_eq!(ok(&["80", "1,65535"]), Ok(vec![80, 1, 65535]));
        let refused = [
            (&[][..], "query parameter \"port\" is required"),
            (&[""], "query parameter \"port\" cannot be empty"),
            (&["0"], "port \"0\" must be > 0"),
            (&["1,x"], "unable to parse \"1,x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax"),
            (
                &["65536"],
                "unable to parse \"65536\" as a port: strconv.ParseUint: parsing \"65536\": value out of range",
            ),
        ];
        for (values, want) in refused {
            assert_eq!(ok(values), Err(want.to_owned()), "{values:?}");
        }
        assert!(ok(&["1"; 128]).is_err());
    }

    #[tokio::test]
    async fn pairs_of_channels_reach_their_ports() {
        for codec in [Codec::Raw, Codec::Base64] {
            let (a, b) = duplex(4096);
            let (c, d) = duplex(4096);
            let (server, mut accept) = Connection::new(d, Config::new(Role::Server));
            // port 7 echoes until its client says "bye", others are closed
            let serving = tokio::spawn(async move {
                let _server = server;
                let mut error = None;
                while let Some(offer) = accept.next().await {
                    let (port, kind) =
                        (offer.header("port").to_owned(), offer.header("streamtype").to_owned());
                    let mut stream = offer.accept();
                    match (kind.as_str(), port.as_str()) {
                        ("error", _) => error = Some(stream),
                        (_, "7") => {
                            let error = error.take();
                            tokio::spawn(async move {
                                let _error = error;
                                let mut piece = [0; 4096];
                                loop {
                                    let size = stream.read(&mut piece).await.expect("read");
                                    if size == 0 || &piece[..size] == b"bye" {
                                        return;
                                    }
                                    stream.write_all(&piece[..size]).await.expect("written");
                                }
                            });
                        }
                        _ => {
                            let mut error = error.take().expect("errors come first");
                            let text = format!("error forwarding port {port}: refused");
                            error.write_all(text.as_bytes()).await.expect("written");
                        }
                    }
                }
            });
            let bridged = tokio::spawn(async move {
                let (connection, _accept) = Connection::new(c, Config::new(Role::Client));
                bridge(crate::websocket::serve(a).await, codec, &[7, 9], &connection, None).await;
            });
            let mut client = WebSocketStream::from_raw_socket(b, WsRole::Client, None).await;
            client.send(codec.encode(0, b"ping")).await.expect("sent");
            let mut channels: [Vec<u8>; 4] = Default::default();
            let mut said_bye = false;
            while let Some(message) = client.next().await {
                let message = message.expect("a message");
                if let Message::Close(_) = message {
                    continue;
                }
                let Said::Data { channel, data } = codec.decode(message, false) else { continue };
                channels[usize::from(channel)].extend_from_slice(&data);
                if channels[0].len() == 6 && !said_bye {
                    client.send(codec.encode(0, b"bye")).await.expect("sent");
                    said_bye = true;
                }
            }
            assert_eq!(channels[0], b"\x07\0ping");
            assert_eq!((channels[1].as_slice(), channels[2].as_slice()), (&b"\x07\0"[..], &b"\x09\0"[..]));
            assert_eq!(channels[3], b"\x09\0error forwarding port 9: refused");
            bridged.await.expect("no panic");
            serving.await.expect("no panic");
        }
    }
}
