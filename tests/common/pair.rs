//! Two cores that hold the same keys but for some, with messages carried by hand and their bytes
//! counted. Shared by `benches/sync.rs` and `tests/sync.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use turbopump::{
    Config, Key, Member, Mirrors, NodeId, Record, Version,
    core::{Core, Done, Input, Now, Output, Setup, Work},
    model::{Actor, Context, Digest, Dot, Kind},
    partition::{PartitionCount, Ring},
    storage::Change,
    wire::Message,
};

/// How long a message takes, milliseconds.
const LATENCY_MS: u64 = 1;
/// What the transport takes: about as UDP does.
const MAX_MESSAGE_BYTES: usize = 60_000;
/// Long after everything was written.
const WALL_MS: u64 = 1_800_000_000_000;
const NAMES: [&str; 2] = ["a", "b"];

/// Bytes by what they are for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    /// Comparing.
    pub sync: u64,
    /// Offers and their answers.
    pub offers: u64,
    /// Names and versions of copies, with all that is around them.
    pub copies: u64,
    /// Values.
    pub values: u64,
    /// Acknowledgements.
    pub acks: u64,
}

impl Traffic {
    /// All but values.
    pub fn overhead(&self) -> u64 {
        self.sync + self.offers + self.copies + self.acks
    }
}

/// What it took to become equal.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    pub traffic: Traffic,
    /// Names and versions of the keys that differed, as they stand in a message.
    pub differing_bytes: u64,
    /// Virtual time until both held the same.
    pub until_equal_ms: u64,
    /// Time that both cores took together, and the longest single step.
    pub busy: Duration,
    pub longest: Duration,
    /// Rounds begun.
    pub rounds: u64,
}

struct Side {
    core: Core,
    /// What it holds other than what `base` says; none: nothing.
    other: BTreeMap<Key, Option<Arc<Version>>>,
}

/// See the file.
pub struct Pair {
    sides: [Side; 2],
    wires: [VecDeque<(u64, Bytes)>; 2],
    now_ms: u64,
    keys: u64,
    pub cost: Cost,
}

impl Pair {
    /// `keys` keys on both, of which `differing` are on one side only, or newer there, in turns.
    pub fn new(keys: u64, differing: u64) -> Self {
        let id = |name: &str| -> NodeId { name.parse().expect("an id") };
        let setup = |i: usize| Setup {
            incarnation: 1,
            this: Member::new(id(NAMES[i]), vec![]),
            peers: vec![Member::new(id(NAMES[1 - i]), vec![])],
            partitioner: Arc::new(Ring),
            partitions: PartitionCount::default(),
            config: Config { scrub_interval: Duration::ZERO, ..Config::default() },
            seed: i as u64,
            max_message_bytes: MAX_MESSAGE_BYTES,
            verify: turbopump::identity::is_signed_by,
            sign: turbopump::core::Sign(std::sync::Arc::new(|_| [0; 64])),
            cluster: "pair".into(),
        };
        let side = |i| Side { core: Core::new(setup(i)), other: BTreeMap::new() };
        let mut pair = Self {
            sides: [side(0), side(1)],
            wires: [VecDeque::new(), VecDeque::new()],
            now_ms: 1,
            keys,
            cost: Cost::default(),
        };
        let every = keys.checked_div(differing).unwrap_or(u64::MAX);
        let mut left = differing;
        for number in 0..keys {
            let key = name(number);
            let mut versions = [Some(base(number)), Some(base(number))];
            if left > 0 && number % every == 0 {
                left -= 1;
                let (place, newer) = ((left % 2) as usize, newer(number));
                pair.cost.differing_bytes += bytes_of(&key, &newer);
                versions[place] = Some(newer);
                // Of three that differ, one is old on the other side and two are not there.
                if !left.is_multiple_of(3) {
                    versions[1 - place] = None;
                }
                for (side, version) in pair.sides.iter_mut().zip(&versions) {
                    side.other.insert(key.clone(), version.clone().map(Arc::new));
                }
            }
            for (side, version) in pair.sides.iter_mut().zip(versions) {
                version.into_iter().for_each(|version| side.core.load(&key, version));
            }
        }
        for i in 0..2 {
            let now = pair.now();
            let mut outputs = Vec::new();
            pair.sides[i].core.start(now, &mut outputs);
            pair.act(i, outputs);
        }
        for i in 0..2 {
            pair.feed(i, Input::LinkUp { peer: id(NAMES[1 - i]), incarnation: 1 });
        }
        pair
    }

    /// Runs until both hold the same, and says what that took.
    pub fn settle(&mut self) -> Cost {
        let started_ms = self.now_ms;
        while !self.is_equal() {
            self.step();
            assert!(self.now_ms - started_ms < 3_600_000, "not within an hour: {:?}", self.cost);
        }
        self.cost.until_equal_ms = self.now_ms - started_ms;
        // Answers that are on their way belong to it.
        while self.sides.iter().any(|side| side.core.unsettled() > 0) {
            self.step();
        }
        self.cost
    }

    /// Runs for so long.
    pub fn run_for(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.step();
        }
    }

    fn is_equal(&self) -> bool {
        let [a, b] = &self.sides;
        a.other == b.other
    }

    fn step(&mut self) {
        let due = self.sides.iter().filter_map(|side| side.core.deadline());
        let arrives = self.wires.iter().filter_map(|wire| wire.front().map(|(at_ms, _)| *at_ms));
        self.now_ms = due.chain(arrives).min().unwrap_or(self.now_ms + 1).max(self.now_ms);
        for i in 0..2 {
            while self.wires[i].front().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms) {
                let (_, mut bytes) = self.wires[i].pop_front().expect("just seen");
                let message = Message::decode(&mut bytes).expect("what was encoded");
                self.feed(i, Input::Message { from: NAMES[1 - i].parse().expect("an id"), message });
            }
            if self.sides[i].core.deadline().is_some_and(|due_ms| due_ms <= self.now_ms) {
                self.feed(i, Input::Tick);
            }
        }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    fn feed(&mut self, i: usize, input: Input) {
        let now = self.now();
        let (mut outputs, started) = (Vec::new(), Instant::now());
        self.sides[i].core.handle(now, input, &mut outputs);
        let took = started.elapsed();
        self.cost.busy += took;
        self.cost.longest = self.cost.longest.max(took);
        self.act(i, outputs);
    }

    fn act(&mut self, i: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { message, .. } => self.send(1 - i, &message),
                Output::Work { job, work } => {
                    if let Some(result) = self.work(i, work) {
                        self.feed(i, Input::Done { job, result });
                    }
                }
                Output::Notice(text) => panic!("{text}"),
                _ => {}
            }
        }
    }

    fn send(&mut self, to: usize, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
        let (len, traffic) = (bytes.len() as u64, &mut self.cost.traffic);
        match message {
            Message::Compare { .. } => {
                self.cost.rounds += 1;
                traffic.sync += len;
            }
            Message::Equal { .. } | Message::Parts { .. } | Message::List { .. } | Message::Want { .. } => {
                traffic.sync += len;
            }
            Message::Offer { .. } | Message::OfferAck { .. } => traffic.offers += len,
            Message::Write { value, .. } => {
                let value = value.as_ref().map_or(0, |value| value.len() as u64);
                traffic.copies += len - value;
                traffic.values += value;
            }
            Message::WriteAck { .. } => traffic.acks += len,
            _ => {}
        }
        self.wires[to].push_back((self.now_ms + LATENCY_MS, bytes.into()));
    }

    /// A storage that knows most of its keys by their names.
    fn work(&mut self, i: usize, work: Work) -> Option<Done> {
        let other = &mut self.sides[i].other;
        match work {
            Work::Change(Change::Put { key, version, .. }) => {
                if other.contains_key(&key) {
                    other.insert(key, Some(version));
                }
                Some(Done::Changed(Ok(())))
            }
            Work::Read(key) => {
                let number = key.as_str().trim_start_matches('k').parse().expect("a number");
                assert!(number < self.keys);
                let version = other.get(&key).cloned().unwrap_or_else(|| Some(base(number).into()));
                let records = version.map(|version| Record { version, value: Some(value(number)) });
                Some(Done::Records(Ok(records.into_iter().collect())))
            }
            Work::Change(_) => Some(Done::Changed(Ok(()))),
            other => panic!("{other:?}"),
        }
    }
}

/// 32 bytes.
fn name(number: u64) -> Key {
    Key::new(format!("k{number:031}")).expect("a key")
}

fn value(number: u64) -> Bytes {
    number.to_be_bytes().to_vec().into()
}

fn base(number: u64) -> Version {
    version(number, Context::EMPTY, 1_000_000)
}

fn newer(number: u64) -> Version {
    let mut context = Context::EMPTY;
    let base = base(number);
    context.add(base.dot.actor, base.since, base.dot.counter);
    version(number, context, 100_000_000)
}

fn version(number: u64, context: Context, from: u64) -> Version {
    let (actor, value) = (Actor(u64::MAX - number % 3), value(number));
    let counter = from + number;
    Version {
        dot: Dot { actor, counter },
        since: counter - 1,
        context,
        written_ms: 1_700_000_000_000 + number,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: value.len() as u64,
        digest: Digest::of(&value),
        seal: None,
    }
}

/// A name and a version as they stand in a message.
fn bytes_of(key: &Key, version: &Version) -> u64 {
    let mut bytes = Vec::new();
    let message =
        Message::Write { tag: 0, key: key.clone(), version: Arc::new(version.clone()), value: None };
    message.encode(&mut bytes);
    // Around them: the array, the type, the tag, no value.
    bytes.len() as u64 - 4
}
