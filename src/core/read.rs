//! Reads that can't be answered from here alone: owners are asked, what they hold is merged.
//!
//! - `One`: the owners one after the other, best first; the first that holds anything ends it.
//!   One that is slow is not waited for: the next is asked too.
//! - `Quorum`, `All`: every owner at once; enough answers end it.
//!
//! While keys move, those who owned them are asked as well (`moves`).
//!
//! What this node holds itself counts like an answer. A value too long for a reply is fetched
//! from the owner that named it and kept here like any version (`transfer`), and the read ends
//! when it is here. Owners that were found stale are given what they lack; a read by quorum ends
//! when enough have it (`settle`).
//!
//! Limits: operations (see [`operations`](super::operations)); one question per owner and read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Core, Found, OpId, Outcome, Purpose, ReadRequest, Timer, Work, operations::Operation, outbox::Peer, scrub,
};
use crate::{
    config::Read,
    error::ReadError,
    model::{Dot, Key, Mirrors, NodeId, Record, Siblings, Version},
    partition::Placement,
    wire::{AckStatus, MAX_MESSAGE_BYTES, Message, value_len_hint},
};

/// Patience with one owner before `One` asks the next one as well.
const HEDGE_MS: u64 = 100;

/// Questions on their way, and reads that wait for a long value.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    asked: BTreeMap<u64, OpId>,
    fetching: BTreeMap<Dot, Vec<OpId>>,
    /// These wait for an owner that this node has not met yet.
    parked: Vec<OpId>,
}

impl Reads {
    /// Questions on their way.
    pub(crate) fn asking(&self) -> usize {
        self.asked.len()
    }
}

/// A read that is not answered yet.
#[derive(Debug)]
pub(crate) struct ReadOperation {
    pub(super) key: Key,
    pub(super) read: Read,
    /// Ends as the outcome of a wait.
    pub(super) waited: bool,
    /// Long values are left out.
    pub(super) short: bool,
    /// What this node holds turned out to be damaged: it takes the owners' copies in its place.
    pub(super) distrust: bool,
    /// These are on their way.
    refetched: bool,
    pub(super) owners: Vec<NodeId>,
    pub(super) to_ask: Vec<NodeId>,
    pub(super) tags: Vec<(u64, NodeId)>,
    /// These may hold the key though they do not own it.
    pub(super) former: Vec<NodeId>,
    /// These are asked once the former owners have answered.
    pub(super) last_round: Vec<NodeId>,
    /// By which it began.
    pub(super) placement: Arc<Placement>,
    pub(super) answers: Vec<(NodeId, Vec<Dot>)>,
    pub(super) found: Siblings,
    awaited: Vec<Dot>,
    hedge_ms: u64,
    hedge_at_ms: u64,
}

impl ReadOperation {
    fn needed(&self) -> usize {
        match self.read {
            Read::One => 1,
            Read::Quorum => self.owners.len() / 2 + 1,
            Read::All => self.owners.len(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    fn answered(&self) -> usize {
        self.answers.iter().filter(|(id, _)| self.owners.contains(id)).count()
    }

    /// Who went down is not asked.
    fn leave_out_absent(&mut self, peers: &BTreeMap<NodeId, Peer>) {
        self.to_ask.retain(|id| peers.get(id).is_some_and(|peer| peer.up));
    }

    /// Nobody is left to ask or to wait for.
    fn is_exhausted(&self) -> bool {
        self.tags.is_empty() && self.to_ask.is_empty() && self.last_round.is_empty()
    }

    pub(super) fn is_answered(&self) -> bool {
        let is_last = self.last_round.is_empty();
        match self.read {
            Read::One if !self.found.is_empty() => self.answered() > 0,
            Read::One => is_last && self.answered() >= self.owners.len(),
            Read::Quorum | Read::All => is_last && self.answered() >= self.needed(),
        }
    }

    /// Whether the answers that came are good for an outcome, now that no more will come.
    fn suffices(&self) -> bool {
        self.is_answered() || (self.read == Read::One && (self.answered() > 0 || !self.found.is_empty()))
    }
}

impl Core {
    pub(super) fn submit_read(&mut self, op: OpId, ask: ReadRequest) {
        self.counters.reads += 1;
        let timeout_ms = self.timeout_ms(ask.timeout_ms);
        self.begin_read(op, ask, timeout_ms, false);
    }

    /// Starts a read; with `waited` it ends as the outcome of a wait.
    pub(super) fn begin_read(&mut self, op: OpId, ask: ReadRequest, timeout_ms: u64, waited: bool) {
        let ReadRequest { key, read, distrust, short, .. } = ask;
        self.counters.damage_found += u64::from(distrust);
        let mirrors = self.index.mirrors(&key).unwrap_or(self.config.mirrors);
        // A key may have been written with other mirrors than the default. Owners with fewer
        // mirrors come first in those with more, so asking on along the list finds it.
        let owners: Vec<NodeId> = self.placement.owners(key.hash64(), mirrors).collect();
        let held = self.own_answer(&key, distrust);
        let silent = held.is_none();
        let mut to_ask: Vec<NodeId> = match read {
            Read::One => self.placement.owners(key.hash64(), Mirrors::ALL).collect(),
            _ => owners.clone(),
        };
        to_ask.retain(|id| self.is_up(*id));
        let mut operation = ReadOperation {
            key,
            read,
            waited,
            short,
            distrust,
            refetched: false,
            owners,
            to_ask,
            tags: Vec::new(),
            former: Vec::new(),
            last_round: Vec::new(),
            placement: self.placement.clone(),
            answers: Vec::new(),
            found: Siblings::resolve(held.unwrap_or_default()),
            awaited: Vec::new(),
            hedge_ms: HEDGE_MS,
            hedge_at_ms: 0,
        };
        let dots = operation.found.records().iter().map(|r| r.version.dot).collect();
        if !silent {
            operation.answers.push((self.me, dots));
        }
        let mine = usize::from(!silent && operation.owners.contains(&self.me));
        let up = mine + operation.to_ask.len();
        if operation.to_ask.is_empty() && self.is_too_new_to_tell(&operation) {
            return self.park_read(op, operation, timeout_ms);
        }
        if up < operation.needed() || (operation.to_ask.is_empty() && !operation.suffices()) {
            self.counters.reads_failed += 1;
            let error = ReadError::Unavailable { needed: operation.needed(), up };
            return self.finish(op, outcome(waited, Err(error)));
        }
        if read != Read::One || operation.found.is_empty() {
            let owners_up = operation.owners.iter().filter(|id| self.is_up(**id)).count();
            operation.ask_former(self.former_owners(&operation.key, &operation.owners), owners_up);
        }
        if operation.is_answered() || operation.is_exhausted() {
            return match self.knows_too_little(&operation) {
                true => self.park_read(op, operation, timeout_ms),
                false => self.end_read(op, operation, timeout_ms),
            };
        }
        self.keep(op, Operation::Read(Box::new(operation)), timeout_ms);
        self.ask(op);
    }

    /// What this node answers for. What may be a ghost does not count as an answer, and is not passed on.
    pub(super) fn own_answer(&self, key: &Key, distrust: bool) -> Option<Vec<Record>> {
        let silent = distrust || self.is_doubted(key);
        (!silent).then(|| self.held(key))
    }

    /// What this node has stored of a key; values to be filled in by whoever reads storage.
    pub(super) fn held(&self, key: &Key) -> Vec<Record> {
        let record = |version: Version| {
            let value = Self::is_bare(&version).then(Bytes::new);
            Record { version: Arc::new(version), value }
        };
        self.index.stored(key).map(record).collect()
    }

    pub(super) fn read_timed_out(&mut self, op: OpId, read: ReadOperation) {
        let error = ReadError::TimedOut { answered: read.answered(), needed: read.needed() };
        self.fail_read(op, &read, error);
    }

    pub(super) fn on_read(&mut self, from: NodeId, tag: u64, key: Key, values: bool) {
        if self.is_doubted(&key) {
            return self.send(from, Message::ReadReply { tag, records: None });
        }
        let bare = self.index.stored(&key).all(|v| Self::is_bare(&v));
        if bare || !values {
            let records = Some(self.held(&key));
            return self.send(from, Message::ReadReply { tag, records });
        }
        // One that is refused in silence is asked again, or another owner is.
        if !self.is_disk_busy() {
            self.work(Purpose::Reply { peer: from, tag }, Work::Read(key));
        }
    }

    pub(super) fn reply_loaded(&mut self, to: NodeId, tag: u64, result: Result<Vec<Record>, String>) {
        let records = match result {
            Ok(mut records) => {
                self.shorten(&mut records);
                Some(records)
            }
            Err(error) => {
                self.counters.storage_failed += 1;
                self.notice(format!("a read for {to} failed: {error}"));
                None
            }
        };
        self.send(to, Message::ReadReply { tag, records });
    }

    pub(super) fn on_read_reply(&mut self, from: NodeId, tag: u64, records: Option<Vec<Record>>) {
        if self.doubt_answered(tag, records.as_deref()) {
            return;
        }
        let versions: Vec<_> = records.iter().flatten().map(|r| r.version.clone()).collect();
        if self.write_learned(tag, &versions) || self.wait_answered(tag, &versions) {
            return;
        }
        let Some(op) = self.reads.asked.remove(&tag) else { return };
        let Some(key) = self.operations.read(op).map(|read| read.key.clone()) else { return };
        let wrong = self.wrongly_sealed(from, &key, &versions);
        let Some(read) = self.operations.read(op) else { return };
        read.tags.retain(|(asked, _)| *asked != tag);
        let mut damaged = 0;
        for record in records.iter().flatten() {
            if wrong.contains(&record.version.dot) {
                continue;
            }
            if record.value.as_ref().is_none_or(|value| record.version.matches(value)) {
                read.found.insert(record.clone());
            } else {
                damaged += 1;
            }
        }
        if records.is_some() && damaged == 0 && wrong.is_empty() {
            read.answers.push((from, versions.iter().map(|v| v.dot).collect()));
        }
        self.counters.damaged_received += damaged;
        self.widen_read(op);
        self.continue_read(op);
    }

    /// A version was stored that reads may be waiting for.
    pub(super) fn read_stored(&mut self, dot: Dot) {
        for op in self.reads.fetching.remove(&dot).unwrap_or_default() {
            let Some(key) = self.operations.read(op).map(|r| r.key.clone()) else { continue };
            // What is here now may have replaced what the read found before.
            let held = self.held(&key);
            if let Some(read) = self.operations.read(op) {
                held.into_iter().for_each(|record| read.found.insert(record));
                read.awaited.retain(|d| *d != dot);
                self.continue_read(op);
            }
        }
    }

    /// A version that reads may be waiting for will not come.
    pub(super) fn read_failed(&mut self, dot: Dot) {
        let waiting = self.reads.fetching.remove(&dot).unwrap_or_default();
        waiting.into_iter().for_each(|op| self.value_missing(op));
    }

    /// A version that reads may be waiting for can't be fetched now: there is no room for it, it was replaced
    /// or given to others meanwhile, or its holder went down. They begin anew soon, in the time that is left.
    pub(super) fn read_lost(&mut self, dot: Dot) {
        for op in self.reads.fetching.remove(&dot).unwrap_or_default() {
            if self.operations.read(op).is_some_and(|read| read.distrust) {
                // To begin anew would hand out what is here, which is damaged.
                self.value_missing(op);
                continue;
            }
            self.begin_anew_soon(op);
        }
    }

    fn value_missing(&mut self, op: OpId) {
        if let Some(Operation::Read(read)) = self.operations.remove(op) {
            let error = ReadError::Storage("the value could not be fetched from an owner".into());
            self.fail_read(op, &read, error);
        }
    }

    /// Where an answer is late: asks the next owner, or the same ones again.
    pub(super) fn hedge_reads(&mut self) {
        for op in std::mem::take(&mut self.reads.parked) {
            let left_ms = self.operations.left_ms(op, self.now.mono_ms);
            if let Some(Operation::Read(read)) = self.operations.remove(op) {
                self.read_again(op, *read, left_ms);
            }
        }
        let now_ms = self.now.mono_ms;
        let late: BTreeSet<OpId> = self.reads.asked.values().copied().collect();
        for op in late {
            let Some(read) = self.operations.read(op) else { continue };
            if read.hedge_at_ms > now_ms {
                let at_ms = read.hedge_at_ms;
                self.timers.set_earlier(Timer::Await, at_ms);
                continue;
            }
            read.leave_out_absent(&self.peers);
            if !read.to_ask.is_empty() {
                self.ask(op);
                continue;
            }
            read.hedge_ms *= 2;
            read.hedge_at_ms = now_ms + read.hedge_ms;
            let (key, tags, at_ms) = (read.key.clone(), read.tags.clone(), read.hedge_at_ms);
            self.timers.set_earlier(Timer::Await, at_ms);
            for (tag, id) in tags {
                self.send(id, Message::Read { tag, key: key.clone(), values: true });
            }
        }
    }

    /// A peer went down: it will not answer.
    pub(super) fn reads_lost(&mut self, peer: NodeId) {
        let ops: Vec<OpId> = self.reads.asked.values().copied().collect();
        for op in ops {
            let Some(read) = self.operations.read(op) else { continue };
            let lost: Vec<u64> =
                read.tags.iter().filter(|(_, id)| *id == peer).map(|(tag, _)| *tag).collect();
            read.tags.retain(|(_, id)| *id != peer);
            lost.iter().for_each(|tag| _ = self.reads.asked.remove(tag));
            if !lost.is_empty() {
                self.continue_read(op);
            }
        }
    }

    fn continue_read(&mut self, op: OpId) {
        let Some(read) = self.operations.read(op) else { return };
        if !read.awaited.is_empty() {
            return;
        }
        read.leave_out_absent(&self.peers);
        self.begin_last_round(op);
        let Some(read) = self.operations.read(op) else { return };
        if !read.is_answered() && !read.is_exhausted() {
            if read.read != Read::One || read.tags.is_empty() {
                self.ask(op);
            }
            return;
        }
        if !read.suffices() {
            if let Some(Operation::Read(read)) = self.operations.remove(op) {
                let error = ReadError::Unavailable { needed: read.needed(), up: read.answered() };
                self.fail_read(op, &read, error);
            }
            return;
        }
        match self.too_long(op) {
            Some(error) => {
                if let Some(Operation::Read(read)) = self.operations.remove(op) {
                    self.fail_read(op, &read, error);
                }
                return;
            }
            None if self.fetch_missing(op) => return,
            None => {}
        }
        let left_ms = self.operations.left_ms(op, self.now.mono_ms);
        if let Some(Operation::Read(read)) = self.operations.remove(op) {
            if self.knows_too_little(&read) {
                self.park_read(op, *read, left_ms);
            } else if self.is_readable(&read) && !self.is_overtaken(&read) {
                self.end_read(op, *read, left_ms);
            } else {
                self.read_again(op, *read, left_ms);
            }
        }
    }

    fn park_read(&mut self, op: OpId, read: ReadOperation, left_ms: u64) {
        self.keep(op, Operation::Read(Box::new(read)), left_ms);
        self.begin_anew_soon(op);
    }

    /// Has a read begin anew in a moment, in the time that is left.
    fn begin_anew_soon(&mut self, op: OpId) {
        self.reads.parked.push(op);
        self.timers.set_earlier(Timer::Await, self.now.mono_ms + HEDGE_MS);
    }

    /// What was found is not here any more: begins anew with the time that is left.
    pub(super) fn read_again(&mut self, op: OpId, read: ReadOperation, left_ms: u64) {
        self.forget_read(op, &read);
        let ReadOperation { key, read, waited, short, .. } = read;
        let ask = ReadRequest { key, read, timeout_ms: None, distrust: false, short };
        self.begin_read(op, ask, left_ms, waited);
    }

    /// Why a value that was found can't be handed out as a whole. Who waits gets to know of it without.
    fn too_long(&mut self, op: OpId) -> Option<ReadError> {
        let (max, wall_ms) = (self.config.max_value_bytes, self.now.wall_ms);
        let read = self.operations.read(op)?;
        let mut lacking = read.found.live(wall_ms).filter(|r| r.value.is_none()).map(|r| r.version.len);
        let len = lacking.find(|len| *len > max)?;
        match (read.waited, op == scrub::OP) {
            (true, _) => {
                read.short = true;
                None
            }
            (false, true) => None,
            (false, false) => (!read.short).then_some(ReadError::TooLong { len, max }),
        }
    }

    /// Whether every value that was found can be had: one that this node held when the read began may
    /// have been replaced or handed off since. Nobody is told then that there is none; it is read again.
    pub(super) fn is_readable(&self, read: &ReadOperation) -> bool {
        let mut lacking = read.found.live(self.now.wall_ms).filter(|r| r.value.is_none());
        read.short || lacking.all(|r| self.index.holds(&read.key, r.version.dot))
    }

    /// The versions that were found may spread wider than was assumed: then more owners count.
    fn widen_read(&mut self, op: OpId) {
        let placement = self.placement.clone();
        let Some(read) = self.operations.read(op) else { return };
        let Some(mirrors) = read.found.records().iter().map(|r| r.version.mirrors).max() else { return };
        let owners: Vec<NodeId> = placement.owners(read.key.hash64(), mirrors).collect();
        if read.read == Read::One || owners.len() <= read.owners.len() {
            return;
        }
        let more: Vec<NodeId> = owners.iter().filter(|id| !read.owners.contains(id)).copied().collect();
        read.owners = owners;
        let more: Vec<NodeId> = more.into_iter().filter(|id| *id != self.me && self.is_up(*id)).collect();
        match self.operations.read(op) {
            Some(read) if read.last_round.is_empty() => read.to_ask.extend(more),
            Some(read) => read.last_round.extend(more),
            None => {}
        }
    }

    fn ask(&mut self, op: OpId) {
        let hedge_at_ms = self.now.mono_ms + HEDGE_MS;
        let Some(read) = self.operations.read(op) else { return };
        let count = if read.read == Read::One { read.to_ask.len().min(1) } else { read.to_ask.len() };
        let (key, whom): (Key, Vec<NodeId>) = (read.key.clone(), read.to_ask.drain(..count).collect());
        read.hedge_at_ms = hedge_at_ms;
        for id in whom {
            let tag = self.fresh_id();
            self.reads.asked.insert(tag, op);
            if let Some(read) = self.operations.read(op) {
                read.tags.push((tag, id));
            }
            self.send(id, Message::Read { tag, key: key.clone(), values: true });
        }
        self.timers.set_earlier(Timer::Await, hedge_at_ms);
    }

    /// Fetches values that a reader gets and this node lacks, as many at once as there is room for. Says
    /// whether there are any.
    fn fetch_missing(&mut self, op: OpId) -> bool {
        let wall_ms = self.now.wall_ms;
        let Some(read) = self.operations.read(op) else { return false };
        if read.short {
            return false;
        }
        let key = read.key.clone();
        let missing: Vec<Arc<Version>> =
            read.found.live(wall_ms).filter(|r| r.value.is_none()).map(|r| r.version.clone()).collect();
        let holders = read.answers.clone();
        // Once: what was mended is read from here.
        let anew = read.distrust && !std::mem::replace(&mut read.refetched, true);
        let mut waits = false;
        for version in missing {
            if self.index.holds(&key, version.dot) && !anew {
                continue;
            }
            let holder = holders.iter().find(|(id, dots)| *id != self.me && dots.contains(&version.dot));
            let Some((holder, _)) = holder else { continue };
            // The rest when these are here.
            if waits && self.transfers.len() >= self.config.max_transfers {
                break;
            }
            let dot = version.dot;
            self.reads.fetching.entry(dot).or_default().push(op);
            if let Some(read) = self.operations.read(op) {
                read.awaited.push(dot);
            }
            waits = true;
            match self.fetch(*holder, None, key.clone(), version) {
                AckStatus::Fetching => {}
                AckStatus::Failed => self.read_failed(dot),
                // There is no room for it now.
                _ => self.read_lost(dot),
            }
        }
        waits
    }

    fn end_read(&mut self, op: OpId, read: ReadOperation, left_ms: u64) {
        self.forget_read(op, &read);
        self.repair(&read);
        self.settle_read(op, read, left_ms);
    }

    fn fail_read(&mut self, op: OpId, read: &ReadOperation, error: ReadError) {
        self.forget_read(op, read);
        self.counters.reads_failed += 1;
        self.finish(op, outcome(read.waited, Err(error)));
    }

    fn forget_read(&mut self, op: OpId, read: &ReadOperation) {
        self.forget_settling(op, &read.key);
        read.tags.iter().for_each(|(tag, _)| _ = self.reads.asked.remove(tag));
        for dot in &read.awaited {
            if let Some(ops) = self.reads.fetching.get_mut(dot) {
                ops.retain(|waiting| *waiting != op);
            }
        }
    }

    /// Leaves out values until the records fit into one frame; the reader fetches those. Where what is
    /// known of the versions takes several frames anyway, values go along up to as many bytes again:
    /// to fetch many short ones would cost more.
    pub(super) fn shorten(&self, records: &mut [Record]) {
        let values: Vec<_> = records.iter_mut().map(|r| r.value.take()).collect();
        let around = Message::reply_len_hint(records);
        let mut room = match self.max_message_bytes.checked_sub(around) {
            Some(left) => left,
            None => around.min(MAX_MESSAGE_BYTES.saturating_sub(around)),
        };
        for (record, value) in records.iter_mut().zip(values) {
            let more = value_len_hint(value.as_ref().map(Bytes::len));
            let is_empty = value.as_ref().is_some_and(Bytes::is_empty);
            if is_empty || more <= room {
                room = room.saturating_sub(more);
                record.value = value;
            }
        }
    }
}

pub(super) fn outcome(waited: bool, result: Result<Found, ReadError>) -> Outcome {
    if waited { Outcome::Waited(result.map(Some)) } else { Outcome::Read(result) }
}
