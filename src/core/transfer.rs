//! Long values: pulled by the receiver in pieces, staged, verified, then kept like any write.
//!
//! ```text
//! offer (Write without value) ──> resume ──> fetch: window of Fetch{offset} ──> Piece ──> storage.stage
//!                                                all staged ──> write::accept(Commit) ──> WriteAck::Stored
//! ```
//!
//! Needs neither memory for the whole value nor a transport that never loses: a piece that does
//! not come is asked for again, of the next node that offered the value if the first is silent.
//! Length and digest are checked by the commit; a value that does not fit them is discarded.
//!
//! **The window.** Pieces on their way to one node share `MAX_FLYING_BYTES`. Within its share, the window
//! of a value grows while its pieces come back nearly as fast as the fastest did, and shrinks when they
//! queue up somewhere: what queues would hold up small writes on the same links and disks.
//!
//! **Going on.** Where no source is left, the stage is parked: as soon as the version is offered again,
//! fetching goes on where it stopped. Storage may find a stage again after a restart of this node.
//!
//! Limits: values at once (`max_transfers`), bytes of pieces on their way; pieces staged and not
//! confirmed count as on their way. Parked stages and how long they wait; pieces being read for others.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{Content, Core, FetchStats, Purpose, Timer, Work, write::Waiter};
use crate::{
    config::MAX_STREAM_BYTES,
    model::{Dot, Key, NodeId, Version},
    storage::{Change, StageId},
    wire::{AckStatus, Message},
};

/// Bytes of pieces on their way to this node at once, of all values.
const MAX_FLYING_BYTES: usize = 4 << 20;
/// Pieces of one value on their way at first; and how few they may become.
const FIRST_PIECES: usize = 16;
const MIN_PIECES: usize = 2;
/// By how much later than the fastest a piece may come before that counts as queueing.
const QUEUE_MS: u64 = 20;
/// Patience with one piece; doubled with each try.
const PIECE_MS: u64 = 300;
/// Times that a piece is asked for before the source is given up.
const MAX_TRIES: u32 = 6;
/// Bytes of a message around the piece that it carries.
pub(super) const AROUND_PIECE_BYTES: usize = 64;
/// The most that a peer gets per piece, whatever it asks for.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// Bytes of pieces being read for others at once; who asks for more asks again.
const MAX_SERVED_BYTES: usize = 16 << 20;
/// A value of fewer pieces is fetched from its start: to look for what is left of it does not pay.
const MIN_RESUMED_PIECES: u64 = 4;
/// Stages that wait for a source, and for how long. Past it the oldest is discarded.
const MAX_PARKED: usize = 16;
const PARKED_MS: u64 = 3_600_000;

/// The values being fetched.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    running: BTreeMap<Dot, Transfer>,
    tags: BTreeMap<u64, Dot>,
    parked: BTreeMap<Dot, Parked>,
    /// Pieces being read for others.
    serving: usize,
}

#[derive(Debug)]
struct Transfer {
    key: Key,
    version: Arc<Version>,
    stage: StageId,
    sources: Vec<NodeId>,
    waiters: Vec<Waiter>,
    /// Whether it is known where to begin.
    is_open: bool,
    next_offset: u64,
    staged_bytes: u64,
    /// By offset: pieces asked for or being staged.
    pieces: BTreeMap<u64, Piece>,
    window: Window,
}

#[derive(Debug)]
struct Piece {
    tag: u64,
    len: usize,
    tries: u32,
    asked_ms: u64,
    due_ms: u64,
    staging: bool,
}

/// How many pieces of a value may be on their way.
#[derive(Debug)]
struct Window {
    pieces: usize,
    fastest_ms: u64,
}

/// What is left of a value without a source.
#[derive(Debug)]
struct Parked {
    key: Key,
    version: Arc<Version>,
    stage: StageId,
    is_open: bool,
    from: u64,
    until_ms: u64,
}

impl Window {
    fn new() -> Self {
        Self { pieces: FIRST_PIECES, fastest_ms: u64::MAX }
    }

    fn came(&mut self, after_ms: u64, max_pieces: usize) {
        self.fastest_ms = self.fastest_ms.min(after_ms);
        self.pieces = match after_ms <= self.fastest_ms + QUEUE_MS {
            true => (self.pieces + 1).min(max_pieces),
            false => (self.pieces - 1).max(MIN_PIECES),
        };
    }

    fn lost(&mut self) {
        self.pieces = (self.pieces / 2).max(MIN_PIECES);
    }
}

impl Transfers {
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Keys of which a value is being fetched.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.values().map(|transfer| &transfer.key)
    }

    /// How far each is.
    pub(crate) fn stats(&self) -> Vec<FetchStats> {
        let stats = |transfer: &Transfer| FetchStats {
            key: transfer.key.clone(),
            version: transfer.version.dot,
            from: transfer.sources[0],
            done_bytes: transfer.staged_bytes,
            total_bytes: transfer.version.len,
        };
        self.running.values().map(stats).collect()
    }

    /// Whether the value of this version is on its way.
    pub(crate) fn is_fetching(&self, dot: Dot) -> bool {
        self.running.contains_key(&dot)
    }
}

impl Core {
    /// Begins to fetch a value that `from_node` has; `tag` is acknowledged when it is stored.
    pub(super) fn fetch(
        &mut self,
        from_node: NodeId,
        tag: Option<u64>,
        key: Key,
        version: Arc<Version>,
    ) -> AckStatus {
        if version.len == 0 || version.len > MAX_STREAM_BYTES {
            return AckStatus::Failed;
        }
        let waiter = tag.map_or(Waiter::Nobody, |tag| Waiter::Peer(from_node, tag));
        if let Some(transfer) = self.transfers.running.get_mut(&version.dot) {
            if !transfer.waiters.contains(&waiter) {
                transfer.waiters.push(waiter);
            }
            if !transfer.sources.contains(&from_node) {
                transfer.sources.push(from_node);
            }
            return AckStatus::Fetching;
        }
        if self.transfers.len() >= self.config.max_transfers || self.removed {
            return self.without_room(&key, &version);
        }
        let dot = version.dot;
        let parked = self.transfers.parked.remove(&dot).filter(|p| p.key == key && p.version == version);
        let is_short = version.len < MIN_RESUMED_PIECES * self.piece_bytes() as u64;
        let (stage, is_open, from) = match parked {
            Some(parked) => (parked.stage, parked.is_open, parked.from),
            None => (StageId(self.fresh_id()), is_short, 0),
        };
        let transfer = Transfer {
            key: key.clone(),
            version: version.clone(),
            stage,
            sources: vec![from_node],
            waiters: vec![waiter],
            is_open,
            next_offset: from,
            staged_bytes: from,
            pieces: BTreeMap::new(),
            window: Window::new(),
        };
        self.counters.resumed_bytes += from;
        self.transfers.running.insert(dot, transfer);
        match is_open {
            true => self.fill_window(dot),
            false => self.work(Purpose::Resume { dot }, Work::Resume { key, stage, version }),
        }
        AckStatus::Fetching
    }

    /// Storage says what it has of a value already.
    pub(super) fn resumed(&mut self, dot: Dot, result: Result<u64, String>) {
        let Some(transfer) = self.transfers.running.get_mut(&dot) else {
            // It lost its source meanwhile.
            if let Some(parked) = self.transfers.parked.get_mut(&dot) {
                (parked.is_open, parked.from) = (true, result.unwrap_or(0));
            }
            return;
        };
        match result {
            Ok(from) if from <= transfer.version.len => {
                transfer.is_open = true;
                (transfer.next_offset, transfer.staged_bytes) = (from, from);
                self.counters.resumed_bytes += from;
                self.go_on(dot);
            }
            Ok(from) => self.stage_failed(dot, &format!("{from} bytes of it are said to be there")),
            Err(error) => self.stage_failed(dot, &error),
        }
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, tag: u64, key: Key, dot: Dot, offset: u64, len: u32) {
        let len = (len as usize).min(self.piece_bytes());
        let is_busy = self.transfers.serving * self.piece_bytes() >= MAX_SERVED_BYTES || self.is_disk_busy();
        let is_here = self.index.holds(&key, dot);
        let is_coming = !is_here && self.index.dots(&key).any(|d| d == dot);
        if is_busy || is_coming {
            return; // It asks again.
        }
        if !is_here || self.is_doubted(&key) {
            return self.send(from, Message::Piece { tag, offset, bytes: None });
        }
        self.transfers.serving += 1;
        self.work(Purpose::Piece { peer: from, tag, offset }, Work::Piece { key, dot, offset, len });
    }

    pub(super) fn piece_loaded(&mut self, to: NodeId, tag: u64, offset: u64, result: Result<Bytes, String>) {
        self.transfers.serving -= 1;
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
        let max_pieces = self.max_pieces();
        let Some(dot) = self.transfers.tags.get(&tag).copied() else {
            return self.client_piece(from, tag, offset, bytes);
        };
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        let Some(piece) = transfer.pieces.get_mut(&offset).filter(|p| p.tag == tag && !p.staging) else {
            return;
        };
        match bytes {
            Some(bytes) if !bytes.is_empty() && bytes.len() <= piece.len => {
                let rest = piece.len - bytes.len();
                (piece.len, piece.staging) = (bytes.len(), true);
                if piece.tries == 1 {
                    transfer.window.came(self.now.mono_ms - piece.asked_ms, max_pieces);
                }
                self.counters.fetched_bytes += bytes.len() as u64;
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
                self.work(Purpose::Stage { dot, offset, tag }, Work::Stage { key, stage, offset, bytes });
            }
            // It is not there any more, or not as long as its version says.
            _ => self.give_up_source(dot, from),
        }
    }

    pub(super) fn staged(&mut self, dot: Dot, offset: u64, tag: u64, result: Result<(), String>) {
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        // One that was parked and taken up meanwhile asks again for what was not staged by then.
        let Some(piece) = transfer.pieces.get(&offset).filter(|piece| piece.tag == tag) else { return };
        transfer.staged_bytes += piece.len as u64;
        transfer.pieces.remove(&offset);
        match result {
            Ok(()) => self.go_on(dot),
            Err(error) => self.stage_failed(dot, &error),
        }
    }

    pub(super) fn retry_transfers(&mut self) {
        let now_ms = self.now.mono_ms;
        let dots: Vec<Dot> = self.transfers.running.keys().copied().collect();
        for dot in dots {
            let Some(transfer) = self.transfers.running.get_mut(&dot) else { continue };
            let source = transfer.sources[0];
            let mut again = Vec::new();
            let (mut silent, mut late) = (false, false);
            for (offset, piece) in
                transfer.pieces.iter_mut().filter(|(_, p)| !p.staging && p.due_ms <= now_ms)
            {
                silent |= piece.tries >= MAX_TRIES;
                late |= piece.tries > 0;
                piece.due_ms = now_ms + (PIECE_MS << piece.tries.min(MAX_TRIES));
                piece.tries += 1;
                again.push((piece.tag, *offset, piece.len));
            }
            if late {
                transfer.window.lost();
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
        self.drop_parked();
        self.arm_transfers();
    }

    /// A peer went down: fetch from others what was fetched from it.
    pub(super) fn transfers_lost(&mut self, peer: NodeId) {
        let from = |t: &Transfer| t.sources.contains(&peer);
        let dots: Vec<Dot> =
            self.transfers.running.iter().filter(|(_, t)| from(t)).map(|(d, _)| *d).collect();
        dots.into_iter().for_each(|dot| self.give_up_source(dot, peer));
    }

    fn go_on(&mut self, dot: Dot) {
        let Some(transfer) = self.transfers.running.get(&dot) else { return };
        match transfer.pieces.is_empty() && transfer.next_offset >= transfer.version.len {
            true => self.commit(dot),
            false => self.fill_window(dot),
        }
    }

    fn fill_window(&mut self, dot: Dot) {
        let (max_len, max_pieces) = (self.piece_bytes() as u64, self.max_pieces());
        let mut flying: usize = self.transfers.running.values().map(|t| t.pieces.len()).sum();
        loop {
            let is_full = flying * self.piece_bytes() >= MAX_FLYING_BYTES;
            let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
            let (offset, total) = (transfer.next_offset, transfer.version.len);
            let room = if is_full { MIN_PIECES } else { transfer.window.pieces.min(max_pieces) };
            if offset >= total || transfer.pieces.len() >= room {
                return self.arm_transfers();
            }
            flying += 1;
            let len = max_len.min(total - offset) as usize;
            transfer.next_offset += len as u64;
            self.ask_piece(dot, offset, len);
        }
    }

    fn ask_piece(&mut self, dot: Dot, offset: u64, len: usize) {
        let (tag, due_ms) = (self.fresh_id(), self.now.mono_ms + PIECE_MS);
        let Some(transfer) = self.transfers.running.get_mut(&dot) else { return };
        let asked_ms = self.now.mono_ms;
        transfer.pieces.insert(offset, Piece { tag, len, tries: 1, asked_ms, due_ms, staging: false });
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
            return self.park(dot);
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
        let content = Content::Staged { stage, len: version.len };
        self.accept(&key, version.clone(), content.clone(), first);
        for waiter in waiters {
            self.accept(&key, version.clone(), content.clone(), waiter);
        }
    }

    /// Storage can't keep it.
    fn stage_failed(&mut self, dot: Dot, error: &str) {
        self.counters.storage_failed += 1;
        self.notice(format!("a value that is being fetched can't be kept: {error}"));
        let Some(transfer) = self.remove_transfer(dot) else { return };
        self.discard(transfer.key, transfer.stage);
        transfer.waiters.into_iter().for_each(|waiter| self.tell(waiter, AckStatus::Failed));
        self.read_failed(dot);
    }

    /// Nobody is left to fetch it from: what is here of it waits for somebody to offer it again.
    fn park(&mut self, dot: Dot) {
        let until_ms = self.now.mono_ms + PARKED_MS;
        let Some(transfer) = self.remove_transfer(dot) else { return };
        let Transfer { key, version, stage, is_open, next_offset, pieces, waiters, .. } = transfer;
        let from = pieces.first_key_value().map_or(next_offset, |(offset, _)| *offset);
        self.transfers.parked.insert(dot, Parked { key, version, stage, is_open, from, until_ms });
        self.timers.set_earlier(Timer::Transfer, until_ms);
        self.drop_parked();
        waiters.into_iter().for_each(|waiter| self.tell(waiter, AckStatus::Busy));
        self.read_lost(dot);
    }

    fn drop_parked(&mut self) {
        loop {
            let parked = &self.transfers.parked;
            let Some((dot, oldest)) = parked.iter().min_by_key(|(_, p)| p.until_ms) else { return };
            let (dot, until_ms) = (*dot, oldest.until_ms);
            if parked.len() <= MAX_PARKED && until_ms > self.now.mono_ms {
                return self.timers.set_earlier(Timer::Transfer, until_ms);
            }
            if let Some(Parked { key, stage, .. }) = self.transfers.parked.remove(&dot) {
                self.discard(key, stage);
            }
        }
    }

    fn remove_transfer(&mut self, dot: Dot) -> Option<Transfer> {
        let transfer = self.transfers.running.remove(&dot)?;
        transfer.pieces.values().for_each(|piece| _ = self.transfers.tags.remove(&piece.tag));
        Some(transfer)
    }

    pub(super) fn discard(&mut self, key: Key, stage: StageId) {
        let job = super::JobId(self.fresh_id());
        self.out.push(super::Output::Work { job, work: Work::Discard { key, stage } });
    }

    fn arm_transfers(&mut self) {
        let pieces = self.transfers.running.values().flat_map(|t| t.pieces.values());
        if let Some(due_ms) = pieces.filter(|p| !p.staging).map(|p| p.due_ms).min() {
            self.timers.set_earlier(Timer::Transfer, due_ms);
        }
    }

    /// How many pieces of one value may be on their way, by its share.
    fn max_pieces(&self) -> usize {
        let share = MAX_FLYING_BYTES / self.transfers.len().max(1);
        (share / self.piece_bytes()).max(MIN_PIECES)
    }

    pub(super) fn piece_bytes(&self) -> usize {
        (self.max_message_bytes - AROUND_PIECE_BYTES).min(MAX_PIECE_BYTES)
    }
}
