//! Several `Links` on a network that loses, repeats and reorders, in virtual time.

use std::collections::BTreeMap;

use super::*;
use crate::{
    model::{Actor, Context, Digest, Dot, Key, Kind, Member, MemberState, Mirrors, Record, Version},
    wire::{MAX_PARTIALS_PER_LINK, Vitals},
};

const MAX_FRAME_BYTES: usize = 1_200;
const TICK_MS: u64 = 10;

fn addr(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1_000 + number))
}

fn id(number: u16) -> NodeId {
    format!("n{number}").parse().unwrap()
}

fn local(number: u16, incarnation: u64) -> Local {
    Local { id: id(number), cluster: "test".into(), incarnation, partitions: 1_024, placement: "ring".into() }
}

fn members(numbers: impl IntoIterator<Item = u16>) -> Members {
    let mut members = Members::default();
    for number in numbers {
        members.merge(&Member::new(id(number), vec![addr(number)]));
    }
    members
}

fn ping(sequence: u64) -> Message {
    Message::Ping { sequence, vitals: Vitals { members: 7, ..Vitals::default() } }
}

/// A node whose number is also its id; it may sit at any address.
struct Node {
    at: SocketAddr,
    links: Links,
    events: Vec<LinkEvent>,
}

struct Net {
    nodes: Vec<Node>,
    /// Due, from, to, frame.
    flying: Vec<(u64, SocketAddr, SocketAddr, Bytes)>,
    now_ms: u64,
    seeded: Seeded,
    loss_percent: u64,
    repeat_percent: u64,
    longest_ms: u64,
}

impl Net {
    fn new(seed: u64) -> Self {
        let seeded = Seeded::new(seed);
        let (loss_percent, repeat_percent, longest_ms) = (0, 0, 0);
        Self {
            nodes: vec![],
            flying: vec![],
            now_ms: 5_000,
            seeded,
            loss_percent,
            repeat_percent,
            longest_ms,
        }
    }

    fn bad(seed: u64) -> Self {
        Self { loss_percent: 30, repeat_percent: 30, longest_ms: 400, ..Self::new(seed) }
    }

    fn add(&mut self, at: SocketAddr, local: Local, knows: impl IntoIterator<Item = u16>) -> usize {
        let mut links = Links::new(local, MAX_FRAME_BYTES, self.seeded.next_u64());
        links.admit(&members(knows));
        self.nodes.push(Node { at, links, events: vec![] });
        self.nodes.len() - 1
    }

    /// Two nodes, 1 and 2, that know each other and are linked.
    fn pair(seed: u64) -> Self {
        let mut net = Self::new(seed);
        net.add(addr(1), local(1, 1), [1, 2]);
        net.add(addr(2), local(2, 1), [1, 2]);
        net.dial(0, 2);
        net.run(100);
        assert!(net.up(0, 2) && net.up(1, 1));
        net.nodes.iter_mut().for_each(|n| n.events.clear());
        net
    }

    fn dial(&mut self, from: usize, number: u16) {
        let now_ms = self.now_ms;
        self.nodes[from].links.dial(now_ms, id(number), &[addr(number)]);
    }

    fn up(&self, node: usize, number: u16) -> bool {
        self.nodes[node].links.is_up(id(number))
    }

    fn send(&mut self, node: usize, number: u16, message: &Message) {
        self.nodes[node].links.send(id(number), message).unwrap();
    }

    fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms <= end {
            self.collect();
            let now = self.now_ms;
            let mut due: Vec<_> = self.flying.extract_if(.., |f| f.0 <= now).collect();
            due.sort_by_key(|f| f.0);
            for (_, from, to, frame) in due {
                if let Some(node) = self.nodes.iter_mut().find(|n| n.at == to) {
                    node.links.received(now, from, frame, &mut node.events);
                    node.links.check();
                }
            }
            self.now_ms += TICK_MS;
        }
    }

    fn collect(&mut self) {
        let Self { nodes, flying, now_ms, seeded, loss_percent, repeat_percent, longest_ms } = self;
        for node in nodes {
            let from = node.at;
            node.links.flush(&mut |to, frame| {
                assert!(frame.len() <= MAX_FRAME_BYTES);
                for _ in 0..=u64::from(seeded.percent(*repeat_percent)) {
                    if !seeded.percent(*loss_percent) {
                        let due = *now_ms + seeded.below(*longest_ms + 1);
                        flying.push((due, from, to, frame.clone()));
                    }
                }
            });
        }
    }

    fn events(&mut self, node: usize) -> Vec<LinkEvent> {
        std::mem::take(&mut self.nodes[node].events)
    }

    fn counters(&self, node: usize) -> LinkCounters {
        *self.nodes[node].links.counters()
    }
}

impl Links {
    /// The two maps say the same, and every table is within its limit.
    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (peer, link) in &self.links {
            assert!(
                self.admitted.contains(peer) && !link.paths().is_empty() && link.paths().len() <= MAX_ADDRS
            );
            owners.extend(link.paths().iter().map(|path| (path.addr, *peer)));
        }
        assert_eq!(owners, self.owners);
        assert!(self.ready.len() <= MAX_UNFLUSHED_FRAMES);
        assert!(self.begun.len() <= self.links.len());
        self.partials.check();
    }
}

fn up(number: u16, incarnation: u64, at: SocketAddr) -> LinkEvent {
    LinkEvent::Up { peer: id(number), incarnation, addr: at }
}

fn down(number: u16) -> LinkEvent {
    LinkEvent::Down { peer: id(number) }
}

fn refused(at: SocketAddr, reason: Refusal) -> LinkEvent {
    LinkEvent::Refused { addr: at, reason }
}

/// What `node` hears when a frame comes to it from `from`, and what it sends.
fn hears(
    node: &mut Links,
    now_ms: u64,
    from: SocketAddr,
    frame: Bytes,
) -> (Vec<LinkEvent>, Vec<(SocketAddr, Bytes)>) {
    let (mut events, mut sent) = (vec![], vec![]);
    node.received(now_ms, from, frame, &mut events);
    node.flush(&mut |to, frame| sent.push((to, frame)));
    node.check();
    (events, sent)
}

fn hello(who: Local, token: u64, echo: u64) -> Hello {
    let Local { id, cluster, incarnation, partitions, placement } = who;
    Hello { cluster, id, incarnation, partitions, placement, token, echo, refusal: None }
}

#[test]
fn three_hellos_bring_a_link_up_on_both_sides() {
    let mut net = Net::new(1);
    net.add(addr(1), local(1, 4), [1, 2]);
    net.add(addr(2), local(2, 9), [1, 2]);
    net.dial(0, 2);
    net.run(1_000);
    assert_eq!(net.events(0), [up(2, 9, addr(2))]);
    assert_eq!(net.events(1), [up(1, 4, addr(1))]);
    // Two each: the fourth tells the one who dialled that the other is up as well.
    assert_eq!((net.counters(0).hellos_out, net.counters(1).hellos_out), (2, 2));
    assert_eq!(net.nodes[0].links.addr_of(id(2)), Some(addr(2)));
}

/// Goal: whatever the network does to hellos, both ends come up while either dials.
#[test]
fn links_come_up_over_a_bad_network_whoever_dials() {
    for seed in 0..300 {
        let mut net = Net::bad(seed);
        net.add(addr(1), local(1, 1), 1..=3);
        net.add(addr(2), local(2, 1), 1..=3);
        net.add(addr(3), local(3, 1), 1..=3);
        for _ in 0..40 {
            for node in 0..3 {
                for number in (1..=3).filter(|&n| n != node as u16 + 1) {
                    // Node 3 never dials.
                    if node != 2 && !net.up(node, number) {
                        net.dial(node, number);
                    }
                    // Whoever is up speaks, as a heartbeat would: that wakes the one who is not.
                    if net.up(node, number) {
                        net.send(node, number, &ping(1));
                    }
                }
            }
            net.run(500);
        }
        for (node, number) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
            assert!(net.up(node, number), "seed {seed}: node {node} has no link to {number}");
        }
        for node in 0..3 {
            let ends = net.events(node).into_iter().filter(|e| !matches!(e, LinkEvent::Message { .. }));
            assert_eq!(ends.count(), 2, "seed {seed}: more than two links came up at {node}");
        }
    }
}

#[test]
fn messages_arrive_whole_in_order_and_in_few_frames() {
    let mut net = Net::pair(2);
    let before = net.counters(0).frames_out;
    let key = Key::new("k".repeat(500)).unwrap();
    let sent: Vec<_> = (0..100)
        .map(|tag| match tag % 10 {
            0 => Message::Read { tag, key: key.clone(), values: true },
            _ => ping(tag),
        })
        .collect();
    sent.iter().for_each(|m| net.send(0, 2, m));
    net.run(100);
    let got = net.events(1).into_iter().map(|e| match e {
        LinkEvent::Message { peer, message } if peer == id(1) => message,
        other => panic!("{other:?}"),
    });
    assert_eq!(got.collect::<Vec<_>>(), sent);
    let frames = net.counters(0).frames_out - before;
    assert!((5..=10).contains(&frames), "{frames} frames");
    assert_eq!(net.counters(0).messages_out, 100);
    assert_eq!(net.counters(1).messages_in, 100);
}

/// An answer with so many versions, each of which names 60 writers.
fn reply(tag: u64, versions: u64) -> Message {
    let mut context = Context::EMPTY;
    (0..60).for_each(|actor| context.add(Actor(actor << 40), 0, 9));
    let record = |counter| {
        let version = Version {
            dot: Dot { actor: Actor(7), counter },
            since: 0,
            context: context.clone(),
            written_ms: 1_700_000_000_000,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(3),
            len: 5,
            digest: Digest::of(b"hello"),
            seal: None,
        };
        Record { version: version.into(), value: None }
    };
    Message::ReadReply { tag, records: Some((1..=versions).map(record).collect()) }
}

fn said(events: Vec<LinkEvent>) -> Vec<Message> {
    let message = |event| match event {
        LinkEvent::Message { message, .. } => message,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(message).collect()
}

/// Goal: a message that no frame takes arrives whole, in its place among others.
#[test]
fn messages_longer_than_a_frame_arrive_whole_and_in_order() {
    let mut net = Net::pair(30);
    let sent = [ping(1), reply(1, 30), ping(2), ping(3), reply(2, 1), reply(3, 2), ping(4), reply(4, 200)];
    sent.iter().for_each(|m| net.send(0, 2, m));
    net.nodes[0].links.check();
    net.run(100);
    assert_eq!(said(net.events(1)), sent);
    let (out, into) = (net.counters(0), net.counters(1));
    assert_eq!((out.messages_out, into.messages_in, into.malformed), (8, 8, 0));
    assert!(out.parts_out > 100 && into.parts_in == out.parts_out, "{out:?}");
    // What fits a frame pays nothing: one frame, one copy, no part.
    net.send(0, 2, &reply(5, 1));
    net.run(100);
    assert_eq!(
        (net.counters(0).parts_out - out.parts_out, net.counters(0).frames_out - out.frames_out),
        (0, 1)
    );
}

/// Goal: who repeats a long message gets it through any network. Method: thirty parts, of which nearly
/// always some are lost; the receiver keeps those that came.
#[test]
fn a_long_message_said_again_gets_through_a_bad_network() {
    let mut tries = 0;
    for seed in 0..100 {
        let mut net = Net::pair(seed);
        (net.loss_percent, net.repeat_percent, net.longest_ms) = (30, 30, 400);
        let message = reply(seed, 30);
        for _ in 0..10 {
            tries += 1;
            net.send(0, 2, &message);
            net.run(500);
            if !net.nodes[1].events.is_empty() {
                break;
            }
        }
        let heard = said(net.events(1));
        assert!(!heard.is_empty(), "seed {seed}: nothing came of ten tries");
        assert!(heard.iter().all(|m| *m == message));
    }
    assert!(tries > 200, "{tries}: the network was not bad");
}

/// Goal: parts are taken from the peer's present process only. Method: half of a message, then the rest
/// with a wrong token, from elsewhere, and after a restart.
#[test]
fn parts_count_with_the_token_and_for_one_process() {
    let mut net = Net::pair(31);
    let parts = |net: &mut Net| {
        let (mut frames, links) = (vec![], &mut net.nodes[1].links);
        links.send(id(1), &reply(1, 3)).unwrap();
        links.flush(&mut |_, frame| frames.push(frame));
        frames
    };
    let frames = parts(&mut net);
    let node = &mut net.nodes[0].links;
    for frame in &frames[1..] {
        assert_eq!(hears(node, 5_200, addr(2), frame.clone()).0, []);
    }
    let token = Header::parse(&frames[0]).unwrap().token;
    let forged = Header::seal(FrameType::Part, token ^ 1, frames[0].to_vec());
    let before = node.counters().wrong_token;
    assert_eq!(hears(node, 5_200, addr(2), forged).0, []);
    assert_eq!(hears(node, 5_200, addr(3), frames[0].clone()).0, []);
    assert_eq!(node.counters().wrong_token, before + 2);
    assert!(!node.partials.is_empty());

    net.nodes[1].links = Links::new(local(2, 2), MAX_FRAME_BYTES, 99);
    net.nodes[1].links.admit(&members(1..=2));
    net.dial(1, 1);
    net.run(200);
    assert_eq!(net.events(0), [down(2), up(2, 2, addr(2))]);
    assert!(net.nodes[0].links.partials.is_empty());
    let frames = parts(&mut net);
    let node = &mut net.nodes[0].links;
    assert_eq!(hears(node, 5_300, addr(2), frames[0].clone()).0, []);
    let last = frames[1..].iter().flat_map(|frame| hears(node, 5_300, addr(2), frame.clone()).0);
    assert_eq!(said(last.collect()), [reply(1, 3)]);
}

/// Goal: what a linked peer makes up is counted, and held only within limits.
#[test]
fn made_up_parts_are_counted_and_bounded() {
    let mut net = Net::pair(32);
    let node = &mut net.nodes[0].links;
    let token = node.links[&id(2)].path().ours;
    let part = |name: u64, index: u16, count: u16, len: usize| {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(&name.to_be_bytes());
        frame.extend_from_slice(&index.to_be_bytes());
        frame.extend_from_slice(&count.to_be_bytes());
        frame.resize(frame.len() + len, 7);
        Header::seal(FrameType::Part, token, frame)
    };
    for frame in [part(1, 2, 2, 1_100), part(1, 0, 2, 100), part(1, 0, 9_999, 1_100)] {
        assert_eq!(hears(node, 5_200, addr(2), frame), (vec![], vec![]));
    }
    assert_eq!((node.counters().malformed, node.partials.is_empty()), (3, true));
    for name in 0..1_000 {
        assert_eq!(hears(node, 5_200, addr(2), part(name, 0, 200, 1_100)), (vec![], vec![]));
    }
    assert_eq!(node.counters().partials_dropped, 1_000 - MAX_PARTIALS_PER_LINK as u64);
    // Any frame lets go of what is too old.
    assert_eq!(hears(node, 60_000, addr(9), Bytes::new()), (vec![], vec![]));
    assert!(node.partials.is_empty() && node.is_up(id(2)));
}

#[test]
fn a_long_message_finds_room_for_all_its_frames_or_is_refused() {
    let mut net = Net::pair(33);
    let links = &mut net.nodes[0].links;
    let long = Message::Piece { tag: 1, offset: 0, bytes: Some(vec![1; MAX_MESSAGE_BYTES - 20].into()) };
    let taken = (0..MAX_UNFLUSHED_FRAMES).take_while(|_| links.send(id(2), &long).is_ok()).count();
    assert_eq!(links.send(id(2), &long), Err(SendRefused::Full));
    links.send(id(2), &ping(1)).unwrap();
    links.check();
    let mut frames = 0;
    links.flush(&mut |_, _| frames += 1);
    assert_eq!(frames, taken * MAX_MESSAGE_BYTES.div_ceil(MAX_FRAME_BYTES - 28) + 1);
    links.send(id(2), &long).unwrap();
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_the_frame_intact() {
    let mut net = Net::pair(3);
    let piece = |len| Message::Piece { tag: 1, offset: 0, bytes: Some(vec![1; len].into()) };
    let links = &mut net.nodes[0].links;
    assert_eq!(links.send(id(3), &ping(1)), Err(SendRefused::NoLink));
    assert_eq!(links.send(id(2), &piece(MAX_MESSAGE_BYTES + 1)), Err(SendRefused::TooLong));
    links.send(id(2), &ping(1)).unwrap();
    assert_eq!(links.send(id(2), &piece(MAX_MESSAGE_BYTES - 7)), Err(SendRefused::TooLong));
    let many = Message::OfferAck { tag: 1, answers: vec![crate::wire::Interest::Known; 70_000] };
    assert_eq!(links.send(id(2), &many), Err(SendRefused::TooLong));
    let fitting = piece(MAX_FRAME_BYTES - FRAME_HEADER_BYTES - 7);
    links.send(id(2), &fitting).unwrap();
    links.send(id(2), &ping(2)).unwrap();
    net.run(50);
    let got: Vec<_> = net.events(1);
    let message = |message| LinkEvent::Message { peer: id(1), message };
    assert_eq!(got, [message(ping(1)), message(fitting), message(ping(2))]);
}

#[test]
fn frames_not_flushed_are_limited() {
    let mut net = Net::pair(4);
    let big = Message::Piece { tag: 1, offset: 0, bytes: Some(vec![1; 1_100].into()) };
    let links = &mut net.nodes[0].links;
    let taken = (0..2 * MAX_UNFLUSHED_FRAMES).take_while(|_| links.send(id(2), &big).is_ok()).count();
    assert_eq!(taken, MAX_UNFLUSHED_FRAMES + 1);
    assert_eq!(links.send(id(2), &ping(1)), Err(SendRefused::Full));
    links.flush(&mut |_, _| {});
    links.send(id(2), &ping(1)).unwrap();
}

/// Goal: each reason is told to both sides, and opens no link.
#[test]
fn whoever_does_not_belong_is_refused_with_the_reason() {
    let like = |change: fn(&mut Local)| {
        let mut who = local(2, 1);
        change(&mut who);
        who
    };
    for (who, knows, reason) in [
        (like(|l| l.cluster = "other".into()), 1..=2, Refusal::Cluster),
        (like(|l| l.partitions = 64), 1..=2, Refusal::Partitions),
        (like(|l| l.placement = "everywhere".into()), 1..=2, Refusal::Placement),
        (like(|l| l.id = id(1)), 1..=2, Refusal::SelfId),
        (like(|_| ()), 1..=1, Refusal::UnknownNode),
    ] {
        let mut net = Net::new(5);
        net.add(addr(1), local(1, 7), knows);
        net.add(addr(2), who, 1..=3);
        let first = if reason == Refusal::SelfId { 3 } else { 1 };
        for _ in 0..10 {
            let now_ms = net.now_ms;
            net.nodes[1].links.dial(now_ms, id(first), &[addr(1)]);
            net.run(500);
        }
        assert_eq!(net.events(0), [refused(addr(2), reason)]);
        let peer = Some(id(1)).filter(|_| reason != Refusal::SelfId);
        assert_eq!(net.events(1), [LinkEvent::RefusedBy { peer, addr: addr(1), reason }]);
        assert_eq!(net.counters(0).refused(reason), 10);
        assert_eq!(net.counters(1).refused_by(reason), 10);
        assert!(net.nodes.iter().all(|n| n.links.links.is_empty()));
    }
}

#[test]
fn a_removed_node_loses_its_link_and_is_told() {
    let mut net = Net::pair(6);
    let mut list = members(1..=2);
    let gone = Member { state: MemberState::Removed, ..Member::new(id(2), vec![]) };
    assert!(list.merge(&gone));
    assert_eq!(net.nodes[0].links.admit(&list), [id(2)]);
    assert!(!net.up(0, 2));
    net.send(1, 1, &ping(1));
    net.run(100);
    assert!(!net.up(1, 1));
    assert_eq!(
        net.events(1),
        [down(1), LinkEvent::RefusedBy { peer: Some(id(1)), addr: addr(1), reason: Refusal::RemovedNode }]
    );
    assert_eq!(net.events(0), [refused(addr(2), Refusal::RemovedNode)]);
}

#[test]
fn refusals_are_reported_once_a_minute() {
    let mut node = Links::new(local(1, 1), MAX_FRAME_BYTES, 1);
    let mut reports = 0;
    for second in 0..180 {
        let frame = hello(local(5, 1), 77, 0).to_frame();
        reports += hears(&mut node, second * 1_000, addr(5), frame).0.len();
    }
    assert_eq!(reports, 3);
}

#[test]
fn another_wire_version_is_reported_and_not_answered() {
    let mut node = Links::new(local(1, 1), MAX_FRAME_BYTES, 1);
    let mut frame = hello(local(2, 1), 77, 0).to_frame().to_vec();
    frame[2] = 9;
    let (events, sent) = hears(&mut node, 0, addr(2), frame.into());
    assert_eq!(events, [refused(addr(2), Refusal::WireVersion)]);
    assert_eq!((sent.len(), node.counters().wire_version), (0, 1));
}

/// Goal: a restarted peer at the same address replaces its old self at once.
#[test]
fn a_restarted_peer_is_down_then_up() {
    let mut net = Net::pair(7);
    let fresh = Links::new(local(2, 2), MAX_FRAME_BYTES, 99);
    net.nodes[1].links = fresh;
    net.nodes[1].links.admit(&members(1..=2));
    // Its first process' link is still up here; sending on it wakes the second.
    net.send(0, 2, &ping(1));
    net.run(200);
    assert_eq!(net.events(0), [down(2), up(2, 2, addr(2))]);
    assert_eq!(net.events(1), [up(1, 1, addr(1))]);
    assert_eq!(net.counters(1).wrong_token, 1);
    net.send(0, 2, &ping(2));
    net.run(100);
    assert_eq!(net.events(1), [LinkEvent::Message { peer: id(1), message: ping(2) }]);
}

/// Goal: the same with everything that can happen to frames, late ones of the old process included.
#[test]
fn restarts_over_a_bad_network_end_with_a_working_link() {
    for seed in 0..200 {
        let mut net = Net::bad(seed);
        net.add(addr(1), local(1, 1), [1, 2]);
        net.add(addr(2), local(2, 1), [1, 2]);
        for round in 0..60_u64 {
            if round == 10 || round == 20 {
                net.nodes[1].links = Links::new(local(2, round), MAX_FRAME_BYTES, seed ^ round);
                net.nodes[1].links.admit(&members(1..=2));
                net.events(1);
            }
            for (node, number) in [(0, 2), (1, 1)] {
                match net.up(node, number) {
                    true => net.send(node, number, &ping(round)),
                    false => net.dial(node, number),
                }
            }
            net.run(500);
        }
        assert_eq!(net.nodes[0].links.links[&id(2)].incarnation(), 20, "seed {seed}");
        for node in 0..2 {
            let arrived = net.events(node).iter().any(
                |e| matches!(e, LinkEvent::Message { message: Message::Ping { sequence, .. }, .. } if *sequence > 50),
            );
            assert!(arrived, "seed {seed}: nothing arrives at node {node}");
        }
    }
}

#[test]
fn an_earlier_process_of_a_linked_peer_is_refused() {
    let mut net = Net::new(8);
    net.add(addr(1), local(1, 1), [1, 2]);
    net.add(addr(2), local(2, 5), [1, 2]);
    net.dial(0, 2);
    net.run(100);
    net.add(addr(9), local(2, 4), [1, 2]);
    net.dial(2, 1);
    net.run(100);
    assert_eq!(net.events(0), [up(2, 5, addr(2)), refused(addr(9), Refusal::Superseded)]);
    let reason = Refusal::Superseded;
    assert_eq!(net.events(2), [LinkEvent::RefusedBy { peer: Some(id(1)), addr: addr(1), reason }]);
    assert_eq!(net.nodes[0].links.addr_of(id(2)), Some(addr(2)));
}

#[test]
fn frames_with_a_false_source_or_token_change_nothing() {
    let mut net = Net::pair(9);
    let node = &mut net.nodes[0].links;
    let body = {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        ping(6).encode(&mut frame);
        frame
    };
    let right = node.links[&id(2)].path().ours;
    let seal = |token| Header::seal(FrameType::Messages, token, body.clone());
    // The right address with a guessed token, and the right token from elsewhere.
    let mut wrong = 0;
    for (from, token) in [(addr(2), right ^ 1), (addr(2), 0), (addr(3), right), (addr(3), 0)] {
        let (events, _) = hears(node, 10_000, from, seal(token));
        wrong += 1;
        assert_eq!((events, node.counters().wrong_token), (vec![], wrong));
    }
    // Hellos in its name from its address and from another, of a later process, with guessed echoes.
    for (from, echo) in [(addr(2), 0), (addr(2), 5), (addr(3), right), (addr(3), 0)] {
        let (events, _) = hears(node, 11_000, from, hello(local(2, 99), 66, echo).to_frame());
        assert_eq!(events, []);
    }
    // Refusals that echo nothing of ours.
    for echo in [0, 5] {
        let refusal = Hello { refusal: Some(Refusal::Cluster), ..hello(local(2, 1), 66, echo) };
        let (events, sent) = hears(node, 11_000, addr(2), refusal.to_frame());
        assert_eq!((events, sent), (vec![], vec![]));
    }
    // Refused hellos of that id.
    let foreign = Local { cluster: "other".into(), ..local(2, 99) };
    let (events, _) = hears(node, 11_000, addr(2), hello(foreign, 66, 0).to_frame());
    assert_eq!(events, [refused(addr(2), Refusal::Cluster)]);
    let (events, _) = hears(node, 12_000, addr(2), seal(right));
    assert_eq!(events, [LinkEvent::Message { peer: id(2), message: ping(6) }]);
}

#[test]
fn strangers_with_messages_are_greeted_twice_a_second() {
    let mut node = Links::new(local(1, 1), MAX_FRAME_BYTES, 1);
    node.admit(&members(1..=2));
    let frame = Header::seal(FrameType::Messages, 5, vec![0; FRAME_HEADER_BYTES]);
    let mut sent = 0;
    for ms in (0..10_000).step_by(10) {
        sent += hears(&mut node, ms, addr(2), frame.clone()).1.len();
    }
    assert_eq!(sent, 20);
    // A flood from everywhere is bounded in all.
    let all: usize = (0..5_000).map(|n| hears(&mut node, 20_000, addr(n), frame.clone()).1.len()).sum();
    assert_eq!(all, MAX_REFUSALS_PER_SECOND as usize);
}

#[test]
fn hellos_are_answered_up_to_a_limit() {
    let mut node = Links::new(local(1, 1), MAX_FRAME_BYTES, 1);
    node.admit(&members(1..=2));
    let frame = hello(local(2, 1), 77, 0).to_frame();
    let all: usize = (0..10_000).map(|n| hears(&mut node, 20_000, addr(n), frame.clone()).1.len()).sum();
    assert_eq!(all, MAX_ANSWERS_PER_SECOND as usize);
    assert_eq!(node.counters().unanswered, 10_000 - u64::from(MAX_ANSWERS_PER_SECOND));
}

#[test]
fn a_peer_that_moves_is_followed_and_its_old_address_still_heard() {
    let mut net = Net::pair(10);
    let old = net.nodes[0].links.links[&id(2)].path();
    net.nodes[1].at = addr(20);
    net.dial(1, 1);
    net.run(100);
    // The same process: the link did not break.
    assert_eq!(net.events(0), []);
    assert_eq!(net.nodes[0].links.addr_of(id(2)), Some(addr(20)));
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    ping(3).encode(&mut frame);
    let late = Header::seal(FrameType::Messages, old.ours, frame);
    let (events, _) = hears(&mut net.nodes[0].links, 9_000, addr(2), late);
    assert_eq!(events, [LinkEvent::Message { peer: id(2), message: ping(3) }]);
    // The transport lets go of the old one, then of the new one.
    let mut events = vec![];
    net.nodes[0].links.closed(addr(2), &mut events);
    assert_eq!(events, []);
    net.nodes[0].links.closed(addr(20), &mut events);
    assert_eq!(events, [down(2)]);
    net.nodes[0].links.check();
}

#[test]
fn an_address_that_changes_hands_takes_the_link_along() {
    let mut net = Net::new(11);
    net.add(addr(1), local(1, 1), 1..=3);
    net.add(addr(2), local(2, 1), 1..=3);
    net.dial(0, 2);
    net.run(100);
    net.nodes.remove(1);
    net.add(addr(2), local(3, 1), 1..=3);
    net.dial(1, 1);
    net.run(100);
    assert_eq!(net.events(0), [up(2, 1, addr(2)), down(2), up(3, 1, addr(2))]);
    assert!(net.up(1, 1));
}

#[test]
fn paths_of_a_peer_are_limited() {
    let mut net = Net::pair(12);
    for number in 20..60 {
        net.nodes[1].at = addr(number);
        net.dial(1, 1);
        net.run(50);
    }
    assert_eq!(net.nodes[0].links.links[&id(2)].paths().len(), MAX_ADDRS);
    assert_eq!(net.nodes[0].links.addr_of(id(2)), Some(addr(59)));
}

#[test]
fn a_node_that_dials_itself_takes_no_notice() {
    let mut net = Net::new(13);
    net.add(addr(1), local(1, 1), 1..=2);
    let now_ms = net.now_ms;
    net.nodes[0].links.dial(now_ms, id(2), &[addr(1)]);
    net.run(100);
    assert_eq!((net.events(0), net.counters(0).own_hellos), (vec![], 1));
}

#[test]
fn a_link_given_up_comes_back_when_the_peer_speaks() {
    let mut net = Net::pair(14);
    net.send(0, 2, &ping(1));
    net.nodes[0].links.hang_up(id(2));
    assert!(!net.up(0, 2));
    net.send(1, 1, &ping(2));
    net.run(100);
    // What was not flushed is gone, and so is what found no link.
    assert_eq!((net.events(0), net.events(1)), (vec![up(2, 1, addr(2))], vec![]));
    net.send(1, 1, &ping(3));
    net.run(100);
    assert_eq!(net.events(0), [LinkEvent::Message { peer: id(2), message: ping(3) }]);
}

#[test]
fn messages_of_a_later_release_are_counted_and_skipped() {
    let mut net = Net::pair(15);
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    ping(1).encode(&mut frame);
    // Type 99 with a nested field, then a status that does not exist yet.
    frame.extend_from_slice(&[0x92, 99, 0x93, 0x91, 0xc0, 0xa1, b'x', 0x00]);
    frame.extend_from_slice(&[0x93, 2, 5, 77]);
    ping(2).encode(&mut frame);
    let token = net.nodes[0].links.links[&id(2)].path().ours;
    let frame = Header::seal(FrameType::Messages, token, frame);
    let (events, _) = hears(&mut net.nodes[0].links, 0, addr(2), frame);
    let message = |message| LinkEvent::Message { peer: id(2), message };
    assert_eq!(events, [message(ping(1)), message(ping(2))]);
    assert_eq!((net.counters(0).unknown_messages, net.counters(0).malformed), (1, 1));
}

/// Goal: nothing that comes in makes it panic, grow or lose its link. Method: random bytes, frames
/// with a good header, and genuine frames with bytes changed, from many addresses.
#[test]
fn noise_neither_breaks_nor_grows_anything() {
    let mut net = Net::pair(16);
    let node = &mut net.nodes[0].links;
    let token = node.links[&id(2)].path().ours;
    let mut seeded = Seeded::new(17);
    let genuine: Vec<Vec<u8>> = {
        let mut messages = vec![0; FRAME_HEADER_BYTES];
        (0..20).for_each(|n| ping(n).encode(&mut messages));
        Message::Read { tag: 1, key: Key::new("key").unwrap(), values: true }.encode(&mut messages);
        let messages = Header::seal(FrameType::Messages, token, messages);
        vec![messages.to_vec(), hello(local(2, 1), 7, token).to_frame().to_vec()]
    };
    for turn in 0..100_000_u64 {
        let from = if seeded.percent(50) { addr(2) } else { addr(seeded.below(20_000) as u16) };
        let frame = match turn % 3 {
            0 => (0..seeded.below(64)).map(|_| seeded.next_u64() as u8).collect(),
            1 => {
                let noise: Vec<u8> = (0..16 + seeded.below(64)).map(|_| seeded.next_u64() as u8).collect();
                let kind = *seeded.pick(&[FrameType::Hello, FrameType::Messages, FrameType::Part]);
                Header::seal(kind, token, noise).to_vec()
            }
            _ => {
                let mut frame = seeded.pick(&genuine).clone();
                for _ in 0..=seeded.below(3) {
                    let at = seeded.below(frame.len() as u64) as usize;
                    frame[at] = seeded.next_u64() as u8;
                }
                frame
            }
        };
        let (mut events, now_ms) = (vec![], turn / 10);
        node.received(now_ms, from, frame.into(), &mut events);
        if turn % 64 == 0 {
            node.flush(&mut |_, frame| assert!(frame.len() < 200));
            node.check();
        }
    }
    assert!(node.is_up(id(2)));
    assert!(node.counters().malformed > 1_000 && node.counters().not_ours > 1_000);
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

/// Two members, 1 and 2; the first knows this of the key of the second, and 3 has the key 3.
fn pair_with_key(known: MemberKey, shown: PublicKey) -> Net {
    let mut net = Net::new(7);
    net.add(addr(1), local(1, 1), []);
    net.add(addr(2), local(2, 1), [1, 2]);
    let mut list = members([1, 3]);
    list.merge(&Member { key: known, ..Member::new(id(2), vec![addr(2)]) });
    list.merge(&Member { key: MemberKey::Known(key(3)), ..Member::new(id(3), vec![addr(3)]) });
    net.nodes[0].links.admit(&list);
    let Node { links, events, .. } = &mut net.nodes[0];
    links.opened(addr(2), shown, events);
    net.dial(0, 2);
    net.dial(1, 1);
    net.run(100);
    net
}

#[test]
fn a_member_is_believed_with_its_own_key_alone() {
    for (known, shown, is_believed) in [
        (MemberKey::Known(key(2)), key(2), true),
        (MemberKey::Known(key(2)), key(3), false),
        (MemberKey::Known(key(2)), key(9), false),
        (MemberKey::Unknown, key(9), true),
        (MemberKey::Unknown, key(3), false),
        (MemberKey::Disputed, key(2), false),
    ] {
        let mut net = pair_with_key(known, shown);
        assert_eq!(net.up(0, 2), is_believed, "known {known:?}, shown {shown:?}");
        assert_eq!(net.counters(0).refused(Refusal::Key) > 0, !is_believed);
        let told = net.events(0);
        let shows = LinkEvent::KeyShown { peer: id(2), key: shown };
        assert_eq!(told.contains(&shows), is_believed && known == MemberKey::Unknown, "{told:?}");
        assert_eq!(net.events(1).iter().any(|e| matches!(e, LinkEvent::RefusedBy { .. })), !is_believed);
    }
}

#[test]
fn another_key_at_an_address_takes_the_link_of_the_one_before() {
    let mut net = pair_with_key(MemberKey::Known(key(2)), key(2));
    net.events(0);
    let Node { links, events, .. } = &mut net.nodes[0];
    links.opened(addr(2), key(2), events);
    assert!(net.up(0, 2) && net.events(0).is_empty(), "the same key again is no news");
    let Node { links, events, .. } = &mut net.nodes[0];
    links.opened(addr(2), key(3), events);
    assert_eq!(net.events(0), [down(2)]);
    net.dial(1, 1);
    net.run(100);
    assert!(!net.up(0, 2), "whoever has another key now is not believed");
}
