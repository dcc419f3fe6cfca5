//! Anti-entropy: two owners compare digests, descend to where they differ, and give each other
//! what the other lacks.
//!
//! ```text
//! A  Compare{whole space}  ──>  B   equal: Compare{} back, done
//! A  <── Compare{16 parts} ──   B   parts that differ are split again, by either side in turn,
//! A  ── Compare{16 parts}  ──>  B   until few enough keys are left to name them
//! A  <── List{hash, digest} ──  B
//! A  owes B what B lacks, and asks with Want for what it lacks itself
//! ```
//!
//! Nothing is remembered between messages, so any of them may be lost: the next round finds what
//! is left. A range of several partitions counts just those that both nodes own; smaller ranges
//! lie within one partition. What is found goes the way of every copy: owed, flown, judged by
//! `write`. After range-based set reconciliation (Meyer 2022).
//!
//! Limits: ranges looked at per interval, keys per list; the rest waits for the next round.

use super::{Core, Timer};
use crate::{
    digest::{Sum, split},
    model::{Key, Mirrors, NodeId},
    wire::{HashedKey, Message, RangeDigest, RangeList},
};

/// Into how many parts a range is cut that differs.
const PARTS: u64 = 16;
/// Ranges with at most so many keys on both sides together are listed instead of cut.
const MAX_LIST_KEYS: u64 = 32;
/// Keys looked at of a range that a peer lists. It lists ranges with few keys only; one that grew
/// since then is cut anew in the next round.
pub(super) const MAX_HELD_KEYS: usize = 1_024;
/// Ranges looked at per sync interval, however many differ: what bounds the cost of a permanent
/// difference, and of a peer that asks without end.
const MAX_RANGES_PER_INTERVAL: u64 = 100_000;
/// Bytes of a range or of a listed key in a message, at most.
const RANGE_BYTES: usize = 48;
/// Versions younger than this are taken to be still on their way.
const FRESH_MS: u64 = 1_000;

/// The budget of the current interval.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    looked_at: u64,
}

impl Core {
    pub(super) fn start_sync(&mut self) {
        if self.config.active_sync {
            let interval_ms = self.config.sync_interval.as_millis() as u64;
            let first_ms = self.chance.below(interval_ms);
            self.timers.set(Timer::Sync, self.now.mono_ms + first_ms);
        }
    }

    pub(super) fn begin_sync_round(&mut self) {
        let interval_ms = self.config.sync_interval.as_millis() as u64;
        self.timers.set(Timer::Sync, self.now.mono_ms + interval_ms);
        self.sync.looked_at = 0;
        let up: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        if !up.is_empty() {
            let peer = *self.chance.pick(&up);
            self.sync_with(peer);
        }
    }

    /// Compares everything that this node and a peer own together.
    pub(super) fn sync_with(&mut self, peer: NodeId) {
        if !self.config.active_sync {
            return;
        }
        self.counters.sync_rounds += 1;
        let mut trees = self.index.trees().mirrors();
        // A node that lost its disk has no trees and asks for the usual one.
        let usual = self.placement.effective(self.config.mirrors);
        for mirrors in [usual, Mirrors::ALL] {
            if !trees.contains(&mirrors) {
                trees.push(mirrors);
            }
        }
        let whole = |mirrors| self.range_digest(peer, mirrors, 0, u64::MAX);
        let ranges: Vec<RangeDigest> = trees.into_iter().filter_map(whole).collect();
        self.send_compare(peer, ranges);
    }

    pub(super) fn on_compare(&mut self, from: NodeId, theirs: &[RangeDigest]) {
        if theirs.is_empty() {
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.synced_ms = Some(self.now.mono_ms);
            }
            return;
        }
        let (mut parts, mut lists) = (Vec::new(), Vec::new());
        for range in theirs {
            self.sync.looked_at += 1;
            let RangeDigest { mirrors, low, high, .. } = *range;
            if self.sync.looked_at > MAX_RANGES_PER_INTERVAL || !self.config.active_sync {
                return;
            }
            let Some(mine) = self.range_digest(from, mirrors, low, high) else { continue };
            if mine == *range {
                continue;
            }
            if mine.keys.saturating_add(range.keys) <= MAX_LIST_KEYS || low == high {
                lists.push(self.list(from, mirrors, low, high));
            } else {
                let cut = |(low, high)| self.range_digest(from, mirrors, low, high);
                let whole = split(low, high, PARTS);
                #[cfg(turbopump_mutation = "range_cut_short")]
                let whole = whole.take(PARTS as usize - 1);
                parts.extend(whole.filter_map(cut));
            }
        }
        let is_whole = |r: &RangeDigest| (r.low, r.high) == (0, u64::MAX);
        if parts.is_empty() && lists.is_empty() && theirs.iter().all(is_whole) {
            self.send(from, Message::Compare { ranges: Vec::new() });
            return;
        }
        self.send_compare(from, parts);
        self.send_lists(from, lists);
    }

    pub(super) fn on_list(&mut self, from: NodeId, theirs: &[RangeList]) {
        for RangeList { mirrors, low, high, keys } in theirs {
            self.sync.looked_at += 1;
            if self.sync.looked_at > MAX_RANGES_PER_INTERVAL || !self.config.active_sync {
                return;
            }
            let mine = self.list(from, *mirrors, *low, *high).keys;
            if mine.len() > MAX_HELD_KEYS {
                continue;
            }
            let to_give: Vec<u64> = mine.iter().filter(|k| !keys.contains(k)).map(|k| k.hash).collect();
            let wanted: Vec<u64> = keys.iter().filter(|k| !mine.contains(k)).map(|k| k.hash).collect();
            self.on_want(from, *mirrors, &to_give);
            let per_message = (self.max_message_bytes / RANGE_BYTES).max(1);
            for hashes in wanted.chunks(per_message) {
                self.counters.sync_repaired += hashes.len() as u64;
                self.send(from, Message::Want { mirrors: *mirrors, hashes: hashes.to_vec() });
            }
        }
    }

    /// Owes a peer the keys with these hashes.
    pub(super) fn on_want(&mut self, from: NodeId, mirrors: Mirrors, hashes: &[u64]) {
        for hash in hashes {
            let keys: Vec<Key> =
                self.index.range(mirrors, *hash, *hash).map(|(_, key, _)| key.clone()).collect();
            for key in keys {
                if !self.is_fresh(&key) {
                    self.counters.sync_repaired += 1;
                    self.owe(from, &key);
                }
            }
        }
    }

    /// Whether a key was written so lately that its copies are probably on their way.
    fn is_fresh(&self, key: &Key) -> bool {
        let wall_ms = self.now.wall_ms;
        let young = |at: u64| at <= wall_ms && wall_ms - at < FRESH_MS;
        self.config.write_chaining && self.index.stored(key).any(|v| young(v.written_ms))
    }

    /// The digest of a range as far as a peer and this node both own it. `None` for a range that
    /// is neither whole partitions nor within one.
    fn range_digest(&self, peer: NodeId, mirrors: Mirrors, low: u64, high: u64) -> Option<RangeDigest> {
        if low > high {
            return None;
        }
        let (first, last) = (self.partitions.of(low), self.partitions.of(high));
        let whole = self.partitions.bounds(first).0 == low && self.partitions.bounds(last).1 == high;
        let mut sum = Sum::default();
        if whole {
            for (partition, part) in self.index.trees().sums(mirrors, first.0, last.0) {
                if self.shared(peer, mirrors, crate::partition::Partition(partition)) {
                    sum.keys += part.keys;
                    sum.sum = sum.sum.wrapping_add(part.sum);
                }
            }
        } else if first != last {
            return None;
        } else if self.shared(peer, mirrors, first) {
            sum = self.index.sum(mirrors, low, high);
        }
        Some(RangeDigest { mirrors, low, high, keys: sum.keys, sum: sum.sum })
    }

    fn list(&self, peer: NodeId, mirrors: Mirrors, low: u64, high: u64) -> RangeList {
        let shared = |hash| self.shared(peer, mirrors, self.partitions.of(hash));
        let all = self.index.range(mirrors, low, high).filter(|(hash, ..)| shared(*hash));
        let keys = all.map(|(hash, _, digest)| HashedKey { hash, digest }).take(MAX_HELD_KEYS + 1).collect();
        RangeList { mirrors, low, high, keys }
    }

    fn shared(&self, peer: NodeId, mirrors: Mirrors, partition: crate::partition::Partition) -> bool {
        let mut owners = self.placement.owners_of(partition, mirrors);
        let both = owners.clone().any(|id| id == self.me);
        both && owners.any(|id| id == peer)
    }

    fn send_compare(&mut self, to: NodeId, ranges: Vec<RangeDigest>) {
        let per_message = (self.max_message_bytes / RANGE_BYTES).max(1);
        for ranges in ranges.chunks(per_message) {
            self.send(to, Message::Compare { ranges: ranges.to_vec() });
        }
    }

    fn send_lists(&mut self, to: NodeId, lists: Vec<RangeList>) {
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        for list in lists {
            let size = RANGE_BYTES * (1 + list.keys.len());
            if bytes + size > self.max_message_bytes && !ranges.is_empty() {
                self.send(to, Message::List { ranges: std::mem::take(&mut ranges) });
                bytes = 0;
            }
            bytes += size;
            ranges.push(list);
        }
        if !ranges.is_empty() {
            self.send(to, Message::List { ranges });
        }
    }
}
