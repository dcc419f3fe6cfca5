//! Frames on their way out of one link.
//!
//! ```text
//! push ─> short ─> the ordered stream: length (4 bytes, big endian), frame, length, frame ...
//!      └> long ──> a stream of its own, which ends with the frame
//! ```
//!
//! A length with its highest bit set is that of padding, which is skipped.
//!
//! The first frame of the ordered stream is no frame of the node, but the proof that its sender knows
//! the cluster's secret.
//!
//! Limits: `QUEUE_FRAMES` and `QUEUE_BYTES` that wait; of long frames, `LONG_WINDOW_BYTES` that are not
//! acknowledged yet.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamId};

use super::limits::{LONG_WINDOW_BYTES, PADDING_BYTES, QUEUE_BYTES, QUEUE_FRAMES, SHORT_FRAME_BYTES};

/// Bytes of the length that stands before a frame of the ordered stream.
pub(super) const LENGTH_BYTES: usize = 4;
/// Set in the length of padding.
pub(super) const PADDING: u32 = 1 << 31;
/// Frames that are written to the ordered stream in one call.
const FRAMES_PER_WRITE: usize = 16;
/// The ordered stream goes before the others.
const ORDERED_PRIORITY: i32 = 1;

#[derive(Default)]
pub(super) struct Outbox {
    ordered: Option<StreamId>,
    /// Each with its length before it; the first may be written in part.
    short: VecDeque<Bytes>,
    long: VecDeque<Bytes>,
    /// The long one that is written in part.
    writing: Option<(StreamId, Bytes)>,
    unacked: BTreeMap<StreamId, usize>,
    unacked_bytes: usize,
    queued_bytes: usize,
}

/// A frame on the ordered stream.
pub(super) fn with_length(frame: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + frame.len());
    bytes.put_u32(frame.len() as u32);
    bytes.put_slice(frame);
    bytes.freeze()
}

impl Outbox {
    /// The link is made: opens the ordered stream with what comes first on it.
    pub(super) fn open(&mut self, connection: &mut Connection, proof: &[u8]) -> bool {
        self.ordered = connection.streams().open(Dir::Uni);
        let Some(id) = self.ordered else { return false };
        let mut stream = connection.send_stream(id);
        stream.set_priority(ORDERED_PRIORITY).is_ok()
            && stream.write_chunks(&mut [with_length(proof)]).is_ok()
    }

    /// Takes a frame, or gives it back where there is no room.
    pub(super) fn push(&mut self, frame: Bytes) -> Result<(), Bytes> {
        let frames = self.short.len() + self.long.len();
        if frames >= QUEUE_FRAMES || self.queued_bytes + frame.len() > QUEUE_BYTES {
            return Err(frame);
        }
        match frame.len() <= SHORT_FRAME_BYTES {
            true => {
                let frame = with_length(&frame);
                self.queued_bytes += frame.len();
                self.short.push_back(frame);
            }
            false => {
                self.queued_bytes += frame.len();
                self.long.push_back(frame);
            }
        }
        Ok(())
    }

    /// Puts as much padding as fills a packet behind what waits.
    pub(super) fn pad(&mut self) {
        let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + PADDING_BYTES);
        bytes.put_u32(PADDING | PADDING_BYTES as u32);
        bytes.put_bytes(0, PADDING_BYTES);
        self.queued_bytes += bytes.len();
        self.short.push_back(bytes.freeze());
    }

    /// Takes over what another one of the same peer has not begun to write.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        self.queued_bytes += std::mem::take(&mut other.queued_bytes);
        self.short.append(&mut other.short);
        self.long.append(&mut other.long);
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty() && self.writing.is_none()
    }

    /// How many frames wait.
    pub(super) fn frames(&self) -> usize {
        self.short.len() + self.long.len() + usize::from(self.writing.is_some())
    }

    /// Writes what the link takes.
    pub(super) fn pump(&mut self, connection: &mut Connection) {
        self.pump_short(connection);
        self.pump_long(connection);
    }

    /// All of a long frame has arrived, or the other side wants no more of it.
    pub(super) fn acked(&mut self, id: StreamId) {
        self.unacked_bytes -= self.unacked.remove(&id).unwrap_or(0);
        if self.writing.as_ref().is_some_and(|(writing, _)| *writing == id) {
            self.writing = None;
        }
    }

    /// Ends the ordered stream: its end is acknowledged when all of it has arrived.
    pub(super) fn finish(&mut self, connection: &mut Connection) -> Option<StreamId> {
        let id = self.ordered?;
        connection.send_stream(id).finish().ok().map(|()| id)
    }

    /// Whether long frames are not acknowledged yet.
    pub(super) fn has_unacked(&self) -> bool {
        !self.unacked.is_empty()
    }

    fn pump_short(&mut self, connection: &mut Connection) {
        let Some(id) = self.ordered else { return };
        while !self.short.is_empty() {
            let count = self.short.len().min(FRAMES_PER_WRITE);
            let mut some: Vec<Bytes> = self.short.drain(..count).collect();
            let written = connection.send_stream(id).write_chunks(&mut some);
            // What was written in part was cut short by just that part.
            let (bytes, chunks) = written.map_or((0, 0), |written| (written.bytes, written.chunks));
            self.queued_bytes -= bytes;
            some.into_iter().skip(chunks).rev().for_each(|frame| self.short.push_front(frame));
            if chunks < count {
                return;
            }
        }
    }

    fn pump_long(&mut self, connection: &mut Connection) {
        loop {
            if self.writing.is_none() {
                let is_full = |first: &Bytes| {
                    self.unacked_bytes > 0 && self.unacked_bytes + first.len() > LONG_WINDOW_BYTES
                };
                if self.long.front().is_none_or(is_full) {
                    return;
                }
                let Some(id) = connection.streams().open(Dir::Uni) else { return };
                let Some(frame) = self.long.pop_front() else { return };
                self.unacked.insert(id, frame.len());
                self.unacked_bytes += frame.len();
                self.writing = Some((id, frame));
            }
            let Some((id, frame)) = &mut self.writing else { return };
            let id = *id;
            let written = connection.send_stream(id).write_chunks(std::slice::from_mut(frame));
            let Ok(written) = written else { return };
            self.queued_bytes -= written.bytes;
            if written.chunks == 0 {
                return;
            }
            self.writing = None;
            // It fails only where the other side has stopped the stream: then nobody waits for it.
            if connection.send_stream(id).finish().is_err() {
                self.acked(id);
            }
        }
    }
}
