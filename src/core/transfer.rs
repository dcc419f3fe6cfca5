//! Long values: pulled by the receiver in pieces, staged, verified, then kept like any write.
//!
//! ```text
//! offer (Write without value) ──> fetch: window of Fetch{offset} ──> Piece ──> storage.stage
//!                                      all staged ──> write::accept(Commit) ──> WriteAck::Stored
//! ```
//!
//! Needs neither memory for the whole value nor a transport that never loses: a piece that does
//! not come is asked for again, of the next node that offered the value if the first is silent.
//! Length and digest are checked by the commit; a value that does not fit them is discarded.
//!
//! Limits: values at once (`max_transfers`), pieces at once of each, pieces staged and not
//! confirmed count as on their way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Core, Purpose, Timer, Work,
    write::{Content, Waiter},
};
use crate::{
    config::MAX_VALUE_BYTES,
    model::{Dot, Key, NodeId, Version},
    storage::{Change, StageId},
    wire::{AckStatus, Message},
};

/// Pieces of one value on their way at once.
const WINDOW_PIECES: usize = 16;
/// Patience with one piece; doubled with each try.
const PIECE_MS: u64 = 300;
/// Times that a piece is asked for before the source is given up.
const MAX_TRIES: u32 = 6;
/// Bytes of a message around the piece that it carries.
pub(super) const AROUND_PIECE_BYTES: usize = 64;
/// The most that a peer gets per piece, whatever it asks for.
const MAX_PIECE_BYTES: usize = 1 << 20;

/// The values being fetched.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    running: BTreeMap<Dot, Transfer>,
    tags: BTreeMap<u64, Dot>,
}

#[derive(Debug)]
struct Transfer {
    key: Key,
    version: Arc<Version>,
    stage: StageId,
    sources: Vec<NodeId>,
    waiters: Vec<Waiter>,
    next_offset: u64,
    /// By offset: pieces asked for or being staged.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Debug)]
struct Piece {
    tag: u64,
    len: usize,
    tries: u32,
    due_ms: u64,
    staging: bool,
}

impl Transfers {
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Keys of which a value is being fetched.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.values().map(|transfer| &transfer.key)
    }

    /// Whether the value of this version is on its way.
    pub(crate) fn is_fetching(&self, dot: Dot) -> bool {
        self.running.contains_key(&dot)
    }
}

impl Core {
    /// Begins to fetch a value that `from` has; `tag` is acknowledged when it is stored.
    pub(super) fn fetch(
        &mut self,
        from: NodeId,
        tag: Option<u64>,
        key: Key,
        version: Arc<Version>,
    ) -> AckStatus {
        if version.len == 0 || version.len > MAX_VALUE_BYTES {
            return AckStatus::Failed;
        }
        let waiter = tag.map_or(Waiter::Nobody, |tag| Waiter::Peer(from, tag));
        if let Some(transfer) = self.transfers.running.get_mut(&version.dot) {
            if !transfer.waiters.contains(&waiter) {
                transfer.waiters.push(waiter);
            }
            if !transfer.sources.contains(&from) {
                transfer.sources.push(from);
            }
            return AckStatus::Fetching;
        }
        if self.transfers.len() >= self.config.max_transfers {
            return AckStatus::Busy;
        }
        let (dot, stage) = (version.dot, StageId(self.fresh_id()));
        let transfer = Transfer {
            key,
            version,
            stage,
            sources: vec![from],
            waiters: vec![waiter],
            next_offset: 0,
            pieces: BTreeMap::new(),
        };
        self.transfers.running.insert(dot, transfer);
        self.fill_window(dot);
        AckStatus::Fetching
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, tag: u64, key: Key, dot: Dot, offset: u64, len: u32) {
        let len = (len as usize).min(self.piece_bytes());
        if self.is_disk_busy() {
            return; // It asks again.
        }
        if self.index.find(&key, dot).is_none() || self.is_doubted(&key) {
            return self.send(from, Message::Piece { tag, offset, bytes: None });
        }
        self.work(Purpose::Piece { peer: from, tag, offset }, Work::Piece { key, dot, offset, len });
    }

    pub(super) fn piece_loaded(&mut self, to: NodeId, tag: u64, offset: u64, result: Result<Bytes, String>) {
        let bytes = match result {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.counters.storage_failed += 1;
                self.notice(format!("a piece for {to} can't be read: {error}"));
                None
            }
        };
        self.send(to, Message::Piece { tag, offset, bytes });
    }

    pub(super) fn on_piece(&mut self, from: NodeId, tag: u64, offset: u64, bytes: Option<Bytes>) {
        let Some(dot) = self.transfers.tags.get(&tag).copied() else { return };
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        let Some(piece) = transfer.pieces.get_mut(&offset).filter(|p| p.tag == tag && !p.staging) else {
            return;
        };
        match bytes {
            Some(bytes) if !bytes.is_empty() && bytes.len() <= piece.len => {
                let rest = piece.len - bytes.len();
                (piece.len, piece.staging) = (bytes.len(), true);
                self.transfers.tags.remove(&tag);
                // It is there, and slow: what else it was asked for is soon asked for again.
                let soon_ms = self.now.mono_ms + PIECE_MS;
                for piece in transfer.pieces.values_mut().filter(|p| !p.staging && p.tries > 1) {
                    (piece.tries, piece.due_ms) = (1, piece.due_ms.min(soon_ms));
                }
                self.timers.set_earlier(Timer::Transfer, soon_ms);
                let (key, stage) = (transfer.key.clone(), transfer.stage);
                if rest > 0 {
                    // The source's messages are shorter than ours.
                    self.ask_piece(dot, offset + bytes.len() as u64, rest);
                }
                self.work(Purpose::Stage { dot, offset }, Work::Stage { key, stage, offset, bytes });
            }
            // It is not there any more, or not as long as its version says.
            _ => self.give_up_source(dot, from),
        }
    }

    pub(super) fn staged(&mut self, dot: Dot, offset: u64, result: Result<(), String>) {
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        transfer.pieces.remove(&offset);
        if let Err(error) = result {
            self.counters.storage_failed += 1;
            self.notice(format!("a fetched piece can't be kept: {error}"));
            return self.abandon(dot, AckStatus::Failed);
        }
        if transfer.pieces.is_empty() && transfer.next_offset >= transfer.version.len {
            return self.commit(dot);
        }
        self.fill_window(dot);
    }

    pub(super) fn retry_transfers(&mut self) {
        let now_ms = self.now.mono_ms;
        let dots: Vec<Dot> = self.transfers.running.keys().copied().collect();
        for dot in dots {
            let Some(transfer) = self.transfers.running.get_mut(&dot) else { continue };
            let source = transfer.sources[0];
            let mut again = Vec::new();
            let mut silent = false;
            for (offset, piece) in
                transfer.pieces.iter_mut().filter(|(_, p)| !p.staging && p.due_ms <= now_ms)
            {
                silent |= piece.tries >= MAX_TRIES;
                piece.due_ms = now_ms + (PIECE_MS << piece.tries.min(MAX_TRIES));
                piece.tries += 1;
                again.push((piece.tag, *offset, piece.len));
            }
            let key = transfer.key.clone();
            if silent {
                self.give_up_source(dot, source);
                continue;
            }
            for (tag, offset, len) in again {
                let message = Message::Fetch { tag, key: key.clone(), dot, offset, len: len as u32 };
                self.send(source, message);
            }
        }
        self.arm_transfers();
    }

    /// A peer went down: fetch from others what was fetched from it.
    pub(super) fn transfers_lost(&mut self, peer: NodeId) {
        let from = |t: &Transfer| t.sources.contains(&peer);
        let dots: Vec<Dot> =
            self.transfers.running.iter().filter(|(_, t)| from(t)).map(|(d, _)| *d).collect();
        dots.into_iter().for_each(|dot| self.give_up_source(dot, peer));
    }

    fn fill_window(&mut self, dot: Dot) {
        let max_len = self.piece_bytes() as u64;
        loop {
            let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
            let (offset, total) = (transfer.next_offset, transfer.version.len);
            if offset >= total || transfer.pieces.len() >= WINDOW_PIECES {
                return self.arm_transfers();
            }
            let len = max_len.min(total - offset) as usize;
            transfer.next_offset += len as u64;
            self.ask_piece(dot, offset, len);
        }
    }

    fn ask_piece(&mut self, dot: Dot, offset: u64, len: usize) {
        let (tag, due_ms) = (self.fresh_id(), self.now.mono_ms + PIECE_MS);
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        transfer.pieces.insert(offset, Piece { tag, len, tries: 1, due_ms, staging: false });
        self.transfers.tags.insert(tag, dot);
        let (source, key) = (transfer.sources[0], transfer.key.clone());
        self.send(source, Message::Fetch { tag, key, dot, offset, len: len as u32 });
    }

    /// Goes on with the next source from where this one stopped, or ends the transfer.
    fn give_up_source(&mut self, dot: Dot, source: NodeId) {
        let now_ms = self.now.mono_ms;
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        let first = transfer.sources[0] == source;
        transfer.sources.retain(|id| *id != source);
        if transfer.sources.is_empty() {
            return self.abandon(dot, AckStatus::Busy);
        }
        if first {
            for piece in transfer.pieces.values_mut().filter(|p| !p.staging) {
                (piece.tries, piece.due_ms) = (0, now_ms);
            }
            self.timers.set_earlier(Timer::Transfer, now_ms);
        }
    }

    fn commit(&mut self, dot: Dot) {
        let Some(transfer) = self.remove_transfer(dot) else { return };
        self.counters.fetched += 1;
        let Transfer { key, version, stage, waiters, .. } = transfer;
        let mut waiters = waiters.into_iter();
        let first = waiters.next().unwrap_or(Waiter::Nobody);
        if !matches!(self.judge(&key, &version), super::index::Verdict::New(_)) {
            // It was fetched although it is here: the copy here is damaged.
            let (key, replaces) = (key.clone(), Vec::new());
            let change = Change::Commit { stage, key: key.clone(), version: version.clone(), replaces };
            if !self.mend(&version, change) {
                self.discard(key, stage);
                self.read_stored(dot);
            }
        }
        self.accept(&key, version.clone(), Content::Staged(stage), first);
        for waiter in waiters {
            self.accept(&key, version.clone(), Content::Staged(stage), waiter);
        }
    }

    fn abandon(&mut self, dot: Dot, status: AckStatus) {
        let Some(transfer) = self.remove_transfer(dot) else { return };
        self.discard(transfer.key, transfer.stage);
        transfer.waiters.into_iter().for_each(|waiter| self.tell(waiter, status));
        self.read_failed(dot);
    }

    fn remove_transfer(&mut self, dot: Dot) -> Option<Transfer> {
        let transfer = self.transfers.running.remove(&dot)?;
        transfer.pieces.values().for_each(|piece| _ = self.transfers.tags.remove(&piece.tag));
        Some(transfer)
    }

    fn discard(&mut self, key: Key, stage: StageId) {
        let job = super::JobId(self.fresh_id());
        self.out.push(super::Output::Work { job, work: Work::Discard { key, stage } });
    }

    fn arm_transfers(&mut self) {
        let pieces = self.transfers.running.values().flat_map(|t| t.pieces.values());
        if let Some(due_ms) = pieces.filter(|p| !p.staging).map(|p| p.due_ms).min() {
            self.timers.set_earlier(Timer::Transfer, due_ms);
        }
    }

    fn piece_bytes(&self) -> usize {
        (self.max_message_bytes - AROUND_PIECE_BYTES).min(MAX_PIECE_BYTES)
    }
}
