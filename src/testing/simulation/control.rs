//! What tests and the random run do to a world: ask its nodes something, and hurt them.

use super::{
    admins,
    disk::Kept,
    node::{Node, Standing},
    oracle::{Asked, Knowledge, Operation, mark, marked_value},
    world::{Event, World},
};
use crate::{
    config::{Ack, Read},
    core::{Content, Input, OpId, Outcome, ReadRequest, Request, WatchId, WriteRequest},
    identity::Identity,
    model::{Digest, Dot, FOR_GOOD, Key, Kind, Member, Members, Mirrors, NodeId, Record},
    wire::{Message, Refusal},
};

/// What a write hands back of what its client has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replaces {
    /// No context: it replaces all that its node knows.
    #[default]
    AllThatTheNodeKnows,
    /// The client's last context, if it has one.
    WhatTheClientRead,
    /// The empty context: it replaces nothing.
    Nothing,
}

/// A write to submit.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which key.
    pub key: Key,
    /// Value or tombstone.
    pub kind: Kind,
    /// Length in bytes; at least 8, or 0.
    pub len: usize,
    /// When it is complete.
    pub ack: Ack,
    /// How many nodes shall hold it; none: as configured.
    pub mirrors: Option<Mirrors>,
    /// What it replaces.
    pub replaces: Replaces,
    /// How long it counts, milliseconds; values only.
    pub ttl_ms: Option<u64>,
    /// How long it may take, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Which client it is.
    pub client: usize,
    /// The sequence, if [`author`] signs it.
    pub sequence: Option<u64>,
}

/// Who signs what is signed in a simulation.
pub fn author() -> Identity {
    Identity::from_seed([7; 32])
}

impl Write {
    /// An ordinary write of some bytes.
    pub fn put(key: &str, len: usize) -> Self {
        Self {
            key: Key::new(key).expect("a key"),
            kind: Kind::Value,
            len,
            ack: Ack::Local,
            mirrors: None,
            replaces: Replaces::default(),
            ttl_ms: None,
            timeout_ms: None,
            client: 0,
            sequence: None,
        }
    }

    /// A delete.
    pub fn delete(key: &str) -> Self {
        Self { kind: Kind::Tombstone, ..Self::put(key, 0) }
    }

    /// Complete when that many have it.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// On so many nodes.
    pub fn mirrors(mut self, mirrors: u16) -> Self {
        self.mirrors = Some(Mirrors(mirrors));
        self
    }

    /// Signed, with this sequence.
    pub fn signed(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// Replacing that.
    pub fn replacing(mut self, replaces: Replaces) -> Self {
        self.replaces = replaces;
        self
    }
}

/// Asking.
impl World {
    /// Submits a write; none if the node has no process.
    pub fn write(&mut self, n: usize, write: Write) -> Option<OpId> {
        let op = OpId(self.next_op);
        let value = if write.len == 0 { Default::default() } else { marked_value(op, write.len) };
        let knowledge = match write.replaces {
            Replaces::AllThatTheNodeKnows => None,
            Replaces::WhatTheClientRead => self.knowledge.get(&(write.client, write.key.clone())).cloned(),
            Replaces::Nothing => Some(Knowledge::default()),
        };
        let wall_ms = self.nodes[n].wall_ms(self.now_us);
        let expires_ms = match value.is_empty() {
            true => Some(mark(op)),
            false => write.ttl_ms.map(|ttl_ms| wall_ms + ttl_ms),
        };
        let default = self.options().config.mirrors;
        let mut request = WriteRequest {
            key: write.key.clone(),
            kind: write.kind,
            digest: Digest::of(&value),
            content: Content::Whole(value.clone()),
            mirrors: write.mirrors.or(write.sequence.is_some().then_some(default)),
            ack: Some(write.ack),
            context: knowledge.as_ref().map(|k| k.context.clone()),
            expires_ms,
            timeout_ms: write.timeout_ms,
            progress: true,
            seal: None,
        };
        request.seal = write.sequence.map(|sequence| {
            let author = author();
            let said = request.statement(author.public_key(), sequence, default);
            (sequence, author.seal(&request.key, &said).expect("a sequence within its bounds"))
        });
        let asked = Asked::Write { kind: write.kind, value, ack: write.ack, replaces: knowledge };
        self.submit(n, write.client, write.key, asked, Request::Write(request))
    }

    /// Has a node hear something that another one, which lies, made up.
    pub fn lie(&mut self, from: usize, to: usize, message: Message) {
        let from = self.id(from);
        self.feed(to, Input::Message { from, message });
        self.end_turn(to);
    }

    /// The versions of a key on a node's disk, with their values.
    pub fn kept(&self, n: usize, key: &Key) -> Vec<Record> {
        let kept = self.nodes[n].disk.of(key).iter();
        kept.map(|kept| Record { version: kept.version.clone(), value: Some(kept.value.clone()) }).collect()
    }

    /// Submits a read.
    pub fn read(&mut self, n: usize, client: usize, key: &Key, read: Read) -> Option<OpId> {
        let request = ReadRequest { read, ..ReadRequest::one(key.clone()) };
        self.submit(n, client, key.clone(), Asked::Read(read), Request::Read(request))
    }

    /// Waits for news of a key, from what the client knows.
    pub fn wait(&mut self, n: usize, client: usize, key: &Key, timeout_ms: u64) -> Option<OpId> {
        let context =
            self.knowledge.get(&(client, key.clone())).map(|k| k.context.clone()).unwrap_or_default();
        let request = Request::Wait { key: key.clone(), context, timeout_ms };
        self.submit(n, client, key.clone(), Asked::Other, request)
    }

    /// Sets a watch over a prefix.
    pub fn watch(&mut self, n: usize, prefix: &str) -> Option<WatchId> {
        let watch = WatchId(self.next_watch);
        self.next_watch += 1;
        self.watches.insert((n, self.nodes[n].processes, watch));
        let request = Request::Watch { watch, prefix: prefix.into() };
        self.submit(n, 0, any_key(), Asked::Other, request).map(|_| watch)
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, n: usize, watch: WatchId) {
        if self.nodes[n].process.is_some() {
            self.feed(n, Input::Request { op: OpId(0), request: Request::Unwatch(watch) });
            self.watches.remove(&(n, self.nodes[n].processes, watch));
            self.end_turn(n);
        }
    }

    /// Lists all that a node holds, tombstones included, which is checked at once.
    pub fn list(&mut self, n: usize) -> Option<OpId> {
        let request = Request::Keys { prefix: String::new(), after: None, limit: usize::MAX, deleted: true };
        self.submit(n, 0, any_key(), Asked::Other, request)
    }

    /// Counts.
    pub fn stats(&mut self, n: usize) -> Option<crate::core::Stats> {
        let op = self.submit(n, 0, any_key(), Asked::Other, Request::Stats)?;
        match self.outcomes.get(&op) {
            Some(Outcome::Stats(stats)) => Some((**stats).clone()),
            _ => None,
        }
    }

    /// How an operation ended, if it has.
    pub fn outcome(&self, op: OpId) -> Option<&Outcome> {
        self.outcomes.get(&op)
    }

    /// Whether a write was acknowledged.
    pub fn is_acknowledged(&self, op: OpId) -> bool {
        matches!(self.outcomes.get(&op), Some(Outcome::Written(Ok(_))))
    }

    /// The versions that a node's disk holds of a key.
    pub fn on_disk(&self, n: usize, key: &Key) -> Vec<Dot> {
        self.nodes[n].disk.of(key).iter().map(|kept| kept.version.dot).collect()
    }

    /// The member list of a node, if it runs.
    pub fn members(&self, n: usize) -> Option<&Members> {
        self.nodes[n].process.as_ref().map(|process| process.core.members())
    }

    /// A node's name.
    pub fn id(&self, n: usize) -> NodeId {
        self.nodes[n].id
    }

    /// Whether a node has a link to another one, so that it counts it as up.
    pub fn has_link(&self, n: usize, other: usize) -> bool {
        self.nodes[n].process.as_ref().is_some_and(|process| process.links.is_up(self.nodes[other].id))
    }

    /// Whether a node was told by another one why that does not talk to it.
    pub fn was_refused(&self, n: usize, reason: Refusal) -> bool {
        let process = self.nodes[n].process.as_ref();
        process.is_some_and(|process| process.links.counters().refused_by(reason) > 0)
    }

    /// Whether a node owns a key, as it sees that itself.
    pub fn owns(&self, n: usize, key: &Key, mirrors: Mirrors) -> bool {
        let Some(process) = &self.nodes[n].process else { return false };
        process.core.placement().owns(self.nodes[n].id, key.hash64(), mirrors)
    }

    fn submit(&mut self, n: usize, client: usize, key: Key, asked: Asked, request: Request) -> Option<OpId> {
        self.nodes[n].process.as_ref()?;
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.trace.note(self.now_us, n, op.0 ^ 12, || format!("{op:?} {request:?}"));
        let process = self.nodes[n].processes;
        let must_show = Default::default();
        let operation = Operation { node: n, process, client, key, asked, ended: false, must_show };
        self.oracle.begin(op, operation);
        self.feed(n, Input::Request { op, request });
        self.end_turn(n);
        Some(op)
    }
}

/// Hurting.
impl World {
    /// Ends a process without a word, and without anybody noticing. Its disk keeps what was answered.
    pub fn kill(&mut self, n: usize) {
        let Some(process) = self.nodes[n].process.take() else { return };
        self.nodes[n].said_last_word |= !process.core.members().contains(self.nodes[n].id);
        self.trace.note(self.now_us, n, 13, || "crashes".into());
        self.nodes[n].disk.crash();
        self.note_applied(n);
    }

    /// The same, where the transports of the others may notice.
    pub fn crash(&mut self, n: usize) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.kill(n);
        let addr = self.nodes[n].addr;
        // Some transports notice that a process is gone.
        if self.chance.percent(50) {
            for node in (0..self.nodes.len()).filter(|m| *m != n) {
                self.schedule(self.now_us + 1_000, Event::Closed { node, addr });
            }
        }
    }

    /// A process stands still.
    pub fn pause(&mut self, n: usize, ms: u64) {
        self.trace.note(self.now_us, n, ms, || format!("stands still for {ms} ms"));
        self.nodes[n].paused_until_us = self.now_us + ms * 1_000;
    }

    /// Crashes a node and empties its disk; `members` says whether the members file goes too.
    pub fn lose_disk(&mut self, n: usize, members: bool) {
        self.crash(n);
        self.trace.note(self.now_us, n, 14, || "loses its disk".into());
        self.nodes[n].disk.restore(Default::default());
        if members {
            // Whoever sets it up again says who the others are.
            let others = self.nodes.iter().filter(|node| node.standing == Standing::Member);
            let others = others.map(Node::entry).collect();
            self.nodes[n].introduced = others;
            self.nodes[n].kept_members = None;
        }
        self.note_disaster(n);
    }

    /// Copies a node's disk, to be restored later.
    pub fn back_up(&mut self, n: usize) {
        self.nodes[n].backup = Some(self.nodes[n].disk.contents().clone());
    }

    /// Crashes a node and puts the copy on its disk that was made last.
    pub fn restore(&mut self, n: usize) {
        let Some(backup) = self.nodes[n].backup.clone() else { return };
        self.crash(n);
        self.trace.note(self.now_us, n, 15, || "gets an old copy of its disk".into());
        self.nodes[n].disk.restore(backup);
        self.note_disaster(n);
    }

    /// Loses all frames from one node to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.trace.note(self.now_us, from, to as u64, || format!("is not heard by node {to} any more"));
        self.network.cut(from, to);
    }

    /// Loses all frames between a node and every other, both ways.
    pub fn isolate(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.cut(n, other);
            self.cut(other, n);
        }
    }

    /// Ends all cuts.
    pub fn mend(&mut self) {
        self.trace.note(self.now_us, 0, 16, || "the network is whole".into());
        self.network.mend();
    }

    /// Moves a wall clock.
    pub fn jump(&mut self, n: usize, ms: i64) {
        self.trace.note(self.now_us, n, ms as u64, || format!("its wall clock jumps by {ms} ms"));
        self.nodes[n].skew_ms += ms;
    }

    /// Makes a disk slow, or not.
    pub fn slow_disk(&mut self, n: usize, slow: bool) {
        self.nodes[n].disk.set_slow(slow);
    }

    /// Makes a disk fail now and then, or not.
    pub fn fail_disk(&mut self, n: usize, failing: bool) {
        self.trace.note(self.now_us, n, 17, || format!("its disk fails: {failing}"));
        self.nodes[n].disk.set_failing(failing);
    }

    /// Introduces a spare to a member, and the member to it, and starts it.
    pub fn join(&mut self, n: usize, by: usize) {
        if self.nodes[n].standing != Standing::Spare || self.nodes[by].process.is_none() {
            return;
        }
        let (id, addr) = (self.nodes[n].id, self.nodes[n].addr);
        self.nodes[n].standing = Standing::Member;
        self.nodes[n].introduced = vec![self.nodes[by].entry()];
        let Member { key, generation, vouched, .. } = &self.nodes[n].introduction;
        let appointed = vouched.0.as_ref().map(|proofs| (*generation, proofs.warrant));
        let request = Request::AddMember { id, addrs: vec![addr], key: key.known(), appointed };
        self.submit(by, 0, any_key(), Asked::Other, request);
        self.write_members(by);
        self.start(n);
    }

    /// Has a member remove another one.
    pub fn remove(&mut self, n: usize, by: usize) {
        if self.nodes[n].standing != Standing::Member || self.nodes[by].process.is_none() {
            return;
        }
        let id = self.nodes[n].id;
        let has_admin = !self.options.config.admin_keys.is_empty();
        let warrant = has_admin.then(|| admins::appoint(id, FOR_GOOD));
        let request = Request::RemoveMember { id, key: None, warrant };
        let op = self.submit(by, 0, any_key(), Asked::Other, request);
        let outcome = op.and_then(|op| self.outcomes.get(&op));
        if !matches!(outcome, Some(Outcome::Members(Ok(())))) {
            return;
        }
        self.nodes[n].standing = Standing::Removed;
        // Answered before it is kept: a crash in these milliseconds would undo it.
        self.write_members(by);
        // What only it had may be gone, as with a lost disk.
        self.note_disaster(n);
    }

    /// Has a node give all it holds to others and leave. Others that it needs may be away for now.
    pub fn leave(&mut self, n: usize) -> Option<OpId> {
        self.submit(n, 0, any_key(), Asked::Other, Request::Leave { timeout_ms: 3_600_000 })
    }

    /// Adds a member again that was removed, or has left, by the word of another one. Its disk is
    /// what it was; a process that runs goes on. Not where members are signed: removal is for good there.
    pub fn add_again(&mut self, n: usize, by: usize) {
        let is_for_good = self.options.config.has_signed_members();
        if is_for_good || self.nodes[n].standing != Standing::Removed || self.nodes[by].process.is_none() {
            return;
        }
        let (id, addr) = (self.nodes[n].id, self.nodes[n].addr);
        let request = Request::AddMember { id, addrs: vec![addr], key: None, appointed: None };
        self.submit(by, 0, any_key(), Asked::Other, request);
        self.nodes[n].standing = Standing::Member;
        self.write_members(by);
        self.start(n);
    }

    /// Gives a node, which is down, another weight for its next process.
    pub fn weigh(&mut self, n: usize, weight: u16) {
        self.nodes[n].weight = weight;
    }

    /// Gives a node, which is down, another address for its next process.
    pub fn move_to_port(&mut self, n: usize, port: u16) {
        self.nodes[n].addr.set_port(port);
        self.former.insert(self.nodes[n].addr, n);
    }

    /// Whether the disk of a node that is no removed one holds the version, or what replaced it.
    pub(super) fn is_held(&self, dot: Dot) -> bool {
        (0..self.nodes.len()).any(|n| self.is_held_by(n, dot))
    }

    pub(super) fn is_held_by(&self, n: usize, dot: Dot) -> bool {
        self.is_kept_by(n, dot, |_| true)
    }

    fn is_kept_by(&self, n: usize, dot: Dot, counts: impl Fn(&Kept) -> bool) -> bool {
        let Some(known) = self.oracle.find(dot) else { return false };
        let node = &self.nodes[n];
        // What the process has let go of is as good as gone, but where it is about to look again.
        let sure = node.process.as_ref().filter(|process| !process.core.is_unsure(&known.key));
        let holds = sure.map(|process| process.holds(&known.key));
        let kept = node.disk.of(&known.key).iter().filter(|kept| counts(kept)).map(|kept| kept.version.dot);
        let kept = kept.filter(|dot| holds.as_ref().is_none_or(|holds| holds.contains(dot)));
        node.standing == Standing::Member && self.oracle.is_covered(dot, kept)
    }

    /// Whether a node takes one for a member that others have removed.
    pub(super) fn counts_on_removed(&self, n: usize) -> bool {
        let removed = self.nodes.iter().filter(|node| node.standing == Standing::Removed);
        let is_present = |id| self.members(n).is_some_and(|m| m.contains(id));
        removed.map(|node| node.id).any(is_present)
    }

    /// A disk is not any more what it was: what no other one has may be gone.
    pub(super) fn note_disaster(&mut self, n: usize) {
        self.disasters += 1;
        self.struck.insert(n);
        let all: Vec<Dot> =
            self.oracle.versions().filter(|k| k.acknowledged && !k.excused).map(|k| k.version.dot).collect();
        // Those of which only damaged copies are left are as good as gone.
        let is_whole = |kept: &Kept| kept.rotten_at.is_none();
        for dot in all {
            if !(0..self.nodes.len()).any(|n| self.is_kept_by(n, dot, is_whole)) {
                self.oracle.excuse(dot);
            }
        }
    }
}

fn any_key() -> Key {
    Key::new("any").expect("a key")
}
