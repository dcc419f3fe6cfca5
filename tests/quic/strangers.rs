//! Those who are no members, and those who sit on the way.

use std::{net::UdpSocket, time::Instant};

use bytes::Bytes;
use turbopump::{
    model::Seeded,
    testing::transport::{PATIENCE, Station},
    transport::QuicTransport,
};

use crate::{
    admit, carry, loopback, pair,
    relay::{Relay, Way},
    resident_kib, station,
};

/// What a flood may cost at most.
const GROWTH_KIB: u64 = 48 * 1_024;

fn with_secret(secret: Option<&str>) -> Station {
    let transport = QuicTransport::bind(loopback());
    Station::start(Box::new(match secret {
        Some(secret) => transport.cluster_secret(secret.as_bytes()),
        None => transport,
    }))
}

/// The first sends, until the other side has refused or failed so many handshakes.
fn knock(a: &mut Station, b: &mut Station, refused: u64) {
    let frame = Bytes::from_static(b"let me in");
    let (to, begin) = (b.addr, Instant::now());
    while b.transport.handshakes().refused + a.transport.handshakes().refused < refused {
        assert!(begin.elapsed() < PATIENCE, "a stranger is refused: {:?}", b.transport.handshakes());
        let _ = a.transport.send(to, frame.clone());
        a.turn();
        b.turn();
    }
    (0..20).for_each(|_| (a.turn(), b.turn()).0);
    assert!(b.frames.is_empty(), "nothing of a stranger comes through");
}

#[test]
fn a_stranger_is_refused_before_anything_of_it_arrives() {
    let (mut stranger, mut node) = (station(), station());
    let key = node.key;
    admit(&mut stranger, &[key], &[]);
    admit(&mut node, &[], &[]);
    knock(&mut stranger, &mut node, 1);
    assert!(node.transport.handshakes().refused > 0);
}

#[test]
fn one_that_answers_with_another_key_is_refused_by_the_one_that_dials() {
    // Goal: whoever sits at a member's address gets nothing. Method: it would let anybody in itself.
    let mut node = station();
    let mut imposter = Station::start(Box::new(QuicTransport::bind(loopback()).trust_on_first_use()));
    admit(&mut node, &[], &[]);
    knock(&mut node, &mut imposter, 1);
    assert!(node.transport.handshakes().refused > 0);
}

#[test]
fn a_member_that_is_removed_loses_its_link_and_is_refused_from_then_on() {
    let (mut a, mut b) = pair();
    let to = b.addr;
    let from = carry(&mut a, &mut b, to, "as a member");
    let removed = a.key;
    b.frames.clear();
    admit(&mut b, &[], &[removed]);
    a.turn_until("both ends lose the link", |a| {
        b.turn();
        a.closed.contains(&to) && b.closed.contains(&from)
    });
    knock(&mut a, &mut b, 1);
}

#[test]
fn trust_on_first_use_does_not_reach_to_those_who_were_removed() {
    let mut node = Station::start(Box::new(QuicTransport::bind(loopback()).trust_on_first_use()));
    let mut stranger = station();
    let (node_key, stranger_key) = (node.key, stranger.key);
    admit(&mut stranger, &[node_key], &[]);
    let to = node.addr;
    carry(&mut stranger, &mut node, to, "taken at its word");
    node.frames.clear();
    admit(&mut node, &[], &[stranger_key]);
    knock(&mut stranger, &mut node, 1);
}

#[test]
fn the_secret_of_the_cluster_has_to_be_known_by_both() {
    for (ours, theirs, is_let_in) in [
        (Some("a long secret indeed"), Some("a long secret indeed"), true),
        (Some("a long secret indeed"), Some("another secret"), false),
        (Some("a long secret indeed"), None, false),
        (None, Some("a long secret indeed"), false),
    ] {
        let (mut a, mut b) = (with_secret(ours), with_secret(theirs));
        let (key_a, key_b) = (a.key, b.key);
        admit(&mut a, &[key_b], &[]);
        admit(&mut b, &[key_a], &[]);
        match is_let_in {
            true => {
                let to = b.addr;
                carry(&mut a, &mut b, to, "we know");
            }
            false => knock(&mut a, &mut b, 1),
        }
    }
}

#[test]
fn what_was_recorded_and_is_sent_again_has_no_effect() {
    // Goal: a replayed handshake, and replayed frames, do nothing. Method: all of a link's datagrams again,
    // from the address that they came from and from another one, while it lives and after its end.
    let (mut a, mut b) = pair();
    let relay = Relay::to(b.addr);
    relay.record();
    for i in 0..50 {
        carry(&mut a, &mut b, relay.addr, &format!("frame {i}"));
    }
    let recorded = relay.recorded();
    assert!(recorded.len() > 50);
    let stranger = UdpSocket::bind(loopback()).unwrap();
    let replay = |b: &mut Station| {
        for (_, datagram) in recorded.iter().filter(|(way, _)| *way == Way::There) {
            relay.inject(datagram);
            stranger.send_to(datagram, b.addr).unwrap();
            b.turn();
        }
    };
    let count = b.frames.len();
    replay(&mut b);
    assert_eq!(b.frames.len(), count, "no frame comes twice");
    carry(&mut a, &mut b, relay.addr, "the link lives");
    a.transport.close(relay.addr);
    a.turn_until("the link is closed", |_| {
        b.turn();
        !b.closed.is_empty()
    });
    let count = b.frames.len();
    replay(&mut b);
    (0..100).for_each(|_| b.turn());
    assert_eq!(b.frames.len(), count, "no frame comes after the end");
    assert_eq!(b.transport.handshakes().refused, 0, "a replayed beginning never gets as far as a key");
}

#[test]
fn random_and_mutated_datagrams_have_no_effect() {
    // Goal: no flood breaks a link or fills a node. Method: 100,000 random datagrams and 100,000 real ones
    // with bytes changed, from a stranger's address and from the peer's, while frames go on.
    let (mut a, mut b) = pair();
    let relay = Relay::to(b.addr);
    relay.record();
    for i in 0..50 {
        carry(&mut a, &mut b, relay.addr, &format!("frame {i}"));
    }
    let recorded: Vec<Vec<u8>> = relay.recorded().into_iter().map(|(_, datagram)| datagram).collect();
    let stranger = UdpSocket::bind(loopback()).unwrap();
    let (mut chance, before) = (Seeded::new(7), resident_kib());
    let mut arrived = 0;
    for i in 0..200_000 {
        let mut datagram = match i % 2 {
            0 => (0..chance.below(1_400) + 1).map(|_| chance.next_u64() as u8).collect(),
            _ => recorded[chance.below(recorded.len() as u64) as usize].clone(),
        };
        if i % 2 == 1 {
            for _ in 0..chance.below(4) + 1 {
                let at = chance.below(datagram.len() as u64) as usize;
                datagram[at] ^= chance.below(255) as u8 + 1;
            }
        }
        match i % 4 < 2 {
            true => _ = stranger.send_to(&datagram, b.addr),
            false => relay.inject(&datagram),
        }
        if i % 50 == 0 {
            b.turn();
        }
        if i % 2_000 == 0 {
            carry(&mut a, &mut b, relay.addr, &format!("meanwhile {i}"));
            arrived += 1;
        }
    }
    assert_eq!(arrived, 100);
    let frames = b.frames.len();
    assert_eq!(frames, 150, "nothing but what was sent arrives");
    assert!(a.closed.is_empty() && b.closed.is_empty(), "the link is the same");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    let counts = b.transport.handshakes();
    println!("{counts:?}, {grown} KiB more");
    assert!(counts.failed + counts.limited > 0 && counts.refused == 0, "{counts:?}");
}
