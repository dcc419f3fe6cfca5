//! The end of a read by quorum: what it shows is with enough owners before it is shown.
//!
//! Owners that answered differently may do so because a write is under way, or ended as unknown. A
//! later read could meet just those that lack it, and go back in time. So a read that found such a
//! version repairs the owners that answered and ends when as many have it as it asked; a version that
//! replaced it counts. After the reads of Attiya, Bar-Noy and Dolev (1995).
//!
//! Limits: operations (see [`operations`](super::operations)); a read whose time is up ends as
//! timed out, like one that was not answered.

use std::collections::BTreeMap;

use super::{
    Core, OpId,
    operations::Operation,
    read::{ReadOperation, outcome},
};
use crate::{
    config::Read,
    core::Found,
    model::{Dot, Key, NodeId},
};

/// Reads that wait for repairs, by key.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    reads: BTreeMap<Key, Vec<OpId>>,
}

impl Core {
    /// Ends a read whose owners were repaired, or has it wait until enough of them are.
    pub(super) fn settle_read(&mut self, op: OpId, read: ReadOperation, left_ms: u64) {
        if read.read == Read::One || self.is_settled(&read) {
            let ReadOperation { key, waited, short, found: siblings, .. } = read;
            return self.finish(op, outcome(waited, Ok(Found { key, siblings, short })));
        }
        self.counters.reads_settled += 1;
        self.settling.reads.entry(read.key.clone()).or_default().push(op);
        self.keep(op, Operation::Read(Box::new(read)), left_ms);
    }

    /// An owner has stored a version, or something that replaced it.
    pub(super) fn read_acknowledged(&mut self, node: NodeId, key: &Key, dot: Dot) {
        let Some(ops) = self.settling.reads.get(key).cloned() else { return };
        for op in ops {
            let Some(read) = self.operations.read(op) else { continue };
            match read.answers.iter_mut().find(|(id, _)| *id == node) {
                Some((_, dots)) => dots.push(dot),
                None => read.answers.push((node, vec![dot])),
            }
            let left_ms = self.operations.left_ms(op, self.now.mono_ms);
            if let Some(Operation::Read(read)) = self.operations.remove(op) {
                self.forget_settling(op, key);
                match self.is_readable(&read) {
                    true => self.settle_read(op, *read, left_ms),
                    false => self.read_again(op, *read, left_ms),
                }
            }
        }
    }

    pub(super) fn forget_settling(&mut self, op: OpId, key: &Key) {
        if let Some(ops) = self.settling.reads.get_mut(key) {
            ops.retain(|waiting| *waiting != op);
            if ops.is_empty() {
                self.settling.reads.remove(key);
            }
        }
    }

    /// Whether as many owners as were asked for have each version that was found.
    fn is_settled(&self, read: &ReadOperation) -> bool {
        let has = |id: &NodeId, dot: Dot| {
            let told = read.answers.iter().any(|(node, dots)| node == id && dots.contains(&dot));
            told || (*id == self.me && self.index.knows(&read.key, dot))
        };
        read.found.records().iter().all(|record| {
            let owners = self.placement.owners(read.key.hash64(), record.version.mirrors);
            let needed = if read.read == Read::All { owners.len() } else { owners.len() / 2 + 1 };
            owners.filter(|id| has(id, record.version.dot)).count() >= needed
        })
    }
}
