//! The memory network, and its faults.

use bytes::Bytes;
use turbopump::{
    testing::transport::{Station, TransportSuite},
    transport::MemoryNetwork,
};

use crate::loopback;

#[test]
fn memory_keeps_every_promise() {
    let network = MemoryNetwork::new();
    TransportSuite::new(loopback(), move |addr| Box::new(network.transport_at(addr))).run();
}

#[test]
fn a_taken_address_is_refused_and_free_again_after_a_stop() {
    let network = MemoryNetwork::new();
    let first = Station::start(Box::new(network.transport()));
    let addr = first.addr;
    let again = Station::try_start(Box::new(network.transport_at(addr))).err().unwrap();
    assert_eq!(again.kind(), std::io::ErrorKind::AddrInUse);
    first.stop(std::time::Duration::ZERO);
    Station::start(Box::new(network.transport_at(addr)));
}

#[test]
fn a_cut_loses_frames_until_it_is_healed() {
    let network = MemoryNetwork::new();
    let mut a = Station::start(Box::new(network.transport()));
    let mut b = Station::start(Box::new(network.transport()));
    network.cut(a.addr, b.addr);
    assert!(a.offer(b.addr, &Bytes::from_static(b"lost")));
    assert!(b.offer(a.addr, &Bytes::from_static(b"lost")));
    network.heal();
    assert!(a.offer(b.addr, &Bytes::from_static(b"seen")));
    b.turn_until("a healed cut lets frames through", |b| !b.frames.is_empty());
    a.turn();
    assert_eq!(b.frames, [(a.addr, Bytes::from_static(b"seen"))]);
    assert!(a.frames.is_empty());
    assert_eq!(network.dropped_frames(), 2);
}

#[test]
fn about_the_share_of_frames_that_was_asked_for_is_lost() {
    let network = MemoryNetwork::new();
    let mut a = Station::start(Box::new(network.transport()));
    let b = Station::start(Box::new(network.transport()));
    network.lose_percent(20);
    for _ in 0..5_000 {
        assert!(a.offer(b.addr, &Bytes::from_static(b"frame")));
    }
    let lost = network.dropped_frames();
    assert!((800..1_200).contains(&lost), "{lost} of 5,000 frames at 20 percent");
}
