//! Looking through a store that turned out to be an older copy of itself, or empty.
//!
//! A version in it may have been deleted for good since, without a trace. So none is given to
//! anybody, nor counted in an answer, before it is known that another owner has it or something
//! that replaced it. One that no other owner knows of was deleted, or was never anywhere else: it
//! is dropped. Where there is no other owner who could know, it stays.
//!
//! ```text
//! walk over the index ──> Read (names only) to all other owners ──> known: trusted again
//!                                                               └─> unknown to all: dropped
//! at the end: compared with all others once ──> the doubts are over
//! ```
//!
//! Owners that have doubts themselves, or came back empty just now, know nothing and are not asked.
//! What comes in after that is beyond doubt, and so are tombstones: they bring nothing back.
//!
//! A plain read of this node may still show an old version meanwhile, as it may whenever copies differ.
//!
//! Limits: `MAX_ASKING` keys at once.

use std::collections::BTreeMap;

use super::{Core, Timer};
use crate::{
    model::{Context, Dot, Key, Kind, NodeId, Record, Version},
    wire::Message,
};

/// Keys of which the others are asked at once.
const MAX_ASKING: usize = 1_000;
/// How often who did not answer is asked again.
const AGAIN_MS: u64 = 500;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    active: bool,
    /// How far the walk over the index has come; none: it has not begun.
    walk: Option<(u64, Key)>,
    walked: bool,
    asking: BTreeMap<Key, Asking>,
    tags: BTreeMap<u64, Key>,
    /// Since when, on the monotonic clock.
    since_ms: u64,
}

#[derive(Debug, Default)]
struct Asking {
    /// Who has not answered, and the tag of the question.
    waiting: BTreeMap<NodeId, u64>,
    /// Whether anybody has.
    told: bool,
    /// What the others know.
    known: Context,
}

impl Core {
    pub(super) fn begin_doubt(&mut self) {
        let since_ms = self.now.mono_ms;
        self.doubt = Doubt { active: true, since_ms, ..Doubt::default() };
        self.timers.set_earlier(Timer::Doubt, since_ms);
    }

    /// Owners changed: others may know.
    pub(super) fn doubt_anew(&mut self) {
        if self.doubt.active {
            self.doubt = Doubt { active: true, since_ms: self.doubt.since_ms, ..Doubt::default() };
        }
    }

    /// Whether some version of a key is not known yet to be no ghost.
    pub(super) fn is_doubted(&self, key: &Key) -> bool {
        let doubt = &self.doubt;
        if !doubt.active {
            return false;
        }
        let is_ahead = doubt.walk.as_ref().is_none_or(|at| (at.0, &at.1) < (key.hash64(), key));
        let unclear = (is_ahead && !doubt.walked) || doubt.asking.contains_key(key);
        unclear && self.has_doubtful(key)
    }

    /// Goes on with the walk, asks again, and ends the doubts where nothing is left of them.
    pub(super) fn continue_doubt(&mut self) {
        if !self.doubt.active {
            return;
        }
        self.timers.set_earlier(Timer::Doubt, self.now.mono_ms + AGAIN_MS);
        let unanswered: Vec<Key> = self.doubt.asking.keys().cloned().collect();
        unanswered.into_iter().for_each(|key| self.ask_around(&key));
        self.walk_on();
        let since_ms = self.doubt.since_ms;
        let mut met = self.peers.values().filter(|p| !(p.up && p.doubts)).map(|p| p.compared.equal_ms);
        let met_all = !self.config.active_sync || met.all(|at| at.is_some_and(|at| at > since_ms));
        // A ghost whose removal failed is still there.
        let is_clean = self.unsure.is_empty();
        if self.doubt.walked && self.doubt.asking.is_empty() && met_all && is_clean {
            self.end_doubt();
        }
    }

    /// An owner said what it knows of a key that is in doubt. Says whether the tag was of that.
    pub(super) fn doubt_answered(&mut self, tag: u64, records: Option<&[Record]>) -> bool {
        let Some(key) = self.doubt.tags.get(&tag).cloned() else { return false };
        let (Some(records), Some(asking)) = (records, self.doubt.asking.get_mut(&key)) else { return true };
        self.doubt.tags.remove(&tag);
        asking.waiting.retain(|_, asked| *asked != tag);
        asking.told = true;
        records.iter().for_each(|r| asking.known.see(&r.version));
        if asking.waiting.is_empty() || self.ghosts(&key).is_empty() {
            self.decide(&key);
            self.walk_on();
        }
        true
    }

    fn walk_on(&mut self) {
        while !self.doubt.walked && self.doubt.asking.len() < MAX_ASKING {
            let Some(place) = self.index.walk(self.doubt.walk.as_ref(), 1).pop() else {
                self.doubt.walked = true;
                return;
            };
            let key = place.1.clone();
            self.doubt.walk = Some(place);
            if self.has_doubtful(&key) {
                self.doubt.asking.insert(key.clone(), Asking::default());
                self.begin_asking(&key);
            }
        }
    }

    /// Finds out who may know of a key.
    fn begin_asking(&mut self, key: &Key) {
        let mirrors = self.index.mirrors(key).unwrap_or(self.config.mirrors);
        let others: Vec<NodeId> =
            self.placement.owners(key.hash64(), mirrors).filter(|id| *id != self.me).collect();
        for id in others {
            let tag = self.fresh_id();
            if let Some(asking) = self.doubt.asking.get_mut(key) {
                asking.waiting.insert(id, tag);
                self.doubt.tags.insert(tag, key.clone());
            }
        }
        self.ask_around(key);
    }

    /// Asks those who have not answered, except who can't know.
    fn ask_around(&mut self, key: &Key) {
        let Some(asking) = self.doubt.asking.get_mut(key) else { return };
        let peers = &self.peers;
        asking.waiting.retain(|id, tag| {
            let may_know = !peers.get(id).is_some_and(|p| p.up && p.doubts);
            if !may_know {
                self.doubt.tags.remove(tag);
            }
            may_know
        });
        let waiting = asking.waiting.clone();
        if waiting.is_empty() {
            // What was told until now decides; where nobody could tell anything, all of it stays.
            let told = asking.told;
            return if told { self.decide(key) } else { self.stop_asking(key) };
        }
        for (id, tag) in waiting {
            if self.is_up(id) {
                self.send(id, Message::Read { tag, key: key.clone(), values: false });
            }
        }
    }

    fn decide(&mut self, key: &Key) {
        let ghosts = self.ghosts(key);
        self.stop_asking(key);
        if ghosts.is_empty() {
            return;
        }
        self.counters.ghosts_dropped += ghosts.len() as u64;
        self.drop_versions(key, ghosts);
    }

    fn stop_asking(&mut self, key: &Key) {
        if let Some(asking) = self.doubt.asking.remove(key) {
            asking.waiting.values().for_each(|tag| _ = self.doubt.tags.remove(tag));
        }
    }

    fn end_doubt(&mut self) {
        self.doubt = Doubt::default();
        self.books.wanted.doubts = false;
        self.books.wanted.doubted.clear();
        self.write_ledger();
        self.notice("what the store of this node holds was checked with the others".into());
        self.start_handoff();
    }

    /// Stored versions of a key that nobody else is known to have had.
    fn ghosts(&self, key: &Key) -> Vec<Dot> {
        let Some(asking) = self.doubt.asking.get(key) else { return Vec::new() };
        let doubtful = self.index.stored(key).filter(|v| self.is_doubtful(v)).map(|v| v.dot);
        doubtful.filter(|dot| !asking.known.contains(*dot)).collect()
    }

    fn has_doubtful(&self, key: &Key) -> bool {
        self.index.stored(key).any(|v| self.is_doubtful(&v))
    }

    fn is_doubtful(&self, version: &Version) -> bool {
        version.kind == Kind::Value && self.books.wanted.is_doubted(version)
    }
}
