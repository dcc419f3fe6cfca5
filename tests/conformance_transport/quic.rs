//! QUIC: what the suite can't see through the trait.

use std::net::{SocketAddr, UdpSocket};

use bytes::Bytes;
use turbopump::{
    testing::transport::{Station, TransportSuite},
    transport::{QuicTransport, SendError},
};

use crate::loopback;

fn lab(addr: SocketAddr) -> QuicTransport {
    QuicTransport::bind(addr).trust_on_first_use()
}

#[test]
fn quic_keeps_every_promise() {
    TransportSuite::new(loopback(), |addr| Box::new(lab(addr))).run();
}

#[test]
fn quic_keeps_every_promise_over_ipv6() {
    let addr: SocketAddr = "[::1]:0".parse().unwrap();
    if UdpSocket::bind(addr).is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    TransportSuite::new(addr, |addr| Box::new(lab(addr))).run();
}

#[test]
fn another_address_family_is_unreachable() {
    let mut station = Station::start(Box::new(lab(loopback())));
    let error = station.transport.send("[::1]:9".parse().unwrap(), Bytes::from_static(b"frame"));
    assert!(matches!(error, Err(SendError::Unreachable(_))), "{error:?}");
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind(loopback()).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Station::try_start(Box::new(lab(addr))).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}
