//! Measures the transports through their trait, each over loopback between two mio loops on two
//! threads: echo times of 100 bytes, and how fast UDT and QUIC move frames in one direction.
//!
//! At last, what 200 QUIC links at rest cost: the other ends are another process, so that memory and
//! processor time are those of one end.
//!
//! `cargo bench --bench transport` prints times, and ratios to a raw mio UDP socket measured in
//! the same run: those are what to compare between machines and days. The variants take turns.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker, net::UdpSocket};
use turbopump::{
    Identity,
    transport::{
        MemoryNetwork, QuicTransport, SendError, Transport, TransportContext, TransportEvent, UdpTransport,
        UdtTransport,
    },
};

const ECHO_BYTES: usize = 100;
const ECHOES_A_ROUND: usize = 2_000;
const ROUNDS: usize = 5;
const BULK_BYTES: usize = 256 * 1024 * 1024;

const SOURCE: Token = Token(0);
const WAKER: Token = Token(1);

fn main() {
    if let Ok(hub) = std::env::var(HUB) {
        return be_peers(hub.parse().unwrap());
    }
    type Measure = Box<dyn Fn() -> Vec<Duration>>;
    let network = MemoryNetwork::new();
    let variants: Vec<(&str, Measure)> = vec![
        ("raw UDP on mio", Box::new(raw_echoes)),
        ("memory", Box::new(move || echoes(|| Box::new(network.transport())))),
        ("udp", Box::new(|| echoes(|| Box::new(UdpTransport::bind(any()))))),
        ("udt", Box::new(|| echoes(udt))),
        ("quic", Box::new(|| echoes(quic))),
    ];

    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((_, measure), times) in variants.iter().zip(&mut times) {
            times.extend(measure());
        }
    }
    println!("echo of {ECHO_BYTES} B             p50        p99      p99.9   p50 to raw");
    let mut raw = None;
    for ((name, _), times) in variants.iter().zip(&mut times) {
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        let raw = *raw.get_or_insert(at(0.5));
        println!(
            "{name:18} {:8.1} us {:7.1} us {:7.1} us   {:6.2}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.5) / raw
        );
    }
    for bytes in [60_000, 1_000] {
        for (name, make) in [("udt", udt as fn() -> Box<dyn Transport>), ("quic", quic)] {
            let (mib, frames) = bulk(make, bytes);
            println!("{name:4}, frames of {bytes:6} B: {mib:6.0} MiB/s, {frames:7.0} frames/s");
        }
    }
    links_at_rest();
}

/// Names the address of the hub to the process of its peers.
const HUB: &str = "TURBOPUMP_BENCH_HUB";
const LINKS: usize = 200;
const REST: Duration = Duration::from_secs(20);

/// What links at rest cost the one that they all lead to.
fn links_at_rest() {
    let mut hub = Loop::start(quic());
    let before = resident_kib();
    let mut peers =
        Command::new(std::env::current_exe().unwrap()).env(HUB, hub.addr.to_string()).spawn().unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < LINKS {
        let (from, frame) = hub.next();
        hub.transport.send(from, frame).unwrap();
        hub.transport.flush();
        seen.insert(from);
    }
    let mut rest = |time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            hub.wait(Some(end.saturating_duration_since(Instant::now())));
            hub.transport.flush();
        }
    };
    rest(Duration::from_secs(2));
    let (cpu, grown) = (cpu_ms(), resident_kib() - before);
    rest(REST);
    let percent = (cpu_ms() - cpu) as f64 / REST.as_millis() as f64 * 100.0;
    println!("quic, {LINKS} links at rest: {:.1} MiB, {percent:.2} % of a core", grown as f64 / 1024.0);
    peers.kill().unwrap();
    peers.wait().unwrap();
}

/// The process at the other ends: speaks once on each link, then rests until it is killed.
fn be_peers(hub: SocketAddr) {
    let mut peers: Vec<Loop> = (0..LINKS).map(|_| Loop::start(quic())).collect();
    for peer in &mut peers {
        peer.transport.send(hub, Bytes::from_static(b"here")).unwrap();
        peer.transport.flush();
        peer.next();
    }
    loop {
        for peer in &mut peers {
            peer.wait(Some(Duration::from_millis(1)));
            peer.transport.flush();
        }
    }
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of this process so far.
fn cpu_ms() -> u64 {
    const MS_PER_TICK: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap() * MS_PER_TICK).sum()
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn udt() -> Box<dyn Transport> {
    Box::new(UdtTransport::bind(any()))
}

fn quic() -> Box<dyn Transport> {
    Box::new(QuicTransport::bind(any()).trust_on_first_use())
}

/// The floor: what a transport can't be faster than.
fn raw_echoes() -> Vec<Duration> {
    let bind = || {
        let mut socket = UdpSocket::bind(any()).unwrap();
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut socket, SOURCE, Interest::READABLE).unwrap();
        (socket, poll)
    };
    let receive = |socket: &UdpSocket, poll: &mut Poll, buffer: &mut [u8]| loop {
        if let Ok(received) = socket.recv_from(buffer) {
            return received;
        }
        poll.poll(&mut Events::with_capacity(8), None).unwrap();
    };
    let (client, mut client_poll) = bind();
    let (server, mut server_poll) = bind();
    let to = server.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut buffer = [0; 2_000];
        loop {
            let (length, from) = receive(&server, &mut server_poll, &mut buffer);
            server.send_to(&buffer[..length], from).unwrap();
            if length == 1 {
                return;
            }
        }
    });
    let mut buffer = [0; 2_000];
    let times = (0..ECHOES_A_ROUND)
        .map(|_| {
            let begin = Instant::now();
            client.send_to(&[7; ECHO_BYTES], to).unwrap();
            receive(&client, &mut client_poll, &mut buffer);
            begin.elapsed()
        })
        .collect();
    client.send_to(&[0], to).unwrap();
    server.join().unwrap();
    times
}

struct Loop {
    poll: Poll,
    events: Events,
    transport: Box<dyn Transport>,
    addr: SocketAddr,
    waker: Arc<Waker>,
    came: VecDeque<(SocketAddr, Bytes)>,
}

impl Loop {
    fn start(mut transport: Box<dyn Transport>) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let identity = Arc::new(Identity::generate());
        let addr = transport
            .start(TransportContext {
                registry: poll.registry(),
                token: SOURCE,
                waker: waker.clone(),
                identity,
            })
            .unwrap();
        let events = Events::with_capacity(8);
        Self { poll, events, transport, addr, waker, came: VecDeque::new() }
    }

    fn take(&mut self) {
        let came = &mut self.came;
        while self.transport.poll(64, &mut |event| {
            if let TransportEvent::Frame { from, frame } = event {
                came.push_back((from, frame));
            }
        }) {}
    }

    fn wait(&mut self, time: Option<Duration>) {
        let due = self.transport.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        self.poll.poll(&mut self.events, due.into_iter().chain(time).min()).unwrap();
        if self.events.iter().any(|event| event.token() == SOURCE) {
            self.transport.ready();
        }
        self.take();
    }

    fn next(&mut self) -> (SocketAddr, Bytes) {
        loop {
            if let Some(next) = self.came.pop_front() {
                return next;
            }
            self.wait(None);
        }
    }
}

/// A thread that answers until it is dropped.
struct Server {
    addr: SocketAddr,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(transport: Box<dyn Transport>, answers: fn(usize) -> bool) -> Self {
        let mut own = Loop::start(transport);
        let (addr, waker) = (own.addr, own.waker.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                own.wait(None);
                while let Some((from, frame)) = own.came.pop_front() {
                    count += 1;
                    if answers(count) {
                        own.transport.send(from, frame).unwrap();
                    }
                }
                own.transport.flush();
            }
            own.transport.stop(Duration::from_millis(200));
        });
        Self { addr, waker, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn echoes(make: impl Fn() -> Box<dyn Transport>) -> Vec<Duration> {
    let server = Server::start(make(), |_| true);
    let mut client = Loop::start(make());
    let frame = Bytes::from(vec![7; ECHO_BYTES]);
    let mut echo = || {
        let begin = Instant::now();
        client.transport.send(server.addr, frame.clone()).unwrap();
        client.transport.flush();
        client.next();
        begin.elapsed()
    };
    for _ in 0..100 {
        echo();
    }
    let times = (0..ECHOES_A_ROUND).map(|_| echo()).collect();
    client.transport.stop(Duration::from_millis(200));
    times
}

/// MiB and frames per second in one direction, until the receiver's program has them all: it
/// answers every hundredth frame, and answers are counted.
fn bulk(make: impl Fn() -> Box<dyn Transport>, bytes: usize) -> (f64, f64) {
    const ANSWERED: usize = 100;
    let server = Server::start(make(), |count| count % ANSWERED == 0);
    let mut client = Loop::start(make());
    let frame = Bytes::from(vec![7; bytes]);
    let total = (BULK_BYTES / bytes).min(200_000) / ANSWERED * ANSWERED;
    let (mut sent, mut answered) = (0, 0);
    let begin = Instant::now();
    while answered < total {
        while sent < total {
            match client.transport.send(server.addr, frame.clone()) {
                Ok(()) => sent += 1,
                Err(SendError::Full(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        client.transport.flush();
        client.wait(Some(Duration::from_millis(100)));
        answered += client.came.drain(..).count() * ANSWERED;
    }
    let seconds = begin.elapsed().as_secs_f64();
    client.transport.stop(Duration::from_millis(200));
    ((total * bytes) as f64 / seconds / (1024.0 * 1024.0), total as f64 / seconds)
}
