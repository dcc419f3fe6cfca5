//! QUIC between nodes that one does not own the network between: who gets in, what somebody on the way
//! sees and can do, and what losses cost.

mod links;
mod nodes;
mod relay;
mod strangers;

use std::{collections::BTreeSet, net::SocketAddr};

use bytes::Bytes;
use turbopump::{
    PublicKey,
    testing::transport::Station,
    transport::{Admission, QuicTransport},
};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn station() -> Station {
    Station::start(Box::new(QuicTransport::bind(loopback())))
}

/// Lets these in and nobody else.
fn admit(station: &mut Station, members: &[PublicKey], removed: &[PublicKey]) {
    let members: BTreeSet<PublicKey> = members.iter().copied().chain([station.key]).collect();
    station.transport.admit(Admission { members, removed: removed.iter().copied().collect() });
}

/// Two that know each other.
fn pair() -> (Station, Station) {
    let (mut a, mut b) = (station(), station());
    let keys = (a.key, b.key);
    admit(&mut a, &[keys.1], &[]);
    admit(&mut b, &[keys.0], &[]);
    (a, b)
}

/// Turns both until the second has got a frame of the first, and says from where.
fn carry(a: &mut Station, b: &mut Station, to: SocketAddr, text: &str) -> SocketAddr {
    let frame = Bytes::from(text.to_owned());
    assert!(a.offer(to, &frame));
    let mut from = None;
    a.turn_until("a frame between members arrives", |_| {
        b.turn();
        from = b.frames.iter().find(|(_, got)| *got == frame).map(|(from, _)| *from);
        from.is_some()
    });
    from.unwrap()
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
