//! A remote command between a WebSocket client and a SPDY server.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::spdy::{self, Streams};
use super::status::{Outcome, passed_on};
use super::{Options, Version, channel};
use crate::spdy::{Connection, Stream};
use crate::websocket::channels::{Client, Codec, Said};
use crate::websocket::{Socket, Source};

/// The most that is sent in one message.
const PIECE: usize = 32 * 1024;

/// The most that an error stream may say.
const MAX_ERROR: u64 = 1 << 20;

/// How long a client may take to hear how its command ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the client's side of a command is like.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub version: Version,
    pub codec: Codec,
    pub options: Options,
    /// How long nothing may come or go.
    pub idle: Option<Duration>,
}

/// Why a command's streams ended before it did.
enum Broken {
    /// The client has hung up, and there is nobody to tell.
    Client,
    Server(String),
}

/// Runs a command for a client: streams are joined until the command is over, then the client is told how it ended.
///
/// `server` connects to the one that runs the command; the client learns on its error channel why that failed.
pub async fn bridge<IO, E>(
    socket: Socket<IO>,
    session: Session,
    server: impl Future<Output = Result<(Connection, Version), E>>,
) -> Outcome
where
    IO: AsyncRead + AsyncWrite + Unpin,
    E: ToString,
{
    let (sink, mut source) = socket.split();
    let client = Client::new(sink, session.codec);
    let options = session.options;
    // the first message shows the client that it is connected
    let first = match options {
        Options { stdout: true, .. } => channel::STDOUT,
        Options { stderr: true, .. } => channel::STDERR,
        _ => channel::ERROR,
    };
    let ended = async {
        client.send(first, &[]).await.map_err(|_| Broken::Client)?;
        let server = server.await.map_err(|error| Broken::Server(error.to_string()));
        let (connection, spoken) = server?;
        let streams = spdy::open(&connection, spoken, options).await;
        let streams = streams.map_err(|error| Broken::Server(error.to_string()))?;
        let error = run(&client, &mut source, session, streams).await?;
        Ok((spoken, error))
    };
    let (said, outcome) = match ended.await {
        Ok((spoken, error)) => (passed_on(session.version, spoken, &error), Outcome::read(spoken, &error)),
        Err(Broken::Server(why)) => {
            let outcome = Outcome::Failed(why);
            (outcome.write(session.version), outcome)
        }
        Err(Broken::Client) => (Vec::new(), Outcome::Success),
    };
    if !said.is_empty() {
        let told = tokio::time::timeout(LAST_WORDS, client.send(channel::ERROR, &said)).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("a client left before it could be told how its command ended");
        }
    }
    client.close(source).await;
    outcome
}

/// Sends on all that a stream gives.
async fn pump<IO>(client: &Client<IO>, stream: Option<Stream>, channel: u8) -> Result<(), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut stream) = stream else { return Ok(()) };
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(size) => client.send(channel, &piece[..size]).await.map_err(|_| Broken::Client)?,
            Err(error) => return Err(Broken::Server(error.to_string())),
        }
    }
}

/// Joins the streams; gives what the error stream said.
async fn run<IO>(
    client: &Client<IO>,
    source: &mut Source<IO>,
    session: Session,
    streams: Streams,
) -> Result<Vec<u8>, Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Streams { error, mut stdin, stdout, stderr, mut resize } = streams;
    let input = async {
        while let Some(Ok(message)) = source.next().await {
            client.activity.touch();
            match client.codec.decode(message, session.version >= Version::V5) {
                Said::Data { channel: channel::STDIN, data } => put(&mut stdin, &data).await,
                Said::Data { channel: channel::RESIZE, data } => put(&mut resize, &data).await,
                Said::Close { channel: channel::STDIN } => {
                    if let Some(stream) = &mut stdin {
                        let _ = stream.shutdown().await;
                    }
                }
                Said::Data { .. } | Said::Close { channel: ..=channel::RESIZE } | Said::Nothing => {}
                Said::Close { .. } | Said::End => break,
            }
        }
    };
    let report = async {
        let mut said = Vec::new();
        match error.take(MAX_ERROR).read_to_end(&mut said).await {
            Ok(_) => Ok(said),
            Err(error) => Err(Broken::Server(format!("error reading from error stream: {error}"))),
        }
    };
    let output = async {
        let all = tokio::try_join!(
            pump(client, stdout, channel::STDOUT),
            pump(client, stderr, channel::STDERR),
            report
        );
        all.map(|((), (), said)| said)
    };
    tokio::select! {
        said = output => said,
        () = input => Err(Broken::Client),
        () = client.activity.silence(session.idle) => Err(Broken::Client),
    }
}

/// Writes to a stream as long as somebody reads it.
async fn put(stream: &mut Option<Stream>, data: &[u8]) {
    if let Some(open) = stream
        && open.write_all(data).await.is_err()
    {
        *stream = None;
    }
}
