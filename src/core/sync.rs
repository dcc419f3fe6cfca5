//! Anti-entropy: two owners compare digests, descend to where they differ, and give each other
//! what the other lacks.
//!
//! ```text
//! A  Compare{a sum per tree}   ──>  B   equal: Equal back, done
//! A  <── Parts{16 checks}      ──   B   parts that differ are cut again, by either side in turn,
//! A  ── Parts{16 checks, ...}  ──>  B   until the one that looks holds few enough keys to list them
//! A  <── List{a check per key} ──   B
//! A  owes B what B lacks, and asks with Want for what it lacks itself
//! ```
//!
//! Nothing is remembered between messages, so any of them may be lost: the next round finds what
//! is left. A range is a stretch of hashes; one of several partitions counts just those that both nodes
//! own. Each side decides by its own keys how to go on: few are listed, many are cut, and a listed
//! range of which the receiver holds many is cut by it instead; so a node that holds nothing names
//! nothing and is given everything. Checks are short and salted: a difference that one round does not
//! see is seen by the next. Two nodes compare once at a time: of two that ask each other at once, one
//! is answered. What is found goes the way of every copy: offered, flown, judged by
//! `write`. After range-based set reconciliation (Meyer 2022).
//!
//! This file keeps the pace; what is said of a range stands in `ranges`. Comparing means looking at
//! keys, so what peers ask waits in a queue per peer of which a step does so many keys, then pauses.
//! **Clients come first**: while many operations or much work for storage is under way, pauses are
//! twenty times as long, and no round begins here, up to some rounds in a row.
//!
//! Limits: keys per step, ranges waiting per peer; what does not fit waits for the next round, in
//! which ranges are taken from another place on.

use std::collections::{BTreeMap, VecDeque};

use super::{Core, Timer, ranges::Answers};
use crate::{
    digest::Stretch,
    model::{Mirrors, NodeId},
    wire::{Message, PARTS_PER_RANGE, RangeList, RangeParts, TreeDigest},
};

/// Keys looked at in one step, about: a millisecond or two.
const STEP_KEYS: usize = 4_096;
/// Pause between two steps.
const STEP_MS: u64 = 5;
/// Pause between two steps while clients are served.
const BUSY_STEP_MS: u64 = 200;
/// A comparison of which nothing was heard for so long is over.
const UNDER_WAY_MS: u64 = 500;
/// Rounds left out in a row while clients are served.
const MAX_SKIPPED_ROUNDS: u32 = 15;
/// Jobs for storage that count as being busy.
const BUSY_DISK_JOBS: usize = 256;
/// Writes and reads under way that count as being busy.
const BUSY_OPERATIONS: usize = 256;
/// Ranges that a peer asked about and that wait: some megabytes.
const MAX_WAITING_RANGES: usize = 16_384;

/// What waits to be compared.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    waiting: BTreeMap<NodeId, VecDeque<Range>>,
    /// Whose turn it was last.
    last: Option<NodeId>,
    next_step_ms: u64,
    skipped: u32,
}

/// How the checks of a message were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Salted {
    pub(super) salt: u32,
    pub(super) mirrors: Mirrors,
    pub(super) bits: u8,
}

/// A range to be looked at.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) mirrors: Mirrors,
    pub(super) stretch: Stretch,
    pub(super) ask: Ask,
}

/// What a peer said of it.
#[derive(Debug)]
pub(super) enum Ask {
    /// That it differs: say what is here.
    Open,
    /// These parts.
    Parts(u32, [u32; PARTS_PER_RANGE]),
    /// These keys.
    List(u32, Vec<u32>),
    /// That it wants these.
    Want(u32, Vec<u32>),
}

/// What a comparison with a peer showed.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Names the round that was begun last.
    round: u32,
    /// When that was, unless it was answered; when something was said of a range last.
    asked_ms: Option<u64>,
    heard_ms: Option<u64>,
    /// When a round was answered last, and when with nothing that differs.
    pub(super) answered_ms: Option<u64>,
    pub(super) equal_ms: Option<u64>,
    /// Keys found different since the last answer to a round.
    pub(super) differing: usize,
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
        let up: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        if up.is_empty() {
            return;
        }
        let peer = *self.chance.pick(&up);
        // They are being compared already, or clients come first.
        if self.is_comparing(peer) || (self.serves_clients() && self.sync.skipped < MAX_SKIPPED_ROUNDS) {
            self.sync.skipped += 1;
            return;
        }
        self.sync.skipped = 0;
        self.sync_with(peer);
    }

    /// Compares everything that this node and a peer own together.
    pub(super) fn sync_with(&mut self, peer: NodeId) {
        if !self.config.active_sync {
            return;
        }
        self.counters.sync_rounds += 1;
        let round = self.chance.next_u64() as u32;
        let trees = self.index.trees().mirrors().into_iter();
        let trees = trees.map(|mirrors| TreeDigest { mirrors, sum: self.tree_sum(peer, mirrors) }).collect();
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.compared.round = round;
            peer.compared.asked_ms = Some(self.now.mono_ms);
        }
        self.send(peer, Message::Compare { round, trees });
    }

    pub(super) fn on_compare(&mut self, from: NodeId, round: u32, theirs: &[TreeDigest]) {
        if !self.config.active_sync {
            return;
        }
        let mut sums: BTreeMap<u16, u64> = theirs.iter().map(|tree| (tree.mirrors.0, tree.sum)).collect();
        self.index.trees().mirrors().iter().for_each(|mirrors| _ = sums.entry(mirrors.0).or_default());
        sums.retain(|mirrors, sum| self.tree_sum(from, Mirrors(*mirrors)) != *sum);
        if sums.is_empty() {
            return self.send(from, Message::Equal { round });
        }
        let lately = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| self.now.mono_ms - at_ms < UNDER_WAY_MS);
        let asked = self.peers.get(&from).is_some_and(|peer| lately(peer.compared.asked_ms));
        if self.is_comparing(from) || (asked && self.me < from) {
            return;
        }
        let open = |mirrors| Range { mirrors: Mirrors(mirrors), stretch: Stretch::WHOLE, ask: Ask::Open };
        self.look_at(from, sums.into_keys().map(open));
    }

    pub(super) fn on_equal(&mut self, from: NodeId, round: u32) {
        let now_ms = self.now.mono_ms;
        if let Some(compared) =
            self.peers.get_mut(&from).map(|p| &mut p.compared).filter(|c| c.round == round)
        {
            (compared.answered_ms, compared.equal_ms) = (Some(now_ms), Some(now_ms));
            (compared.differing, compared.asked_ms) = (0, None);
        }
    }

    pub(super) fn on_parts(&mut self, from: NodeId, salted: Salted, ranges: Vec<RangeParts>) {
        self.note_answered(from, salted.bits);
        self.look_at(
            from,
            ranges.into_iter().filter_map(|range| {
                let ask = Ask::Parts(salted.salt, range.checks);
                salted.range(range.prefix, ask)
            }),
        );
    }

    pub(super) fn on_list(&mut self, from: NodeId, salted: Salted, ranges: Vec<RangeList>) {
        self.note_answered(from, salted.bits);
        let list = |range: RangeList| salted.range(range.prefix, Ask::List(salted.salt, range.checks));
        self.look_at(from, ranges.into_iter().filter_map(list));
    }

    pub(super) fn on_want(&mut self, from: NodeId, salted: Salted, ranges: Vec<RangeList>) {
        let want = |range: RangeList| salted.range(range.prefix, Ask::Want(salted.salt, range.checks));
        self.look_at(from, ranges.into_iter().filter_map(want));
    }

    /// A peer went down: what it was asked and asked itself is void.
    pub(super) fn sync_lost(&mut self, peer: NodeId) {
        self.sync.waiting.remove(&peer);
        if let Some(peer) = self.peers.get_mut(&peer) {
            (peer.compared.asked_ms, peer.compared.heard_ms) = (None, None);
        }
    }

    /// Looks at what waits, as much as one step may.
    pub(super) fn continue_sync(&mut self) {
        let mut left = STEP_KEYS;
        let mut answers = Answers::new(self.chance.next_u64() as u32);
        while left > 0
            && let Some(peer) = self.sync.next_peer()
        {
            let Some(range) = self.sync.waiting.get_mut(&peer).and_then(VecDeque::pop_front) else { return };
            let (looked_at, more) = self.compare(peer, range, &mut answers);
            left = left.saturating_sub(looked_at.max(1));
            let waiting = self.sync.waiting.entry(peer).or_default();
            waiting.extend(more);
            waiting.truncate(MAX_WAITING_RANGES);
            if waiting.is_empty() {
                self.sync.waiting.remove(&peer);
            }
        }
        self.send_answers(answers);
        let pause_ms = if self.serves_clients() { BUSY_STEP_MS } else { STEP_MS };
        self.sync.next_step_ms = self.now.mono_ms + pause_ms;
        if !self.sync.waiting.is_empty() {
            self.timers.set(Timer::Compare, self.sync.next_step_ms);
        }
    }

    /// Whether clients are waiting who come before what can wait.
    pub(super) fn serves_clients(&self) -> bool {
        let operations = self.writes.running() + self.reads.asking();
        let max_jobs = BUSY_DISK_JOBS.min(self.config.max_disk_jobs.div_ceil(2));
        operations >= BUSY_OPERATIONS || self.jobs.len() >= max_jobs
    }

    /// Whether a comparison with a peer is under way.
    fn is_comparing(&self, peer: NodeId) -> bool {
        let heard_ms = self.peers.get(&peer).and_then(|peer| peer.compared.heard_ms);
        self.sync.waiting.contains_key(&peer)
            || heard_ms.is_some_and(|at_ms| self.now.mono_ms - at_ms < UNDER_WAY_MS)
    }

    fn look_at(&mut self, peer: NodeId, ranges: impl Iterator<Item = Range>) {
        if !self.config.active_sync {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            (peer.compared.asked_ms, peer.compared.heard_ms) = (None, Some(self.now.mono_ms));
        }
        let waiting = self.sync.waiting.entry(peer).or_default();
        let room = MAX_WAITING_RANGES.saturating_sub(waiting.len());
        waiting.extend(ranges.take(room));
        if waiting.is_empty() {
            self.sync.waiting.remove(&peer);
        } else if self.now.mono_ms >= self.sync.next_step_ms {
            self.continue_sync();
        } else {
            self.timers.set_earlier(Timer::Compare, self.sync.next_step_ms);
        }
    }

    /// The whole space is spoken of in an answer to a round only.
    fn note_answered(&mut self, from: NodeId, bits: u8) {
        if bits == 0
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.compared.answered_ms = Some(self.now.mono_ms);
            peer.compared.differing = 0;
        }
    }
}

impl Sync {
    /// Peers take turns.
    fn next_peer(&mut self) -> Option<NodeId> {
        let after = self.last.and_then(|last| self.waiting.range(last..).find(|(id, _)| **id > last));
        let next = after.or(self.waiting.first_key_value()).map(|(id, _)| *id);
        self.last = next;
        next
    }
}

impl Salted {
    fn range(self, prefix: u64, ask: Ask) -> Option<Range> {
        Some(Range { mirrors: self.mirrors, stretch: Stretch::new(self.bits, prefix)?, ask })
    }
}
