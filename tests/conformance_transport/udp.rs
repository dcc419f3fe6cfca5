//! UDP: what the suite can't see through the trait.

use std::net::{SocketAddr, UdpSocket};

use bytes::Bytes;
use turbopump::{
    testing::transport::{Station, TransportSuite},
    transport::{SendError, Transport, UdpTransport},
};

use crate::loopback;

fn station() -> Station {
    Station::start(Box::new(UdpTransport::bind(loopback())))
}

#[test]
fn udp_keeps_every_promise() {
    TransportSuite::new(loopback(), |addr| Box::new(UdpTransport::bind(addr))).may_lose().run();
}

#[test]
fn udp_keeps_every_promise_over_ipv6() {
    let addr: SocketAddr = "[::1]:0".parse().unwrap();
    if UdpSocket::bind(addr).is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    TransportSuite::new(addr, |addr| Box::new(UdpTransport::bind(addr))).may_lose().run();
}

#[test]
fn a_frame_is_short_enough_for_one_packet_of_the_network_it_is_bound_to() {
    let length = |transport: UdpTransport| Transport::max_frame_bytes(&transport);
    assert_eq!(length(UdpTransport::bind("127.0.0.1:1".parse().unwrap())), 60_000);
    assert_eq!(length(UdpTransport::bind("[::1]:1".parse().unwrap())), 60_000);
    assert_eq!(length(UdpTransport::bind("0.0.0.0:1".parse().unwrap())), 1_432);
    assert_eq!(length(UdpTransport::bind("192.0.2.1:1".parse().unwrap())), 1_432);
    assert_eq!(length(UdpTransport::bind(loopback()).max_frame_bytes(9_000)), 9_000);
    assert_eq!(length(UdpTransport::bind(loopback()).max_frame_bytes(1)), 1_200);
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind(loopback()).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Station::try_start(Box::new(UdpTransport::bind(addr))).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn another_address_family_is_unreachable() {
    let mut station = station();
    let error = station.transport.send("[::1]:9".parse().unwrap(), Bytes::from_static(b"frame"));
    assert!(matches!(error, Err(SendError::Unreachable(_))), "{error:?}");
}

#[test]
fn empty_and_oversize_datagrams_are_dropped_and_counted() {
    let mut station = station();
    let stranger = UdpSocket::bind(loopback()).unwrap();
    stranger.send_to(&[], station.addr).unwrap();
    stranger.send_to(&[7; 60_001], station.addr).unwrap();
    stranger.send_to(&[7; 60_000], station.addr).unwrap();
    station.turn_until("the longest good datagram arrives", |station| !station.frames.is_empty());
    assert_eq!(station.frames[0].1.len(), 60_000);
    assert_eq!(station.transport.dropped_frames(), 2);
}

#[test]
fn a_peer_that_sends_longer_frames_than_we_do_is_heard() {
    let short = UdpTransport::bind(loopback()).max_frame_bytes(1_432);
    let mut short = Station::start(Box::new(short));
    let mut long = station();
    assert!(long.offer(short.addr, &Bytes::from(vec![1; 50_000])));
    long.turn();
    short.turn_until("a long frame arrives at a short sender", |short| !short.frames.is_empty());
}

#[test]
fn nobody_listening_there_is_no_error() {
    let mut station = station();
    let nobody = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    for _ in 0..100 {
        assert!(station.offer(nobody, &Bytes::from_static(b"anybody?")));
        station.turn();
    }
}
