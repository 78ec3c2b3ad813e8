//! Both ends of connections over memory, and one end against bytes.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::decode::Decoder;
use super::encode::Encoder;
use super::frame::{Frame, reset};
use super::{Accept, Config, Connection, Error, Role, Stream};

fn named(name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("streamtype", HeaderValue::from_str(name).expect("a value"));
    headers
}

fn config(role: Role, flow_control: bool) -> Config {
    Config { flow_control, answer: Duration::from_secs(5), ..Config::new(role) }
}

fn pair(flow_control: bool) -> ((Connection, Accept), (Connection, Accept)) {
    let (a, b) = duplex(8 * 1024);
    let client = Connection::new(a, config(Role::Client, flow_control));
    (client, Connection::new(b, config(Role::Server, flow_control)))
}

async fn streams(client: &Connection, server: &mut Accept, name: &str) -> (Stream, Stream) {
    let (ours, theirs) = tokio::join!(client.open(named(name)), async {
        let offer = server.next().await.expect("an offer");
        assert_eq!(offer.header("streamtype"), name);
        offer.accept()
    });
    (ours.expect("a stream"), theirs)
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn data_goes_both_ways_and_each_side_ends_alone() {
    for flow_control in [false, true] {
        let ((client, _a), (_server, mut accept)) = pair(flow_control);
        let (ours, theirs) = streams(&client, &mut accept, "stdin").await;
        let (mut our_reader, mut our_writer) = tokio::io::split(ours);
        let (mut their_reader, mut their_writer) = tokio::io::split(theirs);
        let sent = payload(1_000_003);
        let there = async {
            our_writer.write_all(&sent).await.expect("written");
            our_writer.shutdown().await.expect("ended");
            our_writer.write_all(b"more").await.expect_err("an ended side cannot write");
        };
        let echo = async { tokio::io::copy(&mut their_reader, &mut their_writer).await.expect("copied") };
        let back = async {
            let mut back = vec![0; sent.len()];
            our_reader.read_exact(&mut back).await.expect("read");
            back
        };
        let ((), copied, back) = tokio::join!(there, echo, back);
        assert_eq!(copied, sent.len() as u64);
        assert!(back == sent, "what comes back is what was sent");
        // their side is still open
        their_writer.write_all(b"late").await.expect("written");
        their_writer.shutdown().await.expect("ended");
        let mut rest = Vec::new();
        our_reader.read_to_end(&mut rest).await.expect("read");
        assert_eq!(rest, b"late");
    }
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    for flow_control in [false, true] {
        let ((client, _a), (_server, mut accept)) = pair(flow_control);
        let serve = tokio::spawn(async move {
            while let Some(offer) = accept.next().await {
                let (mut reader, mut writer) = tokio::io::split(offer.accept());
                tokio::spawn(async move {
                    tokio::io::copy(&mut reader, &mut writer).await.expect("copied");
                    writer.shutdown().await.expect("ended");
                });
            }
        });
        let calls = (0..40).map(|i| {
            let client = &client;
            async move {
                let (mut reader, mut writer) =
                    tokio::io::split(client.open(named("data")).await.expect("a stream"));
                let sent = payload(20_000 + i);
                let mut back = Vec::new();
                let (written, read) = tokio::join!(
                    async {
                        writer.write_all(&sent).await?;
                        writer.shutdown().await
                    },
                    reader.read_to_end(&mut back)
                );
                written.expect("written");
                read.expect("read");
                assert!(back == sent);
            }
        });
        futures::future::join_all(calls).await;
        drop(client);
        tokio::time::timeout(Duration::from_secs(5), serve).await.expect("an end").expect("no panic");
    }
}

#[tokio::test]
async fn windows_hold_back_one_stream_and_not_the_others() {
    let ((client, _a), (_server, mut accept)) = pair(true);
    let (mut slow, slow_end) = streams(&client, &mut accept, "slow").await;
    let writing = tokio::time::timeout(Duration::from_millis(200), slow.write_all(&payload(200_000))).await;
    assert!(writing.is_err(), "nobody reads, so the window closes");
    drop(slow_end);
    drop(slow);
    // what was never read was given back to the connection's window
    let (mut quick, mut quick_end) = streams(&client, &mut accept, "quick").await;
    let mut got = vec![0; 300_000];
    let sent = payload(300_000);
    let (written, read) = tokio::time::timeout(Duration::from_secs(5), async {
        tokio::join!(quick.write_all(&sent), quick_end.read_exact(&mut got))
    })
    .await
    .expect("in time");
    written.expect("written");
    read.expect("read");
    assert!(got == sent);
}

#[tokio::test]
async fn without_windows_a_full_stream_stops_the_reading() {
    let ((client, _a), (_server, mut accept)) = pair(false);
    let (mut ours, mut theirs) = streams(&client, &mut accept, "stdout").await;
    let sent = payload(4_000_000);
    let writing = tokio::spawn(async move {
        ours.write_all(&sent).await.expect("written");
        ours.shutdown().await.expect("ended");
        (ours, sent)
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!writing.is_finished(), "buffers are bounded");
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.expect("read");
    let (_ours, sent) = writing.await.expect("no panic");
    assert!(got == sent);
}

#[tokio::test]
async fn resets_refusals_and_pings() {
    let ((client, _a), (server, mut accept)) = pair(false);
    let (ours, mut theirs) = streams(&client, &mut accept, "data").await;
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 8]).await.expect("a cancelled stream is at its end"), 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    theirs.write_all(b"x").await.expect_err("nobody takes it");

    let refused = tokio::join!(client.open(named("odd")), async {
        accept.next().await.expect("an offer").refuse();
    });
    assert!(matches!(refused.0, Err(Error::Refused)), "{refused:?}");
    client.ping().await.expect("an answer");
    server.ping().await.expect("an answer");
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_streams_after_what_was_sent() {
    let ((client, _a), (server, mut accept)) = pair(false);
    let (mut ours, mut theirs) = streams(&client, &mut accept, "error").await;
    theirs.write_all(b"status").await.expect("written");
    drop(server);
    let mut got = Vec::new();
    ours.read_to_end(&mut got).await.expect("a clean end");
    assert_eq!(got, b"status");
    tokio::time::timeout(Duration::from_secs(5), client.closed()).await.expect("closed");
    assert!(client.open(named("late")).await.is_err());
    assert!(accept.next().await.is_none());
}

#[tokio::test]
async fn a_broken_connection_is_an_error() {
    let (a, b) = duplex(1024);
    let (client, _accept) = Connection::new(a, config(Role::Client, false));
    let opening = tokio::spawn(async move {
        let stream = client.open(named("stdout")).await;
        (client, stream)
    });
    let mut peer = Peer::new(b);
    assert!(matches!(peer.next().await, Frame::SynStream { stream: 1, .. }));
    peer.send(Frame::SynReply { stream: 1, fin: false, headers: HeaderMap::new() }).await;
    let (client, stream) = opening.await.expect("no panic");
    let mut stream = stream.expect("a stream");
    drop(peer);
    let error = stream.read(&mut [0; 8]).await.expect_err("no goodbye was said");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    client.closed().await;
}

/// The other side, frame by frame.
struct Peer {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Peer {
    fn new(io: DuplexStream) -> Self {
        Self { io, encoder: Encoder::default(), decoder: Decoder::default(), buffer: BytesMut::new() }
    }

    async fn send(&mut self, frame: Frame) {
        let mut wire = Vec::new();
        self.encoder.encode(&frame, &mut wire).expect("a frame");
        self.io.write_all(&wire).await.expect("written");
    }

    async fn next(&mut self) -> Frame {
        let next = async {
            loop {
                if let Some(frame) = self.decoder.decode(&mut self.buffer).expect("well-formed") {
                    return frame;
                }
                assert_ne!(self.io.read_buf(&mut self.buffer).await.expect("read"), 0, "a frame is missing");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.expect("in time")
    }
}

fn server(config: Config) -> (Peer, Connection, Accept) {
    let (a, b) = duplex(256 * 1024);
    let (connection, accept) = Connection::new(b, config);
    (Peer::new(a), connection, accept)
}

#[tokio::test]
async fn a_server_answers_odd_frames_as_the_specification_says() {
    let (mut peer, _server, mut accept) = server(Config { max_streams: 1, ..config(Role::Server, false) });
    let syn = |stream| Frame::SynStream {
        stream,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: named("data"),
    };
    peer.send(Frame::Ping(7)).await;
    assert_eq!(peer.next().await, Frame::Ping(7));
    peer.send(syn(2)).await;
    assert_eq!(peer.next().await, Frame::Reset { stream: 2, status: reset::PROTOCOL_ERROR });
    peer.send(syn(5)).await;
    let stream = accept.next().await.expect("an offer").accept();
    assert!(matches!(peer.next().await, Frame::SynReply { stream: 5, .. }));
    peer.send(syn(3)).await;
    assert_eq!(peer.next().await, Frame::Reset { stream: 3, status: reset::PROTOCOL_ERROR });
    peer.send(syn(7)).await;
    assert_eq!(peer.next().await, Frame::Reset { stream: 7, status: reset::REFUSED_STREAM });
    // of streams that are not there, nothing is heard
    peer.send(Frame::Data { stream: 99, fin: true, data: "x".into() }).await;
    peer.send(Frame::Reset { stream: 99, status: 1 }).await;
    peer.send(Frame::WindowUpdate { stream: 99, delta: 1 }).await;
    peer.send(Frame::Ping(9)).await;
    assert_eq!(peer.next().await, Frame::Ping(9));
    drop(stream);
    assert_eq!(peer.next().await, Frame::Reset { stream: 5, status: reset::CANCEL });
}

#[tokio::test]
async fn malformed_bytes_and_floods_end_the_connection() {
    let (mut peer, connection, mut accept) = server(config(Role::Server, false));
    peer.io.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 0]).await.expect("written");
    assert!(accept.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.expect("closed");

    // pings whose answers nobody reads
    let (mut peer, connection, _accept) = server(config(Role::Server, false));
    let mut wire = Vec::new();
    (0..100_000).for_each(|_| peer.encoder.encode(&Frame::Ping(1), &mut wire).expect("a frame"));
    let flood = tokio::time::timeout(Duration::from_secs(5), peer.io.write_all(&wire)).await;
    assert!(flood.is_ok_and(|written| written.is_err()), "the connection is cut");
    tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.expect("closed");
}

#[tokio::test]
async fn a_window_that_is_overrun_resets_the_stream() {
    let (mut peer, _server, mut accept) = server(config(Role::Server, true));
    for stream in [1, 3] {
        let headers = named("data");
        let (associated, priority, fin, unidirectional) = (0, 0, false, false);
        peer.send(Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }).await;
    }
    let (_first, mut second) = (accept.next().await, accept.next().await.expect("an offer").accept());
    assert!(matches!(peer.next().await, Frame::SynReply { stream: 3, .. }));
    peer.send(Frame::Data { stream: 3, fin: false, data: payload(40_000).into() }).await;
    second.read_exact(&mut [0; 40_000]).await.expect("read");
    assert_eq!(peer.next().await, Frame::WindowUpdate { stream: 3, delta: 40_000 });
    assert_eq!(peer.next().await, Frame::WindowUpdate { stream: 0, delta: 40_000 });
    peer.send(Frame::Data { stream: 3, fin: false, data: payload(65_536).into() }).await;
    second.read_exact(&mut [0; 65_536]).await.expect("the whole window is good");
    assert!(matches!(peer.next().await, Frame::WindowUpdate { stream: 3, .. }));
    assert!(matches!(peer.next().await, Frame::WindowUpdate { stream: 0, .. }));
    peer.send(Frame::Data { stream: 1, fin: false, data: payload(65_536).into() }).await;
    peer.send(Frame::Data { stream: 1, fin: false, data: payload(1).into() }).await;
    // the connection's own window is as small, and cannot be made whole again
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), peer.io.read_to_end(&mut rest))
        .await
        .expect("an end")
        .expect("read");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_and_pings_keep_it() {
    let quiet = Config { idle: Some(Duration::from_secs(60)), ..config(Role::Server, false) };
    let (peer, connection, _accept) = server(quiet.clone());
    let start = tokio::time::Instant::now();
    connection.closed().await;
    assert!(start.elapsed() < Duration::from_secs(3600));
    drop(peer);

    let (mut peer, _server, _accept) = server(Config { ping: Some(Duration::from_secs(5)), ..quiet });
    let start = tokio::time::Instant::now();
    assert_eq!(peer.next().await, Frame::Ping(2));
    assert_eq!(peer.next().await, Frame::Ping(4));
    assert_eq!(start.elapsed().as_secs(), 10);
}
