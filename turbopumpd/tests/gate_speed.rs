//! What the gate costs: GET of 100 B over a unix socket, through the gate and from bare
//! `tiny_http`, in one run. Ignored by default, since it needs a release build and quiet:
//! `cargo test --release -p turbopumpd --test gate_speed -- --ignored --nocapture`

use std::{
    io::{Cursor, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use turbopumpd::gate::{Exchange, Gate, GateParts, GateStats, Limits, Listener, Reply};

const RUN: Duration = Duration::from_millis(1500);
const BODY: [u8; 100] = [b'x'; 100];

fn exchange(stream: &mut UnixStream, buffer: &mut [u8]) {
    stream.write_all(b"GET /read?name=foo HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n").unwrap();
    let mut got = 0;
    loop {
        got += stream.read(&mut buffer[got..]).unwrap();
        if let Some(end) = buffer[..got].windows(4).position(|w| w == b"\r\n\r\n")
            && got >= end + 4 + BODY.len()
        {
            return;
        }
    }
}

/// Processor time of this process so far, in microseconds.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

/// Requests per second of so many clients that each keep one connection, and processor time per
/// request (clients included), which other work on the machine disturbs less.
fn measure(path: &Path, clients: usize) -> (f64, f64) {
    // One after the other, each answered once: bare tiny_http strands bursts.
    let streams: Vec<UnixStream> = (0..clients)
        .map(|_| {
            let mut stream = UnixStream::connect(path).unwrap();
            exchange(&mut stream, &mut [0; 1024]);
            stream
        })
        .collect();
    let (begin, cpu) = (Instant::now(), cpu_us());
    let threads: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                let (mut n, mut buffer) = (0u64, [0; 1024]);
                while begin.elapsed() < RUN {
                    exchange(&mut stream, &mut buffer);
                    n += 1;
                }
                n
            })
        })
        .collect();
    let total: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    (total as f64 / begin.elapsed().as_secs_f64(), (cpu_us() - cpu) / total as f64)
}

#[test]
#[ignore = "a measurement"]
fn a_get_through_the_gate_is_a_good_part_of_bare_tiny_http() {
    let folder = tempfile::tempdir().unwrap();
    let (bare, gated) = (folder.path().join("bare"), folder.path().join("gated"));
    let server = Arc::new(tiny_http::Server::http_unix(&bare).unwrap());
    for _ in 0..2 {
        let server = server.clone();
        thread::spawn(move || {
            while let Ok(request) = server.recv() {
                let response = tiny_http::Response::new(
                    tiny_http::StatusCode(200),
                    vec![],
                    Cursor::new(BODY),
                    Some(BODY.len()),
                    None,
                );
                request.respond(response).unwrap();
            }
        });
    }
    let threads = std::env::var("HANDLERS").ok().and_then(|v| v.parse().ok()).unwrap_or(2);
    let base = std::env::var("LANES").ok().and_then(|v| v.parse().ok()).unwrap_or(4);
    let gate = Gate::start(GateParts {
        listeners: vec![Listener::bind(&turbopumpd::gate::ListenAt::Unix(gated.clone()), 0o600).unwrap()],
        limits: Limits { base_lanes: base, ..Limits::default() },
        stats: Arc::new(GateStats::default()),
        is_long: |_| false,
        token: None,
        handler_threads: threads,
        handler: Box::new(|exchange: Exchange| {
            exchange.respond(Reply { status: 200, headers: vec![], body: bytes::Bytes::from_static(&BODY) });
        }),
    })
    .unwrap();
    for clients in [1, 16, 64] {
        for _ in 0..2 {
            let (bare, gated) = (measure(&bare, clients), measure(&gated, clients));
            println!(
                "{clients:>3} clients: bare {:>6.0}/s {:>3.0} us, gate {:>6.0}/s {:>3.0} us, ratio {:.2}, processor {:.2}",
                bare.0,
                bare.1,
                gated.0,
                gated.1,
                gated.0 / bare.0,
                bare.1 / gated.1,
            );
        }
    }
    gate.stop(Duration::from_secs(1));
}
