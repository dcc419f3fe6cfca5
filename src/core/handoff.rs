//! Copies held here that belong elsewhere: given to their owners, dropped when all have them.
//!
//! A node that takes a write for a key that it does not own keeps the first copy; one that lost a
//! partition to a new member holds its keys still. For each such key this file knows which owner
//! has not acknowledged which version. When that is nobody, and no version is on its way to
//! storage, the copies here go.
//!
//! A version on fewer mirrors than what it replaced leaves nodes that owned the old one and not the
//! new one. Such a node remembers for a while what was replaced: else any of them that was away
//! would give it back to the others, and they to each other, faster than the owners can tell them.
//!
//! Limits: `MAX_KEYS` keys at once; the walk over the index that finds them stops there and goes
//! on as keys are done. `MAX_NARROWED` keys of which it is remembered what was replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Core, OpId, Outcome, Timer, index::Verdict, outbox::Peer};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    model::{Context, Dot, Key, Mirrors, NodeId, Version},
    wire::AckStatus,
};

/// Keys being given away at once.
const MAX_KEYS: usize = 20_000;
/// Keys looked at per step of the walk.
const STEP_KEYS: usize = 1_000;
/// Pause between two steps.
const STEP_MS: u64 = 20;
/// How often what is not acknowledged is owed anew, in case it was dropped somewhere.
const REPEAT_MS: u64 = 2_000;

/// Keys of which it is remembered what was replaced; past it, any of them is forgotten.
const MAX_NARROWED: usize = 10_000;
/// How long it is remembered: some rounds of sync. Not for ever, since the owners may lose their
/// disks, and then the old copy is the best there is.
const REMEMBER_MS: u64 = 60_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    /// What was replaced by versions that are not for this node, and until when that is remembered.
    narrowed: BTreeMap<Key, (Context, u64)>,
    /// Per key: who lacks which version.
    lacking: BTreeMap<Key, BTreeSet<(NodeId, Dot)>>,
    /// Of these, keys that were here before they belonged elsewhere.
    moving: BTreeSet<Key>,
    /// Where the walk over the index is; `None`: it has ended.
    walk: Option<Option<(u64, Key)>>,
    repeat_at_ms: u64,
}

impl Handoff {
    pub(crate) fn len(&self) -> usize {
        self.lacking.len()
    }

    /// Whether all keys were looked at, and nothing is being given away.
    pub(crate) fn is_idle(&self) -> bool {
        self.walk.is_none() && self.lacking.is_empty()
    }

    /// Whether copies may be here that belong elsewhere since owners changed.
    pub(crate) fn moves(&self) -> bool {
        self.walk.is_some() || !self.moving.is_empty()
    }

    fn let_go(&mut self, key: &Key) {
        self.moving.remove(key);
        self.lacking.remove(key);
    }

    /// How far the walk over all keys has come.
    pub(crate) fn percent(&self) -> Option<u8> {
        let place = self.walk.as_ref()?;
        Some(place.as_ref().map_or(0, |(hash, _)| ((u128::from(*hash) * 100) >> 64) as u8))
    }
}

impl Core {
    /// Looks through all keys for such that belong elsewhere: at start, and when owners changed.
    pub(super) fn start_handoff(&mut self) {
        self.handoff.lacking.clear();
        self.handoff.moving.clear();
        self.handoff.walk = Some(None);
        self.timers.set_earlier(Timer::Handoff, self.now.mono_ms + STEP_MS);
    }

    /// What to say of a version for which there is no room now. A node that owns nothing of the key, and would
    /// only give it away, is not to be offered it again: of many versions those that came first have gone
    /// before the last ones find room, so whoever owes it the key would send it all of them for ever.
    pub(super) fn without_room(&self, key: &Key, version: &Version) -> AckStatus {
        let widest = self.index.mirrors(key).unwrap_or(version.mirrors).max(version.mirrors);
        match self.owns(self.me, key, widest) || !self.config.write_chaining {
            true => AckStatus::Busy,
            false => AckStatus::Refused,
        }
    }

    /// A version is on its way to storage. Called before any copy of it is sent.
    pub(super) fn handoff_begun(
        &mut self,
        key: &Key,
        version: &Arc<Version>,
        widest: Mirrors,
        left: Mirrors,
    ) {
        let is_owner = self.owns(self.me, key, widest);
        if is_owner && left != widest && !self.owns(self.me, key, left) {
            self.remember_narrowed(key, version);
        }
        if is_owner || !self.config.write_chaining {
            self.handoff.let_go(key);
            return;
        }
        let owners: Vec<NodeId> = self.placement.owners(key.hash64(), version.mirrors).collect();
        let mut dots = vec![version.dot];
        if !self.handoff.lacking.contains_key(key) {
            // The walk has not come here yet, or what was known was let go of: older ones count too.
            dots = self.index.dots(key).collect();
        }
        let lacking = self.handoff.lacking.entry(key.clone()).or_default();
        lacking.extend(owners.iter().flat_map(|id| dots.iter().map(|dot| (*id, *dot))));
        let due_ms = self.now.mono_ms + REPEAT_MS;
        self.timers.set_earlier(Timer::Handoff, due_ms);
    }

    /// A version will not be kept here after all. What is here may have counted on it.
    pub(super) fn handoff_dropped(&mut self, key: &Key) {
        self.handoff.let_go(key);
        self.give_away(key, self.index.mirrors(key));
    }

    pub(super) fn handoff_acknowledged(&mut self, peer: NodeId, key: &Key, dot: Dot) {
        if let Some(lacking) = self.handoff.lacking.get_mut(key) {
            lacking.remove(&(peer, dot));
            self.drop_what_nobody_lacks(key);
        }
    }

    /// A version was stored. `widest`: the widest spread among all versions of the key.
    pub(super) fn handoff_stored(&mut self, key: &Key, widest: Option<Mirrors>) {
        match self.handoff.lacking.contains_key(key) {
            true => self.drop_what_nobody_lacks(key),
            // It may have become somebody else's by that version.
            false => self.give_away(key, widest),
        }
    }

    fn drop_what_nobody_lacks(&mut self, key: &Key) {
        let Some(lacking) = self.handoff.lacking.get_mut(key) else { return };
        let has_pending = self.index.has_pending(key);
        lacking.retain(|(_, dot)| has_pending || self.index.holds(key, *dot));
        #[cfg(turbopump_mutations)]
        lacking.retain(|_| !is_planted(Mutation::HandoffBeforeTheAck));
        if !lacking.is_empty() || has_pending {
            return;
        }
        self.handoff.let_go(key);
        if self.index.stored(key).all(|v| !self.owns(self.me, key, v.mirrors)) {
            self.counters.handed_off += 1;
            self.drop_copies(key);
        }
    }

    pub(super) fn continue_handoff(&mut self) {
        self.step_walk();
        let now_ms = self.now.mono_ms;
        if now_ms >= self.handoff.repeat_at_ms {
            self.handoff.repeat_at_ms = now_ms + REPEAT_MS;
            let lacking: Vec<(Key, NodeId)> = self
                .handoff
                .lacking
                .iter()
                .flat_map(|(key, who)| who.iter().map(|(id, _)| (key.clone(), *id)))
                .filter(|(_, id)| self.peers.get(id).is_some_and(Peer::is_idle))
                .collect();
            lacking.iter().for_each(|(key, id)| self.owe(*id, key));
        }
        self.handoff.narrowed.retain(|_, (_, until_ms)| *until_ms > now_ms);
        if self.handoff.walk.is_some() {
            self.timers.set_earlier(Timer::Handoff, now_ms + STEP_MS);
        } else if !self.handoff.lacking.is_empty() {
            self.timers.set_earlier(Timer::Handoff, self.handoff.repeat_at_ms);
        }
    }

    /// Forgets this node's copies of a key on a client's word.
    pub(super) fn submit_forget(&mut self, op: OpId, key: Key) {
        let count = self.drop_copies(&key);
        self.finish(op, Outcome::Forgotten(Ok(count)));
    }

    pub(super) fn remove_done(&mut self, key: &Key, result: Result<(), String>) {
        self.removal_ended(key, result.is_ok());
        if let Err(error) = result {
            self.counters.storage_failed += 1;
            self.notice(format!("a copy that is not needed here any more can't be removed: {error}"));
        }
    }

    /// Drops what nobody said may go.
    #[cfg(turbopump_mutations)]
    pub(super) fn drop_old_tombstones(&mut self) {
        let old =
            |v: Version| v.kind == crate::model::Kind::Tombstone && v.written_ms + 1_000 < self.now.wall_ms;
        let is_old = |key: &&Key| !self.index.has_pending(key) && self.index.stored(key).all(old);
        let keys: Vec<Key> = self.index.names("", None).filter(is_old).cloned().collect();
        keys.iter().for_each(|key| _ = self.drop_copies(key));
    }

    /// Lets go of stored versions of a key, here and in storage.
    pub(super) fn drop_versions(&mut self, key: &Key, dots: Vec<Dot>) {
        let known = self.index.context(key);
        self.naming.forget(key, &known);
        dots.iter().for_each(|dot| self.index.abort(key, *dot));
        self.remove(key, dots);
        self.drop_what_nobody_lacks(key);
    }

    pub(super) fn drop_copies(&mut self, key: &Key) -> usize {
        let known = self.index.context(key);
        self.naming.forget(key, &known);
        let dots = self.index.forget(key);
        self.handoff.let_go(key);
        let count = dots.len();
        if count > 0 {
            self.remove(key, dots);
        }
        count
    }

    /// What to do with a version that arrived.
    pub(super) fn judge(&self, key: &Key, version: &Version) -> Verdict {
        let now_ms = self.now.mono_ms;
        let replaced = self.handoff.narrowed.get(key).filter(|(_, until_ms)| *until_ms > now_ms);
        match self.index.judge(key, version) {
            Verdict::New(_) if replaced.is_some_and(|(c, _)| c.contains(version.dot)) => Verdict::Known,
            verdict => verdict,
        }
    }

    /// This node owned what a version replaces, and does not own the version.
    fn remember_narrowed(&mut self, key: &Key, version: &Version) {
        let narrowed = &mut self.handoff.narrowed;
        let (mut replaced, _) = narrowed.remove(key).unwrap_or_default();
        replaced.merge(&version.context);
        if narrowed.len() >= MAX_NARROWED {
            narrowed.pop_first();
        }
        narrowed.insert(key.clone(), (replaced, self.now.mono_ms + REMEMBER_MS));
    }

    fn step_walk(&mut self) {
        let Some(place) = self.handoff.walk.take() else { return };
        let room = MAX_KEYS.saturating_sub(self.handoff.lacking.len()).min(STEP_KEYS);
        let keys = self.index.walk(place.as_ref(), room);
        if room > 0 && keys.is_empty() {
            return;
        }
        self.handoff.walk = Some(keys.last().cloned().or(place));
        for (_, key) in keys {
            self.give_away(&key, self.index.mirrors(&key));
        }
    }

    fn give_away(&mut self, key: &Key, widest: Option<Mirrors>) {
        let Some(widest) = widest else { return };
        if self.owns(self.me, key, widest) || !self.config.write_chaining {
            return;
        }
        // Those on their way to storage too: nobody else speaks for them once the key stands here.
        let dots: Vec<Dot> = self.index.dots(key).collect();
        #[cfg(turbopump_mutations)]
        let dots = match is_planted(Mutation::HandoffOfStoredOnly) {
            true => self.index.stored(key).map(|v| v.dot).collect(),
            false => dots,
        };
        let owners: Vec<NodeId> = self.placement.owners(key.hash64(), widest).collect();
        if owners.is_empty() {
            return;
        }
        let pairs = owners.iter().flat_map(|id| dots.iter().map(|dot| (*id, *dot)));
        self.handoff.lacking.entry(key.clone()).or_default().extend(pairs);
        self.handoff.moving.insert(key.clone());
        // What finds no room among the owed names is owed anew then.
        self.timers.set_earlier(Timer::Handoff, self.now.mono_ms + REPEAT_MS);
        owners.into_iter().for_each(|id| self.owe(id, key));
    }
}
