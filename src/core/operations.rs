//! Operations under way: what each waits for, and when its time is up.

use std::collections::BTreeSet;

use super::{
    Core, OpId, Timer, pieces::PieceOperation, read::ReadOperation, watch::WaitOperation,
    write::WriteOperation,
};
use crate::fixed_map::FixedMap;

/// An operation that could not be answered at once.
#[derive(Debug)]
pub(crate) enum Operation {
    Write(Box<WriteOperation>),
    Read(Box<ReadOperation>),
    Wait(Box<WaitOperation>),
    Piece(Box<PieceOperation>),
    /// It waits for the end of this node's departure.
    Leave,
}

/// The table. Bounded by the driver, which counts every operation from submit to outcome.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    running: FixedMap<OpId, (u64, Operation)>,
    deadlines: BTreeSet<(u64, OpId)>,
}

impl Operations {
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn write(&mut self, op: OpId) -> Option<&mut WriteOperation> {
        match self.running.get_mut(&op) {
            Some((_, Operation::Write(write))) => Some(write),
            _ => None,
        }
    }

    pub(crate) fn read(&mut self, op: OpId) -> Option<&mut ReadOperation> {
        match self.running.get_mut(&op) {
            Some((_, Operation::Read(read))) => Some(read),
            _ => None,
        }
    }

    pub(crate) fn wait(&mut self, op: OpId) -> Option<&mut WaitOperation> {
        match self.running.get_mut(&op) {
            Some((_, Operation::Wait(wait))) => Some(wait),
            _ => None,
        }
    }

    pub(crate) fn piece(&mut self, op: OpId) -> Option<&mut PieceOperation> {
        match self.running.get_mut(&op) {
            Some((_, Operation::Piece(piece))) => Some(piece),
            _ => None,
        }
    }

    /// Whether a client's write is under way.
    pub(crate) fn has_writes(&self) -> bool {
        self.all().any(|operation| matches!(operation, Operation::Write(_)))
    }

    /// Takes out those that wait for this node's departure.
    pub(crate) fn take_leaves(&mut self) -> Vec<OpId> {
        let is_leave = |(_, operation): &(u64, Operation)| matches!(operation, Operation::Leave);
        let ops: Vec<OpId> = self.running.iter().filter(|(_, o)| is_leave(o)).map(|(op, _)| *op).collect();
        ops.iter().for_each(|op| _ = self.remove(*op));
        ops
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Operation> {
        self.running.values().map(|(_, operation)| operation)
    }

    /// How much time an operation has left.
    pub(crate) fn left_ms(&self, op: OpId, now_ms: u64) -> u64 {
        self.running.get(&op).map_or(0, |(deadline_ms, _)| deadline_ms.saturating_sub(now_ms))
    }

    pub(crate) fn remove(&mut self, op: OpId) -> Option<Operation> {
        let (deadline_ms, operation) = self.running.remove(&op)?;
        self.deadlines.remove(&(deadline_ms, op));
        Some(operation)
    }
}

impl Core {
    /// Keeps an operation until `timeout_ms` from now.
    pub(super) fn keep(&mut self, op: OpId, operation: Operation, timeout_ms: u64) {
        let deadline_ms = self.now.mono_ms.saturating_add(timeout_ms);
        self.operations.running.insert(op, (deadline_ms, operation));
        self.operations.deadlines.insert((deadline_ms, op));
        self.timers.set_earlier(Timer::Operations, deadline_ms);
    }

    /// How long an operation may take that does not say.
    pub(super) fn timeout_ms(&self, asked_ms: Option<u64>) -> u64 {
        asked_ms.unwrap_or(self.config.operation_timeout.as_millis() as u64)
    }

    pub(super) fn end_late_operations(&mut self) {
        while let Some(&(deadline_ms, op)) = self.operations.deadlines.first() {
            if deadline_ms > self.now.mono_ms {
                self.timers.set_earlier(Timer::Operations, deadline_ms);
                return;
            }
            match self.operations.remove(op) {
                Some(Operation::Write(write)) => self.write_timed_out(op, *write),
                Some(Operation::Read(read)) => self.read_timed_out(op, *read),
                Some(Operation::Wait(wait)) => self.wait_timed_out(op, *wait),
                Some(Operation::Piece(piece)) => self.piece_timed_out(op, &piece),
                Some(Operation::Leave) => self.leave_timed_out(op),
                None => {}
            }
        }
    }
}
