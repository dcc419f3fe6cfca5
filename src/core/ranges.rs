//! What two owners say to each other of a range in which they differ; `sync` says when.
//!
//! ```text
//! few keys here ──> List   the other one gives what is not listed, and wants what it lacks
//! many          ──> Parts  the other one looks at those whose checks differ
//! ```
//!
//! Limits: keys of a list, and keys here that a list is compared with.

use std::collections::BTreeMap;

use super::{
    Core,
    sync::{Ask, Range, Salted},
};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    digest::{CHECK_BITS, PARTS, Stretch, Sum, check},
    model::{Key, Mirrors, NodeId},
    partition::Partition,
    wire::{
        CHECK_BYTES, LIST_BYTES, MAX_CHECKS_PER_LIST, Message, PARTS_PER_RANGE, RANGE_PARTS_BYTES, RangeList,
        RangeParts,
    },
};

/// Ranges with at most so many keys here are listed instead of cut: about as many checks as it
/// has parts, since both then cost alike.
const MAX_LIST_KEYS: usize = 16;
/// Keys here that a list is compared with. Where there are more, the range is cut instead.
pub(super) const MAX_HELD_KEYS: usize = 255;
/// Bytes of a message around its ranges.
pub(super) const AROUND_RANGES_BYTES: usize = 32;
/// Versions younger than this are taken to be still on their way.
const FRESH_MS: u64 = 1_000;

const _: () = assert!(MAX_LIST_KEYS <= MAX_CHECKS_PER_LIST && PARTS == PARTS_PER_RANGE);
const _: () = assert!(CHECK_BITS == crate::wire::CHECK_BITS);

/// What a step has to say, to go into few messages.
pub(super) struct Answers {
    salt: u32,
    parts: BTreeMap<(NodeId, Salted), Vec<RangeParts>>,
    lists: BTreeMap<(NodeId, Salted), Vec<RangeList>>,
    wants: BTreeMap<(NodeId, Salted), Vec<RangeList>>,
}

impl Answers {
    pub(super) fn new(salt: u32) -> Self {
        Self { salt, parts: BTreeMap::new(), lists: BTreeMap::new(), wants: BTreeMap::new() }
    }

    fn salted(&self, mirrors: Mirrors, stretch: Stretch) -> Salted {
        Salted { salt: self.salt, mirrors, bits: stretch.bits() }
    }
}

/// A key of a range.
struct Held {
    key: Key,
    digest: u64,
}

impl Core {
    /// Looks at one range. Gives how many keys that took, and the ranges to be looked at further.
    pub(super) fn compare(
        &mut self,
        peer: NodeId,
        range: Range,
        answers: &mut Answers,
    ) -> (usize, Vec<Range>) {
        let Range { mirrors, stretch, ask } = range;
        match ask {
            Ask::Open => (self.open(peer, mirrors, stretch, answers), Vec::new()),
            Ask::Parts(salt, checks) => self.compare_parts(peer, mirrors, stretch, salt, &checks, answers),
            Ask::List(salt, checks) => self.compare_list(peer, mirrors, stretch, (salt, checks), answers),
            Ask::Want(salt, checks) => (self.give_wanted(peer, mirrors, stretch, salt, &checks), Vec::new()),
        }
    }

    pub(super) fn send_answers(&mut self, answers: Answers) {
        let Answers { parts, lists, wants, .. } = answers;
        let room = self.max_message_bytes.saturating_sub(AROUND_RANGES_BYTES);
        for ((to, Salted { salt, mirrors, bits }), ranges) in parts {
            for ranges in ranges.chunks((room / RANGE_PARTS_BYTES).max(1)) {
                let ranges = ranges.to_vec();
                self.send(to, Message::Parts { salt, mirrors, bits, ranges });
            }
        }
        for ((to, Salted { salt, mirrors, bits }), ranges) in lists {
            for ranges in fitting(room, ranges) {
                self.send(to, Message::List { salt, mirrors, bits, ranges });
            }
        }
        for ((to, Salted { salt, mirrors, bits }), ranges) in wants {
            for ranges in fitting(room, ranges) {
                self.send(to, Message::Want { salt, mirrors, bits, ranges });
            }
        }
    }

    /// The sum of all keys of a tree that a peer and this node both own.
    pub(super) fn tree_sum(&self, peer: NodeId, mirrors: Mirrors) -> u64 {
        let sums = self.index.trees().sums(mirrors, 0, u32::MAX);
        let shared = sums.filter(|(partition, _)| self.shared(peer, mirrors, Partition(*partition)));
        shared.fold(0, |sum, (_, part)| sum.wrapping_add(part.sum))
    }

    /// Says what is here of a range that differs.
    fn open(&mut self, peer: NodeId, mirrors: Mirrors, stretch: Stretch, answers: &mut Answers) -> usize {
        let (sums, looked_at) = self.part_sums(peer, mirrors, stretch);
        let keys: u64 = sums.iter().map(|sum| sum.keys).sum();
        let salted = answers.salted(mirrors, stretch);
        if keys <= MAX_LIST_KEYS as u64 {
            let held = self.held_in(peer, mirrors, stretch);
            let checks = held.iter().map(|held| check(held.digest, answers.salt)).collect();
            let list = RangeList { prefix: stretch.low(), checks };
            answers.lists.entry((peer, salted)).or_default().push(list);
        } else {
            let checks = sums.map(|sum| check(sum.sum, answers.salt));
            let parts = RangeParts { prefix: stretch.low(), checks };
            answers.parts.entry((peer, salted)).or_default().push(parts);
        }
        looked_at
    }

    fn compare_parts(
        &mut self,
        peer: NodeId,
        mirrors: Mirrors,
        stretch: Stretch,
        salt: u32,
        checks: &[u32; PARTS],
        answers: &mut Answers,
    ) -> (usize, Vec<Range>) {
        let (sums, mut looked_at) = self.part_sums(peer, mirrors, stretch);
        let parts = PARTS;
        #[cfg(turbopump_mutations)]
        let parts = parts - usize::from(is_planted(Mutation::RangeCutShort));
        let mut differing: Vec<usize> =
            (0..parts).filter(|&part| check(sums[part].sum, salt) != checks[part]).collect();
        if !differing.is_empty() {
            // Where there is no room for all, it is not always the same ones that go short.
            let first = self.chance.below(differing.len() as u64) as usize;
            differing.rotate_left(first);
        }
        let mut more = Vec::new();
        for part in differing {
            let (keys, part) = (sums[part].keys as usize, stretch.part(part));
            if keys <= MAX_LIST_KEYS {
                looked_at += self.open(peer, mirrors, part, answers);
            } else if part.is_single() {
                // So many keys with one hash were made on purpose. Offers tell them apart.
                looked_at += keys;
                let held = self.held_in(peer, mirrors, part);
                self.give(peer, held.into_iter().map(|held| held.key));
            } else {
                more.push(Range { mirrors, stretch: part, ask: Ask::Open });
            }
        }
        (looked_at, more)
    }

    fn compare_list(
        &mut self,
        peer: NodeId,
        mirrors: Mirrors,
        stretch: Stretch,
        (salt, listed): (u32, Vec<u32>),
        answers: &mut Answers,
    ) -> (usize, Vec<Range>) {
        let (sums, looked_at) = self.part_sums(peer, mirrors, stretch);
        if sums.iter().map(|sum| sum.keys).sum::<u64>() > MAX_HELD_KEYS as u64 && !stretch.is_single() {
            return (looked_at + self.open(peer, mirrors, stretch, answers), Vec::new());
        }
        let mut lacking = listed.clone();
        let mut to_give = Vec::new();
        for Held { key, digest } in self.held_in(peer, mirrors, stretch) {
            let check = check(digest, salt);
            lacking.retain(|listed| *listed != check);
            if !listed.contains(&check) {
                to_give.push(key);
            }
        }
        if !lacking.is_empty() {
            self.note_differing(peer, lacking.len());
            let salted = Salted { salt, mirrors, bits: stretch.bits() };
            let want = RangeList { prefix: stretch.low(), checks: lacking };
            answers.wants.entry((peer, salted)).or_default().push(want);
        }
        self.give(peer, to_give.into_iter());
        // Each key is looked at closer than for a sum.
        (4 * looked_at, Vec::new())
    }

    fn give_wanted(
        &mut self,
        peer: NodeId,
        mirrors: Mirrors,
        stretch: Stretch,
        salt: u32,
        wanted: &[u32],
    ) -> usize {
        let held = self.held_in(peer, mirrors, stretch);
        let looked_at = held.len();
        let wanted = held.into_iter().filter(|held| wanted.contains(&check(held.digest, salt)));
        self.give(peer, wanted.map(|held| held.key));
        looked_at
    }

    fn give(&mut self, peer: NodeId, keys: impl Iterator<Item = Key>) {
        for key in keys {
            if !self.is_fresh(&key) {
                self.note_differing(peer, 1);
                self.owe(peer, &key);
            }
        }
    }

    fn note_differing(&mut self, peer: NodeId, keys: usize) {
        self.counters.sync_repaired += keys as u64;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.compared.differing += keys;
        }
    }

    /// Whether a key was written so lately that its copies are probably on their way.
    fn is_fresh(&self, key: &Key) -> bool {
        let wall_ms = self.now.wall_ms;
        let young = |at: u64| at <= wall_ms && wall_ms - at < FRESH_MS;
        self.config.write_chaining && self.index.stored(key).any(|v| young(v.written_ms))
    }

    /// The sums of the parts of a stretch as far as a peer and this node both own it, and how many
    /// keys or partitions were looked at for that.
    fn part_sums(&self, peer: NodeId, mirrors: Mirrors, stretch: Stretch) -> ([Sum; PARTS], usize) {
        let (mut sums, mut looked_at) = ([Sum::default(); PARTS], 0);
        let part = stretch.part(0);
        let first = self.partitions.of(part.low());
        let whole = self.partitions.bounds(first).1 <= part.high();
        for partition in self.partitions.of(stretch.low()).0..=self.partitions.of(stretch.high()).0 {
            looked_at += 1;
            let (low, high) = self.partitions.bounds(Partition(partition));
            let of_partition = self.index.trees().sum(mirrors, partition);
            if of_partition.keys == 0 || !self.shared(peer, mirrors, Partition(partition)) {
                continue;
            }
            if whole {
                let sum = &mut sums[stretch.part_of(low)];
                sum.keys += of_partition.keys;
                sum.sum = sum.sum.wrapping_add(of_partition.sum);
                continue;
            }
            let (low, high) = (low.max(stretch.low()), high.min(stretch.high()));
            for (hash, _, digest) in self.index.range(mirrors, low, high) {
                sums[stretch.part_of(hash)].add(digest);
                looked_at += 1;
            }
        }
        (sums, looked_at)
    }

    /// The keys of a stretch that a peer and this node both own.
    fn held_in(&self, peer: NodeId, mirrors: Mirrors, stretch: Stretch) -> Vec<Held> {
        let shared = |hash| self.shared(peer, mirrors, self.partitions.of(hash));
        let all = self.index.range(mirrors, stretch.low(), stretch.high());
        let all = all.filter(|(hash, ..)| shared(*hash));
        all.map(|(_, key, digest)| Held { key: key.clone(), digest }).collect()
    }

    fn shared(&self, peer: NodeId, mirrors: Mirrors, partition: Partition) -> bool {
        let mut owners = self.placement.owners_of(partition, mirrors);
        let both = owners.clone().any(|id| id == self.me);
        both && owners.any(|id| id == peer)
    }
}

/// Cuts lists into messages of so many bytes.
fn fitting(room: usize, ranges: Vec<RangeList>) -> Vec<Vec<RangeList>> {
    let (mut messages, mut left): (Vec<Vec<RangeList>>, usize) = (Vec::new(), 0);
    for range in ranges {
        let size = LIST_BYTES + range.checks.len() * CHECK_BYTES;
        match messages.last_mut() {
            Some(last) if size <= left => {
                last.push(range);
                left -= size;
            }
            _ => {
                messages.push(vec![range]);
                left = room.saturating_sub(size);
            }
        }
    }
    messages
}
