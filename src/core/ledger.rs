//! The ledger: how far this node's store has come, how far those of others had come when they last
//! told, and whom to believe because of that.
//!
//! What is deleted for good leaves no trace ([`burial`](super::burial)), so nothing but its memory
//! tells a node that a version is old. A store that was restored from an older copy, or comes back
//! after its node was removed, has lost that memory. It is found out by its **stamp**: a node
//! raises it, durably, before it agrees that traces may go, and all others keep it, durably, before
//! that counts.
//!
//! ```text
//! A  Vitals{stamp 7}  ──>  B keeps "A: 7"          B  Vitals{stamp_kept 7}  ──>  A may count on it
//! A' Vitals{stamp 5}  ──>  B takes no version from it      ... kept 7  ──>  A' doubts all it holds
//! ```
//!
//! A node that learns so takes a stamp above the one that is remembered, has it say that it doubts
//! what it holds, and looks through that ([`doubt`](super::doubt)).
//!
//! Between the restore and the moment when it is found out, processes may have come and gone on that
//! store, and acknowledged writes. So each notes at its start what it found, until all others agree that
//! the store is the latest: what the first of them after the one that the others remember did not
//! find has come in since, and is beyond doubt.
//!
//! Invariants: the stamp that peers are told is in the store; a peer whose stamp was not heard since
//! its link came up, or is below what is kept of it, gives this node no versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Core, Purpose, Work};
use crate::{
    model::{Actor, Context, Digest, Dot, Kept, Kind, Ledger, Mirrors, NodeId, Record, Run, Stamp, Version},
    storage::Change,
    wire::{Message, Vitals},
};

/// Processes on a store that was not confirmed yet of which it is kept what they began with.
const MAX_RUNS: usize = 8;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// As it shall be.
    pub(super) wanted: Ledger,
    /// As it is in the store.
    pub(super) stored: Ledger,
    /// Records of it in the store that the next one replaces.
    records: Vec<Dot>,
    writing: Option<(Dot, Ledger)>,
    /// Peers whose memory agreed with this store since the start.
    agreed: BTreeSet<NodeId>,
    confirmed: bool,
    is_read: bool,
}

impl Core {
    /// Takes in the ledger that storage holds, all records of [`Ledger::key`]. Before the start.
    pub fn load_ledger(&mut self, records: &[Record]) {
        let parse = |r: &Record| std::str::from_utf8(r.value.as_deref()?).ok()?.parse::<Ledger>().ok();
        records.iter().for_each(|r| self.note_ledger(r.version.dot));
        if let Some(ledger) = records.iter().filter_map(parse).max_by_key(|ledger| ledger.sequence) {
            (self.books.wanted, self.books.stored) = (ledger.clone(), ledger);
            self.books.is_read = true;
        }
    }

    /// A record of the ledger lies in storage: the next one replaces it.
    pub(super) fn note_ledger(&mut self, dot: Dot) {
        if !self.books.records.contains(&dot) {
            self.books.records.push(dot);
        }
    }

    pub(super) fn start_ledger(&mut self) {
        let held = self.everything_held();
        self.books.wanted.runs.push(Run { id: self.incarnation, held });
        if self.books.wanted.runs.len() > MAX_RUNS {
            self.books.wanted.runs.remove(1);
        }
        self.write_ledger();
        if !self.books.records.is_empty() && !self.books.is_read {
            self.notice("the ledger in the store can't be read: it counts as lost".into());
        }
        if self.books.wanted.doubts {
            self.begin_doubt();
        }
        self.check_generation();
    }

    /// Whether versions of a peer are taken, and its word that it holds none.
    pub(super) fn trusts(&self, id: NodeId) -> bool {
        let needed = self.needed_stamp(id);
        let heard = self.peers.get(&id).and_then(|p| p.stamp);
        needed == Stamp::default() || heard.is_some_and(|stamp| stamp >= needed)
    }

    /// Whether a message would bring versions of a peer that is not trusted. They are sent again.
    pub(super) fn is_suspicious(&self, from: NodeId, message: &Message) -> bool {
        let brings = matches!(
            message,
            Message::Write { .. }
                | Message::ReadReply { .. }
                | Message::Piece { .. }
                | Message::Buried { .. }
        );
        brings && !self.trusts(from)
    }

    /// What a peer is told of this node.
    pub(super) fn vitals(&self, to: NodeId, members: u64) -> Vitals {
        let Some(peer) = self.peers.get(&to) else { return Vitals::default() };
        // Numbers are given out one after the other: a copy that is yet to be sent gets a higher one.
        let floor = peer.first_flight().unwrap_or(self.next_id + 1);
        let kept = self.books.stored.kept.get(&to).copied().unwrap_or_default();
        Vitals {
            members,
            floor,
            floor_heard: peer.floor,
            stamp: self.books.stored.stamp,
            stamp_kept: kept.stamp,
            run_kept: kept.run,
            doubts: self.books.wanted.doubts,
            moves: self.handoff.moves(),
        }
    }

    /// What a peer says of itself, and of what it knows of this node.
    pub(super) fn hear_vitals(&mut self, from: NodeId, theirs: Vitals) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let news = peer.floor < theirs.floor || peer.stamp != Some(theirs.stamp);
        peer.floor = peer.floor.max(theirs.floor);
        peer.floor_heard = peer.floor_heard.max(theirs.floor_heard);
        peer.stamp = peer.stamp.max(Some(theirs.stamp));
        peer.stamp_kept = theirs.stamp_kept;
        let run = peer.incarnation;
        (peer.doubts, peer.moves) = (theirs.doubts, theirs.moves);
        peer.members_told = Some(theirs.members);
        let kept = self.books.wanted.kept.get(&from).copied().unwrap_or_default();
        if theirs.stamp > kept.stamp && theirs.stamp >= self.needed_stamp(from) {
            self.books.wanted.kept.insert(from, Kept { stamp: theirs.stamp, run });
            self.write_ledger();
        }
        if theirs.stamp_kept > self.books.wanted.stamp {
            self.fall_behind(theirs.stamp_kept, theirs.run_kept);
        } else {
            self.books.agreed.insert(from);
            self.confirm_store();
        }
        if news || theirs.floor_heard > 0 {
            self.rests_may_answer();
        }
    }

    /// Raises the stamp, and says from which one on a store has seen all that this one has now.
    pub(super) fn raise_stamp(&mut self) -> Stamp {
        self.books.wanted.stamp.number += 1;
        self.write_ledger();
        self.books.wanted.stamp
    }

    pub(super) fn ledger_written(&mut self, result: Result<(), String>) {
        let Some((dot, ledger)) = self.books.writing.take() else { return };
        match result {
            Ok(()) => {
                self.books.records = vec![dot];
                self.books.stored = ledger;
                self.write_ledger();
                self.rests_may_answer();
            }
            Err(error) => {
                self.counters.storage_failed += 1;
                // Whether it is there is unknown: it goes with the next one.
                self.books.records.push(dot);
                self.notice(format!("the ledger can't be written: {error}"));
            }
        }
    }

    /// Writes the ledger where it is not what it shall be. Called again with every heartbeat.
    pub(super) fn write_ledger(&mut self) {
        if self.books.writing.is_some() || self.books.wanted == self.books.stored {
            return;
        }
        self.books.wanted.sequence += 1;
        let ledger = self.books.wanted.clone();
        let value = Bytes::from(ledger.to_string());
        let dot = Dot { actor: Actor(self.chance.next_u64()), counter: 1 };
        let version = Version {
            dot,
            since: 0,
            context: Context::EMPTY,
            written_ms: self.now.wall_ms,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(1),
            len: value.len() as u64,
            digest: Digest::of(&value),
            seal: None,
        };
        let replaces = self.books.records.clone();
        self.books.writing = Some((dot, ledger));
        let change = Change::Put { key: Ledger::key(), version: Arc::new(version), value, replaces };
        self.work(Purpose::Ledger, Work::Change(change));
    }

    /// A store of before this node was removed and added again is an older copy, too.
    pub(super) fn check_generation(&mut self) {
        let generation = self.members.find(self.me).map_or(0, |m| m.generation);
        if generation > self.books.wanted.stamp.generation {
            self.fall_behind(Stamp { generation, number: 0 }, u64::MAX);
        }
    }

    /// Members that were removed are not remembered: should they return, their generation tells.
    pub(super) fn forget_stamps(&mut self) {
        let members = &self.members;
        self.books.wanted.kept.retain(|id, _| members.contains(*id));
        self.books.agreed.retain(|id| members.contains(*id));
        self.write_ledger();
    }

    /// Once all others agree that this store is the latest of this node, and once per process, the
    /// stamp is raised: so a store that is restored later, or lost, is noticed.
    fn confirm_store(&mut self) {
        if !self.books.confirmed && self.others().all(|id| self.books.agreed.contains(&id)) {
            self.books.confirmed = true;
            self.books.wanted.runs.clear();
            self.raise_stamp();
        }
    }

    /// What is here, except what this process named: of whom, and up to which counter.
    fn everything_held(&self) -> BTreeMap<Actor, u64> {
        let mut held = BTreeMap::new();
        for version in self.index.everything().filter(|v| !self.naming.named(v.dot)) {
            let last: &mut u64 = held.entry(version.writer()).or_default();
            *last = version.dot.counter.max(*last);
        }
        held
    }

    fn needed_stamp(&self, id: NodeId) -> Stamp {
        let generation = self.members.find(id).map_or(0, |m| m.generation);
        let kept = self.books.wanted.kept.get(&id).copied().unwrap_or_default();
        kept.stamp.max(Stamp { generation, number: 0 })
    }

    /// The store is behind what is remembered of it, which the process `run` told. What it held when
    /// the first process after that one began is in doubt; what came in since then is not.
    fn fall_behind(&mut self, remembered: Stamp, run: u64) {
        let kind = if self.index.keys() + self.index.tombstones() == 0 { "empty" } else { "an older copy" };
        self.notice(format!(
            "the store of this node is {kind}: it was lost or restored. What it holds is checked with the others"
        ));
        self.counters.stores_doubted += 1;
        let stamp = Stamp { number: remembered.number + 1, ..remembered };
        self.books.wanted.stamp = stamp;
        self.books.wanted.doubts = true;
        let runs = &self.books.wanted.runs;
        let held = runs.iter().find(|r| r.id > run).map(|r| r.held.clone());
        for (actor, counter) in held.unwrap_or_else(|| self.everything_held()) {
            let last = self.books.wanted.doubted.entry(actor).or_default();
            *last = counter.max(*last);
        }
        self.write_ledger();
        self.begin_doubt();
    }
}
