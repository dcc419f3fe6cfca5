//! A cluster of real daemons grows and shrinks while clients use it: every key can be read all the
//! while, in the end each is exactly on its owners, and not much more was moved than had to be.
//! The figures: `cargo test --release -p turbopumpd --test grow -- --nocapture`

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    Client, PATIENCE,
    cluster::{Cluster, QUIC, SLACK, UDP, UDT, scaled, small, write_all},
    until,
};
use turbopump::model::Seeded;

/// A key must be found within so many tries; each asks another node.
const TRIES: usize = 5;

/// Pause between two writes of the load, so that few of the copies that move are its own.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// Copies sent for a move, over the least that it takes if all nodes came or went at once. They come one
/// after the other, which takes a quarter more, and some copies are offered by two at the same moment.
const MOST_RATIO: f64 = 5.0;

/// Clients that read and write known keys at random live nodes, until they are told to stop.
struct Load {
    keys: usize,
    /// The sockets of the nodes that serve.
    live: Mutex<Vec<PathBuf>>,
    is_over: AtomicBool,
    reads: AtomicU64,
    retries: AtomicU64,
    writes: AtomicU64,
}

impl Load {
    fn new(keys: usize, cluster: &Cluster) -> Self {
        let load = Self {
            keys,
            live: Mutex::default(),
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        };
        load.serve_from(cluster, cluster.nodes.len());
        load
    }

    /// The first so many nodes serve from now on.
    fn serve_from(&self, cluster: &Cluster, count: usize) {
        *self.live.lock().unwrap() = cluster.nodes[..count].iter().map(|n| n.unix.clone()).collect();
    }

    /// Runs the clients beside what is to be done.
    fn beside<T>(&self, todo: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let clients = [
                scope.spawn(|| self.read_on(1)),
                scope.spawn(|| self.read_on(2)),
                scope.spawn(|| self.write_on()),
            ];
            // The clients end with it, however it ends.
            let over = Over(&self.is_over);
            let done = todo();
            drop(over);
            clients.into_iter().for_each(|c| c.join().unwrap());
            done
        })
    }

    fn read_on(&self, seed: u64) {
        let mut random = Seeded::new(seed);
        let mut clients = Clients::default();
        while !self.is_over.load(Ordering::Relaxed) {
            let name = format!("key-{}", random.below(self.keys as u64));
            let mut said = Vec::new();
            while said.last() != Some(&200) && said.len() < TRIES {
                let node = self.some_node(&mut random);
                said.push(clients.ask(&node, &format!("GET /read?name={name}"), b""));
            }
            assert!(!said.contains(&404), "{name} was called absent: {said:?}");
            assert_eq!(said.last(), Some(&200), "{name} could not be read in {TRIES} tries: {said:?}");
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.retries.fetch_add(said.len() as u64 - 1, Ordering::Relaxed);
        }
    }

    fn write_on(&self) {
        let mut random = Seeded::new(3);
        let mut clients = Clients::default();
        while !self.is_over.load(Ordering::Relaxed) {
            let i = random.below(self.keys as u64) as usize;
            let node = self.some_node(&mut random);
            let said = clients.ask(&node, &format!("POST /write?name=key-{i}&ack=local"), &small(i));
            // 503: it has just left; another one is asked the next time.
            assert!([200, 503, GONE].contains(&said), "a write was answered {said}");
            self.writes.fetch_add(1, Ordering::Relaxed);
            thread::park_timeout(WRITE_EVERY);
        }
    }

    fn some_node(&self, random: &mut Seeded) -> PathBuf {
        let live = self.live.lock().unwrap();
        random.pick(&live).clone()
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stands for the status of a node that ended between choice and answer.
const GONE: u16 = 0;

/// One kept connection per node.
#[derive(Default)]
struct Clients(BTreeMap<PathBuf, Client>);

impl Clients {
    /// The status of the answer.
    fn ask(&mut self, node: &Path, target: &str, body: &[u8]) -> u16 {
        let known = self.0.remove(node).map_or_else(|| Client::try_unix(node, PATIENCE), Ok);
        let Ok(mut client) = known else { return GONE };
        let head = format!("{target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let Ok(answer) = client.try_ask(&[head.as_bytes(), body].concat()) else { return GONE };
        self.0.insert(node.into(), client);
        answer.status
    }
}

type Owners = BTreeMap<String, BTreeSet<usize>>;

/// Waits until each key is exactly on its owners, and says how long it took.
fn until_placed(cluster: &Cluster, nodes: &[usize], owners: &Owners) -> Duration {
    let (begin, within) = (Instant::now(), Duration::from_secs(60) * SLACK);
    loop {
        let busy = cluster.sum(nodes, "turbopump_owed") + cluster.sum(nodes, "turbopump_handoff");
        // The load goes on, so that a few are always on their way.
        let misplaced = if busy < 20 { cluster.misplaced(nodes, owners) } else { Vec::new() };
        if busy < 20 && misplaced.len() < 10 {
            return begin.elapsed();
        }
        let some = &misplaced[..misplaced.len().min(3)];
        assert!(begin.elapsed() < within, "{busy} on their way, {} misplaced: {some:?}", misplaced.len());
        thread::park_timeout(Duration::from_millis(200));
    }
}

/// What a change of members moved. The least is one copy for each key and each owner that it did
/// not have before. Sent are all copies that the nodes sent meanwhile, `turbopump_copies_sent`; of
/// those the load's writes cause at most three each (a writer that owns nothing sends to three).
fn report(what: &str, before: &Owners, after: &Owners, sent: u64, writes: u64) {
    let least: usize = after.iter().map(|(name, owners)| owners.difference(&before[name]).count()).sum();
    let least = least as u64;
    let moved = sent.saturating_sub(3 * writes);
    let (bytes, ratio) = (small(0).len() as u64, moved as f64 / least as f64);
    println!(
        "{what}: {sent} copies sent, of which at most {} for {writes} writes of the load; the least for the move \
         is {least} copies, {} B of values; ratio {ratio:.2} to {:.2}",
        3 * writes,
        least * bytes,
        sent as f64 / least as f64,
    );
    assert!(moved >= least / 2, "{moved} of {least}: what moved was not counted");
    assert!(ratio < MOST_RATIO, "{moved} copies sent where {least} had to be");
}

fn three_nodes_grow_to_six(transport: &[&str]) {
    // Goal: three more nodes take their share without a key being unreadable. Method: they join
    // one right after the other, each known to one member, under load; then holdings are compared with /ring.
    let count = scaled(10_000, 600);
    let mut cluster = Cluster::start(3, &[transport, &["--durability", "buffered"]].concat());
    write_all(&cluster.nodes[0], 16, count, "&ack=all", small);
    let names: Vec<String> = (0..count).map(|i| format!("key-{i}")).collect();
    let before = cluster.owners(0, &names);
    let sent_before = cluster.sum(&[0, 1, 2], "turbopump_copies_sent_total");
    let load = Load::new(count, &cluster);
    let all: Vec<usize> = (0..6).collect();
    let after = load.beside(|| {
        for n in 3..6 {
            cluster.grow();
            // Clients come once it has met the others; until then it knows of nothing.
            until("the new node has met the others", Duration::from_secs(20), || {
                let states = cluster.states(n);
                states.len() == n + 1 && states.values().all(|s| s == "up")
            });
            load.serve_from(&cluster, n + 1);
        }
        cluster.all_up();
        let after = cluster.owners(0, &names);
        println!(
            "{transport:?}: grown to six, each key on its owners after {:?}",
            until_placed(&cluster, &all, &after)
        );
        after
    });
    cluster.until_exact(&all, &after, Duration::from_secs(10) * SLACK);
    let sent = cluster.sum(&all, "turbopump_copies_sent_total") - sent_before;
    report(&format!("{transport:?} 3 to 6"), &before, &after, sent, load.writes.load(Ordering::Relaxed));
    let (reads, retries) = (load.reads.load(Ordering::Relaxed), load.retries.load(Ordering::Relaxed));
    println!("{transport:?}: {reads} reads were answered, {retries} of them tried again");
    assert!(reads > 100, "the load was there");
}

#[test]
fn over_udp_three_nodes_grow_to_six_under_load() {
    three_nodes_grow_to_six(UDP);
}

#[test]
fn over_quic_three_nodes_grow_to_six_under_load() {
    three_nodes_grow_to_six(QUIC);
}

#[test]
fn over_udt_three_nodes_grow_to_six_under_load() {
    three_nodes_grow_to_six(UDT);
}

/// Has a node leave, however often it has to be asked; it serves all the while.
fn until_left(cluster: &Cluster, n: usize) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = cluster.nodes[n].post("/leave?timeout=10", b"");
        let said = answer.json();
        match answer.status {
            200 => assert_eq!(said["state"], "left"),
            202 => assert!(said["state"] == "leaving" && said["remaining"].as_u64() > Some(0), "{said}"),
            status => panic!("{status}: {said}"),
        }
        if answer.status == 200 {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(60) * SLACK, "it does not end: {said}");
    }
}

fn six_nodes_shrink_to_three(transport: &[&str]) {
    // Goal: three of six leave, one after the other, and no key is unreadable, lost or left behind.
    // Method: each is asked to leave under load, says that it is safe to stop, and is stopped.
    let count = scaled(10_000, 600);
    let mut cluster = Cluster::start(6, &[transport, &["--durability", "buffered"]].concat());
    write_all(&cluster.nodes[0], 16, count, "&ack=all", small);
    let names: Vec<String> = (0..count).map(|i| format!("key-{i}")).collect();
    let before = cluster.owners(0, &names);
    let all: Vec<usize> = (0..6).collect();
    until_placed(&cluster, &all, &before);
    let (sent_before, stayed) = (cluster.sum(&all, "turbopump_copies_sent_total"), [0, 1, 2]);
    let load = Load::new(count, &cluster);
    let (after, sent) = load.beside(|| {
        let mut sent_by_gone = 0;
        for n in [5, 4, 3] {
            let took = until_left(&cluster, n);
            println!("{transport:?}: node {n} had left after {took:?}");
            let status = cluster.nodes[n].get("/status").json();
            assert_eq!(
                (&status["state"], &status["safe_to_stop"]),
                (&"left".into(), &true.into()),
                "{status}"
            );
            assert_eq!((&status["handoff"], &status["owed"]), (&0.into(), &0.into()), "{status}");
            load.serve_from(&cluster, n);
            sent_by_gone += cluster.nodes[n].metric("turbopump_copies_sent_total");
            cluster.nodes[n].signal("-TERM");
            let (ended, _) = cluster.nodes[n].wait_end(Duration::from_secs(5));
            assert!(ended.success(), "{ended}");
        }
        let after = cluster.owners(0, &names);
        until_placed(&cluster, &stayed, &after);
        (after, cluster.sum(&stayed, "turbopump_copies_sent_total") + sent_by_gone - sent_before)
    });
    cluster.until_exact(&stayed, &after, Duration::from_secs(10) * SLACK);
    assert!(after.values().all(|owners| owners.iter().all(|o| *o < 3)), "those who left own nothing");
    report(&format!("{transport:?} 6 to 3"), &before, &after, sent, load.writes.load(Ordering::Relaxed));
    let (reads, retries) = (load.reads.load(Ordering::Relaxed), load.retries.load(Ordering::Relaxed));
    println!("{transport:?}: {reads} reads were answered, {retries} of them tried again");
    assert!(reads > 100, "the load was there");
}

#[test]
fn over_udp_six_nodes_shrink_to_three_under_load() {
    six_nodes_shrink_to_three(UDP);
}

#[test]
fn over_quic_six_nodes_shrink_to_three_under_load() {
    six_nodes_shrink_to_three(QUIC);
}

#[test]
fn over_udt_six_nodes_shrink_to_three_under_load() {
    six_nodes_shrink_to_three(UDT);
}
