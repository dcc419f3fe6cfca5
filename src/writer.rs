//! A value that is written piece by piece.

use std::{
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use crate::{
    core::Content,
    driver::Room,
    error::SubmitError,
    model::{Digest, Digester, Key},
    node::Node,
    operations::{Payload, Put},
    storage::{StageId, Storage},
};

/// What is collected before it goes to storage; a value that is no longer is written as a whole.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// Writers name their stages from here on; the core stays below.
pub(crate) const FIRST_STAGE: u64 = 1 << 63;

/// Writes a value of any length: [`Node::writer`].
///
/// What is written goes to storage in pieces, on the caller's thread, which waits as long as storage
/// takes: that is what keeps memory bounded (256 KiB a writer) where the disk is slower than the source.
/// Nothing of it counts, and no node sees it, before [`finish`](Self::finish) was called and the write
/// that it gives was submitted. Then it is a write like any other: stored here, fetched by its mirrors.
/// Dropped before that, all that was written is discarded.
///
/// Each takes part in the limits [`Config::max_operations`](crate::Config::max_operations) and
/// [`max_operation_bytes`](crate::Config::max_operation_bytes).
#[must_use = "nothing is kept without finish"]
pub struct ValueWriter {
    node: Node,
    key: Key,
    stage: StageId,
    is_staged: bool,
    buffer: Vec<u8>,
    digester: Digester,
    /// Bytes that are in storage.
    staged: u64,
    room: Option<Room>,
}

/// A complete value that waits for its commit. Dropped, it is discarded.
pub(crate) struct Staged {
    storage: Option<Arc<dyn Storage>>,
    stage: StageId,
    len: u64,
    pub(crate) digest: Digest,
    _room: Option<Room>,
}

impl ValueWriter {
    pub(crate) fn new(node: Node, key: Key, stage: StageId, room: Room) -> Self {
        let (buffer, digester) = (Vec::new(), Digester::default());
        Self { node, key, stage, is_staged: false, buffer, digester, staged: 0, room: Some(room) }
    }

    /// How many bytes were written.
    pub fn written_bytes(&self) -> u64 {
        self.staged + self.buffer.len() as u64
    }

    /// The value is complete: gives the write, to be completed in any of the ways of a
    /// [`put`](Node::put), with its options.
    ///
    /// # Errors
    /// Storage failed. Nothing is kept.
    pub fn finish(mut self) -> io::Result<Put> {
        let max_whole = self.node.config().max_value_bytes.min(BUFFER_BYTES as u64);
        let payload = if !self.is_staged && self.written_bytes() <= max_whole {
            Payload::Whole(std::mem::take(&mut self.buffer).into())
        } else {
            self.stage_buffer()?;
            let digest = self.digester.digest();
            Payload::Staged(self.staged(digest))
        };
        Ok(self.node.write(Ok(self.key.clone()), payload))
    }

    /// Takes all bytes of a local file, from where it stands, in place of whatever else would be written,
    /// and gives the write like [`finish`](Self::finish). Where storage and file lie on one file system
    /// that can, both share their blocks; else the system copies. The digest is that of the copy:
    /// what happens to the file afterwards does not touch the value.
    ///
    /// # Errors
    /// The file can't be read, is over the limit, or storage failed. Nothing is kept.
    pub fn import(mut self, file: &File) -> io::Result<Put> {
        let (len, max) = (file.metadata()?.len(), self.max_bytes());
        if len > max {
            return Err(too_long(max));
        }
        if len > BUFFER_BYTES as u64 && self.written_bytes() == 0 {
            self.is_staged = true;
            let imported = self.node.storage().import(self.stage, file).map_err(io::Error::other)?;
            if let Some((len, digest)) = imported {
                if len > max {
                    return Err(too_long(max));
                }
                self.staged = len;
                let payload = Payload::Staged(self.staged(digest));
                return Ok(self.node.write(Ok(self.key.clone()), payload));
            }
        }
        io::copy(&mut &*file, &mut self)?;
        self.finish()
    }

    fn max_bytes(&self) -> u64 {
        self.node.config().max_stream_bytes
    }

    fn stage_buffer(&mut self) -> io::Result<()> {
        if self.node.mailbox().is_closed() {
            return Err(io::Error::other(SubmitError::Stopping));
        }
        self.is_staged = true;
        self.digester.add(&self.buffer);
        self.node.storage().stage(self.stage, self.staged, &self.buffer).map_err(io::Error::other)?;
        self.staged += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn staged(&mut self, digest: Digest) -> Staged {
        self.is_staged = false;
        let storage = Some(self.node.storage().clone());
        Staged { storage, stage: self.stage, len: self.staged, digest, _room: self.room.take() }
    }
}

impl Write for ValueWriter {
    /// Takes bytes, and may wait for storage.
    ///
    /// # Errors
    /// [`FileTooLarge`](io::ErrorKind::FileTooLarge) past
    /// [`Config::max_stream_bytes`](crate::Config::max_stream_bytes); what storage said.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let max = self.max_bytes();
        if bytes.len() as u64 > max.saturating_sub(self.written_bytes()) {
            return Err(too_long(max));
        }
        if self.buffer.len() == BUFFER_BYTES {
            self.stage_buffer()?;
        }
        let taken = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing: there is nobody to see what is written before the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ValueWriter {
    fn drop(&mut self) {
        if self.is_staged {
            self.node.storage().discard(self.stage);
        }
    }
}

impl Staged {
    pub(crate) fn content(&self) -> Content {
        Content::Staged { stage: self.stage, len: self.len }
    }

    /// The core has it: it commits or discards it.
    pub(crate) fn hand_over(mut self) {
        self.storage = None;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(storage) = &self.storage {
            storage.discard(self.stage);
        }
    }
}

fn too_long(max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, SubmitError::StreamTooLong { max })
}
