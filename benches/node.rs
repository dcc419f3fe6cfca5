//! What an operation on a node costs, beside named limits measured in the same run.
//!
//! `cargo bench --bench node`. Each row is the median over interleaved rounds; the ratio is the
//! finding, the absolute figure depends on the machine.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use turbopump::{Ack, Bytes, Config, Node, transport::UdpTransport};

const ROUNDS: usize = 5;

fn main() {
    let mut table: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut add = |name, figure: f64| table.entry(name).or_default().push(figure);
        let (map, get) = reads();
        add("a bare RwLock map that clones an Arc, ns", map);
        add("get, local, memory, ns", get);
        add("put, Ack::Local, memory, closures, one thread, 1/s", puts());
        let (ping_pong, put) = waited_puts();
        add("two-thread ping-pong, us", ping_pong);
        add("put waited for, Ack::Local, memory, us", put);
        let (raw, quorum, flood) = quorum();
        add("raw UDP echo of 100 B, us", raw);
        add("3 nodes, UDP, Ack::Quorum, one in flight, us", quorum);
        add("the same, 64 in flight, 1/s", flood);
    }
    let median = |name: &str| {
        let mut figures = table[name].clone();
        figures.sort_by(f64::total_cmp);
        figures[ROUNDS / 2]
    };
    for name in table.keys() {
        println!("{name:<55} {:>12.1}", median(name));
    }
    let ratio = |a, b| median(a) / median(b);
    println!();
    println!(
        "get / bare map                {:.2}",
        ratio("get, local, memory, ns", "a bare RwLock map that clones an Arc, ns")
    );
    println!(
        "waited put / ping-pong        {:.2}",
        ratio("put waited for, Ack::Local, memory, us", "two-thread ping-pong, us")
    );
    println!(
        "quorum put / raw UDP echo     {:.2}",
        ratio("3 nodes, UDP, Ack::Quorum, one in flight, us", "raw UDP echo of 100 B, us")
    );
}

fn key(i: usize) -> String {
    format!("a key with thirty-two bytes {i:06}")
}

/// Nanoseconds of a read: of a bare map, and of a node, 100,000 keys of 100 B.
fn reads() -> (f64, f64) {
    const KEYS: usize = 100_000;
    let value = Bytes::from(vec![7u8; 100]);
    #[expect(clippy::disallowed_types, reason = "the limit to compare with")]
    let map: RwLock<std::collections::HashMap<String, Arc<Bytes>>> =
        RwLock::new((0..KEYS).map(|i| (key(i), Arc::new(value.clone()))).collect());
    let node = Node::builder().start().unwrap();
    (0..KEYS).for_each(|i| _ = node.put(key(i), value.clone()).wait().unwrap());
    let names: Vec<turbopump::Key> =
        (0..KEYS).map(|i| turbopump::Key::new(key(i * 7_919 % KEYS)).unwrap()).collect();
    let time = |f: &dyn Fn(&turbopump::Key)| {
        let begin = Instant::now();
        names.iter().for_each(f);
        begin.elapsed().as_nanos() as f64 / KEYS as f64
    };
    let bare = time(&|name| {
        std::hint::black_box(map.read().get(name.as_str()).cloned());
    });
    let get = time(&|name| {
        std::hint::black_box(node.get(name).wait().unwrap().value().unwrap().len());
    });
    (bare, get)
}

/// Writes a second whose closures have run.
fn puts() -> f64 {
    const PUTS: u64 = 200_000;
    let config = Config { max_operations: 1 << 20, ..Config::default() };
    let node = Node::builder().config(config).start().unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel();
    let value = Bytes::from(vec![7u8; 100]);
    let keys: Vec<turbopump::Key> = (0..10_000).map(|i| turbopump::Key::new(key(i)).unwrap()).collect();
    let begin = Instant::now();
    for i in 0..PUTS {
        let (done, sender) = (done.clone(), sender.clone());
        let put = node.put(&keys[i as usize % keys.len()], value.clone());
        put.submit(move |outcome| {
            outcome.unwrap();
            if done.fetch_add(1, SeqCst) + 1 == PUTS {
                sender.send(()).unwrap();
            }
        })
        .unwrap();
    }
    receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    PUTS as f64 / begin.elapsed().as_secs_f64()
}

/// Microseconds: a wake-up there and back between two threads, and a write waited for.
fn waited_puts() -> (f64, f64) {
    const TIMES: usize = 5_000;
    let (ping, pinged) = mpsc::sync_channel::<()>(1);
    let (pong, ponged) = mpsc::sync_channel::<()>(1);
    let other = thread::spawn(move || {
        while pinged.recv().is_ok() {
            let _ = pong.send(());
        }
    });
    let ping_pong = median_us(TIMES, |_| {
        ping.send(()).unwrap();
        ponged.recv().unwrap();
    });
    drop(ping);
    other.join().unwrap();
    let node = Node::builder().start().unwrap();
    let put = median_us(TIMES, |i| _ = node.put(key(i % 1_000), "value").wait().unwrap());
    (ping_pong, put)
}

/// Microseconds of a raw echo and of a quorum write; quorum writes a second with 64 in flight.
fn quorum() -> (f64, f64, f64) {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(echo.local_addr().unwrap()).unwrap();
    let other = thread::spawn(move || {
        let mut buffer = [0; 200];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            if len == 1 {
                return;
            }
            echo.send_to(&buffer[..len], from).unwrap();
        }
    });
    let mut buffer = [0; 200];
    let raw = median_us(5_000, |_| {
        socket.send(&[7; 100]).unwrap();
        socket.recv(&mut buffer).unwrap();
    });
    socket.send(&[0]).unwrap();
    other.join().unwrap();

    let start = |i: usize| {
        let transport = UdpTransport::bind("127.0.0.1:0".parse().unwrap());
        Node::builder().id(format!("n{i}")).transport(transport).start().unwrap()
    };
    let nodes: Vec<Node> = (0..3).map(start).collect();
    for a in &nodes {
        for b in nodes.iter().filter(|b| b.id() != a.id()) {
            a.add_member(b.id(), vec![b.local_addr()]).wait().unwrap();
        }
    }
    while !nodes.iter().all(|n| n.members().iter().all(|m| m.up)) {
        thread::yield_now();
    }
    let value = Bytes::from(vec![7u8; 100]);
    let put = |i: usize| nodes[0].put(key(i % 1_000), value.clone()).ack(Ack::Quorum);
    let one = median_us(5_000, |i| _ = put(i).wait().unwrap());
    const FLOOD: usize = 50_000;
    let begin = Instant::now();
    let (sender, receiver) = mpsc::channel();
    for i in 0..FLOOD {
        if i >= 64 {
            receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        let sender = sender.clone();
        put(i).submit(move |outcome| sender.send(outcome.unwrap()).unwrap()).unwrap();
    }
    (0..64).for_each(|_| _ = receiver.recv_timeout(Duration::from_secs(30)).unwrap());
    (raw, one, FLOOD as f64 / begin.elapsed().as_secs_f64())
}

fn median_us(times: usize, mut f: impl FnMut(usize)) -> f64 {
    let mut all: Vec<f64> = (0..times)
        .map(|i| {
            let begin = Instant::now();
            f(i);
            begin.elapsed().as_nanos() as f64 / 1_000.0
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[times / 2]
}
