//! One long value through HTTP to three daemons that all keep it, beside raw UDT moving the same bytes.
//!
//! `cargo bench -p turbopumpd --bench large -- [MIB] [udt|udp] [FOLDER]` (256 MiB, UDT, the system's folder for
//! temporary files). Prints the rate of each in the same run, their ratio, and the most memory that each
//! daemon had resident.
//!
//! The daemon that is written to keeps the value and gives it to two others, so the value crosses UDT twice:
//! the raw rate is that of one program that sends it to two others at once, without disk or digest, until
//! both have all of it. Both run in processes of their own on the same cores.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use support::{
    Client, Daemon,
    cluster::{Cluster, UDP, UDT},
};
use turbopump::transport::{SendError, Transport, TransportContext, TransportEvent, UdtTransport};

const MIB: usize = 1 << 20;
const FRAME_BYTES: usize = 72 * 1_024;
const PATIENCE: Duration = Duration::from_secs(600);
/// Runs of each; they take turns.
const ROUNDS: usize = 3;

fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "receive") {
        return receive();
    }
    let mibs: usize = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(256);
    let transport = if args.iter().any(|arg| arg == "udp") { UDP } else { UDT };
    if let Some(folder) = args.iter().find(|arg| arg.contains('/')) {
        let folder = std::path::Path::new(folder).canonicalize().expect("a folder");
        assert!(folder.is_dir());
        return with_temporary_files_in(&folder, &args);
    }
    let (mut raw, mut through) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        raw.push(mibs as f64 / raw_udt(mibs).as_secs_f64());
        let (time, read, peaks) = through_http(mibs, transport);
        through.push(mibs as f64 / time.as_secs_f64());
        println!(
            "round {round}: raw UDT to two {:.0} MiB/s, HTTP to three daemons {:.0} MiB/s (ratio {:.2}), read back \
             {:.0} MiB/s, resident peaks {peaks:?} MiB",
            raw[round - 1],
            through[round - 1],
            through[round - 1] / raw[round - 1],
            mibs as f64 / read.as_secs_f64(),
        );
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (raw, through) = (median(&mut raw), median(&mut through));
    println!(
        "{mibs} MiB, medians: raw UDT {raw:.0} MiB/s, HTTP {through:.0} MiB/s, ratio {:.2}",
        through / raw
    );
}

/// Again, with the daemons' homes in this folder.
fn with_temporary_files_in(folder: &std::path::Path, args: &[String]) {
    let rest = args.iter().filter(|arg| !arg.contains('/'));
    let program = env::current_exe().expect("this program");
    let status = Command::new(program).args(rest).env("TMPDIR", folder).status().expect("it runs");
    assert!(status.success());
}

/// How long the value takes until all three have it, how long to read it from another one, and the peaks.
fn through_http(mibs: usize, transport: &[&str]) -> (Duration, Duration, Vec<u64>) {
    let options = [transport, &["--store", "file", "--durability", "buffered"]].concat();
    let cluster = Cluster::start(3, &options);
    let mut client = patient(&cluster.nodes[0]);
    let piece = vec![7; MIB];
    let begin = Instant::now();
    let head = format!(
        "POST /write?name=film&ack=all HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        mibs * MIB
    );
    client.send(head);
    (0..mibs).for_each(|_| client.send(&piece));
    let answer = client.answer();
    let time = begin.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let begin = Instant::now();
    let mut client = patient(&cluster.nodes[1]);
    client.send("GET /read?name=film HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut got = 0;
    while let Ok(n) = client.read_some()
        && n > 0
    {
        got += n;
        client.forget();
    }
    assert!(got > mibs * MIB);
    let read = begin.elapsed();
    (time, read, cluster.nodes.iter().map(|node| node.peak_kib() / 1_024).collect())
}

fn patient(node: &Daemon) -> Client {
    Client::try_unix(&node.unix, PATIENCE).expect("a daemon that listens")
}

/// How long two receivers in processes of their own take to get the same bytes from here.
fn raw_udt(mibs: usize) -> Duration {
    let mut own = Loop::start();
    let total = (mibs * MIB).div_ceil(FRAME_BYTES);
    let mut receivers: Vec<_> = (0..2).map(|_| Receiver::start(total)).collect();
    let frame = Bytes::from(vec![7; FRAME_BYTES]);
    let begin = Instant::now();
    let mut sent = [0; 2];
    let mut done = 0;
    while done < receivers.len() {
        for (receiver, sent) in receivers.iter().zip(&mut sent) {
            while *sent < total {
                match own.transport.send(receiver.addr, frame.clone()) {
                    Ok(()) => *sent += 1,
                    Err(SendError::Full(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        own.transport.flush();
        done += own.wait(Duration::from_millis(10)).len();
    }
    let time = begin.elapsed();
    own.transport.stop(Duration::from_millis(200));
    receivers.iter_mut().for_each(|receiver| _ = receiver.child.kill());
    receivers.iter_mut().for_each(|receiver| _ = receiver.child.wait());
    time
}

struct Receiver {
    child: std::process::Child,
    addr: SocketAddr,
}

impl Receiver {
    fn start(frames: usize) -> Self {
        use std::io::BufRead;
        let program = env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["receive", &frames.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a receiver");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self { child, addr: line.trim().parse().expect("an address") }
    }
}

/// Takes frames, and answers the last one.
fn receive() {
    let total: usize = env::args().next_back().and_then(|arg| arg.parse().ok()).expect("a number of frames");
    let mut own = Loop::start();
    println!("{}", own.addr);
    let mut count = 0;
    while count < total {
        let came = own.wait(Duration::from_secs(1));
        count += came.len();
        if let Some(from) = came.last()
            && count == total
        {
            own.transport.send(*from, Bytes::from_static(b"all")).expect("room for one frame");
            own.transport.flush();
        }
    }
    loop {
        own.wait(Duration::from_secs(1));
    }
}

struct Loop {
    poll: Poll,
    transport: UdtTransport,
    addr: SocketAddr,
}

impl Loop {
    fn start() -> Self {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(1)).expect("a waker").into();
        let mut transport = UdtTransport::bind((Ipv4Addr::LOCALHOST, 0).into());
        let identity = turbopump::Identity::generate().into();
        let context = TransportContext { registry: poll.registry(), token: Token(0), waker, identity };
        let addr = transport.start(context).expect("a port");
        Self { poll, transport, addr }
    }

    /// From where frames came, once some did or the time is up.
    fn wait(&mut self, within: Duration) -> Vec<SocketAddr> {
        self.poll.poll(&mut Events::with_capacity(8), Some(within)).expect("a poll that works");
        let mut came = Vec::new();
        while self.transport.poll(256, &mut |event| {
            if let TransportEvent::Frame { from, .. } = event {
                came.push(from);
            }
        }) {}
        came
    }
}
