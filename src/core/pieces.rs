//! Pieces of long values that clients of this node read from elsewhere.
//!
//! Not `transfer`, which brings whole values here to stay: nothing of these is kept. A piece is asked of
//! one owner after the other, who gave the last one first. A piece belongs to one version, by its name,
//! so what a reader gets is never a mix; where no owner has the version any more, it is told so.
//!
//! Limits: operations (see [`operations`](super::operations)), which count their bytes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Core, Given, OpId, Outcome, PieceRequest, Timer, operations::Operation};
use crate::{
    error::ReadError,
    model::{Dot, Key, NodeId},
    wire::Message,
};

/// Patience with one owner before the next one is asked, or the same one again.
const PIECE_MS: u64 = 300;
/// Times that the owners are gone through.
const MAX_ROUNDS: usize = 4;

/// Questions on their way.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    asked: BTreeMap<u64, OpId>,
}

/// A piece that is not here yet.
#[derive(Debug)]
pub(crate) struct PieceOperation {
    key: Key,
    dot: Dot,
    offset: u64,
    len: usize,
    /// In the order in which they are asked.
    owners: Vec<NodeId>,
    /// The last one that was asked.
    at: usize,
    tags: Vec<(u64, NodeId)>,
    /// These don't have it.
    without: usize,
    due_ms: u64,
}

impl Core {
    pub(super) fn submit_piece(&mut self, op: OpId, ask: PieceRequest) {
        let PieceRequest { key, version, offset, len, first } = ask;
        let owners = self.placement.owners(key.hash64(), version.mirrors);
        let mut owners: Vec<NodeId> = owners.filter(|id| self.is_up(*id)).collect();
        owners.sort_by_key(|id| Some(*id) != first);
        if owners.is_empty() {
            let error = ReadError::Unavailable { needed: 1, up: 0 };
            return self.finish(op, Outcome::Piece(Err(error)));
        }
        let (dot, len) = (version.dot, len.min(self.piece_bytes()));
        let piece =
            PieceOperation { key, dot, offset, len, owners, at: 0, tags: Vec::new(), without: 0, due_ms: 0 };
        let timeout_ms = self.timeout_ms(None);
        self.keep(op, Operation::Piece(Box::new(piece)), timeout_ms);
        self.ask_for_piece(op);
    }

    /// A piece that is none of a transfer.
    pub(super) fn client_piece(&mut self, from: NodeId, tag: u64, offset: u64, bytes: Option<Bytes>) {
        let Some(op) = self.pieces.asked.remove(&tag) else { return };
        let Some(piece) = self.operations.piece(op) else { return };
        match bytes.filter(|b| !b.is_empty() && b.len() <= piece.len && offset == piece.offset) {
            Some(bytes) => self.end_piece(op, Ok(Given { bytes, by: from })),
            None => {
                piece.without += 1;
                match piece.without >= piece.owners.len() {
                    true => self.end_piece(op, Err(ReadError::Replaced)),
                    false => self.ask_next(op),
                }
            }
        }
    }

    /// Asks again where no answer came.
    pub(super) fn retry_pieces(&mut self) {
        let mut ops: Vec<OpId> = self.pieces.asked.values().copied().collect();
        ops.sort_unstable();
        ops.dedup();
        for op in ops {
            let Some(piece) = self.operations.piece(op) else { continue };
            if piece.due_ms <= self.now.mono_ms {
                self.ask_next(op);
            } else {
                let due_ms = piece.due_ms;
                self.timers.set_earlier(Timer::Piece, due_ms);
            }
        }
    }

    /// A peer went down: it will not answer.
    pub(super) fn pieces_lost(&mut self, peer: NodeId) {
        let ops: Vec<OpId> = self.pieces.asked.values().copied().collect();
        for op in ops {
            let Some(piece) = self.operations.piece(op) else { continue };
            if piece.owners[piece.at % piece.owners.len()] == peer {
                self.ask_next(op);
            }
        }
    }

    pub(super) fn piece_timed_out(&mut self, op: OpId, piece: &PieceOperation) {
        piece.tags.iter().for_each(|(tag, _)| _ = self.pieces.asked.remove(tag));
        self.finish(op, Outcome::Piece(Err(ReadError::TimedOut { answered: 0, needed: 1 })));
    }

    fn ask_next(&mut self, op: OpId) {
        let Some(piece) = self.operations.piece(op) else { return };
        piece.at += 1;
        if piece.at >= piece.owners.len() * MAX_ROUNDS {
            let error = ReadError::TimedOut { answered: 0, needed: 1 };
            return self.end_piece(op, Err(error));
        }
        self.ask_for_piece(op);
    }

    fn ask_for_piece(&mut self, op: OpId) {
        let (tag, now_ms) = (self.fresh_id(), self.now.mono_ms);
        let Some(piece) = self.operations.piece(op) else { return };
        let rounds = piece.at / piece.owners.len();
        let owner = piece.owners[piece.at % piece.owners.len()];
        piece.due_ms = now_ms + (PIECE_MS << rounds.min(MAX_ROUNDS));
        piece.tags.push((tag, owner));
        let (key, dot, offset, len) = (piece.key.clone(), piece.dot, piece.offset, piece.len as u32);
        let due_ms = piece.due_ms;
        self.pieces.asked.insert(tag, op);
        self.timers.set_earlier(Timer::Piece, due_ms);
        self.send(owner, Message::Fetch { tag, key, dot, offset, len });
    }

    fn end_piece(&mut self, op: OpId, result: Result<Given, ReadError>) {
        if let Some(Operation::Piece(piece)) = self.operations.remove(op) {
            piece.tags.iter().for_each(|(tag, _)| _ = self.pieces.asked.remove(tag));
            self.finish(op, Outcome::Piece(result));
        }
    }
}
