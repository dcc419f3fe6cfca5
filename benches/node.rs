//! What an operation on a node costs, beside named limits measured in the same run.
//!
//! `cargo bench --bench node -- [ROUNDS]`. Clusters are three processes: this one, and two more of
//! itself. `benches/README.md` says how to read the table.

mod common;
#[path = "common/raw.rs"]
mod raw;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{Bar, Table, median_us, quantile, times_us, until};
use parking_lot::RwLock;
use turbopump::{
    Ack, Bytes, Key, Node, NodeBuilder, SubmitError, WriteError,
    transport::{UdpTransport, UdtTransport},
};

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;
const IN_FLIGHT: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
/// The argument that makes a process a peer.
const PEER: &str = "--peer";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == PEER) {
        return be_a_peer(&arguments[at + 1], &arguments[at + 2]);
    }
    let rounds: usize = arguments.iter().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5);
    let mut table = Table::new("node");
    let keys: Vec<Key> = (0..MANY).map(key).collect();
    for (name, keys) in [("10 k keys", &keys[..FEW]), ("1 M keys", &keys[..])] {
        alone(&mut table, name, keys, rounds);
        waited(&mut table, name, keys, rounds);
    }
    for (transport, bar) in [("udp", 8.0), ("udt", 4.0)] {
        quorum(&mut table, transport, &keys, rounds);
        let raw = format!("raw {transport} echo of 100 B");
        let one = |keys| format!("{transport}, 3 processes, Ack::Quorum, one in flight, {keys}: p50");
        table.hold_ratio(&one("10 k keys"), &raw, Bar::AtMost(bar));
        table.hold_ratio(&one("1 M keys"), &one("10 k keys"), Bar::AtMost(1.25));
        let flood = |keys| format!("{transport}, 3 processes, Ack::Quorum, {IN_FLIGHT} in flight, {keys}");
        if transport == "udp" {
            table.hold(&flood("10 k keys"), Bar::AtLeast(40_000.0));
        }
        table.hold_ratio(&flood("1 M keys"), &flood("10 k keys"), Bar::AtLeast(0.8));
    }
    table.finish();
}

fn key(i: usize) -> Key {
    Key::new(format!("a key with thirty-two bytes {i:06}")).unwrap()
}

fn value() -> Bytes {
    Bytes::from(vec![7; 100])
}

/// Every key, none beside the one before.
fn mixed(keys: &[Key]) -> impl Iterator<Item = &Key> + Clone {
    (0..keys.len()).map(|i| &keys[i * 7_919 % keys.len()])
}

/// Reads, and writes by closures, of one node in memory.
fn alone(table: &mut Table, name: &str, keys: &[Key], rounds: usize) {
    #[expect(clippy::disallowed_types, reason = "the limit to compare with")]
    let map: RwLock<std::collections::HashMap<Key, Arc<Bytes>>> =
        RwLock::new(keys.iter().map(|key| (key.clone(), Arc::new(value()))).collect());
    let node = Node::builder().transport(udp()).start().unwrap();
    puts(&node, keys.iter());
    let (bare, get, p50, put) = (
        format!("bare RwLock map, clone of an Arc, {name}"),
        format!("get, local, memory, {name}"),
        format!("get, local, memory, {name}: p50, timed one by one"),
        format!("put, Ack::Local, memory, closures, one thread, {name}"),
    );
    let ns = |f: &dyn Fn(&Key)| {
        let begin = Instant::now();
        mixed(keys).for_each(f);
        begin.elapsed().as_nanos() as f64 / keys.len() as f64
    };
    let read = |key: &Key| drop(std::hint::black_box(node.get(key).wait().unwrap().value().cloned()));
    for _ in 0..rounds {
        table.add(&bare, "ns", ns(&|key| drop(std::hint::black_box(map.read().get(key).cloned()))));
        table.add(&get, "ns", ns(&read));
        let times = times_us(FEW, |i| read(&keys[i * 7_919 % keys.len()]));
        table.add(&p50, "us", quantile(&times, 0.5));
        table.add(&put, "1/s", puts(&node, mixed(keys).cycle().take(200_000)));
    }
    table.hold_ratio(&get, &bare, Bar::AtMost(2.0));
    table.hold(&p50, Bar::AtMost(1.0));
    table.hold(&put, Bar::AtLeast(300_000.0));
}

/// Writes a second whose closures have run. Refused as busy, a write is tried again.
fn puts<'a>(node: &Node, keys: impl Iterator<Item = &'a Key>) -> f64 {
    let (count, value) = (Arc::new(AtomicU64::new(0)), value());
    let begin = Instant::now();
    let mut sent = 0;
    for key in keys {
        loop {
            let count = count.clone();
            let submitted = node.put(key, value.clone()).submit(move |outcome| {
                outcome.unwrap();
                count.fetch_add(1, SeqCst);
            });
            match submitted {
                Ok(()) => break,
                Err(SubmitError::Busy) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        sent += 1;
    }
    until("the last closure", || count.load(SeqCst) == sent);
    sent as f64 / begin.elapsed().as_secs_f64()
}

/// A wake-up there and back between two threads, and a write waited for.
fn waited(table: &mut Table, name: &str, keys: &[Key], rounds: usize) {
    const TIMES: usize = 10_000;
    let (limit, put) =
        ("ping-pong of two threads".to_string(), format!("put waited for, Ack::Local, memory, {name}: p50"));
    let node = Node::builder().transport(udp()).start().unwrap();
    puts(&node, keys.iter());
    for _ in 0..rounds {
        table.add(&limit, "us", ping_pong_us(TIMES));
        let us = median_us(TIMES, |i| _ = node.put(&keys[i * 7_919 % keys.len()], value()).wait().unwrap());
        table.add(&put, "us", us);
    }
    table.hold_ratio(&put, &limit, Bar::AtMost(3.0));
}

fn ping_pong_us(times: usize) -> f64 {
    let (ping, pinged) = mpsc::sync_channel::<()>(1);
    let (pong, ponged) = mpsc::sync_channel::<()>(1);
    let other = thread::spawn(move || {
        while pinged.recv().is_ok() {
            let _ = pong.send(());
        }
    });
    let median = median_us(times, |_| {
        ping.send(()).unwrap();
        ponged.recv().unwrap();
    });
    drop(ping);
    other.join().unwrap();
    median
}

/// Writes by quorum, three processes, every key on all of them.
fn quorum(table: &mut Table, transport: &str, keys: &[Key], rounds: usize) {
    let (node, _peers) = cluster(transport);
    let echo = |times| match transport {
        "udp" => raw::udp_echo_us(times),
        _ => raw::udt_echo_us(times),
    };
    for (name, keys) in [("10 k keys", &keys[..FEW]), ("1 M keys", keys)] {
        let begin = Instant::now();
        flood(&node, keys.iter(), 1_024);
        eprintln!("{transport}: {name} written in {:.1?}", begin.elapsed());
        // By a quorum: the third mirror may be behind.
        until("all mirrors", || node.stats().wait().unwrap().owed == 0);
        for _ in 0..rounds {
            table.add(&format!("raw {transport} echo of 100 B"), "us", echo(5_000));
            let times = times_us(5_000, |i| {
                let key = &keys[i * 7_919 % keys.len()];
                _ = node.put(key, value()).ack(Ack::Quorum).wait().unwrap();
            });
            let one = format!("{transport}, 3 processes, Ack::Quorum, one in flight, {name}");
            table.add(&format!("{one}: p50"), "us", quantile(&times, 0.5));
            table.add(&format!("{one}: p99"), "us", quantile(&times, 0.99));
            let many = format!("{transport}, 3 processes, Ack::Quorum, {IN_FLIGHT} in flight, {name}");
            table.add(&many, "1/s", flood(&node, mixed(keys).cycle().take(100_000), IN_FLIGHT));
        }
    }
}

/// Writes by quorum a second, so many in flight.
fn flood<'a>(node: &Node, keys: impl Iterator<Item = &'a Key>, in_flight: usize) -> f64 {
    let (sender, receiver) = mpsc::channel::<Result<(), WriteError>>();
    let value = value();
    let begin = Instant::now();
    let (mut sent, mut done) = (0, 0);
    for key in keys {
        if sent - done == in_flight {
            receiver.recv_timeout(PATIENCE).unwrap().unwrap();
            done += 1;
        }
        let sender = sender.clone();
        let put = node.put(key, value.clone()).ack(Ack::Quorum);
        put.submit(move |outcome| _ = sender.send(outcome.map(drop))).unwrap();
        sent += 1;
    }
    (done..sent).for_each(|_| receiver.recv_timeout(PATIENCE).unwrap().unwrap());
    sent as f64 / begin.elapsed().as_secs_f64()
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cluster(transport: &str) -> (Node, Vec<Peer>) {
    let node = with(transport, Node::builder().id("n0")).start().unwrap();
    let mut peers = Vec::new();
    for id in ["n1", "n2"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([PEER, id, transport]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // To whom it belongs; the rest spreads by itself.
        writeln!(child.stdin.as_mut().unwrap(), "{}", node.local_addr()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        node.add_member(id.parse().unwrap(), vec![line.trim().parse().unwrap()]).wait().unwrap();
        peers.push(Peer(child));
    }
    until("the cluster", || node.members().len() == 3 && node.members().iter().all(|m| m.up));
    (node, peers)
}

/// Runs a node until standard input ends.
fn be_a_peer(id: &str, transport: &str) {
    let node = with(transport, Node::builder().id(id)).start().unwrap();
    let mut lines = std::io::stdin().lock();
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    println!("{}", node.local_addr());
    node.add_member("n0".parse().unwrap(), vec![first.trim().parse().unwrap()]).wait().unwrap();
    lines.read_to_string(&mut first).unwrap();
}

fn with(transport: &str, builder: NodeBuilder) -> NodeBuilder {
    match transport {
        "udp" => builder.transport(udp()),
        _ => builder.transport(UdtTransport::bind("127.0.0.1:0".parse().unwrap())),
    }
}

fn udp() -> UdpTransport {
    UdpTransport::bind("127.0.0.1:0".parse().unwrap())
}
