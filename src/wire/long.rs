//! Messages that are longer than a frame: cut into parts here, put together there.
//!
//! Not for values, which are fetched in pieces: what gets long is what a version says about itself, a
//! context with many actors, and a key with many versions. That is rare, and nothing else pays for it.
//!
//! ```text
//! body of a part = name of the message (8) | index (2) | count (2) | bytes     all big endian
//! ```
//!
//! - Every part but the last has the same length, and the last is no longer.
//! - A message is named by a hash of its bytes. So a message that is sent again fills the holes that the
//!   first try left, and parts of different messages are never taken for one.
//! - Parts may come in any order and more than once. A lost one loses the message, which the core
//!   repeats as it does any other.
//! - Only what has come is held; a claimed count reserves nothing.
//!
//! Limits: the length of a message, that of a part, incomplete messages and their bytes per link, their
//! bytes in all, and their age. The oldest ones give way.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes};

use super::{FRAME_HEADER_BYTES, LinkCounters};
use crate::model::NodeId;

/// The longest message, in bytes: 16 for each range of a context that has as many as it may
/// ([`MAX_CONTEXT_RANGES`](super::MAX_CONTEXT_RANGES)), or 60 siblings that name 200 writers each. Each of
/// its frames has to arrive, so a much longer one would seldom get through a network that loses some.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The least that a part holds unless it is the last. Every transport takes frames of 1,200 bytes.
pub const MIN_PART_BYTES: usize = 1_024;
/// Parts of one message.
pub const MAX_PARTS: usize = MAX_MESSAGE_BYTES / MIN_PART_BYTES;
/// Incomplete messages of one link. As each begins with its first part to arrive, this many may
/// overlap on a network that reorders.
pub const MAX_PARTIALS_PER_LINK: usize = 256;
/// Bytes of the incomplete messages of one link: four of the longest.
pub const MAX_PARTIAL_BYTES_PER_LINK: usize = 4 * MAX_MESSAGE_BYTES;
/// Bytes of all incomplete messages: those of 16 links that are full.
pub const MAX_PARTIAL_BYTES: usize = 16 * MAX_PARTIAL_BYTES_PER_LINK;
/// How long a message may be incomplete. The core repeats what is not answered for 6 s by default.
pub const MAX_PARTIAL_AGE_MS: u64 = 10_000;

/// Bytes in front of those that a part carries.
const PART_HEADER_BYTES: usize = 12;

/// Cuts a message that no frame takes. The frames have room for a header in front. `None` where it
/// can't be sent: too long, or the frames too short.
pub(super) fn cut(
    message: &[u8],
    max_frame_bytes: usize,
) -> Option<impl ExactSizeIterator<Item = Vec<u8>> + use<'_>> {
    let room = max_frame_bytes.saturating_sub(FRAME_HEADER_BYTES + PART_HEADER_BYTES);
    if room < MIN_PART_BYTES || message.len() > MAX_MESSAGE_BYTES {
        return None;
    }
    let parts = message.chunks(room);
    let (name, count) = (name_of(message), u16::try_from(parts.len()).ok()?);
    Some(parts.enumerate().map(move |(index, bytes)| {
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + PART_HEADER_BYTES + bytes.len());
        frame.put_bytes(0, FRAME_HEADER_BYTES);
        frame.put_u64(name);
        frame.put_u16(index as u16);
        frame.put_u16(count);
        frame.put_slice(bytes);
        frame
    }))
}

fn name_of(message: &[u8]) -> u64 {
    let hash = blake3::hash(message);
    u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a digest has 32 bytes"))
}

/// A part of no message that there can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

struct Part {
    name: u64,
    index: u16,
    count: u16,
    bytes: Bytes,
}

impl Part {
    fn parse(mut body: Bytes) -> Result<Self, Malformed> {
        if body.len() <= PART_HEADER_BYTES {
            return Err(Malformed);
        }
        let (name, index, count) = (body.get_u64(), body.get_u16(), body.get_u16());
        if !(2..=MAX_PARTS).contains(&count.into()) || index >= count {
            return Err(Malformed);
        }
        let part = Self { name, index, count, bytes: body };
        let len = part.bytes.len();
        // The others have the same length, or at least that.
        let (each, last) = if part.is_last() { (len.max(MIN_PART_BYTES), len) } else { (len, 1) };
        let is_sized = each >= MIN_PART_BYTES && total(count, each, last) <= MAX_MESSAGE_BYTES;
        if is_sized { Ok(part) } else { Err(Malformed) }
    }

    fn is_last(&self) -> bool {
        self.index + 1 == self.count
    }
}

/// Bytes of a message of so many parts.
fn total(count: u16, part: usize, last: usize) -> usize {
    usize::from(count - 1) * part + last
}

/// A message of which parts are missing.
struct Partial {
    name: u64,
    count: u16,
    begun_ms: u64,
    /// The length of every part but the last, once one is here.
    part_bytes: Option<usize>,
    parts: BTreeMap<u16, Bytes>,
    bytes: usize,
}

impl Partial {
    fn begin(part: &Part, now_ms: u64) -> Self {
        let Part { name, count, .. } = *part;
        Self { name, count, begun_ms: now_ms, part_bytes: None, parts: BTreeMap::new(), bytes: 0 }
    }

    /// Says how many bytes that adds.
    fn add(&mut self, part: Part) -> Result<usize, Malformed> {
        let len = part.bytes.len();
        let last = if part.is_last() { Some(len) } else { self.parts.get(&(self.count - 1)).map(Bytes::len) };
        let part_bytes = if part.is_last() { self.part_bytes } else { Some(len) };
        let is_same = self.part_bytes.is_none_or(|known| part_bytes == Some(known));
        let is_sized = match (part_bytes, last) {
            (Some(each), Some(last)) => last <= each && total(self.count, each, last) <= MAX_MESSAGE_BYTES,
            _ => true,
        };
        if part.count != self.count || !is_same || !is_sized {
            return Err(Malformed);
        }
        if self.parts.contains_key(&part.index) {
            return Ok(0);
        }
        self.part_bytes = part_bytes;
        self.parts.insert(part.index, part.bytes);
        self.bytes += len;
        Ok(len)
    }

    fn is_complete(&self) -> bool {
        self.parts.len() == usize::from(self.count)
    }

    fn join(self) -> Result<Bytes, Malformed> {
        let mut message = Vec::with_capacity(self.bytes);
        self.parts.values().for_each(|part| message.extend_from_slice(part));
        if name_of(&message) == self.name { Ok(message.into()) } else { Err(Malformed) }
    }
}

/// The incomplete messages of one link, oldest first.
#[derive(Default)]
struct OfLink {
    partials: VecDeque<Partial>,
    bytes: usize,
}

/// The incomplete messages of all links. Their parts share the memory of the frames that they came in.
#[derive(Default)]
pub(super) struct Partials {
    /// Those that have any.
    links: BTreeMap<NodeId, OfLink>,
    bytes: usize,
}

impl Partials {
    /// Takes in the body of a part. Gives the message when it is the last one missing.
    pub(super) fn take(
        &mut self,
        now_ms: u64,
        peer: NodeId,
        body: Bytes,
        counters: &mut LinkCounters,
    ) -> Result<Option<Bytes>, Malformed> {
        let part = Part::parse(body)?;
        let link = self.links.entry(peer).or_default();
        let known = link.partials.iter().position(|partial| partial.name == part.name);
        let at = known.unwrap_or_else(|| {
            link.partials.push_back(Partial::begin(&part, now_ms));
            link.partials.len() - 1
        });
        let added = link.partials[at].add(part)?;
        (link.bytes, self.bytes) = (link.bytes + added, self.bytes + added);
        if link.partials[at].is_complete() {
            return self.remove(peer, at).map(Partial::join).transpose();
        }
        while self.is_full(peer) {
            self.drop_oldest(peer, counters);
        }
        while self.bytes > MAX_PARTIAL_BYTES
            && let Some((&peer, _)) = self.links.iter().min_by_key(|(_, link)| link.partials[0].begun_ms)
        {
            self.drop_oldest(peer, counters);
        }
        Ok(None)
    }

    /// Drops what has been incomplete for too long.
    pub(super) fn expire(&mut self, now_ms: u64, counters: &mut LinkCounters) {
        let is_old = |link: &OfLink| now_ms.saturating_sub(link.partials[0].begun_ms) >= MAX_PARTIAL_AGE_MS;
        while let Some((&peer, _)) = self.links.iter().find(|(_, link)| is_old(link)) {
            self.drop_oldest(peer, counters);
        }
    }

    /// The link is gone.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.bytes -= self.links.remove(&peer).map_or(0, |link| link.bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn is_full(&self, peer: NodeId) -> bool {
        self.links.get(&peer).is_some_and(|link| {
            link.partials.len() > MAX_PARTIALS_PER_LINK || link.bytes > MAX_PARTIAL_BYTES_PER_LINK
        })
    }

    fn drop_oldest(&mut self, peer: NodeId, counters: &mut LinkCounters) {
        self.remove(peer, 0);
        counters.partials_dropped += 1;
    }

    fn remove(&mut self, peer: NodeId, at: usize) -> Option<Partial> {
        let link = self.links.get_mut(&peer)?;
        let partial = link.partials.remove(at)?;
        (link.bytes, self.bytes) = (link.bytes - partial.bytes, self.bytes - partial.bytes);
        if link.partials.is_empty() {
            self.links.remove(&peer);
        }
        Some(partial)
    }
}

#[cfg(test)]
mod tests;
