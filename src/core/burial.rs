//! Deletes for good: the last traces of a key go away once no node has anything left that they
//! would be needed against.
//!
//! A tombstone, or a value whose time is over, has to stay as long as any node might still bring
//! what it replaced: an owner that was away, a node that holds a copy for somebody else, a frame that
//! is late, a store that is restored. So its first owner has **all** members agree, in three steps,
//! for many keys at a time:
//!
//! ```text
//! Quiet  "I hold no more of it than that, and none of my earlier writes counts any more anywhere"
//! Seal   "nothing came in between; no read or transfer of it is under way; my store says that it
//!         was so far, and all others have noted how far that is"
//! Bury   all drop it
//! ```
//!
//! Why that is enough: after `Quiet` of all, no frame that is still on its way brings an older
//! version anywhere (`Vitals::floor`), and after `Seal` nothing that was begun before can. A store
//! of before that comes back is found out ([`ledger`](super::ledger)). A node that is cut off takes no
//! part, and then nothing is buried. Whoever changes something of a key in between takes back that
//! it agreed. Who missed the last step still holds the trace, which goes the same way once more.
//!
//! After the stable causality of Almeida and Baquero, and the server-wide clocks of Gonçalves et
//! al., with members in the place of replicas.
//!
//! Nothing here is decided by age. What is younger than [`Config::bury_after`](crate::Config::bury_after)
//! is left alone for a while, so that its copies arrive first and people can still list it.
//!
//! Limits: `MAX_ROUNDS` of as many keys as a message takes; what others ask of this node stands in
//! [`rest`](super::rest).

use std::collections::{BTreeMap, BTreeSet};

use super::{Core, Timer};
use crate::{
    model::{Key, NodeId},
    wire::{BurialStep, HashedKey, MAX_GRAVES_PER_MESSAGE, Message},
};

/// Rounds that one node has under way.
const MAX_ROUNDS: usize = 16;
/// Time for a round, beside the exchanges of vitals: two of these and two writes of the ledger suffice.
const ROUND_MS: u64 = 20_000;
/// Turns of pings in that time; see [`probes`](super::probes).
const ROUND_TURNS: u64 = 4;
/// How often rounds are begun, and who did not answer is asked again.
const STEP_MS: u64 = 500;
/// Graves that are looked at per step.
const MAX_LOOKED_AT: usize = 20_000;
/// The longest pause while values are kept that will expire.
const MAX_PAUSE_MS: u64 = 60_000;
/// Bytes of a message around its graves, and of each of them.
pub(super) const AROUND_BYTES: usize = 64;
pub(super) const GRAVE_BYTES: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Burial {
    rounds: BTreeMap<u64, Round>,
    /// Where the walks over tombstones and expired values are.
    cursors: [Option<(u64, u64, Key)>; 2],
    /// Who did not agree to something lately, or could not be asked.
    blockers: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Round {
    step: BurialStep,
    graves: Vec<(HashedKey, Key)>,
    /// Which graves all who answered agree to.
    agreed: Vec<bool>,
    waiting: BTreeSet<NodeId>,
    until_ms: u64,
}

impl Burial {
    /// Who keeps traces of deleted keys from going away.
    pub(crate) fn blockers(&self) -> Vec<NodeId> {
        self.blockers.iter().copied().collect()
    }
}

impl Core {
    /// There may be something to bury soon.
    pub(super) fn arm_burial(&mut self) {
        let after_ms = self.config.bury_after.as_millis() as u64;
        let Some(in_ms) = self.index.next_grave(self.now.wall_ms, after_ms) else { return };
        let pause_ms = in_ms.clamp(STEP_MS, MAX_PAUSE_MS);
        self.timers.set_earlier(Timer::Burial, self.now.mono_ms + pause_ms);
    }

    /// The member list changed: those who agreed were others.
    pub(super) fn stop_burial(&mut self) {
        self.burial.rounds.clear();
        self.burial.blockers.clear();
        self.stop_rests();
        self.arm_burial();
    }

    pub(super) fn continue_burial(&mut self) {
        self.expire_rests();
        self.end_late_rounds();
        let rounds: Vec<u64> = self.burial.rounds.keys().copied().collect();
        rounds.into_iter().for_each(|round| self.ask_to_bury(round));
        let absent: BTreeSet<NodeId> = self.others().filter(|id| !self.can_agree(*id)).collect();
        match absent.is_empty() {
            true => self.begin_rounds(),
            false => self.burial.blockers = absent,
        }
        self.arm_burial();
        if !self.burial.rounds.is_empty() || self.has_rests() {
            self.timers.set_earlier(Timer::Burial, self.now.mono_ms + STEP_MS);
        }
    }

    /// A member answered to a step of a round of ours.
    pub(super) fn on_buried(&mut self, from: NodeId, number: u64, step: BurialStep, agreed: &[bool]) {
        let Some(round) = self.burial.rounds.get_mut(&number) else { return };
        if round.step != step || agreed.len() != round.graves.len() || !round.waiting.remove(&from) {
            return;
        }
        for (all, agrees) in round.agreed.iter_mut().zip(agreed) {
            *all &= agrees;
        }
        let is_complete = round.waiting.is_empty();
        if agreed.contains(&false) {
            // What it holds instead is given to the owners, or told to it by them, anyway.
            self.burial.blockers.insert(from);
        }
        if is_complete {
            self.next_step(number);
        }
    }

    /// All members except this node.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.present().map(|m| m.id).filter(|id| *id != self.me)
    }

    fn can_agree(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|p| p.up && !p.doubts) && self.trusts(id)
    }

    fn next_step(&mut self, number: u64) {
        let Some(round) = self.burial.rounds.get_mut(&number) else { return };
        let mut agreed = std::mem::take(&mut round.agreed).into_iter();
        round.graves.retain(|_| agreed.next() == Some(true));
        let (left, step) = (round.graves.len(), round.step);
        if left == 0 || step == BurialStep::Bury {
            self.burial.rounds.remove(&number);
            if left > 0 {
                self.burial.blockers.clear();
                self.timers.set_earlier(Timer::Burial, self.now.mono_ms);
            }
            return;
        }
        round.step = if step == BurialStep::Quiet { BurialStep::Seal } else { BurialStep::Bury };
        self.open_step(number);
    }

    fn open_step(&mut self, number: u64) {
        let everybody: BTreeSet<NodeId> = self.members.present().map(|m| m.id).collect();
        if let Some(round) = self.burial.rounds.get_mut(&number) {
            round.waiting = everybody;
            round.agreed = vec![true; round.graves.len()];
        }
        self.ask_to_bury(number);
    }

    /// Asks those who have not answered yet.
    fn ask_to_bury(&mut self, number: u64) {
        let Some(round) = self.burial.rounds.get(&number) else { return };
        let (step, waiting) = (round.step, round.waiting.clone());
        let graves: Vec<HashedKey> = round.graves.iter().map(|(grave, _)| *grave).collect();
        let members = self.members.digest();
        let me = self.me;
        for id in waiting.into_iter().filter(|id| *id != me) {
            self.send(id, Message::Bury { round: number, members, step, graves: graves.clone() });
        }
        // This node comes last: its answer may complete the step.
        if self.burial.rounds.get(&number).is_some_and(|r| r.waiting.contains(&self.me)) {
            self.on_bury(self.me, number, members, step, graves);
        }
    }

    fn end_late_rounds(&mut self) {
        let now_ms = self.now.mono_ms;
        let (late, in_time) =
            std::mem::take(&mut self.burial.rounds).into_iter().partition(|(_, r)| r.until_ms <= now_ms);
        self.burial.rounds = in_time;
        let late: BTreeMap<u64, Round> = late;
        self.burial.blockers.extend(late.into_values().flat_map(|round| round.waiting));
    }

    fn begin_rounds(&mut self) {
        let room = self.max_message_bytes.saturating_sub(AROUND_BYTES) / GRAVE_BYTES;
        let per_round = room.clamp(1, MAX_GRAVES_PER_MESSAGE);
        let free = MAX_ROUNDS - self.burial.rounds.len().min(MAX_ROUNDS);
        let mut graves = Vec::new();
        for kind in 0..2 {
            self.look_for_graves(kind, per_round * free, &mut graves);
        }
        for graves in graves.chunks(per_round).take(free) {
            let number = self.fresh_id();
            let round = Round {
                step: BurialStep::Quiet,
                graves: graves.to_vec(),
                agreed: Vec::new(),
                waiting: BTreeSet::new(),
                until_ms: self.now.mono_ms + ROUND_MS + ROUND_TURNS * self.turn_ms(),
            };
            self.burial.rounds.insert(number, round);
            self.open_step(number);
        }
    }

    /// Collects graves whose first owner this node is, from where it stopped the last time.
    fn look_for_graves(&mut self, kind: usize, max: usize, found: &mut Vec<(HashedKey, Key)>) {
        let busy: BTreeSet<u64> =
            self.burial.rounds.values().flat_map(|r| r.graves.iter().map(|(grave, _)| grave.hash)).collect();
        let wall_ms = self.now.wall_ms;
        let young_ms = self.config.bury_after.as_millis() as u64;
        let is_young = |since_ms: u64| since_ms <= wall_ms && wall_ms - since_ms < young_ms;
        let begin = self.burial.cursors[kind].take();
        let mut last = begin.as_ref();
        for (looked_at, place) in self.index.graves(kind == 1, begin.as_ref(), wall_ms).enumerate() {
            if found.len() >= max || looked_at >= MAX_LOOKED_AT {
                self.burial.cursors[kind] = last.cloned();
                return;
            }
            let (since_ms, hash, key) = place;
            let first = self.placement.owners(*hash, crate::model::Mirrors::ALL).next();
            if first == Some(self.me)
                && !is_young(*since_ms)
                && !busy.contains(hash)
                && let Some(digest) = self.index.grave_digest(key, wall_ms)
            {
                found.push((HashedKey { hash: *hash, digest }, key.clone()));
            }
            last = Some(place);
        }
        // The end: from the beginning the next time.
    }
}
