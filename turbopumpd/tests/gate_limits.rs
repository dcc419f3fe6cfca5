//! The gate's queue and what becomes of requests that nobody answers: with a handler of its own,
//! since no call of the daemon can be held still.

mod support;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use support::{Client, PATIENCE, until};
use tempfile::TempDir;
use turbopumpd::gate::{Exchange, Gate, GateParts, GateStats, Limits, ListenAt, Listener, Reply};

fn ok() -> Reply {
    Reply { status: 200, headers: vec![], body: bytes::Bytes::from_static(b"done") }
}

/// A gate on a unix socket, in a folder that goes with it.
struct Behind {
    _folder: TempDir,
    path: PathBuf,
    gate: Gate,
}

fn behind(handler: impl Fn(Exchange) + Send + Sync + 'static) -> Behind {
    behind_with(Limits::default(), Arc::default(), handler)
}

fn behind_with(
    limits: Limits,
    stats: Arc<GateStats>,
    handler: impl Fn(Exchange) + Send + Sync + 'static,
) -> Behind {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let gate = Gate::start(GateParts {
        listeners: vec![Listener::bind(&ListenAt::Unix(path.clone()), 0o600).unwrap()],
        limits,
        stats,
        is_long: |target| target.starts_with("/long"),
        token: None,
        handler_threads: 1,
        handler: Box::new(handler),
    });
    Behind { _folder: folder, path, gate: gate.unwrap() }
}

#[test]
fn requests_beyond_the_queue_are_refused_as_busy_and_those_in_it_are_served() {
    let (sender, held) = mpsc::channel();
    let stats = Arc::new(GateStats::default());
    let limits = Limits { base_lanes: 2, lanes: 2, long_lanes: 1, queued_requests: 3, ..Limits::default() };
    let hold = move |exchange| sender.send(exchange).unwrap();
    let Behind { _folder, path, gate } = behind_with(limits, stats.clone(), hold);
    let ask = |target: &str| {
        let mut client = Client::unix(&path);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client
    };
    let mut long = ask("/long/1");
    let first = held.recv_timeout(PATIENCE).unwrap();
    // The second one waits, although a lane is free: that one is for quick requests.
    let mut second_long = ask("/long/2");
    until("it waits", PATIENCE, || stats.queued.value() == 1);
    let mut quick = ask("/quick/1");
    let second = held.recv_timeout(PATIENCE).unwrap();
    assert_eq!(second.target(), "/quick/1");
    let mut waiting = [ask("/quick/2"), ask("/quick/3")];
    until("they wait", PATIENCE, || stats.queued.value() == 3);
    let busy = ask("/quick/4").answer();
    assert_eq!(busy.error(), (503, "busy".into()));
    assert_eq!(busy.header("retry-after"), "1");
    second.respond(ok());
    assert_eq!(quick.answer().text(), "done");
    for client in &mut waiting {
        held.recv_timeout(PATIENCE).unwrap().respond(ok());
        assert_eq!(client.answer().status, 200);
    }
    first.respond(ok());
    assert_eq!(long.answer().status, 200);
    held.recv_timeout(PATIENCE).unwrap().respond(ok());
    assert_eq!(second_long.answer().status, 200);
    gate.stop(Duration::from_secs(1));
    assert!(!path.exists());
}

#[test]
fn a_handler_that_panics_or_forgets_answers_500_and_the_next_request_is_served() {
    let Behind { _folder, path, gate } = behind(|exchange| match exchange.target() {
        "/panic" => panic!("on purpose"),
        "/forget" => drop(exchange),
        "/evil" => exchange.respond(Reply { headers: vec![("X", "a\r\nEvil: 1\u{e9}".into())], ..ok() }),
        _ => exchange.respond(ok()),
    });
    let mut client = Client::unix(&path);
    for _ in 0..3 {
        assert_eq!(client.get("/panic").error(), (500, "internal".into()));
        assert_eq!(client.get("/forget").error(), (500, "internal".into()));
        assert_eq!(client.get("/").text(), "done");
    }
    let evil = client.get("/evil");
    assert!(!evil.headers.contains_key("evil"), "{:?}", evil.headers);
    gate.stop(Duration::from_secs(1));
}

#[test]
fn an_answer_that_breaks_off_ends_its_connection_and_no_other() {
    // Goal: a client never waits for bytes that will not come, nor takes a part for the whole. Method: a reader
    // that fails in the middle, one that ends too early, and one that is whole.
    let answer = |exchange: Exchange| {
        use std::io::{Error, Read, repeat};
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(Error::other("on purpose"))
            }
        }
        let reader: Box<dyn Read + Send> = match exchange.target() {
            "/fails" => Box::new(repeat(7).take(500_000).chain(Fails)),
            "/ends" => Box::new(repeat(7).take(500_000)),
            _ => Box::new(repeat(7)),
        };
        exchange.respond_from(ok(), 1_000_000, reader);
    };
    let Behind { _folder, path, gate } = behind(answer);
    let mut other = Client::unix(&path);
    assert_eq!(other.get("/whole").body.len(), 1_000_000);
    for target in ["/fails", "/ends"] {
        let mut client = Client::unix(&path);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let got = client.read_to_end();
        assert!(got.starts_with(b"HTTP/1.1 200 ") && got.len() < 501_000, "{target}: {} bytes", got.len());
    }
    assert_eq!(other.get("/whole").body.len(), 1_000_000);
    gate.stop(Duration::from_secs(1));
}

#[test]
fn an_answer_that_comes_before_the_whole_body_was_read_reaches_the_client() {
    // Goal: a refusal is never lost to a lane that ends under the rest of a body. Method: a handler that
    // reads nothing, and bodies long enough to be on their way still when it answers.
    let Behind { _folder, path, gate } = behind(|exchange| exchange.respond(Reply { status: 400, ..ok() }));
    let lines = b"GET / HTTP/1.1\r\n\r\n".repeat(50_000);
    for n in 0..300 {
        // All of it is on its way when the answer comes, or just enough of it to be a long one.
        let body = if n % 2 == 0 { &lines[..] } else { &lines[..300_000] };
        let answer = Client::unix(&path).post("/", body);
        assert_eq!((answer.status, answer.text()), (400, "done".into()), "round {n}");
        assert_eq!(Client::unix(&path).get("/").status, 400, "the next request after round {n}");
    }
    gate.stop(Duration::from_secs(1));
}
