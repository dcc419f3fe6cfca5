//! A value that is read piece by piece.

use std::{
    collections::VecDeque,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    core::{Given, Outcome, PieceRequest, Request},
    error::{ReadError, SubmitError},
    model::{Digester, Key, NodeId, Record, Version},
    node::Node,
    operations::{Prepare, Prepared, start},
    pending::Pending,
};

/// What is read from storage at once.
const LOCAL_BYTES: usize = 256 << 10;
/// What an owner is asked for at once; it gives less where its messages are shorter.
const REMOTE_BYTES: usize = 64 << 10;
/// Pieces that are asked for ahead.
const MAX_AHEAD: usize = 8;

/// Reads one version of a key, of any length: [`Node::reader`].
///
/// Reads this node's storage on the caller's thread or, where this node does not hold the version (any
/// more), asks its owners for pieces: nothing is kept here, and no more than about half a MiB is held.
/// Seeking costs nothing, so a part is read without the rest.
///
/// All bytes are of one version. Where that is replaced or deleted meanwhile and nobody has it any more,
/// reading ends with an error around [`ReadError::Replaced`]. What is read from its start to its end is
/// checked: the last piece is handed out only if the digest fits.
pub struct ValueReader {
    node: Node,
    key: Key,
    version: Arc<Version>,
    at: u64,
    /// The bytes at hand, and where they stand.
    piece: Bytes,
    piece_at: u64,
    /// The digest of what was read from the start on without a gap, and how far that is.
    checked: Option<(Digester, u64)>,
    is_elsewhere: bool,
    ahead: VecDeque<(u64, Pending<Given, ReadError>)>,
    from: Option<NodeId>,
    /// What an owner gives at once, once that is known.
    remote_bytes: Option<usize>,
}

impl ValueReader {
    pub(crate) fn new(node: Node, key: Key, record: &Record) -> Self {
        Self {
            node,
            key,
            version: record.version.clone(),
            at: 0,
            piece: record.value.clone().unwrap_or_default(),
            piece_at: 0,
            checked: record.value.is_none().then(Default::default),
            is_elsewhere: false,
            ahead: VecDeque::new(),
            from: None,
            remote_bytes: None,
        }
    }

    /// What is known of the value.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.version.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.version.len == 0
    }

    fn at_hand(&self) -> &[u8] {
        let skipped = self.at.checked_sub(self.piece_at).and_then(|n| usize::try_from(n).ok());
        skipped.and_then(|n| self.piece.get(n..)).unwrap_or_default()
    }

    fn load(&mut self) -> io::Result<()> {
        let piece = match self.read_here() {
            Some(piece) => piece,
            None => self.read_elsewhere()?,
        };
        self.check(&piece)?;
        (self.piece, self.piece_at) = (piece, self.at);
        Ok(())
    }

    fn read_here(&mut self) -> Option<Bytes> {
        if self.is_elsewhere {
            return None;
        }
        let left = usize::try_from(self.version.len - self.at).unwrap_or(usize::MAX);
        let storage = self.node.storage();
        match storage.read_piece(&self.key, self.version.dot, self.at, left.min(LOCAL_BYTES)) {
            Ok(piece) if !piece.is_empty() => return Some(piece),
            Err(crate::storage::StorageError::Missing) => {}
            Ok(_) => log::error!("{:?} {} is shorter here than it was written", self.key, self.version.dot),
            Err(error) => log::error!("reading {:?} here failed, asking others: {error}", self.key),
        }
        self.is_elsewhere = true;
        None
    }

    fn read_elsewhere(&mut self) -> io::Result<Bytes> {
        let at = self.at;
        if self.ahead.front().is_some_and(|(offset, _)| *offset != at) {
            self.ahead.clear();
        }
        // One at first, until it is known how long they are.
        let count = self.remote_bytes.map_or(1, |_| MAX_AHEAD);
        let each = self.remote_bytes.unwrap_or(REMOTE_BYTES);
        while self.ahead.len() < count {
            let offset = at + (self.ahead.len() * each) as u64;
            if offset >= self.version.len {
                break;
            }
            let (key, version, first) = (self.key.clone(), self.version.clone(), self.from);
            let request = PieceRequest { key, version, offset, len: each, first };
            match start(Piece { node: self.node.clone(), request }) {
                Ok(pending) => self.ahead.push_back((offset, pending)),
                Err(SubmitError::Busy) if !self.ahead.is_empty() => break,
                Err(error) => return Err(io::Error::other(ReadError::Refused(error))),
            }
        }
        let (_, pending) = self.ahead.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
        let Given { bytes, by } = pending.wait().map_err(io::Error::other)?;
        self.from = Some(by);
        if bytes.len() != each && at + (bytes.len() as u64) < self.version.len {
            // The others were asked for in the wrong places.
            self.ahead.clear();
        }
        self.remote_bytes = Some(bytes.len().clamp(1, each));
        Ok(bytes)
    }

    /// Takes what was read from the start into the digest, which has to fit before the end is shown.
    fn check(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some((digester, end)) = &mut self.checked else { return Ok(()) };
        if *end != self.at {
            return Ok(());
        }
        digester.add(piece);
        *end += piece.len() as u64;
        if *end == self.version.len && digester.digest() != self.version.digest {
            let text = format!("the value of {:?} {} fails its digest", self.key, self.version.dot);
            return Err(io::Error::new(io::ErrorKind::InvalidData, ReadError::Storage(text)));
        }
        Ok(())
    }
}

impl Read for ValueReader {
    /// Reads on. May wait for storage, or for an owner: not for closures that run on the node's loop.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.version.len || buffer.is_empty() {
            return Ok(0);
        }
        if self.at_hand().is_empty() {
            self.load()?;
        }
        let there = self.at_hand();
        let len = there.len().min(buffer.len());
        buffer[..len].copy_from_slice(&there[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for ValueReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.version.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// A piece of an owner's copy.
struct Piece {
    node: Node,
    request: PieceRequest,
}

impl Prepare for Piece {
    type Ok = Given;
    type Error = ReadError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let bytes = self.request.len as u64;
        Ok(Prepared::Ask(Request::Piece(self.request), bytes))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<Given, ReadError> {
        match outcome {
            Outcome::Piece(result) => result,
            _ => Err(ReadError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}
