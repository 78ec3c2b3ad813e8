//! A connection: one task that reads frames, one that writes them, and handles to what both share.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::decode::Decoder;
use super::encode::Encoder;
use super::frame::reset;
use super::state::{ReadEnd, State};
use super::stream::Stream;
use crate::activity::Activity;

/// How long the last frames may take once a connection is closed.
const LINGER: Duration = Duration::from_secs(10);

const READ: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub role: Role,
    /// Whether both sides keep to windows. The SPDY of Kubernetes and its runtimes knows none: their ends never widen
    /// one, and hold each other back by not reading.
    pub flow_control: bool,
    /// Bytes that a stream may hold unread before reading stops, where there are no windows.
    pub buffer: usize,
    /// Streams that the other side may have open.
    pub max_streams: usize,
    /// How often to say that we are there.
    pub ping: Option<Duration>,
    /// How long nothing may come or go before the connection is given up.
    pub idle: Option<Duration>,
    /// How long the other side may take to accept a stream.
    pub answer: Duration,
}

impl Config {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            flow_control: false,
            buffer: 256 * 1024,
            max_streams: 4096,
            ping: None,
            idle: None,
            answer: Duration::from_secs(30),
        }
    }
}

/// What the tasks and the handles of a connection share. The lock is held for one frame or one call, never across a wait.
pub(super) struct Shared {
    pub state: Mutex<State>,
    /// There may be something to send, or to read on.
    write: Notify,
    read: Notify,
    closing: CancellationToken,
    stop: CancellationToken,
    activity: Activity,
}

impl Shared {
    pub fn changed(&self) {
        self.write.notify_one();
        self.read.notify_one();
    }
}

/// One end of a connection. Dropping it resets all streams, says goodbye and closes.
pub struct Connection {
    shared: Arc<Shared>,
    answer: Duration,
}

/// Gives the streams that the other side opens.
pub struct Accept {
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.state.lock().close();
        self.shared.closing.cancel();
        self.shared.changed();
    }
}

impl Connection {
    /// Takes over a byte stream on which both sides have agreed to speak SPDY/3.1.
    pub fn new<IO>(io: IO, config: Config) -> (Self, Accept)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(config.clone())),
            write: Notify::new(),
            read: Notify::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            activity: Activity::default(),
        });
        let (reader, writer) = tokio::io::split(io);
        tokio::spawn(read(shared.clone(), reader));
        tokio::spawn(write(shared.clone(), writer, config.clone()));
        (Self { shared: shared.clone(), answer: config.answer }, Accept { shared })
    }

    /// Opens a stream and waits until the other side has accepted it.
    pub async fn open(&self, headers: HeaderMap) -> Result<Stream, Error> {
        let id = self.shared.state.lock().open(headers.clone())?;
        self.shared.changed();
        // from here on a stream that is given up is reset
        let stream = Stream { shared: self.shared.clone(), id, headers };
        let replied = std::future::poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            let Some(entry) = state.streams.get_mut(&id) else { return Poll::Ready(Err(Error::Closed)) };
            match &entry.read_end {
                _ if entry.replied => Poll::Ready(Ok(())),
                Some(ReadEnd::Gone(error)) => Poll::Ready(Err(error.clone())),
                Some(_) => Poll::Ready(Err(Error::Refused)),
                None => {
                    entry.reply_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        tokio::time::timeout(self.answer, replied).await.map_err(|_| Error::Timeout)??;
        Ok(stream)
    }

    /// Asks for a sign of life; gives the time that it took.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        let (sender, answered) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            state.ping(Some(sender));
        }
        self.shared.changed();
        let answer = tokio::time::timeout(self.answer, answered).await.map_err(|_| Error::Timeout)?;
        answer.map_err(|_| Error::Closed)?;
        Ok(start.elapsed())
    }

    /// Returns once the connection is over.
    pub async fn closed(&self) {
        self.shared.stop.cancelled().await;
    }
}

impl Accept {
    /// The next stream that the other side opens, which is yet to be accepted or refused; `None` when there will be none.
    pub async fn next(&mut self) -> Option<Offer> {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.state.lock();
            while let Some(id) = state.take_untaken() {
                if let Some(entry) = state.streams.get(&id) {
                    let headers = entry.headers.clone();
                    return Poll::Ready(Some(Offer {
                        stream: Stream { shared: self.shared.clone(), id, headers },
                    }));
                }
            }
            if state.ended.is_some() || state.closing {
                return Poll::Ready(None);
            }
            state.accept_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A stream that the other side would like to open.
#[derive(Debug)]
pub struct Offer {
    stream: Stream,
}

impl Offer {
    pub fn headers(&self) -> &HeaderMap {
        self.stream.headers()
    }

    pub fn header(&self, name: &str) -> &str {
        self.stream.header(name)
    }

    pub fn accept(self) -> Stream {
        self.stream.shared.state.lock().reply(self.stream.id);
        self.stream.shared.changed();
        self.stream
    }

    pub fn refuse(self) {
        self.stream.shared.state.lock().reset(self.stream.id, reset::REFUSED_STREAM);
        self.stream.shared.changed();
    }
}

async fn read<R: AsyncRead>(shared: Arc<Shared>, reader: R) {
    let mut reader = pin!(reader);
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(READ);
    let error = shared.stop.run_until_cancelled(async {
        loop {
            loop {
                let frame = match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => return Error::Malformed(error),
                };
                let full = match shared.state.lock().receive(frame) {
                    Ok(full) => full,
                    Err(error) => return error,
                };
                shared.write.notify_one();
                if let Some(stream) = full {
                    while shared.state.lock().is_full(stream) {
                        shared.read.notified().await;
                    }
                }
            }
            buffer.reserve(READ);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Error::BrokenOff,
                Ok(_) => shared.activity.touch(),
                Err(error) => return Error::Io(error.to_string()),
            }
        }
    });
    let error = error.await.unwrap_or(Error::Closed);
    shared.state.lock().end(error);
    shared.stop.cancel();
}

async fn write<W: AsyncWrite>(shared: Arc<Shared>, writer: W, config: Config) {
    let mut writer = pin!(writer);
    let work = async {
        let mut encoder = Encoder::default();
        let (mut frames, mut wire) = (Vec::new(), Vec::new());
        let mut pings = config.ping.map(|period| tokio::time::interval_at(Instant::now() + period, period));
        loop {
            let closing = {
                let mut state = shared.state.lock();
                state.take_queue(&mut frames);
                state.closing
            };
            for frame in frames.drain(..) {
                if let Err(error) = encoder.encode(&frame, &mut wire) {
                    return Err(Error::Malformed(error));
                }
            }
            if wire.is_empty() {
                if closing {
                    return Ok(());
                }
                tokio::select! {
                    () = shared.write.notified() => {}
                    () = tick(&mut pings) => shared.state.lock().ping(None),
                    () = shared.activity.silence(config.idle) => return Err(Error::Idle),
                }
                continue;
            }
            let sent = async {
                writer.write_all(&wire).await?;
                writer.flush().await
            };
            tokio::select! {
                sent = sent => sent.map_err(|error| Error::Io(error.to_string()))?,
                () = shared.activity.silence(config.idle) => return Err(Error::Idle),
            }
            shared.activity.touch();
            wire.clear();
        }
    };
    let done = {
        let mut work = pin!(work);
        let late = async {
            shared.closing.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            done = &mut work => done,
            () = shared.stop.cancelled() => Err(Error::Closed),
            () = late => Err(Error::Timeout),
        }
    };
    match done {
        // what the other side still sends is read, lest its arrival destroy what is under way to it
        Ok(()) => {
            let _ = tokio::time::timeout(LINGER, async {
                let _ = writer.shutdown().await;
                shared.stop.cancelled().await;
            })
            .await;
        }
        Err(error) => shared.state.lock().end(error),
    }
    shared.stop.cancel();
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
