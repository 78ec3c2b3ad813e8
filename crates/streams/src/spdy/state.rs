//! What one end knows of a connection, and what each frame does to it. No IO: tasks bring frames in and take frames out.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;

use super::Error;
use super::connection::{Config, Role};
use super::frame::{Frame, INITIAL_WINDOW_SIZE, Malformed, reset};

/// Bytes that wait to be sent before writers have to wait.
const QUEUE: usize = 256 * 1024;

/// Frames that may wait when the other side asks for answers and does not read them.
const MAX_QUEUED: usize = 4096;

/// The most that one data frame carries.
pub const PIECE: usize = 32 * 1024;

/// The window of a stream and of a connection before anybody says otherwise.
pub const WINDOW: i64 = 64 * 1024;

/// Streams of the other side that nobody has taken yet.
const MAX_UNTAKEN: usize = 128;

/// How reading from a stream ends.
#[derive(Clone, Debug)]
pub enum ReadEnd {
    /// The other side has said all.
    Fin,
    /// The stream was reset.
    Reset(u32),
    /// The connection is gone.
    Gone(Error),
}

pub struct Entry {
    pub headers: HeaderMap,
    pub received: VecDeque<Bytes>,
    pub buffered: usize,
    pub read_end: Option<ReadEnd>,
    pub write_closed: bool,
    pub replied: bool,
    pub read_waker: Option<Waker>,
    pub write_waker: Option<Waker>,
    pub reply_waker: Option<Waker>,
    send_window: i64,
    receive_window: i64,
    /// Read, and not yet given back to the other side's window.
    consumed: i64,
}

impl Entry {
    fn new(headers: HeaderMap, window: i64) -> Self {
        Self {
            headers,
            received: VecDeque::new(),
            buffered: 0,
            read_end: None,
            write_closed: false,
            replied: false,
            read_waker: None,
            write_waker: None,
            reply_waker: None,
            send_window: window,
            receive_window: WINDOW,
            consumed: 0,
        }
    }

    fn wake(&mut self) {
        let wakers = [self.read_waker.take(), self.write_waker.take(), self.reply_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn end_reading(&mut self, end: ReadEnd) {
        self.read_end.get_or_insert(end);
        self.wake();
    }
}

pub struct State {
    config: Config,
    pub streams: HashMap<u32, Entry>,
    next: u32,
    last_received: u32,
    /// Frames to be sent.
    queue: VecDeque<Frame>,
    queued: usize,
    untaken: VecDeque<u32>,
    pub accept_waker: Option<Waker>,
    pings: HashMap<u32, oneshot::Sender<()>>,
    next_ping: u32,
    /// The other side opens and takes no more streams.
    gone_away: bool,
    /// We have said goodbye.
    pub closing: bool,
    pub ended: Option<Error>,
    initial_window: i64,
    send_window: i64,
    receive_window: i64,
    consumed: i64,
}

impl State {
    pub fn new(config: Config) -> Self {
        let (next, next_ping) = match config.role {
            Role::Client => (1, 1),
            Role::Server => (2, 2),
        };
        Self {
            config,
            streams: HashMap::new(),
            next,
            last_received: 0,
            queue: VecDeque::new(),
            queued: 0,
            untaken: VecDeque::new(),
            accept_waker: None,
            pings: HashMap::new(),
            next_ping,
            gone_away: false,
            closing: false,
            ended: None,
            initial_window: WINDOW,
            send_window: WINDOW,
            receive_window: WINDOW,
            consumed: 0,
        }
    }

    fn push(&mut self, frame: Frame) {
        if let Frame::Data { data, .. } = &frame {
            self.queued += data.len();
        }
        self.queue.push_back(frame);
        if self.queue.len() > MAX_QUEUED && self.ended.is_none() {
            self.end(Error::Flooded);
        }
    }

    /// Everything that is to be sent now.
    pub fn take_queue(&mut self, into: &mut Vec<Frame>) {
        into.extend(self.queue.drain(..));
        self.queued = 0;
        if !into.is_empty() {
            self.wake_writers();
        }
    }

    fn wake_writers(&mut self) {
        self.streams.values_mut().filter_map(|entry| entry.write_waker.take()).for_each(Waker::wake);
    }

    /// The connection is over; whoever waits learns why.
    pub fn end(&mut self, error: Error) {
        // after a goodbye, an end is no failure
        let clean = (self.gone_away || self.closing) && matches!(error, Error::BrokenOff | Error::Closed);
        let error = self.ended.get_or_insert(error).clone();
        for entry in self.streams.values_mut() {
            entry.write_closed = true;
            entry.end_reading(if clean { ReadEnd::Fin } else { ReadEnd::Gone(error.clone()) });
        }
        self.pings.clear();
        self.untaken.clear();
        self.accept_waker.take().into_iter().for_each(Waker::wake);
    }

    /// Says goodbye: every stream is reset, and no more are taken.
    pub fn close(&mut self) {
        if self.closing {
            return;
        }
        self.closing = true;
        let open: Vec<u32> = self.streams.keys().copied().collect();
        for id in open {
            self.reset(id, reset::CANCEL);
        }
        if self.ended.is_none() {
            self.push(Frame::GoAway { last: self.last_received, status: 0 });
        }
        self.accept_waker.take().into_iter().for_each(Waker::wake);
    }

    /// Opens a stream; the other side has yet to answer.
    pub fn open(&mut self, headers: HeaderMap) -> Result<u32, Error> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        if self.closing || self.gone_away || self.next > 0x7fff_ffff {
            return Err(Error::Closed);
        }
        let stream = self.next;
        self.next += 2;
        self.streams.insert(stream, Entry::new(headers.clone(), self.initial_window));
        self.push(Frame::SynStream {
            stream,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers,
        });
        Ok(stream)
    }

    /// The next stream that the other side has opened.
    pub fn take_untaken(&mut self) -> Option<u32> {
        self.untaken.pop_front()
    }

    /// Accepts a stream of the other side.
    pub fn reply(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if !std::mem::replace(&mut entry.replied, true) && self.ended.is_none() {
            self.push(Frame::SynReply { stream, fin: false, headers: HeaderMap::new() });
        }
    }

    pub fn ping(&mut self, answered: Option<oneshot::Sender<()>>) {
        let id = self.next_ping;
        self.next_ping = if id > 0x7fff_fffd { 2 - id % 2 } else { id + 2 };
        if let Some(answered) = answered {
            self.pings.insert(id, answered);
        }
        self.push(Frame::Ping(id));
    }

    /// How much of `wanted` may be sent on a stream now; `None` when its writer has to wait.
    pub fn room(&self, stream: u32, wanted: usize) -> Option<usize> {
        if self.queued >= QUEUE || self.queue.len() >= MAX_QUEUED / 2 {
            return None;
        }
        let room = wanted.min(PIECE);
        if !self.config.flow_control {
            return Some(room);
        }
        let window = self.streams.get(&stream)?.send_window.min(self.send_window);
        usize::try_from(window).ok().filter(|window| *window > 0).map(|window| room.min(window))
    }

    pub fn send(&mut self, stream: u32, data: Bytes) {
        let size = data.len() as i64;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.send_window -= size;
        }
        self.send_window -= size;
        self.push(Frame::Data { stream, fin: false, data });
    }

    /// Ends our side of a stream.
    pub fn finish(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if std::mem::replace(&mut entry.write_closed, true) || self.ended.is_some() {
            return;
        }
        self.push(Frame::Data { stream, fin: true, data: Bytes::new() });
    }

    /// Ends both sides of a stream.
    pub fn reset(&mut self, stream: u32, status: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        let over = entry.write_closed && entry.read_end.is_some();
        entry.write_closed = true;
        entry.end_reading(ReadEnd::Reset(status));
        if !over && self.ended.is_none() {
            self.push(Frame::Reset { stream, status });
        }
    }

    /// Nobody holds a stream any more.
    pub fn release(&mut self, stream: u32) {
        self.reset(stream, reset::CANCEL);
        if let Some(entry) = self.streams.remove(&stream) {
            // what it had not read counts as read for the connection
            self.give_back(entry.buffered as i64);
        }
    }

    /// The reader of a stream has taken so much.
    pub fn consumed(&mut self, stream: u32, size: usize) {
        if !self.config.flow_control {
            return;
        }
        let size = size as i64;
        let mut delta = 0;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.consumed += size;
            if entry.consumed >= WINDOW / 2 && entry.read_end.is_none() {
                delta = std::mem::take(&mut entry.consumed);
                entry.receive_window += delta;
            }
        }
        if delta > 0 {
            self.push(Frame::WindowUpdate { stream, delta: delta as u32 });
        }
        self.give_back(size);
    }

    fn give_back(&mut self, size: i64) {
        if !self.config.flow_control {
            return;
        }
        self.consumed += size;
        if self.consumed >= WINDOW / 2 && self.ended.is_none() {
            let delta = std::mem::take(&mut self.consumed);
            self.receive_window += delta;
            self.push(Frame::WindowUpdate { stream: 0, delta: delta as u32 });
        }
    }

    /// Takes in a frame. Gives back the stream whose reader has to catch up before more can be read.
    pub fn receive(&mut self, frame: Frame) -> Result<Option<u32>, Error> {
        let full = self.apply(frame)?;
        self.ended.clone().map_or(Ok(full), Err)
    }

    fn apply(&mut self, frame: Frame) -> Result<Option<u32>, Error> {
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers, .. } => {
                self.opened(stream, fin, unidirectional, headers);
            }
            Frame::SynReply { stream, fin, .. } => {
                if let Some(entry) = self.streams.get_mut(&stream) {
                    entry.replied = true;
                    entry.wake();
                    if fin {
                        entry.end_reading(ReadEnd::Fin);
                    }
                }
            }
            Frame::Headers { stream, fin, .. } => {
                if let Some(entry) = self.streams.get_mut(&stream).filter(|_| fin) {
                    entry.end_reading(ReadEnd::Fin);
                }
            }
            Frame::Reset { stream, status } => {
                if let Some(entry) = self.streams.get_mut(&stream) {
                    entry.write_closed = true;
                    entry.end_reading(ReadEnd::Reset(status));
                }
            }
            Frame::Data { stream, fin, data } => return self.data(stream, fin, data),
            Frame::Ping(id) => {
                if id % 2 == self.next_ping % 2 {
                    if let Some(waiting) = self.pings.remove(&id) {
                        let _ = waiting.send(());
                    }
                } else {
                    self.push(Frame::Ping(id));
                }
            }
            Frame::GoAway { .. } => self.gone_away = true,
            Frame::Settings(settings) => {
                for setting in settings.iter().filter(|setting| setting.id == INITIAL_WINDOW_SIZE) {
                    self.set_initial_window(setting.value)?;
                }
            }
            Frame::WindowUpdate { stream: 0, delta } => {
                self.send_window = widened(self.send_window, delta)?;
                self.wake_writers();
            }
            Frame::WindowUpdate { stream, delta } => {
                if let Some(entry) = self.streams.get_mut(&stream) {
                    entry.send_window = widened(entry.send_window, delta)?;
                    entry.write_waker.take().into_iter().for_each(Waker::wake);
                }
            }
        }
        Ok(None)
    }

    fn set_initial_window(&mut self, value: u32) -> Result<(), Error> {
        let value = i64::from(value);
        if value > 0x7fff_ffff {
            return Err(Malformed::Window.into());
        }
        let change = value - std::mem::replace(&mut self.initial_window, value);
        self.streams.values_mut().for_each(|entry| entry.send_window += change);
        self.wake_writers();
        Ok(())
    }

    fn opened(&mut self, stream: u32, fin: bool, unidirectional: bool, headers: HeaderMap) {
        let ours = self.next % 2;
        if stream % 2 == ours || stream <= self.last_received {
            return self.push(Frame::Reset { stream, status: reset::PROTOCOL_ERROR });
        }
        self.last_received = stream;
        if self.closing {
            return;
        }
        if self.untaken.len() >= MAX_UNTAKEN || self.streams.len() >= self.config.max_streams {
            return self.push(Frame::Reset { stream, status: reset::REFUSED_STREAM });
        }
        let mut entry = Entry::new(headers, self.initial_window);
        entry.write_closed = unidirectional;
        entry.read_end = fin.then_some(ReadEnd::Fin);
        self.streams.insert(stream, entry);
        self.untaken.push_back(stream);
        self.accept_waker.take().into_iter().for_each(Waker::wake);
    }

    fn data(&mut self, stream: u32, fin: bool, data: Bytes) -> Result<Option<u32>, Error> {
        let size = data.len();
        let flow = self.config.flow_control;
        if flow {
            self.receive_window -= size as i64;
            if self.receive_window < 0 {
                return Err(Malformed::Window.into());
            }
        }
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.read_end.is_none()) else {
            // a stream that is over, or never was: the data is for nobody
            self.give_back(size as i64);
            return Ok(None);
        };
        entry.receive_window -= size as i64;
        if flow && entry.receive_window < 0 {
            self.reset(stream, reset::FLOW_CONTROL_ERROR);
            return Ok(None);
        }
        if size > 0 {
            entry.received.push_back(data);
            entry.buffered += size;
            entry.read_waker.take().into_iter().for_each(Waker::wake);
        }
        if fin {
            entry.end_reading(ReadEnd::Fin);
        }
        // without windows the only way to hold the other side back is to read no further
        Ok(self.is_full(stream).then_some(stream))
    }

    /// Whether a stream has as much as it may hold.
    pub fn is_full(&self, stream: u32) -> bool {
        !self.config.flow_control
            && self.ended.is_none()
            && !self.closing
            && self.streams.get(&stream).is_some_and(|entry| {
                entry.buffered >= self.config.buffer && !matches!(entry.read_end, Some(ReadEnd::Reset(_)))
            })
    }
}

fn widened(window: i64, delta: u32) -> Result<i64, Error> {
    let wide = window + i64::from(delta);
    if wide > 0x7fff_ffff { Err(Malformed::Window.into()) } else { Ok(wide) }
}
