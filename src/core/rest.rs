//! What this node agrees to let go of: the other side of [`burial`](super::burial).
//!
//! A key **rests** while a round is under way that this node agreed to. Any version of it that
//! comes in, or goes out again with a repair, disturbs it: then this node does not agree any more.
//!
//! Limits: `MAX_RESTS` rounds at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Core, Timer, operations::Operation};
use crate::{
    model::{Key, NodeId, Stamp},
    wire::{BurialStep, HashedKey, Message},
};

/// Rounds of all members that this node takes part in at once.
const MAX_RESTS: usize = 1_024;
/// A round of which nothing is heard any more is over.
const REST_MS: u64 = 30_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Rests {
    rests: BTreeMap<(NodeId, u64), Rest>,
}

#[derive(Debug)]
struct Rest {
    step: BurialStep,
    graves: Vec<HashedKey>,
    agreed: Vec<bool>,
    /// By hash: where a grave stands in the lists.
    places: BTreeMap<u64, usize>,
    /// Writes with a lower tag have to be dead before this node may answer.
    barrier: u64,
    /// From which stamp on this store is as it was when it agreed.
    stamp: Stamp,
    answered: bool,
    until_ms: u64,
}

impl Rest {
    fn agrees(&self, grave: HashedKey) -> bool {
        let place = self.places.get(&grave.hash);
        place.is_some_and(|&i| self.agreed[i] && self.graves[i].digest == grave.digest)
    }
}

impl Core {
    /// A member asks this node to agree to a step, or to do the last one.
    pub(super) fn on_bury(
        &mut self,
        from: NodeId,
        round: u64,
        members: u64,
        step: BurialStep,
        graves: Vec<HashedKey>,
    ) {
        if members != self.members.digest() {
            return; // It asks again, or finds out.
        }
        let until_ms = self.now.mono_ms + REST_MS;
        let name = (from, round);
        let has_room = self.rests.rests.len() < MAX_RESTS;
        match self.rests.rests.get_mut(&name) {
            Some(rest) if rest.step == step => {
                rest.until_ms = until_ms;
                // It asks again: the answer was lost.
                rest.answered = false;
            }
            Some(_) if step == BurialStep::Bury => return self.bury(name, &graves),
            Some(rest) if (rest.step, step) == (BurialStep::Quiet, BurialStep::Seal) => {
                self.seal(name, graves);
            }
            None if step == BurialStep::Quiet && has_room => {
                let agreed = graves.iter().map(|grave| self.may_rest(*grave)).collect();
                let places = graves.iter().enumerate().map(|(i, grave)| (grave.hash, i)).collect();
                let (barrier, stamp) = (self.next_id + 1, Stamp::default());
                let rest = Rest { step, graves, agreed, places, barrier, stamp, answered: false, until_ms };
                self.rests.rests.insert(name, rest);
                self.timers.set_earlier(Timer::Burial, until_ms);
            }
            None if step != BurialStep::Quiet => {
                let agreed = vec![step == BurialStep::Bury; graves.len()];
                return self.answer_burial(name, step, agreed);
            }
            _ => return,
        }
        self.rests_may_answer();
    }

    /// Something was heard, or stored, that this node's answers may have waited for.
    pub(super) fn rests_may_answer(&mut self) {
        if self.rests.rests.is_empty() {
            return;
        }
        let names: Vec<(NodeId, u64)> =
            self.rests.rests.iter().filter(|(_, r)| !r.answered).map(|(name, _)| *name).collect();
        for name in names {
            let Some(rest) = self.rests.rests.get(&name) else { continue };
            let (barrier, stamp) = (rest.barrier, rest.stamp);
            let knows = |id| {
                self.peers.get(&id).is_some_and(|p| {
                    p.up && match rest.step {
                        BurialStep::Quiet => p.floor_heard >= barrier,
                        _ => p.stamp_kept >= stamp,
                    }
                })
            };
            if self.books.stored.stamp < stamp || !self.others().all(knows) {
                continue;
            }
            let (step, agreed) = (rest.step, rest.agreed.clone());
            if let Some(rest) = self.rests.rests.get_mut(&name) {
                rest.answered = true;
            }
            self.answer_burial(name, step, agreed);
        }
    }

    /// A version of a key comes in, or goes out though this node may not hold it any more.
    pub(super) fn disturb(&mut self, key: &Key) {
        if self.rests.rests.is_empty() {
            return;
        }
        let hash = key.hash64();
        for rest in self.rests.rests.values_mut() {
            if let Some(&i) = rest.places.get(&hash) {
                rest.agreed[i] = false;
            }
        }
    }

    pub(super) fn has_rests(&self) -> bool {
        !self.rests.rests.is_empty()
    }

    pub(super) fn stop_rests(&mut self) {
        self.rests.rests.clear();
    }

    pub(super) fn expire_rests(&mut self) {
        let now_ms = self.now.mono_ms;
        self.rests.rests.retain(|_, rest| rest.until_ms > now_ms);
    }

    /// Whether this node holds nothing with this hash, or just what may go.
    fn may_rest(&self, grave: HashedKey) -> bool {
        self.is_sure(grave.hash)
            && !self.books.wanted.doubts
            && self.index.holds_at_most(grave.hash, grave.digest, self.now.wall_ms)
    }

    fn seal(&mut self, name: (NodeId, u64), graves: Vec<HashedKey>) {
        let busy = self.hashes_under_way();
        let stamp = self.raise_stamp();
        let Some(rest) = self.rests.rests.get(&name) else { return };
        let agreed: Vec<bool> = graves
            .iter()
            .map(|grave| rest.agrees(*grave) && self.may_rest(*grave) && !busy.contains(&grave.hash))
            .collect();
        let places = graves.iter().enumerate().map(|(i, grave)| (grave.hash, i)).collect();
        if let Some(rest) = self.rests.rests.get_mut(&name) {
            let until_ms = self.now.mono_ms + REST_MS;
            let (step, barrier) = (BurialStep::Seal, rest.barrier);
            *rest = Rest { step, graves, agreed, places, barrier, stamp, answered: false, until_ms };
        }
    }

    fn bury(&mut self, name: (NodeId, u64), graves: &[HashedKey]) {
        let Some(rest) = self.rests.rests.remove(&name) else { return };
        for grave in graves {
            if rest.step == BurialStep::Seal && rest.agrees(*grave) && self.may_rest(*grave) {
                for key in self.index.keys_at(grave.hash) {
                    self.counters.buried += 1;
                    self.drop_copies(&key);
                }
            }
        }
        self.answer_burial(name, BurialStep::Bury, vec![true; graves.len()]);
    }

    fn answer_burial(&mut self, (to, round): (NodeId, u64), step: BurialStep, agreed: Vec<bool>) {
        match to == self.me {
            true => self.on_buried(to, round, step, &agreed),
            false => self.send(to, Message::Buried { round, step, agreed }),
        }
    }

    /// Keys that are being read from others, or fetched: their answers may be old.
    fn hashes_under_way(&self) -> BTreeSet<u64> {
        let read = |operation: &Operation| match operation {
            Operation::Read(read) => Some(read.key().hash64()),
            _ => None,
        };
        self.operations.all().filter_map(read).chain(self.transfers.keys().map(Key::hash64)).collect()
    }
}
