//! What a peer can do that was admitted and is not to be trusted, and what a client can't use up.

mod leaving;
mod transfers;

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Content, Core, Done, Found, Input, JobId, Now, OpId, Outcome, Output, ReadRequest, Request, Setup, Sign,
    Standing, Work, WriteRequest, burial, gossip, offer, ranges, transfer,
};
use crate::{
    config::Config,
    error::{ReadError, SubmitError},
    identity::Identity,
    model::{
        Actor, Context, Digest, Dot, Key, Kind, MAX_ADDRS, MAX_NODE_ID_BYTES, Member, MemberState, Mirrors,
        NodeId, Record, Version,
    },
    partition::{PartitionCount, Ring},
    storage::Change,
    wire::{
        AckStatus, BurialStep, CHECK_BYTES, FRAME_HEADER_BYTES, HashedKey, Interest, LIST_BYTES, Message,
        OFFERED_BYTES, Offered, PARTS_PER_RANGE, RANGE_PARTS_BYTES, RangeList, RangeParts, member_len_hint,
    },
};

const LONG: usize = 1 << 20;

/// The first process of a node, with peers.
pub(super) fn setup(this: Member, peers: Vec<Member>, config: Config) -> Setup {
    Setup {
        this,
        peers,
        partitioner: Arc::new(Ring),
        partitions: PartitionCount::default(),
        config,
        incarnation: 1,
        seed: 1,
        max_message_bytes: 60_000,
        verify: crate::identity::is_signed_by,
        sign: Sign(Arc::new(|message| Identity::from_seed([1; 32]).sign(message))),
        cluster: "test".into(),
    }
}

/// A core with one peer, `b`, that is up; storage takes everything.
pub(super) struct Bench {
    pub(super) core: Core,
    now: Now,
    pub(super) next_op: u64,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        let peers = vec![Member::new(id("b"), vec![])];
        let core = Core::new(setup(Member::new(id("a"), vec![]), peers, config));
        let mut bench = Self { core, now: Now { mono_ms: 1, wall_ms: 1_000_000 }, next_op: 0 };
        bench.core.start(bench.now, &mut Vec::new());
        bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
        bench
    }

    /// What follows, with all changes done; reads and pieces are left to the test.
    fn feed(&mut self, input: Input) -> Vec<Output> {
        let (mut all, mut inputs) = (Vec::new(), vec![input]);
        while let Some(input) = inputs.pop() {
            let mut outputs = Vec::new();
            self.core.handle(self.now, input, &mut outputs);
            for output in outputs {
                if let Output::Work { job, work: Work::Change(_) | Work::Stage { .. } } = &output {
                    inputs.push(Input::Done { job: *job, result: Done::Changed(Ok(())) });
                }
                if let Output::Work { job, work: Work::Resume { .. } } = &output {
                    inputs.push(Input::Done { job: *job, result: Done::Resumed(Ok(0)) });
                }
                all.push(output);
            }
        }
        all
    }

    pub(super) fn ask(&mut self, request: Request) -> Vec<Output> {
        self.next_op += 1;
        self.feed(Input::Request { op: OpId(self.next_op), request })
    }

    pub(super) fn hear(&mut self, message: Message) -> Vec<Output> {
        self.feed(Input::Message { from: id("b"), message })
    }

    /// What it does by itself as time goes by.
    fn wait(&mut self, ms: u64) -> Vec<Output> {
        let mut outputs = Vec::new();
        for _ in 0..ms.div_ceil(20) {
            self.now.mono_ms += 20;
            outputs.extend(self.feed(Input::Tick));
        }
        outputs
    }

    fn write(&mut self, name: &str, value: &Bytes) -> Vec<Output> {
        self.ask(Request::Write(WriteRequest {
            key: key(name),
            kind: Kind::Value,
            digest: Digest::of(value),
            content: Content::Whole(value.clone()),
            mirrors: None,
            ack: None,
            context: None,
            expires_ms: None,
            timeout_ms: None,
            progress: false,
            seal: None,
        }))
    }
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn offered(len: u64) -> Message {
    let version = Version {
        dot: Dot { actor: Actor(9), counter: 1 },
        since: 0,
        context: Context::EMPTY,
        written_ms: 1,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len,
        digest: Digest([7; 32]),
        seal: None,
    };
    Message::Write { tag: 5, key: key("k"), version: Arc::new(version), value: None }
}

fn messages(outputs: &[Output]) -> Vec<&Message> {
    outputs
        .iter()
        .filter_map(|o| if let Output::Send { message, .. } = o { Some(message) } else { None })
        .collect()
}

fn jobs(outputs: &[Output]) -> Vec<(JobId, &Work)> {
    outputs
        .iter()
        .filter_map(|o| if let Output::Work { job, work } = o { Some((*job, work)) } else { None })
        .collect()
}

#[test]
fn a_peer_that_asks_without_end_gets_no_more_jobs_than_there_may_be() {
    let config = Config { max_disk_jobs: 8, ..Config::default() };
    let mut bench = Bench::new(config);
    let version = match bench.write("k", &Bytes::from_static(b"v"))[..] {
        [.., Output::Finish { outcome: Outcome::Written(Ok(ref written)), .. }] => written.version,
        ref outputs => panic!("{outputs:?}"),
    };
    for tag in 0..100 {
        bench.hear(Message::Read { tag, key: key("k"), values: true });
        bench.hear(Message::Fetch { tag, key: key("k"), dot: version, offset: 0, len: 1 });
    }
    assert_eq!(bench.core.jobs.len(), 8);
}

#[test]
fn numbers_at_their_end_do_not_run_over() {
    let mut bench = Bench::new(Config::default());
    bench.write("k", &Bytes::from_static(b"v"));
    for bits in [0, 63, 64] {
        let range = RangeParts { prefix: 0, checks: [u32::MAX; 16] };
        bench.hear(Message::Parts { salt: u32::MAX, mirrors: Mirrors(3), bits, ranges: vec![range] });
        let range = RangeList { prefix: u64::MAX, checks: vec![u32::MAX] };
        bench.hear(Message::List { salt: u32::MAX, mirrors: Mirrors(3), bits, ranges: vec![range] });
        bench.now.mono_ms += 1_000;
        bench.feed(Input::Tick);
    }
    let last = |name| Member { generation: u32::MAX, revision: u64::MAX, ..Member::new(id(name), vec![]) };
    bench.hear(Message::Members { entries: vec![last("a"), last("b"), last("c")], reply: true });
    for name in ["b", "c"] {
        bench.ask(Request::AddMember { id: id(name), addrs: vec![], key: None, appointed: None });
        bench.ask(Request::RemoveMember { id: id(name), key: None, warrant: None });
        bench.ask(Request::AddMember { id: id(name), addrs: vec![], key: None, appointed: None });
    }
}

#[test]
fn of_a_listed_range_with_many_keys_here_the_parts_are_named() {
    // Goal: who holds nothing of a large range gets all of it in steps. Method: the test is that one.
    let mut bench = Bench::new(Config::default());
    let count = super::ranges::MAX_HELD_KEYS + 1;
    (0..count).for_each(|i| _ = bench.write(&format!("k{i}"), &Bytes::from_static(b"v")));
    bench.now.wall_ms += 60_000;
    bench.feed(Input::LinkDown { peer: id("b") });
    bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    let nothing = |bits, prefixes: &[u64]| {
        let ranges = prefixes.iter().map(|prefix| RangeList { prefix: *prefix, checks: vec![] }).collect();
        Message::List { salt: 1, mirrors: Mirrors(3), bits, ranges }
    };
    let repaired = bench.core.counters.sync_repaired;
    let outputs = bench.hear(nothing(0, &[0]));
    let [Message::Parts { bits: 0, ranges, .. }] = &messages(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((ranges.len(), ranges[0].prefix), (1, 0));
    assert_eq!(bench.core.counters.sync_repaired, repaired);
    bench.now.mono_ms += 1_000;
    let prefixes: Vec<u64> = (0..16).map(|part| part << 60).collect();
    bench.hear(nothing(4, &prefixes));
    assert_eq!(bench.core.counters.sync_repaired, repaired + count as u64);
}

#[test]
fn what_is_owed_is_offered_and_only_what_is_wanted_is_sent() {
    // Goal: nobody is sent what it has, and what it has counts as acknowledged. Method: play the peer.
    let mut bench = Bench::new(Config::default());
    bench.feed(Input::LinkDown { peer: id("b") });
    ["known", "wanted", "coming"].iter().for_each(|name| _ = bench.write(name, &Bytes::from_static(b"v")));
    let outputs = bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    let offers = |outputs: &[Output]| -> Vec<(u64, Vec<Offered>)> {
        let offers = messages(outputs).into_iter().filter_map(|m| match m {
            Message::Offer { tag, versions } => Some((*tag, versions.clone())),
            _ => None,
        });
        offers.collect()
    };
    let [(tag, versions)] = &offers(&outputs)[..] else { panic!("one offer: {outputs:?}") };
    assert!(jobs(&outputs).is_empty(), "nothing is read before it is wanted");
    let answer = |offered: &Offered| match offered.hash {
        hash if hash == key("known").hash64() => Interest::Known,
        hash if hash == key("wanted").hash64() => Interest::Wanted,
        _ => Interest::Coming,
    };
    let ack = Message::OfferAck { tag: *tag, answers: versions.iter().map(answer).collect() };
    let outputs = bench.hear(ack.clone());
    assert!(matches!(jobs(&outputs)[..], [(_, Work::Read(read))] if *read == key("wanted")), "{outputs:?}");
    assert_eq!(bench.core.unsettled(), 2, "one is read, one is offered again later");
    assert!(bench.hear(ack).is_empty(), "an answer counts once");
    bench.now.mono_ms += 400;
    let outputs = bench.feed(Input::Tick);
    let [(tag, versions)] = &offers(&outputs)[..] else { panic!("one offer: {outputs:?}") };
    assert_eq!((versions.len(), versions[0].hash), (1, key("coming").hash64()));
    // A busy peer answers nothing, and is left alone for a while.
    let (tag, versions) = (*tag, versions.len());
    assert!(offers(&bench.hear(Message::OfferAck { tag, answers: vec![] })).is_empty());
    bench.now.mono_ms += 400;
    assert_eq!(offers(&bench.feed(Input::Tick)).len(), versions);
}

#[test]
fn an_offer_is_answered_by_what_is_stored() {
    // Goal: `Known` is said of what storage has, or has something in the place of, and of nothing else.
    let mut bench = Bench::new(Config::default());
    bench.write("k", &Bytes::from_static(b"old"));
    let old = bench.core.index.stored(&key("k")).next().expect("stored").dot;
    bench.write("k", &Bytes::from_static(b"new"));
    let new = bench.core.index.stored(&key("k")).next().expect("stored").dot;
    let other = Dot { actor: Actor(77), counter: 1 };
    let (hash, check) = (key("k").hash64(), key("k").check(5));
    let offer = |versions: &[(u32, Dot)]| {
        let versions = versions.iter().map(|(check, dot)| Offered { hash, check: *check, dot: *dot });
        Message::Offer { tag: 5, versions: versions.collect() }
    };
    let all = offer(&[(check, old), (check, new), (check, other), (check ^ 1, old)]);
    let outputs = bench.hear(all);
    let [Message::OfferAck { tag: 5, answers }] = &messages(&outputs)[..] else { panic!("{outputs:?}") };
    use Interest::{Coming, Known, Wanted};
    assert_eq!(answers[..], [Known, Known, Wanted, Wanted], "the last one is of another key with this hash");
    // On its way to storage, which has not answered.
    let Message::Write { version, .. } = offered(0) else { panic!() };
    let version = Arc::new(Version { digest: Digest::of(b""), ..(*version).clone() });
    let write = Message::Write { tag: 6, key: key("k"), version: version.clone(), value: Some(Bytes::new()) };
    bench.core.handle(bench.now, Input::Message { from: id("b"), message: write }, &mut Vec::new());
    let outputs = bench.hear(offer(&[(check, version.dot)]));
    let [Message::OfferAck { answers, .. }] = &messages(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(answers[..], [Coming]);
}

#[test]
fn a_peer_that_is_removed_and_added_while_a_copy_is_read_for_it_is_served_again() {
    let mut bench = Bench::new(Config::default());
    bench.feed(Input::LinkDown { peer: id("b") });
    bench.write("k", &Bytes::from_static(b"v"));
    let outputs = bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    let offer = messages(&outputs)
        .into_iter()
        .find_map(|m| if let Message::Offer { tag, .. } = m { Some(*tag) } else { None });
    let tag = offer.expect("a copy is owed");
    let outputs = bench.hear(Message::OfferAck { tag, answers: vec![Interest::Wanted] });
    let job = jobs(&outputs).iter().find(|(_, w)| matches!(w, Work::Read(_))).expect("it is read").0;
    bench.ask(Request::RemoveMember { id: id("b"), key: None, warrant: None });
    bench.ask(Request::AddMember { id: id("b"), addrs: vec![], key: None, appointed: None });
    bench.feed(Input::Done { job, result: Done::Records(Ok(vec![])) });
    bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    let outputs = bench.write("k2", &Bytes::from_static(b"v"));
    assert!(messages(&outputs).iter().any(|m| matches!(m, Message::Write { .. })), "{outputs:?}");
}

#[test]
fn waits_are_limited_and_leave_room_when_they_end() {
    let config = Config { max_watches: 2, ..Config::default() };
    let mut bench = Bench::new(config);
    let wait = || Request::Wait { key: key("k"), context: Context::EMPTY, timeout_ms: 1_000 };
    let busy = |outputs: &[Output]| {
        outputs.iter().any(|o| {
            let Output::Finish { outcome: Outcome::Waited(Err(error)), .. } = o else { return false };
            *error == ReadError::Refused(SubmitError::Busy)
        })
    };
    for round in 0..3 {
        assert!(!busy(&bench.ask(wait())) && !busy(&bench.ask(wait())), "round {round}");
        assert!(busy(&bench.ask(wait())), "round {round}");
        bench.now.mono_ms += 1_001;
        bench.feed(Input::Tick);
    }
}

#[test]
fn a_read_that_found_damage_here_takes_the_bytes_of_another_owner_and_keeps_them() {
    // Goal: a value of any length is served though the copy here is damaged, and the copy is mended.
    // Method: the other owner names a long value without its bytes; the test plays that owner.
    let mut bench = Bench::new(Config::default());
    let value = Bytes::from(vec![3; LONG]);
    bench.write("k", &value);
    let version = Arc::new(bench.core.index.stored(&key("k")).next().expect("stored"));
    let ask = ReadRequest { distrust: true, ..ReadRequest::one(key("k")) };
    let outputs = bench.ask(Request::Read(ask));
    let tag = messages(&outputs)
        .iter()
        .find_map(|m| if let Message::Read { tag, .. } = m { Some(*tag) } else { None });
    let records = Some(vec![Record { version: version.clone(), value: None }]);
    let mut outputs = bench.hear(Message::ReadReply { tag: tag.expect("the owner is asked"), records });
    let mut finished = Vec::new();
    while finished.is_empty() {
        let fetch = messages(&outputs).into_iter().filter_map(|m| match m {
            Message::Fetch { tag, offset, len, .. } => Some((*tag, *offset, *len as usize)),
            _ => None,
        });
        let pieces: Vec<_> = fetch.collect();
        assert!(!pieces.is_empty(), "it is fetched: {outputs:?}");
        outputs.clear();
        for (tag, offset, len) in pieces {
            let bytes = Some(value.slice(offset as usize..offset as usize + len));
            outputs.extend(bench.hear(Message::Piece { tag, offset, bytes }));
        }
        finished = outputs.iter().filter(|o| matches!(o, Output::Finish { .. })).collect();
    }
    assert!(matches!(finished[..], [Output::Finish { outcome: Outcome::Read(Ok(Found { .. })), .. }]));
    assert!(jobs(&outputs).iter().any(|(_, w)| {
        matches!(w, Work::Change(Change::Commit { version: kept, replaces, .. }) if *kept == version && replaces.is_empty())
    }));
    // A short one comes with the answer.
    let value = Bytes::from_static(b"short");
    bench.write("s", &value);
    let version = Arc::new(bench.core.index.stored(&key("s")).next().expect("stored"));
    let outputs = bench.ask(Request::Read(ReadRequest { distrust: true, ..ReadRequest::one(key("s")) }));
    let tag = messages(&outputs)
        .iter()
        .find_map(|m| if let Message::Read { tag, .. } = m { Some(*tag) } else { None });
    let records = Some(vec![Record { version: version.clone(), value: Some(value) }]);
    let outputs = bench.hear(Message::ReadReply { tag: tag.expect("the owner is asked"), records });
    assert!(matches!(jobs(&outputs)[..], [(_, Work::Change(Change::Put { .. }))]), "{outputs:?}");
}

#[test]
fn a_node_that_all_turn_away_as_removed_knows_that_it_is_no_member() {
    // Goal: the one message that says so may be lost. Method: the link goes, and the peer refuses another;
    // once it has one again, that is over.
    let mut bench = Bench::new(Config::default());
    bench.feed(Input::LinkDown { peer: id("b") });
    assert_eq!(bench.core.stats().standing, Standing::Member);
    bench.feed(Input::RefusedAsRemoved { by: id("b") });
    assert_eq!(bench.core.stats().standing, Standing::Removed);
    let refused = bench.write("k", &Bytes::new());
    let is_refusal = |o: &Output| matches!(o, Output::Finish { outcome: Outcome::Written(Err(_)), .. });
    assert!(refused.iter().any(is_refusal), "{refused:?}");
    bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    assert_eq!(bench.core.stats().standing, Standing::Member);
}

#[test]
fn a_listing_behind_a_name_too_long_for_a_key_goes_on_there() {
    let mut bench = Bench::new(Config::default());
    ["a", "b", "c"].iter().for_each(|name| _ = bench.write(name, &Bytes::from_static(b"v")));
    let names = |after: &str| {
        bench
            .core
            .list_keys("", Some(after), 10, false)
            .keys
            .iter()
            .map(|k| k.key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("b"), ["c"]);
    assert_eq!(names(&"b".repeat(2_000)), ["c"]);
    assert_eq!(names(&"\u{e4}".repeat(2_000)), [""; 0]);
}

/// Goal: messages that are made to fit one frame do. Method: as many of the longest as each constant
/// allows in the shortest frame.
#[test]
fn what_is_counted_out_for_a_frame_fits_it() {
    let max = 1_200 - FRAME_HEADER_BYTES;
    let (mirrors, salt, bits) = (Mirrors(u16::MAX), u32::MAX, 64);
    let room = max - ranges::AROUND_RANGES_BYTES;
    let parts = RangeParts { prefix: u64::MAX, checks: [u32::MAX >> 8; PARTS_PER_RANGE] };
    let list = |checks| RangeList { prefix: u64::MAX, checks: vec![0; checks] };
    let lists = |checks| vec![list(checks); room / (LIST_BYTES + checks * CHECK_BYTES)];
    let addrs = vec![([255_u16; 8], u16::MAX).into(); MAX_ADDRS];
    let member = Member::new("i".repeat(MAX_NODE_ID_BYTES).parse().unwrap(), addrs);
    let member = Member { generation: u32::MAX, revision: u64::MAX, weight: u16::MAX, ..member };
    let members = (max - gossip::AROUND_BYTES) / member_len_hint(&member);
    let dot = Dot { actor: Actor(u64::MAX), counter: u64::MAX };
    let offered = Offered { hash: u64::MAX, check: u32::MAX, dot };
    let offers = (max - offer::AROUND_OFFER_BYTES) / OFFERED_BYTES;
    let grave = HashedKey { hash: u64::MAX, digest: u64::MAX };
    let graves = vec![grave; (max - burial::AROUND_BYTES) / burial::GRAVE_BYTES];
    let bytes = Some(vec![0; max - transfer::AROUND_PIECE_BYTES].into());
    for message in [
        Message::Parts { salt, mirrors, bits, ranges: vec![parts; room / RANGE_PARTS_BYTES] },
        Message::List { salt, mirrors, bits, ranges: lists(0) },
        Message::Want { salt, mirrors, bits, ranges: lists(20) },
        Message::Offer { tag: u64::MAX, versions: vec![offered; offers] },
        Message::OfferAck { tag: u64::MAX, answers: vec![Interest::Known; offers] },
        Message::Members { entries: vec![member; members], reply: true },
        Message::Buried { round: u64::MAX, step: BurialStep::Bury, agreed: vec![true; graves.len()] },
        Message::Bury { round: u64::MAX, members: u64::MAX, step: BurialStep::Bury, graves },
        Message::Piece { tag: u64::MAX, offset: u64::MAX, bytes },
    ] {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert!(encoded.len() <= max, "{} bytes: {message:?}", encoded.len());
        assert!(encoded.len() <= message.encoded_len_hint(), "the hint is short: {message:?}");
    }
}

/// Goal: a reply fits a frame if what is known of its versions does; if not, short values go along up
/// to as many bytes again. Empty ones always do, for there is nothing to fetch.
#[test]
fn values_are_left_out_of_a_reply_that_would_get_too_long() {
    let mut bench = Bench::new(Config::default());
    bench.core.max_message_bytes = 1_200 - FRAME_HEADER_BYTES;
    let mut context = Context::EMPTY;
    (1..=100).for_each(|actor| context.add(Actor(actor << 40), 0, 1));
    let reply = |context: &Context, values: &[usize]| {
        let record = |(counter, len): (usize, &usize)| {
            let dot = Dot { actor: Actor(7), counter: counter as u64 + 1 };
            let version = Version {
                dot,
                since: 0,
                context: context.clone(),
                written_ms: 1,
                expires_ms: None,
                kind: Kind::Value,
                mirrors: Mirrors(3),
                len: *len as u64,
                digest: Digest([7; 32]),
                seal: None,
            };
            Record { version: version.into(), value: Some(vec![0; *len].into()) }
        };
        let mut records: Vec<Record> = values.iter().enumerate().map(record).collect();
        bench.core.shorten(&mut records);
        let left: Vec<bool> = records.iter().map(|record| record.value.is_some()).collect();
        let mut encoded = Vec::new();
        Message::ReadReply { tag: u64::MAX, records: Some(records) }.encode(&mut encoded);
        (left, encoded.len())
    };
    let (left, len) = reply(&Context::EMPTY, &[300, 900, 300, 0]);
    assert_eq!(left, [true, false, true, true]);
    assert!(len <= bench.core.max_message_bytes, "{len} bytes");
    let (left, len) = reply(&context, &[2_000, 10_000, 200, 0]);
    assert_eq!(left, [true, false, true, true]);
    assert!((6_000..15_000).contains(&len), "{len} bytes");
}

#[test]
fn damage_that_nobody_can_mend_is_told_once() {
    // Goal: an operator hears of it, and not each time that it is seen. Method: storage says so in
    // every pass, and no other owner is there.
    let config = Config { scrub_interval: std::time::Duration::from_millis(1), ..Config::default() };
    let mut bench = Bench::new(config);
    bench.write("k", &Bytes::from_static(b"v"));
    bench.feed(Input::LinkDown { peer: id("b") });
    let (mut reads, mut told) = (0, 0);
    for _ in 0..20 {
        bench.now.mono_ms += 1_000;
        let mut outputs = bench.feed(Input::Tick);
        let read = jobs(&outputs).iter().find(|(_, w)| matches!(w, Work::Read(_))).map(|(job, _)| *job);
        if let Some(job) = read {
            reads += 1;
            outputs = bench.feed(Input::Done { job, result: Done::Records(Err("damaged".into())) });
        }
        told += outputs.iter().filter(|o| matches!(o, Output::Notice(_))).count();
    }
    assert!(reads > 2, "{reads}");
    assert_eq!(told, 1);
    assert_eq!(bench.core.counters.damage_found, reads);
}
