//! Counts of a node, from all its tables.

use super::{Core, Stats};

impl Core {
    /// As of now.
    pub(crate) fn stats(&self) -> Stats {
        let peers: Vec<_> = self.peers.iter().map(|(id, p)| p.stats(*id, self.now.mono_ms)).collect();
        Stats {
            keys: self.index.keys(),
            tombstones: self.index.tombstones(),
            members: self.members.present().count(),
            owed: peers.iter().map(|p| p.owed).sum(),
            handoff: self.handoff.len(),
            moving_percent: self.handoff.percent(),
            safe_to_stop: self.is_safe_to_stop(),
            standing: self.standing(),
            operations: self.operations.len(),
            transfers: self.transfers.len(),
            fetches: self.transfers.stats(),
            doubts: self.books.wanted.doubts,
            oldest_tombstone_ms: self
                .index
                .oldest_tombstone_ms()
                .map(|at_ms| self.now.wall_ms.saturating_sub(at_ms)),
            burial_waits_for: if self.index.tombstones() > 0 { self.burial.blockers() } else { Vec::new() },
            counters: self.counters,
            peers,
        }
    }
}
