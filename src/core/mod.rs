//! The state machine that decides everything: one input in, all outputs out, then the next.
//!
//! It knows no socket, disk, thread or clock. The driver (or the simulator) turns what happens
//! into an [`Input`] and carries out each [`Output`]. A version's way in:
//!
//! ```text
//! Request::Write  ─┐                           ┌─> Output::Work(Put) ─> Input::Done ─> index, acks
//! Message::Write  ─┼─> write: judge, begin ────┤
//! transfer, sync  ─┘                           └─> outbox: Output::Send(Write) to the owners
//! ```
//!
//! One file per sub-protocol; this one only dispatches. They meet in the `index` and in three
//! events that are told to all that care: a version was stored, a peer acknowledged a copy, a
//! peer went up or down.
//!
//! Limits: those of [`Config`]; every table here is bounded by one of them or by the number of
//! keys or members.

mod burial;
mod doubt;
mod gossip;
mod handoff;
mod index;
mod io;
mod keys;
mod leave;
mod ledger;
mod member_keys;
mod membership;
mod moves;
mod naming;
mod offer;
mod operations;
mod outbox;
mod pieces;
mod probes;
mod ranges;
mod read;
mod repair;
mod request;
mod rest;
mod scrub;
mod seals;
mod settle;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod transfer;
mod unsure;
mod warrants;
mod watch;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use io::{Done, Input, JobId, Now, Output, Setup, Work};
pub use leave::Departure;
pub use request::{
    Content, Counters, Event, FetchStats, Found, Given, KeyInfo, KeyPage, MemberInfo, OpId, Outcome,
    PeerStats, PieceRequest, Progress, ReadRequest, Request, Standing, Stats, WatchId, WriteRequest, Written,
};
pub use warrants::{Sign, Signer};

use self::{
    index::Index,
    naming::Naming,
    operations::Operations,
    outbox::Peer,
    sync::Salted,
    timers::{Timer, Timers},
};
use crate::{
    config::Config,
    fixed_map::FixedMap,
    model::{Dot, FOR_GOOD, Key, Ledger, Members, Mirrors, NodeId, Seeded, Version},
    partition::{PartitionCount, Partitioner, Placement},
    storage::Change,
    wire::Message,
};

/// What storage was given to do.
#[derive(Debug)]
struct Job {
    purpose: Purpose,
    bytes: u64,
}

/// What a finished job is for.
#[derive(Debug)]
enum Purpose {
    Store { key: Key, dot: Dot },
    Remove { key: Key },
    Ledger,
    Check { key: Key, values: bool },
    Mend { key: Key, dot: Dot },
    Copies { peer: NodeId, key: Key, known: Vec<Dot> },
    Scrub { key: Key },
    ScrubPiece,
    Reply { peer: NodeId, tag: u64 },
    Piece { peer: NodeId, tag: u64, offset: u64 },
    Resume { dot: Dot },
    Stage { dot: Dot, offset: u64, tag: u64 },
}

/// The state machine. See the [module](self).
#[derive(Debug)]
pub struct Core {
    me: NodeId,
    incarnation: u64,
    config: Config,
    partitioner: Arc<dyn Partitioner>,
    partitions: PartitionCount,
    max_message_bytes: usize,
    chance: Seeded,
    now: Now,
    out: Vec<Output>,
    timers: Timers,
    jobs: FixedMap<JobId, Job>,
    /// Bytes of values in them.
    job_bytes: u64,
    next_id: u64,
    index: Index,
    naming: Naming,
    books: ledger::Books,
    members: Members,
    placement: Arc<Placement>,
    /// When this node came to own what it owns.
    placed_ms: u64,
    removed: bool,
    /// Peers that turned this node away as one that was removed, and have no link with it since.
    refused_by: BTreeSet<NodeId>,
    gossip: gossip::Gossip,
    probes: probes::Probes,
    last_word: leave::LastWord,
    peers: BTreeMap<NodeId, Peer>,
    /// Those that something became owed to in this turn.
    indebted: BTreeSet<NodeId>,
    operations: Operations,
    writes: write::Writes,
    reads: read::Reads,
    settling: settle::Settling,
    promised: offer::Promised,
    transfers: transfer::Transfers,
    pieces: pieces::Pieces,
    sync: sync::Sync,
    scrub: scrub::Scrub,
    handoff: handoff::Handoff,
    burial: burial::Burial,
    rests: rest::Rests,
    unsure: unsure::Unsure,
    doubt: doubt::Doubt,
    watches: watch::Watches,
    seals: seals::Seals,
    warrants: warrants::Warrants,
    counters: Counters,
}

impl Core {
    /// A node that has loaded nothing yet. Call [`load`](Self::load) for what storage holds, then
    /// [`start`](Self::start).
    pub fn new(setup: Setup) -> Self {
        let mut chance = Seeded::new(setup.seed);
        let mut members = Members::default();
        let this = setup.this;
        let signatures = (setup.sign, setup.verify);
        let warrants = warrants::Warrants::new(setup.cluster, signatures, &setup.config, this.key);
        let peers = setup.peers.into_iter().filter_map(|m| warrants.kept(m));
        peers.for_each(|m| _ = members.merge(&m));
        members.merge(&warrants.signed(this.clone(), None));
        let placement = Arc::new(Placement::new(&*setup.partitioner, &members, setup.partitions));
        let naming = Naming::new(chance.next_u64());
        #[cfg(turbopump_mutations)]
        let naming = naming.or_reused(this.id);
        Self {
            me: this.id,
            incarnation: setup.incarnation,
            index: Index::new(setup.partitions, setup.partitioner.everywhere()),
            next_id: chance.next_u64() >> 16,
            config: setup.config,
            partitioner: setup.partitioner,
            partitions: setup.partitions,
            max_message_bytes: setup.max_message_bytes,
            chance,
            now: Now::default(),
            out: Vec::new(),
            timers: Timers::new(),
            jobs: FixedMap::default(),
            job_bytes: 0,
            naming,
            books: ledger::Books::default(),
            members,
            placement,
            placed_ms: 0,
            removed: this.generation == FOR_GOOD,
            refused_by: BTreeSet::new(),
            gossip: gossip::Gossip::default(),
            probes: probes::Probes::new(),
            last_word: leave::LastWord::default(),
            peers: BTreeMap::new(),
            indebted: BTreeSet::new(),
            operations: Operations::default(),
            writes: write::Writes::default(),
            reads: read::Reads::default(),
            settling: settle::Settling::default(),
            promised: offer::Promised::default(),
            transfers: transfer::Transfers::default(),
            pieces: pieces::Pieces::default(),
            sync: sync::Sync::default(),
            scrub: scrub::Scrub::default(),
            handoff: handoff::Handoff::default(),
            burial: burial::Burial::default(),
            rests: rest::Rests::default(),
            unsure: unsure::Unsure::default(),
            doubt: doubt::Doubt::default(),
            watches: watch::Watches::default(),
            seals: seals::Seals::new(setup.verify),
            warrants,
            counters: Counters::default(),
        }
    }

    /// Takes in a version that storage holds. Before [`start`](Self::start) only.
    ///
    /// What is kept under [`Ledger::key`] is none: see [`load_ledger`](Self::load_ledger).
    pub fn load(&mut self, key: &Key, version: Version) {
        if Ledger::is_named(key) {
            return self.note_ledger(version.dot);
        }
        self.index.load(key, &version);
    }

    /// Begins: publishes the members, dials the peers, starts the timers, drops leftovers.
    pub fn start(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.turn(now, outputs, |core| {
            core.take_in_loaded();
            core.start_membership();
            core.start_sync();
            core.start_scrub();
            core.start_handoff();
            core.start_ledger();
            core.arm_burial();
            core.look_whether_left();
        });
    }

    /// Takes one input and appends all that follows from it to `outputs`.
    pub fn handle(&mut self, now: Now, input: Input, outputs: &mut Vec<Output>) {
        self.turn(now, outputs, |core| core.dispatch(input));
    }

    /// Brings near what inputs that are about these keys will look at, so that they wait for memory less. Changes
    /// nothing.
    pub fn prefetch(&self, keys: &[&Key]) {
        self.index.prefetch(keys);
    }

    /// When to come back with a [`Input::Tick`] if nothing else happens, on the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Who owns what at the moment.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// The member list at the moment.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether the store is an older copy of itself that is still being checked with the others.
    pub fn doubts(&self) -> bool {
        self.books.wanted.doubts
    }

    /// Whether this node gave all that it held to others, and they know that it is no member any more.
    pub fn has_left(&self) -> bool {
        self.last_word == leave::LastWord::Heard
    }

    /// Copies that peers which are up have not acknowledged yet.
    pub fn unsettled(&self) -> usize {
        self.peers.values().filter(|p| p.up).map(Peer::outstanding).sum()
    }

    /// Tells all peers that this node is going.
    pub fn say_bye(&mut self, outputs: &mut Vec<Output>) {
        let up = self.peers.iter().filter(|(_, p)| p.up);
        outputs.extend(up.map(|(id, _)| Output::Send { to: *id, message: Message::Bye }));
    }

    fn turn(&mut self, now: Now, outputs: &mut Vec<Output>, f: impl FnOnce(&mut Self)) {
        self.now = Now { mono_ms: now.mono_ms.max(self.now.mono_ms), wall_ms: now.wall_ms };
        std::mem::swap(&mut self.out, outputs);
        f(self);
        while let Some(timer) = self.timers.expire(self.now.mono_ms) {
            self.fire(timer);
        }
        // Only now, so that what one input owes goes into as few offers as it can.
        for peer in std::mem::take(&mut self.indebted) {
            self.pay(peer);
        }
        std::mem::swap(&mut self.out, outputs);
    }

    fn dispatch(&mut self, input: Input) {
        match input {
            Input::Request { op, request } => self.request(op, request),
            Input::Message { from, message } => self.message(from, message),
            Input::Done { job, result } => self.done(job, result),
            Input::LinkUp { peer, incarnation } => self.link_up(peer, incarnation),
            Input::KeyShown { peer, key } => self.key_shown(peer, key),
            Input::RefusedAsRemoved { by } => self.refused_as_removed(by),
            Input::LinkDown { peer } => self.link_down(peer),
            Input::Tick => {}
        }
    }

    fn request(&mut self, op: OpId, request: Request) {
        match request {
            Request::Write(write) => self.submit_write(op, write),
            Request::Read(read) => self.submit_read(op, read),
            Request::Piece(piece) => self.submit_piece(op, piece),
            Request::Wait { key, context, timeout_ms } => self.submit_wait(op, key, context, timeout_ms),
            Request::Watch { watch, prefix } => self.submit_watch(op, watch, prefix),
            Request::Unwatch(watch) => self.watches.end(watch),
            Request::Keys { prefix, after, limit, deleted } => {
                let page = self.list_keys(&prefix, after.as_deref(), limit, deleted);
                self.finish(op, Outcome::Keys(page));
            }
            Request::Forget(key) => self.submit_forget(op, key),
            Request::AddMember { id, addrs, key, appointed } => {
                let outcome = self.add_member(id, addrs, key, appointed);
                self.finish(op, Outcome::Members(outcome));
            }
            Request::RemoveMember { id, key, warrant } => {
                let outcome = self.remove_member(id, key, warrant);
                self.finish(op, Outcome::Members(outcome));
            }
            Request::Leave { timeout_ms } => self.submit_leave(op, timeout_ms),
            Request::Stats => {
                let stats = Box::new(self.stats());
                self.finish(op, Outcome::Stats(stats));
            }
        }
    }

    fn message(&mut self, from: NodeId, message: Message) {
        if !self.peers.contains_key(&from) {
            return;
        }
        self.heard(from);
        if self.is_suspicious(from, &message) {
            self.counters.distrusted += 1;
            return;
        }
        match message {
            Message::Write { tag, key, version, value } => self.on_write(from, tag, key, version, value),
            Message::WriteAck { tag, status } => self.on_write_ack(from, tag, status),
            Message::Read { tag, key, values } => self.on_read(from, tag, key, values),
            Message::ReadReply { tag, records } => self.on_read_reply(from, tag, records),
            Message::Await { tag, key, context, within_ms } => {
                self.on_await(from, tag, key, context, within_ms);
            }
            Message::Fetch { tag, key, dot, offset, len } => self.on_fetch(from, tag, key, dot, offset, len),
            Message::Piece { tag, offset, bytes } => self.on_piece(from, tag, offset, bytes),
            Message::Ping { sequence, vitals } => self.on_ping(from, sequence, vitals),
            Message::Pong { sequence: _, vitals } => self.on_pong(from, vitals),
            Message::Members { entries, reply } => self.on_members(from, &entries, reply),
            Message::Compare { round, trees } => self.on_compare(from, round, &trees),
            Message::Equal { round } => self.on_equal(from, round),
            Message::Parts { salt, mirrors, bits, ranges } => {
                self.on_parts(from, Salted { salt, mirrors, bits }, ranges);
            }
            Message::List { salt, mirrors, bits, ranges } => {
                self.on_list(from, Salted { salt, mirrors, bits }, ranges);
            }
            Message::Want { salt, mirrors, bits, ranges } => {
                self.on_want(from, Salted { salt, mirrors, bits }, ranges);
            }
            Message::Offer { tag, versions } => self.on_offer(from, tag, &versions),
            Message::OfferAck { tag, answers } => self.on_offer_ack(from, tag, &answers),
            Message::Bye => self.on_bye(from),
            Message::Bury { round, members, step, graves } => {
                self.on_bury(from, round, members, step, graves);
            }
            Message::Buried { round, step, agreed } => self.on_buried(from, round, step, &agreed),
        }
    }

    fn done(&mut self, job: JobId, result: Done) {
        let job = self.jobs.remove(&job);
        self.job_bytes -= job.as_ref().map_or(0, |job| job.bytes);
        match (job.map(|job| job.purpose), result) {
            (Some(Purpose::Store { key, dot }), Done::Changed(result)) => self.store_done(&key, dot, result),
            (Some(Purpose::Remove { key }), Done::Changed(result)) => self.remove_done(&key, result),
            (Some(Purpose::Ledger), Done::Changed(result)) => self.ledger_written(result),
            (Some(Purpose::Mend { key, dot }), Done::Changed(result)) => self.mended(&key, dot, result),
            (Some(Purpose::Check { key, values }), Done::Records(result)) => {
                self.checked(&key, values, result)
            }
            (Some(Purpose::Copies { peer, key, known }), Done::Records(result)) => {
                self.copies_loaded(peer, &key, &known, result);
            }
            (Some(Purpose::Scrub { key }), Done::Records(result)) => self.scrub_read(&key, result),
            (Some(Purpose::ScrubPiece), Done::Piece(result)) => self.scrub_piece(result),
            (Some(Purpose::Reply { peer, tag }), Done::Records(result)) => {
                self.reply_loaded(peer, tag, result);
            }
            (Some(Purpose::Piece { peer, tag, offset }), Done::Piece(result)) => {
                self.piece_loaded(peer, tag, offset, result);
            }
            (Some(Purpose::Resume { dot }), Done::Resumed(result)) => self.resumed(dot, result),
            (Some(Purpose::Stage { dot, offset, tag }), Done::Changed(result)) => {
                self.staged(dot, offset, tag, result);
            }
            (purpose, result) => self.notice(format!("work ended out of place: {purpose:?}, {result:?}")),
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.heartbeat(),
            Timer::Urge => self.urge(),
            Timer::Members => self.publish_members(),
            Timer::Retry => self.retry(),
            Timer::Operations => self.end_late_operations(),
            Timer::Sync => self.begin_sync_round(),
            Timer::Compare => self.continue_sync(),
            Timer::Handoff => self.continue_handoff(),
            Timer::Transfer => self.retry_transfers(),
            Timer::Piece => self.retry_pieces(),
            Timer::Await => self.repeat_awaits(),
            Timer::Burial => self.continue_burial(),
            Timer::Doubt => self.continue_doubt(),
            Timer::Check => self.check_unsure(),
            Timer::Leave => self.look_whether_left(),
            Timer::Scrub => self.continue_scrub(),
        }
    }

    /// A version became part of what this node holds.
    fn version_stored(&mut self, key: &Key, version: &Arc<Version>, widest: Option<Mirrors>) {
        self.counters.stored += 1;
        self.write_stored(key, version.dot);
        self.read_stored(version.dot);
        self.read_acknowledged(self.me, key, version.dot);
        self.watch_stored(key, version);
        self.handoff_stored(key, widest);
        if !version.is_live(u64::MAX) {
            self.arm_burial();
        }
        self.pay_unstored(key);
    }

    /// A peer has stored a version, or something that replaced it.
    fn copy_acknowledged(&mut self, peer: NodeId, key: &Key, dot: Dot) {
        self.write_acknowledged(peer, dot);
        self.read_acknowledged(peer, key, dot);
        self.handoff_acknowledged(peer, key, dot);
    }

    /// Whether storage has as much to do as it may: what a peer or a client asks for has to wait.
    fn is_disk_busy(&self) -> bool {
        self.jobs.len() >= self.config.max_disk_jobs || self.job_bytes >= self.config.max_disk_bytes
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push(Output::Send { to, message });
    }

    fn work(&mut self, purpose: Purpose, work: Work) {
        let (job, bytes) = (JobId(self.fresh_id()), work.bytes());
        self.job_bytes += bytes;
        self.jobs.insert(job, Job { purpose, bytes });
        self.out.push(Output::Work { job, work });
    }

    fn finish(&mut self, op: OpId, outcome: Outcome) {
        if op == scrub::OP {
            return self.scrub_ended(outcome);
        }
        self.out.push(Output::Finish { op, outcome });
    }

    fn notice(&mut self, text: String) {
        self.out.push(Output::Notice(text));
    }

    /// A number not given out before by this process, for tags, jobs and stages.
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn take_in_loaded(&mut self) {
        for (key, dots) in self.index.finish_load() {
            self.remove(&key, dots);
        }
    }

    /// Removes versions from storage that have left the index.
    fn remove(&mut self, key: &Key, dots: Vec<Dot>) {
        self.note_removal(key);
        let change = Change::Remove { key: key.clone(), dots };
        self.work(Purpose::Remove { key: key.clone() }, Work::Change(change));
    }

    fn owns(&self, node: NodeId, key: &Key, mirrors: Mirrors) -> bool {
        self.placement.owns(node, key.hash64(), mirrors)
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|p| p.up)
    }
}
