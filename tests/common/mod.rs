//! What the cluster tests share: nodes that know each other, and waiting with a bound.
#![allow(dead_code)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use turbopump::{
    Config, Node, NodeBuilder, NodeId,
    transport::{Transport, UdpTransport},
};

/// The bound of every wait: far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, and panics with `what` if it does not in time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn id(n: usize) -> NodeId {
    format!("n{n}").parse().unwrap()
}

/// Timings that let tests notice losses soon. How long a link may be silent is left to the transport.
pub fn quick() -> Config {
    Config {
        ping_interval: Duration::from_millis(100),
        sync_interval: Duration::from_millis(200),
        ..Config::default()
    }
}

/// Makes a transport that binds an address.
pub type Make = fn(SocketAddr) -> Box<dyn Transport>;

pub fn udp_at(addr: SocketAddr) -> Box<dyn Transport> {
    Box::new(UdpTransport::bind(addr))
}

#[cfg(feature = "udt")]
pub fn udt_at(addr: SocketAddr) -> Box<dyn Transport> {
    Box::new(turbopump::transport::UdtTransport::bind(addr))
}

#[cfg(feature = "quic")]
pub fn quic_at(addr: SocketAddr) -> Box<dyn Transport> {
    Box::new(turbopump::transport::QuicTransport::bind(addr))
}

/// Starts `n` nodes over a transport each, introduces them, and waits until all are up.
pub fn cluster(
    n: usize,
    transport: impl Fn(SocketAddr) -> Box<dyn Transport>,
    more: impl Fn(usize, NodeBuilder) -> NodeBuilder,
) -> Vec<Node> {
    let start = |i| {
        let builder = Node::builder().id(format!("n{i}")).config(quick());
        more(i, builder).transport_boxed(transport(loopback())).start().unwrap()
    };
    let nodes: Vec<Node> = (0..n).map(start).collect();
    introduce_all(&nodes);
    nodes
}

/// Tells `a` who `b` is and where.
pub fn introduce(a: &Node, b: &Node) {
    a.add_member(b.id(), vec![b.local_addr()]).key(b.public_key()).wait().unwrap();
}

/// Makes each node a member for each other, and waits until all see all.
pub fn introduce_all(nodes: &[Node]) {
    for a in nodes {
        for b in nodes.iter().filter(|b| b.id() != a.id()) {
            introduce(a, b);
        }
    }
    all_up(nodes);
}

pub fn all_up(nodes: &[Node]) {
    eventually("every node sees every node up", || {
        nodes.iter().all(|n| {
            let members = n.members();
            members.len() == nodes.len() && members.iter().all(|m| m.up)
        })
    });
}

/// What one node itself holds of a key.
pub fn held(node: &Node, key: &str) -> Option<Vec<u8>> {
    node.get(key).local_only().wait().unwrap().value().map(|v| v.to_vec())
}
