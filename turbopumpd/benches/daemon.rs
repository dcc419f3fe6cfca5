//! What a daemon answers in a second, beside named limits measured in the same run.
//!
//! `cargo bench -p turbopumpd --bench daemon -- [ROUNDS] [PART ...]`; without parts all of them. The limits: a bare `tiny_http` handler, a plain
//! file written and synced, and `redis-server` where it is installed. Synced stores live in the folder for
//! temporary files (`TMPDIR`), others on a RAM disk where there is one. `benches/README.md` says how to
//! read the table.

#[path = "../../benches/common/mod.rs"]
mod common;
#[path = "../examples/load/generator.rs"]
mod generator;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs::File,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{Bar, Table, median_us, until};
use generator::{Plan, Report, Target, Verb};
use support::{
    Daemon,
    cluster::{Cluster, UDP},
};

const LENGTH: Duration = Duration::from_secs(3);
const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;
/// What the ancestor of this daemon answered, a second, where it was measured.
const ANCESTOR_GETS: f64 = 94_000.0;

fn main() {
    type Part = fn(&mut Table, usize);
    let parts: [(&str, Part); 7] = [
        ("reads", reads),
        ("ram-disk", ram_disk),
        ("synced", synced),
        ("start", start),
        ("quorum", quorum),
        ("overload", overload),
        ("rest", rest),
    ];
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let rounds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(3);
    let is_named = |name| arguments.iter().any(|a| a == name);
    let all = !parts.iter().any(|(name, _)| is_named(name));
    let mut table = Table::new("daemon");
    for (_, part) in parts.iter().filter(|(name, _)| all || is_named(name)) {
        part(&mut table, rounds);
    }
    table.finish();
}

fn plan(unix: &Path, verb: Verb, clients: usize, keys: u64) -> Plan {
    Plan {
        targets: vec![Target::Unix(unix.into())],
        verb,
        clients,
        rate: None,
        length: LENGTH,
        requests: None,
        keys,
        size: 100,
        query: String::new(),
    }
}

fn run(plan: &Plan) -> Report {
    let report = generator::run(plan).expect("a load");
    assert_eq!(report.failed, 0, "answers that are none");
    report
}

/// Puts every key there once.
fn fill(unix: &Path, keys: u64) {
    let mut plan = plan(unix, Verb::Write, 64, keys);
    // The generator takes keys in steps, and meets every one in as many requests as there are keys.
    (plan.length, plan.requests) = (Duration::from_secs(600), Some(keys));
    assert_eq!(run(&plan).ok, keys);
}

fn p50_us(report: &Report) -> f64 {
    report.times_ns.value_at_quantile(0.5) as f64 / 1_000.0
}

/// GET of 100 B, in memory, beside bare `tiny_http` and redis.
fn reads(table: &mut Table, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare");
    bare_tiny_http(&bare);
    let daemon = Daemon::start(&[]);
    let redis = Redis::start(folder.path());
    let name = |clients, keys| format!("GET, memory, unix socket, {clients} clients, {keys}");
    for (keys_name, keys) in [("10 k keys", FEW), ("1 M keys", MANY)] {
        fill(&daemon.unix, keys);
        for _ in 0..rounds {
            let limit = run(&plan(&bare, Verb::Read, 4, keys));
            table.add("bare tiny_http, 4 clients", "1/s", limit.per_second());
            for clients in [1, 16] {
                let report = run(&plan(&daemon.unix, Verb::Read, clients, keys));
                table.add(&name(clients, keys_name), "1/s", report.per_second());
                table.add(&format!("{}: p50", name(clients, keys_name)), "us", p50_us(&report));
            }
            if let Some(redis) = redis.as_ref().filter(|_| keys == FEW) {
                let (set, get) = redis.rates();
                table.add("redis-server, SET of 100 B, 16 clients", "1/s", set);
                table.add("redis-server, GET of 100 B, 16 clients", "1/s", get);
            }
        }
    }
    table.hold_ratio(&name(16, "10 k keys"), "bare tiny_http, 4 clients", Bar::AtLeast(0.7));
    table.hold(&name(16, "10 k keys"), Bar::AtLeast(ANCESTOR_GETS));
    table.hold_ratio(&name(16, "1 M keys"), &name(16, "10 k keys"), Bar::AtLeast(0.8));
    if redis.is_some() {
        let get = "redis-server, GET of 100 B, 16 clients";
        table.hold_ratio(&name(16, "10 k keys"), get, Bar::AtLeast(0.0));
    }
}

/// Answers 100 bytes to whatever is asked, from two threads, for as long as the process lives.
fn bare_tiny_http(path: &Path) {
    let server = Arc::new(tiny_http::Server::http_unix(path).unwrap());
    for _ in 0..2 {
        let server = server.clone();
        thread::spawn(move || {
            while let Ok(request) = server.recv() {
                let body = Cursor::new([b'x'; 100]);
                let response =
                    tiny_http::Response::new(tiny_http::StatusCode(200), vec![], body, Some(100), None);
                // Who does not take the answer is counted by the load.
                let _ = request.respond(response);
            }
        });
    }
}

/// Writes of 100 B to the file store, where the disk costs nothing.
fn ram_disk(table: &mut Table, rounds: usize) {
    let Some(folder) = ram() else { return eprintln!("SKIPPED: no RAM disk") };
    let daemon = Daemon::start_in(folder.path(), &["--store", "file", "--durability", "buffered"]);
    let name = |clients| format!("write, files on a RAM disk, unix socket, {clients} clients");
    for _ in 0..rounds {
        for clients in [1, 16] {
            let report = run(&plan(&daemon.unix, Verb::Write, clients, FEW));
            table.add(&name(clients), "1/s", report.per_second());
            table.add(&format!("{}: p50", name(clients)), "us", p50_us(&report));
        }
    }
    table.hold(&name(1), Bar::AtLeast(15_000.0));
    table.hold(&name(16), Bar::AtLeast(40_000.0));
}

fn ram() -> Option<tempfile::TempDir> {
    tempfile::Builder::new().prefix("turbopump").tempdir_in("/dev/shm").ok()
}

/// Synced writes of 100 B: both stores, beside one file after the other written and synced.
fn synced(table: &mut Table, rounds: usize) {
    let start = |store: &str| {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start_in(folder.path(), &["--store", store]);
        (daemon, folder)
    };
    let (file, fjall) = (start("file"), start("fjall"));
    let name = |store, clients| format!("write, {store}, synced, unix socket, {clients} clients");
    let limit = "a plain file written and synced with its folder, one by one";
    for _ in 0..rounds {
        table.add(limit, "1/s", plain_files(file.1.path()));
        for clients in [1, 16] {
            for (store, (daemon, _)) in [("file", &file), ("fjall", &fjall)] {
                let report = run(&plan(&daemon.unix, Verb::Write, clients, FEW));
                table.add(&name(store, clients), "1/s", report.per_second());
            }
        }
    }
    table.hold_ratio(&name("file", 16), limit, Bar::AtLeast(1.0));
    table.hold_ratio(&name("fjall", 16), &name("file", 16), Bar::AtLeast(5.0));
}

/// With the syncs that a file store needs: the file's, and that of the folder that names it.
fn plain_files(folder: &Path) -> f64 {
    const FILES: usize = 200;
    let us = median_us(FILES, |i| {
        let path = folder.join(format!("plain-{i}"));
        let mut file = File::create(&path).unwrap();
        file.write_all(&[b'x'; 100]).unwrap();
        file.sync_all().unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
    });
    1e6 / us
}

/// How long a daemon takes until it serves a store of a million keys, and what it then holds in memory.
fn start(table: &mut Table, _: usize) {
    let Some(folder) = ram() else { return };
    let options = ["--store", "fjall", "--durability", "buffered"];
    let mut daemon = Daemon::start_in(folder.path(), &options);
    fill(&daemon.unix, MANY);
    daemon.signal("-TERM");
    daemon.wait_end(Duration::from_secs(30));
    let begin = Instant::now();
    let daemon = Daemon::start_in(folder.path(), &options);
    let status = daemon.get("/status").json();
    table.add("1 M keys in fjall: start until serving", "s", begin.elapsed().as_secs_f64());
    table.add("1 M keys in fjall: resident", "MiB", daemon.resident_kib() as f64 / 1_024.0);
    assert_eq!(status["keys"].as_u64(), Some(MANY));
    table.hold("1 M keys in fjall: start until serving", Bar::AtMost(3.0));
}

/// Writes to a cluster of three, through HTTP.
fn quorum(table: &mut Table, rounds: usize) {
    for (transport, options) in [("udp", &["--transport", "udp"]), ("quic", &["--transport", "quic"])] {
        let cluster = Cluster::start(3, &[&options[..], &["--store", "memory"]].concat());
        for ack in ["quorum", "all"] {
            for _ in 0..rounds {
                let mut one = plan(&cluster.nodes[0].unix, Verb::Write, 1, FEW);
                one.query = format!("ack={ack}");
                let report = run(&one);
                let name = format!("write, 3 daemons, {transport}, ack={ack}, 1 client: p50");
                table.add(&name, "us", p50_us(&report));
            }
        }
    }
    table.hold("write, 3 daemons, quic, ack=all, 1 client: p50", Bar::AtMost(400.0));
}

/// Ten times what a daemon can do: what it takes is answered in time, and it is well again soon after.
fn overload(table: &mut Table, _: usize) {
    let daemon = Daemon::start(&[]);
    let most = run(&plan(&daemon.unix, Verb::Write, 16, FEW)).per_second();
    let mut flood = plan(&daemon.unix, Verb::Write, 1_000, FEW);
    flood.rate = Some(most * 10.0);
    let report = run(&flood);
    let taken = report.per_second();
    table.add("writes under ten times the load, of what it can do", "", taken / most);
    table.add("writes under ten times the load, refused as busy", "1/s", report.busy as f64);
    table.add("peak of memory under ten times the load", "MiB", daemon.peak_kib() as f64 / 1_024.0);
    let mut after = plan(&daemon.unix, Verb::Write, 4, FEW);
    (after.rate, after.length) = (Some(most / 4.0), Duration::from_secs(1));
    let report = run(&after);
    let p99_us = report.times_ns.value_at_quantile(0.99) as f64 / 1_000.0;
    table.add("a quarter of the load, in the second after it: p99", "us", p99_us);
    table.hold("writes under ten times the load, of what it can do", Bar::AtLeast(0.5));
    table.hold("a quarter of the load, in the second after it: p99", Bar::AtMost(20_000.0));
}

/// Three daemons that nobody asks anything.
fn rest(table: &mut Table, _: usize) {
    const STRETCH: Duration = Duration::from_secs(10);
    let cluster = Cluster::start(3, &[UDP, &["--store", "memory"]].concat());
    until("a cluster", || (0..3).all(|i| cluster.states(i).values().all(|s| s == "up")));
    let before: Vec<u64> = cluster.nodes.iter().map(Daemon::cpu_ms).collect();
    thread::park_timeout(STRETCH);
    for (node, before_ms) in cluster.nodes.iter().zip(before) {
        let percent = (node.cpu_ms() - before_ms) as f64 / STRETCH.as_millis() as f64 * 100.0;
        table.add("at rest, 3 daemons over UDP: processor", "%", percent);
        table.add("at rest, 3 daemons over UDP: resident", "MiB", node.resident_kib() as f64 / 1_024.0);
    }
    table.hold("at rest, 3 daemons over UDP: processor", Bar::AtMost(0.5));
    table.hold("at rest, 3 daemons over UDP: resident", Bar::AtMost(15.0));
}

/// `redis-server` on a unix socket, where it is installed.
struct Redis {
    process: std::process::Child,
    socket: PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    fn start(folder: &Path) -> Option<Self> {
        let socket = folder.join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let Ok(process) = command.current_dir(folder).stdout(Stdio::null()).spawn() else {
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        let redis = Self { process, socket };
        until("redis-server", || redis.socket.exists());
        Some(redis)
    }

    /// Answers a second to its own load tool: SET, GET.
    fn rates(&self) -> (f64, f64) {
        let mut command = Command::new("redis-benchmark");
        command.arg("-s").arg(&self.socket);
        command.args(["-c", "16", "-n", "200000", "-d", "100", "-r", "10000", "-t", "set,get", "--csv"]);
        let output = command.output().expect("redis-benchmark comes with redis-server");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = |verb: &str| {
            let line = text.lines().find(|l| l.starts_with(&format!("\"{verb}\""))).expect(&text);
            line.split(',').nth(1).unwrap().trim_matches('"').parse().expect(line)
        };
        (rate("SET"), rate("GET"))
    }
}
