//! One private connection to `tiny_http`: it carries one request at a time.
//!
//! Not pipelined, although `tiny_http` could: an answer that waits for an earlier one would hold
//! the thread that gives it, and that may be the thread on which the earlier one depends.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Instant,
};

use mio::{Interest, Registry, Token, net::UnixStream};

use super::{
    client::{Output, Watch},
    slots::SlotId,
};

pub(super) struct Lane {
    pub(super) stream: UnixStream,
    pub(super) phase: Phase,
    pub(super) readable: bool,
    pub(super) read_closed: bool,
    /// The request, where the socket did not take all of it at once.
    pub(super) output: Output,
    /// The answer, until it is complete or known to be long.
    pub(super) input: Vec<u8>,
    pub(super) answer: Answer,
    /// The answer says that its handler did not read the whole body.
    pub(super) has_unread: bool,
    /// Since when it has been in its phase.
    pub(super) since: Instant,
    pub(super) class: Class,
}

/// What a lane is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The probe is on its way: nobody knows yet whether `tiny_http` serves it.
    Opening,
    Free,
    Busy(SlotId),
}

/// How much of the answer is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Head,
    Streaming { left_bytes: u64 },
}

/// Requests that may take different shares of the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Answered as soon as can be.
    Quick,
    /// Waits long by nature.
    Long,
    /// Its body streams.
    Streaming,
}

impl Lane {
    pub(super) fn connect(path: &Path, registry: &Registry, token: Token, now: Instant) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            phase: Phase::Opening,
            readable: false,
            read_closed: false,
            output: Output::default(),
            input: Vec::new(),
            answer: Answer::Head,
            has_unread: false,
            since: now,
            class: Class::Quick,
        })
    }

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
            Some(interest) => registry.reregister(&mut self.stream, token, interest),
            None => Ok(()),
        }
    }

    /// Whether the next request may use it. It would come behind what a handler left of a long body.
    pub(super) fn is_clean(&self) -> bool {
        self.output.is_empty() && !self.read_closed && !self.has_unread
    }

    /// What of `bytes` belongs to an answer that lacks so many. More may come only where a handler left
    /// something of a long body: `tiny_http` answers that like a request.
    pub(super) fn of_the_answer<'a>(&self, bytes: &'a [u8], left_bytes: u64) -> Option<&'a [u8]> {
        let len = bytes.len().min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
        (len == bytes.len() || self.has_unread).then(|| &bytes[..len])
    }

    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(scratch);
        match &result {
            Ok(n) if *n < scratch.len() && !self.read_closed => self.readable = false,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            _ => {}
        }
        result
    }
}
