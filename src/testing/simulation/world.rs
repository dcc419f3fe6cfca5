//! All nodes, what is between them, and the time.
//!
//! One event after the other, in the order of virtual time; a node that stands still gets its own
//! when it goes on. What a node does with an event is what the driver does: see `act`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Fault, Options,
    admins::{CLUSTER, identity_of},
    disk::Kept,
    network::Network,
    node::{Node, Process, Standing},
    oracle::{Knowledge, Oracle},
    trace::Trace,
};
use crate::{
    core::{Core, Input, OpId, Outcome, Setup, Sign, WatchId},
    model::{Key, Ledger, Member, MemberState, MembersFile, Record, Seeded},
    partition::{Everywhere, PartitionCount, Partitioner, Ring},
    wire::{FRAME_HEADER_BYTES, LinkEvent, Links, Local, Refusal},
};

/// Events of a run; one that gets there goes round in circles.
const MAX_EVENTS: u64 = 5_000_000;
/// The same, where it is more, for each node of a cluster whose members all have links to each other.
const MAX_EVENTS_PER_LINK: u64 = 500;

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which: the name of an invariant.
    pub promise: &'static str,
    /// How.
    pub what: String,
}

/// What nodes said to each other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Messages that were taken in.
    pub messages: u64,
    /// Frames that were sent.
    pub frames: u64,
    /// Their bytes, without the headers of whatever carries them.
    pub bytes: u64,
}

/// Something that happens at a moment.
pub(super) enum Event {
    Frame { from: SocketAddr, to: SocketAddr, frame: Bytes },
    Closed { node: usize, addr: SocketAddr },
    Wake { node: usize, process: u64 },
    Disk { node: usize, process: u64, lane: usize },
    WriteMembers { node: usize, process: u64 },
}

/// A cluster under simulation. See the [module](super) for an example.
pub struct World {
    pub(super) options: Options,
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) violation: Option<Violation>,
    pub(super) outcomes: BTreeMap<OpId, Outcome>,
    /// What each client knows of the keys that it has read or written.
    pub(super) knowledge: BTreeMap<(usize, Key), Knowledge>,
    pub(super) chance: Seeded,
    pub(super) next_op: u64,
    pub(super) next_watch: u64,
    pub(super) watches: BTreeSet<(usize, u64, WatchId)>,
    pub(super) former: BTreeMap<SocketAddr, usize>,
    pub(super) traffic: Traffic,
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Disks that were lost or replaced, and members that were removed: how often, and which.
    pub(super) disasters: u64,
    pub(super) struck: BTreeSet<usize>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    partitioner: Arc<dyn Partitioner>,
}

impl World {
    /// A cluster as the options say, every node started and knowing all others.
    pub fn new(options: Options) -> Self {
        Self::with_trace(options, false)
    }

    /// The same, with every event printed as it happens.
    pub fn printed(options: Options) -> Self {
        Self::with_trace(options, true)
    }

    fn with_trace(options: Options, printed: bool) -> Self {
        let mut chance = Seeded::new(options.seed ^ 0x776f_726c_6421_2121);
        let standing = |i| if i < options.nodes { Standing::Member } else { Standing::Spare };
        let count = options.nodes + options.spares;
        let mut nodes: Vec<Node> =
            (0..count).map(|i| Node::new(i, &options, options.seed ^ i as u64, standing(i))).collect();
        for node in &mut nodes {
            let skew = chance.below(20_000) as i64 - 10_000;
            node.skew_ms = if options.skewed_clocks { skew } else { 0 };
        }
        introduce(&mut nodes[..options.nodes], options.acquaintances, &mut chance);
        let partitioner: Arc<dyn Partitioner> =
            if options.everywhere { Arc::new(Everywhere) } else { Arc::new(Ring) };
        let mut world = Self {
            now_us: 1_000,
            former: nodes.iter().enumerate().map(|(i, n)| (n.addr, i)).collect(),
            nodes,
            network: Network::new(&options),
            oracle: Oracle::default(),
            trace: Trace::new(printed),
            violation: None,
            outcomes: BTreeMap::new(),
            knowledge: BTreeMap::new(),
            chance,
            next_op: 1,
            next_watch: 1,
            watches: BTreeSet::new(),
            traffic: Traffic::default(),
            faults: BTreeMap::new(),
            disasters: 0,
            struck: BTreeSet::new(),
            events: BTreeMap::new(),
            sequence: 0,
            partitioner,
            options,
        };
        (0..world.options.nodes).for_each(|n| world.start(n));
        world
    }

    /// Starts a process on a node that has none: loads its disk and its members file.
    pub fn start(&mut self, n: usize) {
        if self.nodes[n].process.is_some() {
            return;
        }
        let seed = self.chance.next_u64();
        let partitions = PartitionCount::new(self.options.partitions).expect("a power of two");
        let node = &mut self.nodes[n];
        node.processes += 1;
        node.paused_until_us = 0;
        let wall_ms = node.wall_ms(self.now_us);
        let (mut peers, mut generation, mut state) = (node.introduced.clone(), 0, MemberState::Active);
        let mut entry = node.entry();
        match node.members_file().map(|text| text.parse::<MembersFile>()) {
            Some(Ok(file)) => {
                (generation, state) = (file.this.generation, file.this.state);
                entry.vouched = file.this.vouched;
                peers.extend(file.peers);
            }
            Some(Err(error)) => {
                let what = format!("node {n}'s file: {error}\n{:?}", node.members_file());
                return self.fail("membership", what);
            }
            None => {}
        }
        let node = &mut self.nodes[n];
        peers.retain(|m| m.id != node.id);
        let this = Member { generation, state, revision: wall_ms, weight: node.weight, ..entry };
        let local = Local {
            id: node.id,
            cluster: CLUSTER.into(),
            incarnation: wall_ms,
            partitions: partitions.get(),
            placement: self.partitioner.kind().into(),
        };
        let max_frame_bytes = self.options.max_frame_bytes;
        let identity = identity_of(node.id);
        let core = Core::new(Setup {
            this,
            peers,
            partitioner: self.partitioner.clone(),
            partitions,
            config: self.options.config.clone(),
            incarnation: wall_ms,
            seed,
            max_message_bytes: max_frame_bytes - FRAME_HEADER_BYTES,
            verify: crate::identity::is_signed_by,
            sign: Sign(Arc::new(move |message| identity.sign(message))),
            cluster: CLUSTER.into(),
        });
        let mut process = Process {
            number: node.processes,
            core,
            links: Links::new(local, max_frame_bytes, seed ^ 1),
            outputs: Vec::new(),
            started_us: self.now_us,
            wake_us: None,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            storing: BTreeMap::new(),
            unwritten: None,
        };
        let ledger = node.disk.of(&Ledger::key()).iter();
        let record = |kept: &Kept| Record { version: kept.version.clone(), value: Some(kept.value.clone()) };
        process.core.load_ledger(&ledger.map(record).collect::<Vec<_>>());
        for (key, all) in node.disk.written() {
            let mut order: Vec<_> = all.iter().map(|kept| kept.version.clone()).collect();
            if self.chance.percent(50) {
                order.reverse();
            }
            for version in order {
                process.core.load(key, (*version).clone());
                process.load(key, &version);
                let heard = self.oracle.closure([version.dot]);
                process.seen.entry(key.clone()).or_default().extend(heard);
            }
        }
        node.process = Some(process);
        self.trace.note(self.now_us, n, 1, || "starts".into());
        self.run_core(n, |core, now, outputs| core.start(now, outputs));
        self.end_turn(n);
    }

    /// Lets so much time go by, or less if a promise is broken.
    pub fn run_for(&mut self, ms: u64) {
        self.run_until_us(self.now_us + ms * 1_000);
    }

    /// Lets time go by until the condition holds, at most so long. Says whether it does.
    pub fn run_until(&mut self, max_ms: u64, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let end_us = self.now_us + max_ms * 1_000;
        while !condition(self) {
            if self.now_us >= end_us || self.violation.is_some() {
                return false;
            }
            self.run_for(10);
        }
        true
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// The options of this run.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What went over the network so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The first promise that was broken.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(super) fn run_until_us(&mut self, end_us: u64) {
        while self.violation.is_none() {
            let Some((&(at_us, _), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= end_us)
            else {
                self.now_us = end_us;
                return;
            };
            let (_, event) = self.events.pop_first().expect("just seen");
            self.now_us = self.now_us.max(at_us);
            self.happen(event);
            let max_events = MAX_EVENTS.max(MAX_EVENTS_PER_LINK * (self.nodes.len() as u64).pow(2));
            if self.trace.events() > max_events {
                self.fail("limits", format!("{max_events} events and no end"));
            }
        }
    }

    pub(super) fn schedule(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at_us.max(self.now_us), self.sequence), event);
    }

    pub(super) fn fail(&mut self, promise: &'static str, what: String) {
        if self.violation.is_none() {
            self.trace.note(self.now_us, 0, 2, || format!("BROKEN: {promise}: {what}"));
            self.violation = Some(Violation { promise, what });
        }
    }

    pub(super) fn check(&mut self, promise: &'static str, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(promise, what);
        }
    }

    fn happen(&mut self, event: Event) {
        let (n, process) = match &event {
            Event::Frame { to, .. } => match self.former.get(to).filter(|n| self.nodes[**n].addr == *to) {
                Some(&n) => (n, None),
                None => return,
            },
            Event::Closed { node, .. } => (*node, None),
            Event::Wake { node, process }
            | Event::Disk { node, process, .. }
            | Event::WriteMembers { node, process } => (*node, Some(*process)),
        };
        let node = &self.nodes[n];
        let Some(current) = node.process.as_ref().map(|p| p.number) else { return };
        if process.is_some_and(|number| number != current) {
            return;
        }
        if node.paused_until_us > self.now_us {
            let until_us = node.paused_until_us;
            return self.schedule(until_us, event);
        }
        match event {
            Event::Frame { from, frame, .. } => {
                let hash = xxhash_rust::xxh3::xxh3_64(&frame);
                self.trace.note(self.now_us, n, hash, || format!("gets {} bytes from {from}", frame.len()));
                self.take_frame(n, |links, now_ms, events| links.received(now_ms, from, frame, events));
            }
            Event::Closed { addr, .. } => {
                self.take_frame(n, |links, _, events| links.closed(addr, events));
            }
            Event::Wake { .. } => {
                if let Some(process) = &mut self.nodes[n].process {
                    process.wake_us = None;
                }
            }
            Event::Disk { lane, .. } => self.disk_done(n, lane),
            Event::WriteMembers { .. } => self.write_members(n),
        }
        self.end_turn(n);
    }

    fn take_frame(&mut self, n: usize, take: impl FnOnce(&mut Links, u64, &mut Vec<LinkEvent>)) {
        let now_ms = self.nodes[n].now(self.now_us).mono_ms;
        let mut events = Vec::new();
        if let Some(process) = &mut self.nodes[n].process {
            take(&mut process.links, now_ms, &mut events);
        }
        for event in events {
            match event {
                LinkEvent::Up { peer, incarnation, .. } => self.feed(n, Input::LinkUp { peer, incarnation }),
                LinkEvent::KeyShown { peer, key } => self.feed(n, Input::KeyShown { peer, key }),
                LinkEvent::Down { peer } => self.feed(n, Input::LinkDown { peer }),
                LinkEvent::Message { peer, message } => {
                    self.traffic.messages += 1;
                    self.hear(n, &message);
                    self.trace.note(self.now_us, n, 3, || format!("<- {peer} {message:?}"));
                    self.feed(n, Input::Message { from: peer, message });
                }
                LinkEvent::Refused { addr, reason } => {
                    self.trace.note(self.now_us, n, 4, || format!("refused {addr}: {reason}"));
                }
                LinkEvent::RefusedBy { peer, addr, reason } => {
                    self.trace.note(self.now_us, n, 5, || format!("refused by {addr}: {reason}"));
                    if let (Some(by), Refusal::RemovedNode) = (peer, reason) {
                        self.feed(n, Input::RefusedAsRemoved { by });
                    }
                }
            }
        }
    }
}

/// Tells nodes of each other: all, or in a circle and across it until each knows about so many.
fn introduce(nodes: &mut [Node], acquaintances: usize, chance: &mut Seeded) {
    let entries: Vec<Member> = nodes.iter().map(Node::entry).collect();
    let count = nodes.len();
    if acquaintances == 0 {
        return nodes.iter_mut().for_each(|n| n.introduced = entries.clone());
    }
    for n in 0..count {
        let across = (2..acquaintances).step_by(2).map(|_| chance.below(count as u64) as usize);
        for other in across.chain([(n + 1) % count]).filter(|other| *other != n) {
            nodes[n].introduced.push(entries[other].clone());
            nodes[other].introduced.push(entries[n].clone());
        }
    }
}
