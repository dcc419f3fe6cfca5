//! Links between members, on ways that lose, change and stop.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use turbopump::{
    Identity,
    testing::transport::{PATIENCE, Station},
    transport::{QuicTransport, SendError},
};

use crate::{admit, carry, loopback, pair, relay::Relay, resident_kib, station};

/// How often both sides of a link say something, as nodes that ping each other do.
const SAID_EVERY: Duration = Duration::from_millis(300);

#[test]
fn a_frame_between_members_arrives_whichever_dials() {
    let (mut a, mut b) = pair();
    let to = b.addr;
    let from = carry(&mut a, &mut b, to, "there");
    assert_eq!(from, a.addr);
    carry(&mut b, &mut a, from, "back");
}

#[test]
fn two_that_dial_each_other_at_once_lose_nothing() {
    let (mut a, mut b) = pair();
    let (addr_a, addr_b) = (a.addr, b.addr);
    let frame = |text: &str, i: usize| Bytes::from(format!("{text}-{i}"));
    for i in 0..200 {
        assert!(a.offer(addr_b, &frame("a", i)) && b.offer(addr_a, &frame("b", i)));
        a.turn();
        b.turn();
    }
    let has_all = |frames: &[(SocketAddr, Bytes)], text: &str| {
        (0..200).all(|i| frames.iter().any(|(_, got)| *got == frame(text, i)))
    };
    a.turn_until("each frame arrives, on whichever of the two links", |a| {
        b.turn();
        has_all(&a.frames, "b") && has_all(&b.frames, "a")
    });
    assert!(a.closed.is_empty() && b.closed.is_empty(), "nobody notices the second link");
}

#[test]
fn a_link_outlives_a_change_of_the_peers_address() {
    // Goal: a NAT that gives the peer another port costs no link. Method: a relay that changes its port,
    // again before the last change is through; both sides say something now and then, as nodes do.
    let (mut a, mut b) = pair();
    let relay = Relay::to(b.addr);
    let ping = Bytes::from(vec![1; 100]);
    let seen_as = carry(&mut a, &mut b, relay.addr, "before");
    carry(&mut b, &mut a, seen_as, "answer before");
    for round in 0..5 {
        relay.rebind();
        let (there, back) = (Bytes::from(format!("there {round}")), Bytes::from(format!("back {round}")));
        assert!(a.offer(relay.addr, &there) && b.offer(seen_as, &back));
        let (begin, mut said) = (Instant::now(), 0);
        let is_there = |station: &Station, frame: &Bytes| station.frames.iter().any(|(_, got)| got == frame);
        while !is_there(&a, &back) || !is_there(&b, &there) {
            assert!(begin.elapsed() < PATIENCE, "what was said arrives, {round}");
            if begin.elapsed() > SAID_EVERY * said {
                said += 1;
                assert!(a.offer(relay.addr, &ping) && b.offer(seen_as, &ping));
            }
            a.turn();
            b.turn();
        }
        assert!(b.frames.iter().all(|(from, _)| *from == seen_as), "it keeps its name");
    }
    assert!(a.closed.is_empty() && b.closed.is_empty(), "the link is the same");
}

#[test]
fn a_peer_that_falls_silent_is_noticed_within_two_seconds() {
    let (mut a, mut b) = pair();
    let relay = Relay::to(b.addr);
    carry(&mut a, &mut b, relay.addr, "before");
    relay.lose_percent(100);
    let begin = Instant::now();
    assert!(a.offer(relay.addr, &Bytes::from_static(b"is anybody there?")));
    a.turn_until("the link is given up", |a| a.closed == [relay.addr]);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(took > Duration::from_secs(1), "a moment of silence ends no link: {took:?}");
}

#[test]
fn a_process_that_took_the_place_of_another_is_noticed_at_once() {
    // Goal: a peer that was killed and is back does not cost a timeout. Method: it comes back with its
    // key on its address and knows nothing of the link; what it answers to what comes on it ends it.
    let identity = Arc::new(Identity::generate());
    let start =
        |addr: SocketAddr| Station::start_as(Box::new(QuicTransport::bind(addr)), identity.clone()).unwrap();
    let (mut a, mut b) = (station(), start(loopback()));
    let key_a = a.key;
    admit(&mut a, &[identity.public_key()], &[]);
    admit(&mut b, &[key_a], &[]);
    let to = b.addr;
    carry(&mut a, &mut b, to, "to the first");
    drop(b);
    let mut b = start(to);
    admit(&mut b, &[key_a], &[]);
    let begin = Instant::now();
    assert!(a.offer(to, &Bytes::from_static(b"to the first as well")));
    a.turn_until("the link to the process before is gone", |a| {
        b.turn();
        a.closed == [to]
    });
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    assert!(b.frames.is_empty());
    carry(&mut a, &mut b, to, "to the second");
}

#[test]
fn a_full_link_gives_frames_back_and_short_ones_pass_long_ones() {
    // Goal: long frames neither fill memory nor hold up short ones. Method: long ones are sent to a peer
    // that reads nothing until the link is full; then a short one, and all are read.
    let (mut a, mut b) = pair();
    let to = b.addr;
    carry(&mut a, &mut b, to, "first");
    let before = resident_kib();
    let long = Bytes::from(vec![7; 70_000]);
    let mut taken = 0;
    loop {
        match a.transport.send(to, long.clone()) {
            Ok(()) => taken += 1,
            Err(SendError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
        if taken % 10 == 0 {
            a.turn();
        }
        assert!(taken < 1_000, "the link is bounded");
    }
    b.frames.clear();
    while !a.offer(to, &Bytes::from_static(b"short")) {
        a.turn();
        b.turn();
    }
    a.turn_until("all arrive", |_| {
        b.turn();
        b.frames.len() > taken
    });
    let place = b.frames.iter().position(|(_, frame)| frame == "short").unwrap();
    assert!(place < taken, "the short one came before the last of {taken} long ones: {place}");
    assert!(resident_kib().saturating_sub(before) < 64 * 1_024);
}
