//! Frames on their way in on one link: taken from its streams when the loop asks for them.
//!
//! What the loop does not take stays in the link's windows, and the other side stops sending when
//! they are full. A frame gets a buffer of its own, so that keeping one does not pin its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use quinn_proto::{Connection, Dir, ReadError, StreamId};

use super::{
    limits::MAX_FRAME_BYTES,
    outbox::{LENGTH_BYTES, PADDING},
};

/// Bytes taken from a stream at once, at most.
const CHUNK_BYTES: usize = 64 * 1_024;

#[derive(Default)]
pub(super) struct Inbox {
    /// Streams that may have something.
    readable: BTreeSet<StreamId>,
    ordered: Ordered,
    long: BTreeMap<StreamId, Vec<u8>>,
}

/// The other side does not keep to the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What has come of the ordered stream.
#[derive(Default)]
struct Ordered {
    /// Not looked at yet.
    rest: Bytes,
    length: [u8; LENGTH_BYTES],
    length_bytes: usize,
    frame: Vec<u8>,
}

impl Inbox {
    /// The other side opened streams.
    pub(super) fn opened(&mut self, connection: &mut Connection) {
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            self.readable.insert(id);
        }
    }

    pub(super) fn readable(&mut self, id: StreamId) {
        self.readable.insert(id);
    }

    /// The next frame of the ordered stream.
    pub(super) fn next_short(&mut self, connection: &mut Connection) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(frame) = self.ordered.next()? {
                return Ok(Some(frame));
            }
            // Streams are numbered by their sides; the first one of the other is the ordered one.
            let Some(id) = self.readable.iter().find(|id| id.index() == 0).copied() else { return Ok(None) };
            match read(connection, id) {
                Got::Chunk(bytes) => self.ordered.rest = bytes,
                Got::Nothing | Got::End | Got::GivenUp => _ = self.readable.remove(&id),
            }
        }
    }

    /// The next frame of any stream.
    pub(super) fn next(&mut self, connection: &mut Connection) -> Result<Option<Bytes>, Broken> {
        if let Some(frame) = self.next_short(connection)? {
            return Ok(Some(frame));
        }
        while let Some(id) = self.readable.first().copied() {
            match read(connection, id) {
                Got::Chunk(bytes) => {
                    let frame = self.long.entry(id).or_default();
                    if frame.len() + bytes.len() > MAX_FRAME_BYTES {
                        return Err(Broken);
                    }
                    frame.extend_from_slice(&bytes);
                }
                Got::Nothing => _ = self.readable.remove(&id),
                Got::GivenUp => {
                    self.readable.remove(&id);
                    self.long.remove(&id);
                }
                Got::End => {
                    self.readable.remove(&id);
                    let frame = self.long.remove(&id).unwrap_or_default();
                    if !frame.is_empty() {
                        return Ok(Some(frame.into()));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Ordered {
    fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while self.length_bytes < LENGTH_BYTES {
            if self.rest.is_empty() {
                return Ok(None);
            }
            self.length[self.length_bytes] = self.rest.get_u8();
            self.length_bytes += 1;
        }
        let length = u32::from_be_bytes(self.length);
        let (is_padding, length) = (length & PADDING != 0, (length & !PADDING) as usize);
        if length == 0 || length > MAX_FRAME_BYTES {
            return Err(Broken);
        }
        let part = (length - self.frame.len()).min(self.rest.len());
        if self.frame.is_empty() && part == length && !is_padding {
            self.length_bytes = 0;
            let frame = Bytes::copy_from_slice(&self.rest[..length]);
            self.rest.advance(length);
            return Ok(Some(frame));
        }
        self.frame.extend_from_slice(&self.rest[..part]);
        self.rest.advance(part);
        if self.frame.len() < length {
            return Ok(None);
        }
        self.length_bytes = 0;
        let frame = std::mem::take(&mut self.frame);
        match is_padding {
            true => self.next(),
            false => Ok(Some(frame.into())),
        }
    }
}

enum Got {
    Chunk(Bytes),
    Nothing,
    End,
    /// The other side sends no more of it, though it is not at its end.
    GivenUp,
}

fn read(connection: &mut Connection, id: StreamId) -> Got {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Got::GivenUp };
    let got = match chunks.next(CHUNK_BYTES) {
        Ok(Some(chunk)) => Got::Chunk(chunk.bytes),
        Ok(None) => Got::End,
        Err(ReadError::Blocked) => Got::Nothing,
        Err(ReadError::Reset(_)) => Got::GivenUp,
    };
    // What there is to tell the other side goes out with the next packets anyway.
    let _ = chunks.finalize();
    got
}
