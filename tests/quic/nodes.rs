//! Whole nodes over QUIC: what somebody on the way sees, and what losses cost.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use turbopump::{
    Ack, Node,
    transport::{QuicTransport, Transport, UdpTransport},
};

use crate::{loopback, relay::Relay};

const PATIENCE: Duration = Duration::from_secs(30);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn quic() -> Box<dyn Transport> {
    Box::new(QuicTransport::bind(loopback()))
}

fn udp() -> Box<dyn Transport> {
    // A frame in one datagram, as on any network.
    Box::new(UdpTransport::bind(loopback()).max_frame_bytes(1_432))
}

/// Nodes of which each reaches each other through a relay of its own.
fn cluster(count: usize, transport: fn() -> Box<dyn Transport>) -> (Vec<Node>, Vec<Relay>) {
    let start = |i: usize| Node::builder().id(format!("n{i}")).transport_boxed(transport()).start().unwrap();
    let nodes: Vec<Node> = (0..count).map(start).collect();
    let mut relays = Vec::new();
    for a in &nodes {
        for b in nodes.iter().filter(|b| b.id() > a.id()) {
            let relay = Relay::to(b.local_addr());
            a.add_member(b.id(), vec![relay.addr]).key(b.public_key()).wait().unwrap();
            // Only one of two dials, so that all goes through the relay.
            b.add_member(a.id(), vec![]).key(a.public_key()).wait().unwrap();
            relays.push(relay);
        }
    }
    eventually("all are up", || {
        nodes.iter().all(|n| n.members().len() == count && n.members().iter().all(|m| m.up))
    });
    (nodes, relays)
}

fn contains(datagram: &[u8], text: &str) -> bool {
    datagram.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Whether a name, and whether a value, can be read on the way.
fn is_seen(transport: fn() -> Box<dyn Transport>) -> (bool, bool) {
    let start = |i: usize| Node::builder().id(format!("n{i}")).transport_boxed(transport()).start().unwrap();
    let (a, b) = (start(0), start(1));
    let relays = [Relay::to(a.local_addr()), Relay::to(b.local_addr())];
    relays.iter().for_each(Relay::record);
    // Each hears of the other's address behind its relay alone.
    a.add_member(b.id(), vec![relays[1].addr]).key(b.public_key()).wait().unwrap();
    b.add_member(a.id(), vec![]).key(a.public_key()).wait().unwrap();
    eventually("both are up", || {
        [&a, &b].iter().all(|n| n.members().len() == 2 && n.members().iter().all(|m| m.up))
    });
    let value = "a value that nobody else may read";
    a.put("name-of-a-key", value).ack(Ack::All).wait().unwrap();
    b.put("name-of-a-key", value.repeat(1_000)).ack(Ack::All).wait().unwrap();
    let seen: Vec<Vec<u8>> = relays.iter().flat_map(Relay::recorded).map(|(_, datagram)| datagram).collect();
    assert!(seen.iter().map(Vec::len).sum::<usize>() > value.len() * 100, "it went this way");
    let sees = |text: &str| seen.iter().any(|datagram| contains(datagram, text));
    (sees("name-of-a-key"), sees("that nobody else may read"))
}

#[test]
fn neither_names_nor_values_can_be_read_on_the_way() {
    // Goal: somebody who records everything learns nothing. Method: the same over UDP shows both.
    assert_eq!(is_seen(quic), (false, false));
    assert_eq!(is_seen(udp), (true, true), "this test can fail");
}

#[test]
fn the_first_key_of_a_member_without_one_is_kept() {
    let start = |i: usize| {
        let transport = QuicTransport::bind(loopback()).trust_on_first_use();
        Node::builder().id(format!("n{i}")).transport(transport).start().unwrap()
    };
    let (a, b, c) = (start(0), start(1), start(2));
    a.add_member(b.id(), vec![b.local_addr()]).wait().unwrap();
    b.add_member(a.id(), vec![a.local_addr()]).wait().unwrap();
    let key = |node: &Node, of: &Node| {
        node.members().iter().find(|m| m.member.id == of.id()).and_then(|m| m.member.key.known())
    };
    eventually("both know both keys", || {
        key(&a, &b) == Some(b.public_key()) && key(&b, &a) == Some(a.public_key())
    });
    // Somebody else who says that it is b comes too late, whoever it is that trusts.
    let imposter = QuicTransport::bind(loopback()).trust_on_first_use();
    let imposter = Node::builder().id("n1").transport(imposter).member(a.id(), vec![a.local_addr()]);
    let imposter = imposter.start().unwrap();
    eventually("it has tried", || {
        imposter.stats().wait().unwrap().counters.peers_lost == 0 && {
            imposter.members().iter().any(|m| m.member.id == a.id() && !m.up)
        }
    });
    assert_eq!(key(&a, &b), Some(b.public_key()));
    assert_eq!(key(&a, &c), None);
    a.put("k", "v").ack(Ack::All).wait().unwrap();
}

#[test]
fn a_stranger_is_counted_and_reaches_nothing() {
    let start = |i: usize| Node::builder().id(format!("n{i}")).transport_boxed(quic()).start().unwrap();
    let (node, stranger) = (start(0), start(1));
    stranger.add_member(node.id(), vec![node.local_addr()]).key(node.public_key()).wait().unwrap();
    eventually("the stranger is refused", || node.stats().wait().unwrap().counters.handshakes_refused > 0);
    assert_eq!(node.members().len(), 1);
    assert!(stranger.members().iter().all(|m| m.member.id == stranger.id() || !m.up));
}

#[test]
fn three_percent_of_lost_packets_leave_five_thousand_writes_a_second() {
    // Goal: losses cost little. Method: three nodes, every packet between them at the risk of being lost;
    // writes of 1 KB by quorum, so many at once. In a debug build the machine is busy with other tests.
    let (writes, at_once) = if cfg!(debug_assertions) { (3_000, 64) } else { (30_000, 64) };
    let (nodes, relays) = cluster(3, quic);
    relays.iter().for_each(|relay| relay.lose_percent(3));
    let (sender, done) = mpsc::channel();
    let write = |i: usize| {
        let sender = sender.clone();
        let put = nodes[0].put(format!("key {i}"), vec![i as u8; 1_024]).ack(Ack::Quorum);
        put.submit(move |outcome| sender.send(outcome.is_ok()).unwrap()).unwrap();
    };
    let begin = Instant::now();
    (0..at_once).for_each(write);
    for i in 0..writes {
        assert!(done.recv_timeout(PATIENCE).unwrap(), "a write is acknowledged");
        if i + at_once < writes {
            write(i + at_once);
        }
    }
    let rate = writes as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} writes of 1 KB a second by quorum, 3 % of the packets lost");
    assert!(cfg!(debug_assertions) || rate >= 5_000.0, "{rate:.0} a second");
}
