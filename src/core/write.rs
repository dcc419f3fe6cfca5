//! Writes: the only way by which a version enters the index.
//!
//! ```text
//! client ──> name it, begin ──> storage (always here first) ──────> count acks ──> outcome
//!                       └────> copies to all owners, in parallel ──────┘
//! peer ────> judge ──> begin ──> storage ──> WriteAck::Stored
//! ```
//!
//! Invariants: nobody is told `Stored` before storage was; a version is verified (length and
//! digest) before it is begun; a version that is known or replaced is acknowledged as `Known` and
//! never stored twice; one whose signature is not as its key demands (`seals`) is never begun. A write that
//! failed is unknown: its copies may live elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{
    Content, Core, OpId, Outcome, Output, Progress, Purpose, Work, WriteRequest, Written,
    operations::Operation,
};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    config::Ack,
    core::index::{News, Verdict},
    error::{SubmitError, WriteError},
    fixed_map::FixedMap,
    model::{Context, Digest, Dot, Key, Kind, Ledger, Mirrors, NodeId, Version},
    storage::Change,
    wire::{AckStatus, Message},
};

/// How long a node that holds nothing of a key asks an owner what it would replace, before it
/// writes without knowing.
const LEARN_MS: u64 = 300;

/// How fast a long value is at least expected to get to its mirrors.
const SLOW_BYTES_PER_SECOND: u64 = 1 << 20;

/// Versions on their way to storage, and who waits for each.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    storing: FixedMap<Dot, SmallVec<[Waiter; 1]>>,
    running: FixedMap<Dot, OpId>,
    learning: FixedMap<u64, OpId>,
}

impl Writes {
    /// Whether a client's write of that name is not complete yet.
    pub(crate) fn is_running(&self, dot: Dot) -> bool {
        self.running.contains_key(&dot)
    }

    /// Writes of clients that are not complete yet.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }
}

/// Who is told when a version was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// Nobody: this node wanted it itself.
    Nobody,
    /// A peer that sent it with this tag.
    Peer(NodeId, u64),
}

/// A client's write that is not complete yet.
#[derive(Debug)]
pub(crate) enum WriteOperation {
    /// It waits for an owner to say what the key is.
    Learning(WriteRequest, u64),
    /// It is on its way.
    Running(Running),
}

/// As many nodes as a key usually has owners, without a piece of memory of their own.
type Nodes = SmallVec<[NodeId; 3]>;

#[derive(Debug)]
pub(crate) struct Running {
    written: Written,
    ack: Ack,
    owners: Nodes,
    acked: Nodes,
    stored: bool,
    progress: bool,
}

impl Running {
    fn needed(&self) -> usize {
        match self.ack {
            Ack::Local => 0,
            Ack::Mirrors(n) => usize::from(n),
            Ack::Quorum => self.owners.len() / 2 + 1,
            Ack::All => self.owners.len(),
        }
    }

    fn is_complete(&self) -> bool {
        self.acked.len() >= self.needed() && (self.stored || self.ack != Ack::Local)
    }
}

impl Core {
    pub(super) fn submit_write(&mut self, op: OpId, request: WriteRequest) {
        self.counters.writes += 1;
        let is_removed = self.is_removed();
        if is_removed || self.is_disk_busy() {
            let reason = if is_removed { SubmitError::NoMember } else { SubmitError::Busy };
            return self.refuse_write(op, request, WriteError::Refused(reason));
        }
        let timeout_ms = self.write_timeout_ms(request.timeout_ms, request.content.len());
        let mirrors = request.mirrors.unwrap_or(self.config.mirrors);
        let known = self.index.look(&request.key);
        let is_blind = request.context.is_none() && known.0.is_none() && request.seal.is_none();
        if is_blind && !self.owns(self.me, &request.key, mirrors) && self.config.write_chaining {
            let owners: Vec<NodeId> = self.placement.owners(request.key.hash64(), mirrors).collect();
            if let Some(owner) = owners.into_iter().find(|id| self.is_up(*id)) {
                let tag = self.fresh_id();
                let key = request.key.clone();
                self.writes.learning.insert(tag, op);
                let learning = WriteOperation::Learning(request, tag);
                self.keep(op, Operation::Write(Box::new(learning)), timeout_ms.min(LEARN_MS));
                return self.send(owner, Message::Read { tag, key, values: false });
            }
        }
        self.begin_write(op, request, known);
    }

    /// An owner said what it holds of a key that is about to be written.
    pub(super) fn write_learned(&mut self, tag: u64, versions: &[Arc<Version>]) -> bool {
        let Some(op) = self.writes.learning.remove(&tag) else { return false };
        if let Some(Operation::Write(write)) = self.operations.remove(op)
            && let WriteOperation::Learning(request, _) = *write
        {
            let (mirrors, mut known) = self.index.look(&request.key);
            versions.iter().for_each(|v| known.see(v));
            let learned = versions.iter().map(|v| v.mirrors).max();
            self.begin_write(op, request, (mirrors.max(learned), known));
        }
        true
    }

    pub(super) fn write_timed_out(&mut self, op: OpId, write: WriteOperation) {
        match write {
            WriteOperation::Learning(request, tag) => {
                self.writes.learning.remove(&tag);
                let known = self.index.look(&request.key);
                self.begin_write(op, request, known);
            }
            WriteOperation::Running(running) => {
                self.writes.running.remove(&running.written.version);
                self.counters.writes_unknown += 1;
                let error = WriteError::TimedOut { acked: running.acked.len() };
                self.finish(op, Outcome::Written(Err(error)));
            }
        }
    }

    /// `before` and `seen`: what is known of the key, here and from owners.
    fn begin_write(
        &mut self,
        op: OpId,
        request: WriteRequest,
        (before, mut seen): (Option<Mirrors>, Context),
    ) {
        if self.is_removed() {
            // It left while an owner was asked: nobody would take over what is kept here from now on.
            return self.refuse_write(op, request, WriteError::Refused(SubmitError::NoMember));
        }
        let key = request.key.clone();
        let mirrors = request.mirrors.or(before).unwrap_or(self.config.mirrors);
        let ack = request.ack.unwrap_or(self.config.ack);
        let owners: Nodes = self.placement.owners(key.hash64(), mirrors).collect();
        if let Ack::Mirrors(asked) = ack
            && usize::from(asked) > owners.len()
        {
            let error = WriteError::AckImpossible { asked, owners: owners.len() };
            return self.refuse_write(op, request, error);
        }
        let timeout_ms = self.write_timeout_ms(request.timeout_ms, request.content.len());
        let version = match self.sealed(&key, &request) {
            Ok(Some(version)) => version,
            Ok(None) => {
                let asked = request.context.map(|context| self.index.closed(&key, context));
                asked.iter().for_each(|context| seen.merge(context));
                let (dot, since) = self.naming.name(&key, &seen);
                Version {
                    dot,
                    since,
                    context: asked.unwrap_or(seen),
                    written_ms: self.now.wall_ms,
                    expires_ms: request.expires_ms,
                    kind: request.kind,
                    mirrors,
                    len: request.content.len(),
                    digest: request.digest,
                    seal: None,
                }
            }
            Err(error) => {
                let error = WriteError::Refused(error);
                return self.refuse_write(op, request, error);
            }
        };
        let (mirrors, version) = (version.mirrors, Arc::new(version));
        let (dot, since) = (version.dot, version.since);
        // One that was named here is news; one that is signed may have come before.
        let is_known = version.seal.is_some() && self.index.holds(&key, dot);
        let mut known = version.context.clone();
        known.add(dot.actor, since, dot.counter);
        let written =
            Written { key: key.clone(), version: dot, context: known, len: version.len, mirrors, acked: 0 };
        // Who holds what is replaced must hear of it, even if the new version is not for it.
        let widest = before.unwrap_or(mirrors).max(mirrors);
        let placement = self.placement.clone();
        let running =
            Running { written, ack, owners, acked: Nodes::new(), stored: false, progress: request.progress };
        self.writes.running.insert(dot, op);
        self.keep(op, Operation::Write(Box::new(WriteOperation::Running(running))), timeout_ms);
        match is_known {
            true => {
                if let Content::Staged { stage, .. } = request.content {
                    self.discard(key.clone(), stage);
                }
                self.write_stored(&key, dot);
            }
            false => self.admit(&key, version.clone(), request.content.clone(), Waiter::Nobody),
        }
        if self.config.write_chaining {
            let me = self.me;
            let targets = placement.owners(key.hash64(), widest).filter(|id| *id != me);
            targets.for_each(|id| match &request.content {
                Content::Whole(value) => self.send_copy(id, &key, &version, value),
                // It can be fetched as soon as it is committed here.
                Content::Staged { .. } => self.owe(id, &key),
            });
        }
    }

    /// Nothing of it was or will be stored.
    fn refuse_write(&mut self, op: OpId, request: WriteRequest, error: WriteError) {
        if let Content::Staged { stage, .. } = request.content {
            self.discard(request.key, stage);
        }
        self.finish(op, Outcome::Written(Err(error)));
    }

    /// How long a write may take: one that does not say gets the time on top that its value takes.
    fn write_timeout_ms(&self, asked_ms: Option<u64>, len: u64) -> u64 {
        let on_top_ms = len / SLOW_BYTES_PER_SECOND * 1_000;
        asked_ms.unwrap_or_else(|| self.timeout_ms(None).saturating_add(on_top_ms))
    }

    pub(super) fn on_write(
        &mut self,
        from: NodeId,
        tag: u64,
        key: Key,
        version: Arc<Version>,
        value: Option<Bytes>,
    ) {
        if self.peers.get(&from).is_some_and(|peer| tag < peer.floor) {
            // It came so late that its sender has long stopped waiting: by now everything may
            // have been forgotten that would tell it from news.
            return;
        }
        let status = match self.judge(&key, &version) {
            Verdict::Known => {
                self.tell_narrowed(from, &key, &version);
                self.known_status(&key, version.dot)
            }
            Verdict::Pending => return self.await_store(version.dot, Waiter::Peer(from, tag)),
            Verdict::Overtaken(by) => return self.await_store(by, Waiter::Peer(from, tag)),
            Verdict::New(_) => match value {
                _ if self.removed => AckStatus::Busy,
                _ if self.is_disk_busy() => self.without_room(&key, &version),
                _ if Ledger::is_named(&key) => AckStatus::Failed,
                _ if Self::is_bare(&version) && version.digest != Digest::of(b"") => AckStatus::Failed,
                _ if version.kind == Kind::Tombstone && version.len != 0 => AckStatus::Failed,
                Some(value) if version.matches(&value) => {
                    return self.accept(&key, version, Content::Whole(value), Waiter::Peer(from, tag));
                }
                Some(_) => {
                    self.counters.damaged_received += 1;
                    AckStatus::Failed
                }
                None if Self::is_bare(&version) => {
                    return self.accept(&key, version, Content::Whole(Bytes::new()), Waiter::Peer(from, tag));
                }
                None => match self.check_seal(&key, &version) {
                    Ok(()) => self.fetch(from, Some(tag), key, version),
                    Err(error) => {
                        self.seal_refused(&key, Some(from), error);
                        AckStatus::Refused
                    }
                },
            },
        };
        self.send(from, Message::WriteAck { tag, status });
    }

    /// Keeps a version whose value was verified unless it is known, replaced or not signed as its key
    /// demands; `waiter` hears of it either way.
    pub(super) fn accept(&mut self, key: &Key, version: Arc<Version>, content: Content, waiter: Waiter) {
        let Some(news) = self.lets_in(key, &version, waiter) else { return };
        if let Err(error) = self.check_seal(key, &version) {
            let from = if let Waiter::Peer(peer, _) = waiter { Some(peer) } else { None };
            self.seal_refused(key, from, error);
            if let Content::Staged { stage, .. } = content {
                self.discard(key.clone(), stage);
            }
            self.tell(waiter, AckStatus::Refused);
            return self.read_failed(version.dot);
        }
        self.store(key, version, content, waiter, news);
    }

    /// The same for one whose signature was looked at.
    fn admit(&mut self, key: &Key, version: Arc<Version>, content: Content, waiter: Waiter) {
        if let Some(news) = self.lets_in(key, &version, waiter) {
            self.store(key, version, content, waiter, news);
        }
    }

    /// What a version changes that is news here; of another one `waiter` hears.
    fn lets_in(&mut self, key: &Key, version: &Version, waiter: Waiter) -> Option<News> {
        match self.judge(key, version) {
            Verdict::New(news) => return Some(news),
            Verdict::Pending => self.await_store(version.dot, waiter),
            Verdict::Overtaken(by) => self.await_store(by, waiter),
            Verdict::Known => self.tell(waiter, self.known_status(key, version.dot)),
        }
        None
    }

    fn store(
        &mut self,
        key: &Key,
        version: Arc<Version>,
        content: Content,
        waiter: Waiter,
        News { replaces, widest, left }: News,
    ) {
        let dot = version.dot;
        #[cfg(turbopump_mutations)]
        if is_planted(Mutation::AckBeforeStore) {
            self.tell(waiter, AckStatus::Stored);
        }
        self.disturb(key);
        self.promise_kept(key, dot);
        self.index.begin(key, version.clone());
        self.handoff_begun(key, &version, widest, left);
        self.writes.storing.insert(dot, smallvec![waiter]);
        let change = match content {
            Content::Whole(value) => Change::Put { key: key.clone(), version, value, replaces },
            Content::Staged { stage, .. } => Change::Commit { stage, key: key.clone(), version, replaces },
        };
        self.work(Purpose::Store { key: key.clone(), dot }, Work::Change(change));
    }

    pub(super) fn store_done(&mut self, key: &Key, dot: Dot, result: Result<(), String>) {
        let waiters = self.writes.storing.remove(&dot).unwrap_or_default();
        let status = match result {
            Ok(()) => {
                if let Some((version, widest)) = self.index.complete(key, dot) {
                    self.version_stored(key, &version, widest);
                }
                AckStatus::Stored
            }
            Err(error) => {
                self.counters.storage_failed += 1;
                self.note_unsure(key);
                // Copies of it may live elsewhere: what it covered must not be claimed again.
                let known = self.index.context(key);
                self.naming.forget(key, &known);
                self.index.abort(key, dot);
                self.handoff_dropped(key);
                self.pay_unstored(key);
                self.write_failed(dot, &error);
                self.read_failed(dot);
                self.notice(format!("storing a version of {key:?} failed: {error}"));
                AckStatus::Failed
            }
        };
        waiters.into_iter().for_each(|waiter| self.tell(waiter, status));
    }

    /// This node has stored a version that one of its clients may be waiting for.
    pub(super) fn write_stored(&mut self, key: &Key, dot: Dot) {
        let Some(op) = self.writes.running.get(&dot).copied() else { return };
        let Some(WriteOperation::Running(running)) = self.operations.write(op) else { return };
        debug_assert_eq!(running.written.key, *key);
        running.stored = true;
        self.write_acknowledged(self.me, dot);
    }

    /// A node has stored a version that one of our clients may be waiting for.
    pub(super) fn write_acknowledged(&mut self, node: NodeId, dot: Dot) {
        let Some(op) = self.writes.running.get(&dot).copied() else { return };
        let Some(WriteOperation::Running(running)) = self.operations.write(op) else { return };
        let is_news = !running.acked.contains(&node);
        #[cfg(turbopump_mutations)]
        let is_news = is_news || is_planted(Mutation::CopyCountedTwice);
        if running.owners.contains(&node) && is_news {
            running.acked.push(node);
            if running.progress {
                let progress = Progress { node, acked: running.acked.len(), owners: running.owners.len() };
                self.out.push(Output::Progress { op, progress });
            }
        }
        if running.is_complete() {
            self.writes.running.remove(&dot);
            if let Some(Operation::Write(write)) = self.operations.remove(op)
                && let WriteOperation::Running(mut running) = *write
            {
                running.written.acked = running.acked.len();
                self.finish(op, Outcome::Written(Ok(running.written)));
            }
        }
    }

    fn write_failed(&mut self, dot: Dot, error: &str) {
        if let Some(op) = self.writes.running.remove(&dot) {
            self.operations.remove(op);
            self.counters.writes_unknown += 1;
            self.finish(op, Outcome::Written(Err(WriteError::Storage(error.to_string()))));
        }
    }

    /// What to say of a version that is here, or was replaced by something that is. Two nodes that do not
    /// agree yet on who owns a key may each hold it for the other: neither is to drop its copy because
    /// the other one has it.
    fn known_status(&self, key: &Key, dot: Dot) -> AckStatus {
        match () {
            () if self.is_unsure(key) => AckStatus::Busy,
            () if self.holds_for_others(key, dot) => AckStatus::Held,
            () => AckStatus::Known,
        }
    }

    /// Whether this node has stored a version that it is about to give away.
    pub(super) fn holds_for_others(&self, key: &Key, dot: Dot) -> bool {
        let is_owner = self.index.mirrors(key).is_some_and(|mirrors| self.owns(self.me, key, mirrors));
        !is_owner && self.index.holds(key, dot)
    }

    /// A peer that owns a version owns nothing of what replaced it on fewer mirrors, so sync does
    /// not tell it: it would keep the old one, and give it to others, for ever.
    fn tell_narrowed(&mut self, peer: NodeId, key: &Key, version: &Version) {
        let Some(mirrors) = self.index.mirrors(key).filter(|mirrors| *mirrors < version.mirrors) else {
            return;
        };
        if !self.index.holds(key, version.dot)
            && self.owns(peer, key, version.mirrors)
            && !self.owns(peer, key, mirrors)
        {
            self.owe(peer, key);
        }
    }

    fn await_store(&mut self, dot: Dot, waiter: Waiter) {
        match self.writes.storing.get_mut(&dot) {
            // A peer repeats what was not acknowledged yet: it is told once.
            Some(waiters) if waiters.contains(&waiter) => {}
            Some(waiters) => waiters.push(waiter),
            None => self.tell(waiter, AckStatus::Busy),
        }
    }

    pub(super) fn tell(&mut self, waiter: Waiter, status: AckStatus) {
        if let Waiter::Peer(peer, tag) = waiter {
            self.send(peer, Message::WriteAck { tag, status });
        }
    }
}
