//! One client connection: its buffers and where in the life of a request it stands.
//!
//! ```text
//! Head -> Body -> Queued -> Running -> Head ...        a held request
//!      -> Queued (streams) -> Streaming -> Running     a long body
//!      -> Closing (rest of the answer) -> Lingering (what the client still sends is dropped)
//! ```
//!
//! Invariant: bytes are read only in `Head`, `Body`, `Streaming` and `Lingering`, so a client that
//! pipelines has at most one request inside and its next ones wait in its own socket.

use std::{io, time::Instant};

use mio::{Interest, Registry, Token};

use super::{
    chunked::ChunkDecoder,
    head::{BodyFraming, HeadScan},
    listen::{Origin, Stream},
    slots::SlotId,
};

/// Capacity of a buffer that an idle connection may keep.
const KEPT_CAPACITY: usize = 2 * 1024;

pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) origin: Origin,
    pub(super) state: State,
    /// The edge was seen and the socket not yet found empty.
    pub(super) readable: bool,
    /// The client ended its sending half, or all of the connection.
    pub(super) read_closed: bool,
    /// Bytes that were read and not understood yet.
    pub(super) input: Vec<u8>,
    pub(super) scan: HeadScan,
    /// Bytes on their way to the client.
    pub(super) output: Output,
    /// What is known of the request that is inside.
    pub(super) current: Current,
    /// When the state that it is in ends badly.
    pub(super) deadline: Option<Instant>,
    /// Since when it has been idle.
    pub(super) since: Instant,
    /// Whether a request was answered on it.
    pub(super) has_served: bool,
    /// Whether its last request had a Host header.
    pub(super) has_host: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) keep_alive: bool,
    pub(super) is_http10: bool,
    pub(super) is_head: bool,
}

pub(super) enum State {
    /// Between requests, or reading a head.
    Head,
    /// Collecting a body that is held.
    Body(Box<Body>),
    /// Waiting for a lane.
    Queued(Option<Box<Body>>),
    /// Passing a long body on.
    Streaming(SlotId, Box<Body>),
    /// Waiting for the answer, or relaying it.
    Running(SlotId),
    /// The last answer is being written.
    Closing { linger: bool },
    /// Everything is written; what comes in is dropped.
    Lingering,
}

/// A body on its way in.
pub(super) struct Body {
    /// The head for `tiny_http`.
    pub(super) head: Vec<u8>,
    pub(super) left: BodyLeft,
    /// What has come of it, without the chunked coding. Empty once it streams.
    pub(super) held: Vec<u8>,
    /// How much has come of it.
    pub(super) received_bytes: u64,
    pub(super) started: Instant,
    pub(super) is_long: bool,
}

pub(super) enum BodyLeft {
    Length(u64),
    Chunks(ChunkDecoder),
}

impl Body {
    pub(super) fn new(framing: BodyFraming, head: Vec<u8>, is_long: bool, now: Instant) -> Self {
        let left = match framing {
            BodyFraming::Length(n) => BodyLeft::Length(n),
            BodyFraming::Chunked => BodyLeft::Chunks(ChunkDecoder::default()),
        };
        Self { head, left, held: Vec::new(), received_bytes: 0, started: now, is_long }
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.left {
            BodyLeft::Length(n) => *n == 0,
            BodyLeft::Chunks(decoder) => decoder.is_done(),
        }
    }

    /// Takes what belongs to the body off the front of `input`.
    pub(super) fn take(&mut self, input: &mut Vec<u8>) -> Result<(), super::Refusal> {
        let before = self.held.len();
        let used = match &mut self.left {
            BodyLeft::Length(left) => {
                let n = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.held.extend_from_slice(&input[..n]);
                *left -= n as u64;
                n
            }
            BodyLeft::Chunks(decoder) => decoder.decode(input, &mut self.held)?,
        };
        self.received_bytes += (self.held.len() - before) as u64;
        input.drain(..used);
        Ok(())
    }
}

impl Client {
    pub(super) fn new(stream: Stream, origin: Origin, now: Instant) -> Self {
        Self {
            stream,
            origin,
            state: State::Head,
            readable: false,
            read_closed: false,
            input: Vec::new(),
            scan: HeadScan::default(),
            output: Output::default(),
            current: Current { keep_alive: true, is_http10: false, is_head: false },
            deadline: None,
            since: now,
            has_served: false,
            has_host: true,
        }
    }

    /// Nothing of it is inside and nothing half-read: closing it loses nothing.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.output.is_empty()
    }

    /// Reads once, to the end of `input`. `Ok(0)` is the end; a socket found empty is an error of
    /// kind `WouldBlock`.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(scratch);
        match &result {
            Ok(n) => {
                self.input.extend_from_slice(&scratch[..*n]);
                // A short read means that the socket is empty, unless its end is to be read.
                if *n < scratch.len() && !self.read_closed {
                    self.readable = false;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {}
        }
        result
    }

    /// Writes, and keeps what the socket did not take.
    pub(super) fn send(&mut self, bytes: &[u8], watch: Watch<'_>) -> io::Result<()> {
        let stream = &mut self.stream;
        self.output.send(bytes, |b| stream.write(b))?;
        self.watch_writing(watch)
    }

    pub(super) fn flush(&mut self, watch: Watch<'_>) -> io::Result<()> {
        let stream = &mut self.stream;
        self.output.flush(|b| stream.write(b))?;
        self.watch_writing(watch)
    }

    fn watch_writing(&mut self, (registry, token): Watch<'_>) -> io::Result<()> {
        match self.output.change_of_interest() {
            Some(interest) => self.stream.reregister(registry, token, interest),
            None => Ok(()),
        }
    }

    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEPT_CAPACITY {
            self.input = Vec::new();
        }
    }
}

/// Where and under what name a socket is watched.
pub(super) type Watch<'a> = (&'a Registry, Token);

/// Bytes that a socket has not taken yet.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    at: usize,
    is_watched: bool,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What the socket is to be watched for from now on, where that changes. Room to write is
    /// watched only while something waits for it: a unix socket would wake the loop each time
    /// that the other side reads, which is twice for every request.
    pub(super) fn change_of_interest(&mut self) -> Option<Interest> {
        let wants = !self.is_empty();
        if wants == self.is_watched {
            return None;
        }
        self.is_watched = wants;
        Some(if wants { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if !self.is_empty() {
            self.push(bytes);
            return self.flush(write);
        }
        let written = write_some(bytes, &mut write)?;
        self.push(&bytes[written..]);
        Ok(())
    }

    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.at += write_some(&self.bytes[self.at..], &mut write)?;
        if self.is_empty() {
            self.at = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_CAPACITY {
                self.bytes = Vec::new();
            }
        } else if self.at >= 64 * 1024 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        Ok(())
    }
}

/// Writes as much as is taken.
fn write_some(bytes: &[u8], write: &mut impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match write(&bytes[at..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}
