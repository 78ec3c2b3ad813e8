//! WebSocket clients before a bridge, with a SPDY server of our own behind it.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

use super::spdy::Streams;
use super::status::Outcome;
use super::*;
use crate::spdy::{Accept, Config, Connection, Error, Role};
use crate::websocket::{Message, Socket};

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };
const EXIT_3: &str = r#"{"status":"Failure","message":"three","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;

/// A server that reads standard input to its end, says it back in capitals, and ends with code 3.
async fn upcase(mut accept: Accept, version: Version, options: Options) -> std::io::Result<()> {
    let streams = spdy::accept(&mut accept, version, options, Duration::from_secs(5)).await.expect("streams");
    let Streams { mut error, stdin, stdout, stderr, resize } = streams;
    let mut text = Vec::new();
    if let Some(mut stdin) = stdin {
        stdin.read_to_end(&mut text).await?;
    }
    if let Some(mut resize) = resize {
        let mut size = [0; 64];
        let read = resize.read(&mut size).await?;
        text.extend_from_slice(&size[..read]);
    }
    if let Some(mut stdout) = stdout {
        stdout.write_all(&text.to_ascii_uppercase()).await?;
        stdout.shutdown().await?;
    }
    if let Some(mut stderr) = stderr {
        stderr.write_all(b"warning").await?;
        stderr.shutdown().await?;
    }
    let said = if version.has_status() { EXIT_3 } else { "boom" };
    error.write_all(said.as_bytes()).await?;
    error.shutdown().await?;
    // the client ends the connection once it has everything
    while accept.next().await.is_some() {}
    Ok(())
}

fn start(protocol: &str, spoken: Version, options: Options) -> (Socket<DuplexStream>, JoinHandle<Outcome>) {
    let (a, b) = duplex(4096);
    let (c, d) = duplex(4096);
    let (version, codec) = websocket_protocol(protocol);
    let session = Session { version, codec, options, idle: Some(Duration::from_secs(60)) };
    let bridged = tokio::spawn(async move {
        let (server, accept) = Connection::new(d, Config::new(Role::Server));
        let running = tokio::spawn(async move {
            let served = upcase(accept, spoken, options).await;
            drop(server);
            served
        });
        let connect = async { Ok::<_, Error>((Connection::new(c, Config::new(Role::Client)).0, spoken)) };
        let outcome = bridge(crate::websocket::serve(a).await, session, connect).await;
        // a client that leaves in the middle is the server's to suffer
        let served = running.await.expect("no panic");
        assert!(served.is_ok() || outcome == Outcome::Success, "{served:?}");
        outcome
    });
    let client = futures::executor::block_on(WebSocketStream::from_raw_socket(b, WsRole::Client, None));
    (client, bridged)
}

/// Everything a client is told: the bytes of each channel, put together.
async fn told(client: &mut Socket<DuplexStream>, codec: Codec) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(message) = client.next().await {
        let message = message.expect("a message");
        if let crate::websocket::channels::Said::Data { channel, data } = codec.decode(message, false) {
            channels[usize::from(channel)].extend_from_slice(&data);
        }
    }
    channels
}

#[tokio::test]
async fn version_5_ends_standard_input_and_learns_the_exit_code() {
    let (mut client, bridged) = start("v5.channel.k8s.io", Version::V4, ALL);
    assert_eq!(client.next().await.expect("one").expect("a message"), Message::binary(vec![1]));
    for message in [&b"\0hello "[..], b"\x09nobody", b"\0world", &[255, 0]] {
        client.send(Message::binary(message.to_vec())).await.expect("sent");
    }
    let [_, stdout, stderr, error] = told(&mut client, Codec::Raw).await;
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"HELLO WORLD"[..], &b"warning"[..]));
    assert_eq!(Outcome::read(Version::V4, &error), Outcome::Exit(3));
    assert!(String::from_utf8_lossy(&error).contains("command terminated with exit code 3"));
    assert_eq!(bridged.await.expect("no panic"), Outcome::Exit(3));
}

#[tokio::test]
async fn large_input_passes_whole() {
    let (client, bridged) = start("v5.channel.k8s.io", Version::V4, ALL);
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    let (mut sink, source) = client.split();
    let input = sent.clone();
    let sending = tokio::spawn(async move {
        for piece in input.chunks(50_000) {
            sink.send(Codec::Raw.encode(0, piece)).await.expect("sent");
        }
        sink.send(Message::binary(vec![255, 0])).await.expect("sent");
        sink
    });
    let mut got = Vec::new();
    let mut source = source;
    while let Some(Ok(message)) = source.next().await {
        if let Message::Binary(data) = message
            && data.first() == Some(&1)
        {
            got.extend_from_slice(&data[1..]);
        }
    }
    assert!(got == sent.to_ascii_uppercase());
    drop(sending.await.expect("no panic"));
    bridged.await.expect("no panic");
}

#[tokio::test]
async fn older_protocols_pass_on_what_the_server_says_in_their_form() {
    let quiet = Options { stdin: false, ..ALL };
    let cases = [
        ("v4.channel.k8s.io", Version::V4, EXIT_3),
        ("v4.base64.channel.k8s.io", Version::V4, EXIT_3),
        ("base64.channel.k8s.io", Version::V4, "three"),
        ("channel.k8s.io", Version::V1, "boom"),
        ("", Version::V2, "boom"),
    ];
    for (protocol, spoken, want) in cases {
        let (mut client, bridged) = start(protocol, spoken, quiet);
        let [_, stdout, stderr, error] = told(&mut client, websocket_protocol(protocol).1).await;
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b""[..], &b"warning"[..]), "{protocol}");
        assert_eq!(String::from_utf8_lossy(&error), want, "{protocol}");
        bridged.await.expect("no panic");
    }
}

#[tokio::test]
async fn terminals_have_sizes_from_version_3_on_and_no_standard_error() {
    for (spoken, want) in [(Version::V4, r#"{"WIDTH":80,"HEIGHT":24}"#), (Version::V2, "")] {
        let (mut client, bridged) =
            start("v5.channel.k8s.io", spoken, Options { stdin: true, tty: true, ..ALL });
        let size = Codec::Raw.encode(4, br#"{"Width":80,"Height":24}"#);
        for message in [size, Message::binary(vec![255, 0])] {
            client.send(message).await.expect("sent");
        }
        let [_, stdout, stderr, _] = told(&mut client, Codec::Raw).await;
        assert_eq!(String::from_utf8_lossy(&stdout), want);
        assert!(stderr.is_empty());
        bridged.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_reported() {
    let (a, b) = duplex(4096);
    let options = Options { stdout: false, stderr: false, ..ALL };
    let session = Session { version: Version::V5, codec: Codec::Raw, options, idle: None };
    let bridged = tokio::spawn(async move {
        let fails = async { Err("unable to upgrade connection: container not found (\"x\")") };
        bridge(crate::websocket::serve(a).await, session, fails).await
    });
    let mut client = WebSocketStream::from_raw_socket(b, WsRole::Client, None).await;
    assert_eq!(client.next().await.expect("one").expect("a message"), Message::binary(vec![3]));
    let [.., error] = told(&mut client, Codec::Raw).await;
    let error = String::from_utf8(error).expect("text");
    assert!(
        error.contains(r#"occurred: unable to upgrade connection: container not found (\"x\")"#),
        "{error}"
    );
    assert!(error.contains(r#""reason":"InternalError""#) && error.ends_with(r#""code":500}"#), "{error}");
    assert!(matches!(bridged.await.expect("no panic"), Outcome::Failed(_)));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_command_and_one_that_breaks_the_protocol_too() {
    for goodbye in [Message::Close(None), Message::binary(vec![255, 0, 0]), Message::binary(vec![255, 9])] {
        let (mut client, bridged) = start("v5.channel.k8s.io", Version::V4, ALL);
        client.send(Message::Ping(Bytes::from_static(b"?"))).await.expect("sent");
        client.send(goodbye.clone()).await.expect("sent");
        let [_, _, _, error] = told(&mut client, Codec::Raw).await;
        assert!(error.is_empty(), "{goodbye:?}");
        tokio::time::timeout(Duration::from_secs(5), bridged).await.expect("in time").expect("no panic");
    }
}
