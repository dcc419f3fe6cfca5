//! What quorum operations promise while nodes are killed, frozen, restarted and cut off, checked
//! over the recorded histories of concurrent clients.
//!
//! **The guarantee.** While the owners of a key keep their disks and the members stay the same:
//!
//! - *No lost write, read your writes:* a read by quorum that begins after a write by quorum was
//!   acknowledged knows of that write: its context covers it, on whatever node either was made.
//! - *Never back:* a read by quorum that begins after another one ended knows of all that that one knew,
//!   acknowledged or not, whoever made either.
//! - *Nothing made up, nothing half done:* each value that a read gives was written whole by a write.
//! - *A write with a context replaces exactly what that covers:* writes that did not know of each
//!   other stand side by side until one that covers both; none hides or brings back another.
//! - *Regular:* each read, taken with all writes, is linearizable, if the writes that overlap it count
//!   as concurrent with each other.
//!
//! A write that failed is unknown: it may take effect later, or never, and a read may show it before
//! it is acknowledged.

mod support;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use support::{
    Answer, Client,
    cluster::{Cluster, QUIC, SLACK, UDP, UDT, scaled},
    history::{Operation, Read, What, Write, reversals, violations},
    network::Network,
    until,
};
use turbopump::model::{Context, Dot, Seeded};

const KEYS: usize = 6;
const CLIENTS: usize = 6;
/// A client gives up then; what it asked for is unknown.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Between two operations of a client, so that a history stays small enough to judge.
const PAUSE: Duration = Duration::from_millis(4);

/// So many reads and acknowledged writes say something.
const ENOUGH: u64 = scaled(300, 50) as u64;

/// Records what clients do, for each key.
struct Recorder {
    begin: Instant,
    nodes: Vec<PathBuf>,
    next_value: AtomicU64,
    is_over: AtomicBool,
}

/// What one client recorded: the key of each operation, and the operation.
type Records = Vec<(usize, Operation)>;

struct Session<'a> {
    recorder: &'a Recorder,
    client: usize,
    connections: BTreeMap<usize, Client>,
    /// What it has seen of each key.
    seen: Vec<Context>,
    records: Records,
}

impl Recorder {
    fn new(cluster: &Cluster) -> Self {
        Self {
            begin: Instant::now(),
            nodes: cluster.nodes.iter().map(|n| n.unix.clone()).collect(),
            next_value: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
        }
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn session(&self, client: usize) -> Session<'_> {
        let (connections, seen) = (BTreeMap::new(), vec![Context::EMPTY; KEYS]);
        Session { recorder: self, client, connections, seen, records: Vec::new() }
    }

    /// One client, until it is over.
    fn run(&self, client: usize) -> Records {
        let mut random = Seeded::new(client as u64);
        let mut session = self.session(client);
        while !self.is_over.load(Ordering::Relaxed) {
            let mut some = |count: usize| random.below(count as u64) as usize;
            let (node, key, dice) = (some(self.nodes.len()), some(KEYS), some(20));
            if !session.is_connected(node) {
                thread::park_timeout(PAUSE);
                continue;
            }
            match dice {
                0..9 => session.read(node, key),
                9 => session.seen[key] = Context::EMPTY,
                10..12 => session.write(node, key, true),
                _ => session.write(node, key, false),
            }
            thread::park_timeout(PAUSE);
        }
        session.records
    }
}

impl Session<'_> {
    fn read(&mut self, node: usize, key: usize) {
        let invoked_ns = self.recorder.now_ns();
        let target = format!("GET /read?name=key-{key}&read=quorum&siblings=all");
        let Some(answer) = self.ask(node, &target, b"") else { return };
        let returned_ns = Some(self.recorder.now_ns());
        let Some(read) = read_of(&answer) else { return };
        self.seen[key].merge(&read.context);
        let what = What::Read(read);
        self.records.push((key, Operation { client: self.client, invoked_ns, returned_ns, what }));
    }

    fn write(&mut self, node: usize, key: usize, is_delete: bool) {
        let value = self.recorder.next_value.fetch_add(1, Ordering::Relaxed);
        let covers = self.seen[key].clone();
        let call = if is_delete { "delete" } else { "write" };
        let target = format!("POST /{call}?name=key-{key}&ack=quorum&context={covers}");
        let body = if is_delete { String::new() } else { value.to_string() };
        let invoked_ns = self.recorder.now_ns();
        let answer = self.ask(node, &target, body.as_bytes()).filter(|a| a.status == 200);
        let returned_ns = answer.is_some().then(|| self.recorder.now_ns());
        let dot = answer.map(|answer| {
            let answer = answer.json();
            self.seen[key].merge(&answer["context"].as_str().unwrap().parse().unwrap());
            answer["version"].as_str().unwrap().parse::<Dot>().unwrap()
        });
        let what = What::Write(Write { value, is_delete, covers, dot });
        self.records.push((key, Operation { client: self.client, invoked_ns, returned_ns, what }));
    }

    /// Whether the node can be asked at all.
    fn is_connected(&mut self, node: usize) -> bool {
        if !self.connections.contains_key(&node)
            && let Ok(connection) = Client::try_unix(&self.recorder.nodes[node], GIVE_UP)
        {
            self.connections.insert(node, connection);
        }
        self.connections.contains_key(&node)
    }

    /// The answer, if one came.
    fn ask(&mut self, node: usize, target: &str, body: &[u8]) -> Option<Answer> {
        let mut connection = self.connections.remove(&node)?;
        let head = format!("{target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = connection.try_ask(&[head.as_bytes(), body].concat()).ok()?;
        // Kept only after an answer: what comes late must not be taken for the next one.
        self.connections.insert(node, connection);
        Some(answer)
    }
}

/// What a read said, if it said anything of the key.
fn read_of(answer: &Answer) -> Option<Read> {
    let context = answer.headers.get("turbopump-context").map_or("", String::as_str);
    let context: Context = context.parse().unwrap();
    let values = match answer.status {
        404 => BTreeMap::new(),
        200 => {
            let siblings = answer.json();
            let siblings = siblings.as_array().unwrap().iter();
            let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
            siblings
                .map(|s| {
                    let value = String::from_utf8(BASE64.decode(text(&s["value"])).unwrap()).unwrap();
                    (value.parse().expect("a value is whole"), text(&s["version"]).parse().unwrap())
                })
                .collect()
        }
        _ => return None,
    };
    Some(Read { values, context })
}

/// Has clients work while `fault` happens again and again, and judges what they were told.
fn quorum_keeps_its_word(what: &str, mut cluster: Cluster, mut fault: impl FnMut(&mut Cluster, usize)) {
    let recorder = Recorder::new(&cluster);
    let (begin, stretch) = (Instant::now(), Duration::from_secs(scaled(20, 3) as u64));
    let mut records: Records = thread::scope(|scope| {
        let recorder = &recorder;
        let clients: Vec<_> = (0..CLIENTS).map(|c| scope.spawn(move || recorder.run(c))).collect();
        let over = Over(&recorder.is_over);
        for round in 0.. {
            let is_enough = recorder.next_value.load(Ordering::Relaxed) > 4 * ENOUGH;
            if begin.elapsed() > stretch && (is_enough || begin.elapsed() > 10 * stretch) {
                break;
            }
            fault(&mut cluster, round);
            thread::park_timeout(Duration::from_millis(500));
        }
        drop(over);
        clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    cluster.all_up();
    // Whatever was acknowledged has to show at the very end, on every node.
    let mut last = recorder.session(CLIENTS);
    for (node, key) in (0..cluster.nodes.len()).flat_map(|node| (0..KEYS).map(move |key| (node, key))) {
        let before = last.records.len();
        until("a key can be read by quorum after it all", Duration::from_secs(10), || {
            if last.is_connected(node) {
                last.read(node, key);
            }
            last.records.len() > before
        });
    }
    records.append(&mut last.records);
    judge(what, records);
    let owners = cluster.owners(0, &(0..KEYS).map(|k| format!("key-{k}")).collect::<Vec<_>>());
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    cluster.until_exact(&all, &owners, Duration::from_secs(30) * SLACK);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn judge(what: &str, records: Records) {
    let mut histories: Vec<Vec<Operation>> = vec![Vec::new(); KEYS];
    let (mut reads, mut acknowledged, mut unknown, mut siblings) = (0, 0, 0, 0);
    for (key, operation) in records {
        match (&operation.what, operation.returned_ns) {
            (What::Read(read), _) => {
                reads += 1;
                siblings += usize::from(read.values.len() > 1);
            }
            (What::Write(_), Some(_)) => acknowledged += 1,
            (What::Write(_), None) => unknown += 1,
        }
        histories[key].push(operation);
    }
    println!(
        "{what}: {reads} reads ({siblings} with siblings), {acknowledged} writes acknowledged, {unknown} unknown"
    );
    let reversed: usize = histories.iter().map(|h| reversals(h)).sum();
    assert_eq!(reversed, 0, "reads that knew less than an earlier one");
    assert!(reads > ENOUGH && acknowledged > ENOUGH && siblings > 0, "a history that says something");
    for (key, history) in histories.iter().enumerate() {
        let broken = violations(history);
        assert!(
            broken.is_empty(),
            "{what}, key-{key}: {} broken promises: {:#?}",
            broken.len(),
            &broken[..1]
        );
    }
}

const FAULT: Duration = Duration::from_millis(700);

fn kill(cluster: &mut Cluster, round: usize) {
    let victim = round % cluster.nodes.len();
    cluster.kill(victim);
    thread::park_timeout(FAULT);
    cluster.relaunch(victim);
}

fn freeze(cluster: &mut Cluster, round: usize) {
    let victim = round % cluster.nodes.len();
    cluster.pause(victim);
    thread::park_timeout(FAULT);
    cluster.resume(victim);
}

/// Cuts one or two nodes off, in turn both ways and one way.
fn cut(cluster: &mut Cluster, round: usize) {
    let count = cluster.nodes.len();
    let few: Vec<usize> = (0..count / 2).map(|n| (round + n) % count).collect();
    let others: Vec<usize> = (0..count).filter(|i| !few.contains(i)).collect();
    let network = cluster.network.as_mut().unwrap();
    match round % 3 {
        0 => others.iter().for_each(|i| network.cut_one_way(few[0], *i)),
        _ => network.cut(&few, &others),
    }
    // Now and then long enough to be noticed.
    let is_long = round % 4 == 3;
    thread::park_timeout(if is_long { 6 * FAULT } else { FAULT });
    network.heal();
}

fn buffered(transport: &[&'static str]) -> Vec<&'static str> {
    [transport, &["--durability", "buffered"]].concat()
}

#[test]
fn of_three_nodes_one_is_killed_and_quorum_keeps_its_word() {
    quorum_keeps_its_word("3 nodes, kill -9, UDP", Cluster::start(3, &buffered(UDP)), kill);
}

#[test]
fn of_three_nodes_one_is_killed_and_quorum_keeps_its_word_over_quic() {
    quorum_keeps_its_word("3 nodes, kill -9, QUIC", Cluster::start(3, &buffered(QUIC)), kill);
}

#[test]
fn of_three_nodes_one_is_frozen_and_quorum_keeps_its_word() {
    quorum_keeps_its_word("3 nodes, SIGSTOP, UDT", Cluster::start(3, &buffered(UDT)), freeze);
}

#[test]
fn of_five_nodes_one_is_killed_and_quorum_keeps_its_word() {
    quorum_keeps_its_word("5 nodes, kill -9, UDT", Cluster::start(5, &buffered(UDT)), kill);
}

#[test]
fn of_three_nodes_one_is_cut_off_and_quorum_keeps_its_word() {
    let Some(network) = Network::try_new(3) else { return };
    let cluster = Cluster::start_in(Some(network), 3, &buffered(UDP));
    quorum_keeps_its_word("3 nodes, partition, UDP", cluster, cut);
}

#[test]
fn of_three_nodes_one_is_cut_off_and_quorum_keeps_its_word_over_quic() {
    let Some(network) = Network::try_new(3) else { return };
    let cluster = Cluster::start_in(Some(network), 3, &buffered(QUIC));
    quorum_keeps_its_word("3 nodes, partition, QUIC", cluster, cut);
}

#[test]
fn of_five_nodes_two_are_cut_off_and_quorum_keeps_its_word() {
    let Some(network) = Network::try_new(5) else { return };
    let cluster = Cluster::start_in(Some(network), 5, &buffered(UDP));
    quorum_keeps_its_word("5 nodes, partition, UDP", cluster, cut);
}
