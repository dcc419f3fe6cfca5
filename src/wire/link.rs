//! One peer's link: its proved paths, and the frame that is being filled.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{
    FRAME_HEADER_BYTES, FrameType, Header, Message, SendRefused, long,
    session::{MAX_MESSAGES_PER_FRAME, MAX_UNFLUSHED_FRAMES},
};
use crate::model::MAX_ADDRS;

/// An address at which the peer has shown to receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) addr: SocketAddr,
    /// The token that its frames carry.
    pub(super) ours: u64,
    /// The token that it wants to see.
    pub(super) theirs: u64,
}

pub(super) struct Link {
    incarnation: u64,
    /// Newest first, never empty, at most [`MAX_ADDRS`].
    paths: SmallVec<[Path; 1]>,
    /// Empty, or room for a header and the messages so far.
    open: Vec<u8>,
    messages: usize,
}

impl Link {
    pub(super) fn new(incarnation: u64, path: Path) -> Self {
        Self { incarnation, paths: smallvec![path], open: Vec::new(), messages: 0 }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The one that we send on.
    pub(super) fn path(&self) -> Path {
        self.paths[0]
    }

    pub(super) fn paths(&self) -> &[Path] {
        &self.paths
    }

    pub(super) fn accepts(&self, from: SocketAddr, token: u64) -> bool {
        self.paths.iter().any(|path| path.addr == from && path.ours == token)
    }

    /// Puts a path in front, unless it is known. Says whether it was news, and which address it
    /// pushed out.
    pub(super) fn add(&mut self, path: Path) -> (bool, Option<SocketAddr>) {
        if let Some(known) = self.paths.iter_mut().find(|known| known.addr == path.addr) {
            let changed = known.theirs != path.theirs;
            *known = path;
            return (changed, None);
        }
        self.paths.insert(0, path);
        let forgotten = (self.paths.len() > MAX_ADDRS).then(|| self.paths.pop()).flatten();
        (true, forgotten.map(|path| path.addr))
    }

    /// Forgets a path and says whether others are left.
    pub(super) fn remove(&mut self, addr: SocketAddr) -> bool {
        if self.paths.len() > 1 {
            self.paths.retain(|path| path.addr != addr);
            return true;
        }
        self.paths[0].addr != addr
    }

    /// Whether the open frame holds nothing.
    pub(super) fn is_blank(&self) -> bool {
        self.messages == 0
    }

    /// Puts a message into the open frame; where it does not fit, that one is ready and another is
    /// begun. A message that no frame takes is ready at once, in parts: says in how many.
    pub(super) fn append(
        &mut self,
        message: &Message,
        max_frame_bytes: usize,
        ready: &mut VecDeque<(SocketAddr, Bytes)>,
    ) -> Result<usize, SendRefused> {
        if self.open.is_empty() {
            self.open.reserve(FRAME_HEADER_BYTES + message.encoded_len_hint());
            self.open.resize(FRAME_HEADER_BYTES, 0);
        }
        let before = self.open.len();
        message.encode(&mut self.open);
        if FRAME_HEADER_BYTES + (self.open.len() - before) > max_frame_bytes {
            let long = self.open.split_off(before);
            return self.append_long(&long, max_frame_bytes, ready);
        }
        if self.open.len() > max_frame_bytes || self.messages == MAX_MESSAGES_PER_FRAME {
            let mut next = vec![0; FRAME_HEADER_BYTES];
            next.extend_from_slice(&self.open[before..]);
            self.open.truncate(before);
            ready.extend(self.close());
            self.open = next;
        }
        self.messages += 1;
        Ok(0)
    }

    fn append_long(
        &mut self,
        message: &[u8],
        max_frame_bytes: usize,
        ready: &mut VecDeque<(SocketAddr, Bytes)>,
    ) -> Result<usize, SendRefused> {
        let parts = long::cut(message, max_frame_bytes).ok_or(SendRefused::TooLong)?;
        // One more for the open frame.
        if ready.len() + parts.len() + 1 > MAX_UNFLUSHED_FRAMES {
            return Err(SendRefused::Full);
        }
        ready.extend(self.close());
        let Path { addr, theirs, .. } = self.path();
        let count = parts.len();
        ready.extend(parts.map(|part| (addr, Header::seal(FrameType::Part, theirs, part))));
        Ok(count)
    }

    /// The open frame, ready to be sent, if it holds anything.
    pub(super) fn close(&mut self) -> Option<(SocketAddr, Bytes)> {
        let frame = std::mem::take(&mut self.open);
        let Path { addr, theirs, .. } = self.path();
        (std::mem::take(&mut self.messages) > 0)
            .then(|| (addr, Header::seal(FrameType::Messages, theirs, frame)))
    }
}
