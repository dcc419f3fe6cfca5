//! The nine defects of `tiny_http` alone, each against the running daemon.

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use support::{Client, Daemon, PATIENCE, until};

/// What the daemon may grow by under an attack that used to cost hundreds of megabytes.
const FEW_KIB: u64 = 24 * 1024;

#[test]
fn defect_1_a_promise_of_30_gb_is_refused_and_allocates_nothing() {
    let mut daemon = Daemon::start(&["--max-value", "67108864"]);
    let before = daemon.peak_kib();
    let mut client = daemon.connect();
    let refused = client.ask("POST /write?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000000\r\n\r\n");
    assert_eq!(refused.error(), (413, "too_large".into()));
    assert!(refused.text().contains("67108864"), "the limit is named: {}", refused.text());
    assert!(client.is_ended());
    // A promise within the limit, not kept.
    for _ in 0..20 {
        let mut client = daemon.connect();
        client.send("POST /write?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\nabc");
    }
    assert!(daemon.is_alive());
    assert!(daemon.peak_kib() < before + FEW_KIB, "{} KiB more", daemon.peak_kib() - before);
    assert_eq!(daemon.get("/read?name=a").status, 404);
}

#[test]
fn defect_2_everyone_of_a_burst_of_clients_is_served() {
    let daemon = Daemon::start(&[]);
    for burst in [5, 8, 20, 50, 300] {
        let mut clients: Vec<Client> = (0..burst).map(|_| daemon.connect_unix()).collect();
        for _ in 0..2 {
            clients.iter_mut().for_each(|c| c.send("GET /status HTTP/1.1\r\nHost: x\r\n\r\n"));
            for (i, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.answer().status, 200, "client {i} of {burst}");
            }
        }
    }
}

#[test]
fn defect_3_an_answer_over_1_kb_takes_no_44_ms() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.post("/write?name=a", &[b'x'; 10_000]).status, 200);
    let mut client = daemon.connect();
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(client.get("/read?name=a").body.len(), 10_000);
            begin.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[10] < Duration::from_millis(20), "median {:?}", times[10]);
}

#[test]
fn defect_4_heads_without_end_are_cut_off_and_not_kept() {
    let mut daemon = Daemon::start(&[]);
    let before = daemon.peak_kib();
    let piece = vec![b'x'; 1 << 20];
    for (start, status) in [("GET /status?", 414), ("GET /status HTTP/1.1\r\nA: ", 431)] {
        let mut client = daemon.connect();
        client.set_write_timeout(Duration::from_secs(5));
        client.send(start);
        // What is sent after the refusal is dropped for a moment, then the connection breaks.
        let begin = Instant::now();
        while client.try_send(&piece).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "the connection of an endless head is not ended");
        }
        let mut client = daemon.connect();
        client.send(start);
        client.send(&piece[..60_000]);
        assert_eq!(client.answer().error(), (status, "too_long".into()));
    }
    assert!(daemon.is_alive());
    assert!(daemon.peak_kib() < before + FEW_KIB, "{} KiB more", daemon.peak_kib() - before);
}

#[test]
fn defect_5_half_requests_hold_no_threads_and_are_cut_off() {
    let mut daemon = Daemon::start(&["--head-timeout", "1500", "--body-timeout", "1500"]);
    let mut clients: Vec<Client> = (0..500).map(|_| daemon.connect_unix()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(match i % 2 {
            0 => "GET /status HTT",
            _ => "POST /write?name=a HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
        });
    }
    assert!(daemon.is_alive(), "half requests do not keep others out");
    assert!(daemon.proc_status("Threads:") < 60, "{} threads", daemon.proc_status("Threads:"));
    for client in &mut clients {
        assert_eq!(client.answer().error(), (408, "timeout".into()));
    }
    assert_eq!(daemon.get("/read?name=a").status, 404);
    let mut silent = daemon.connect();
    assert!(silent.is_ended(), "a client that says nothing is cut off");
}

#[test]
fn defect_6_running_out_of_descriptors_is_survived() {
    for descriptors in [120, 30] {
        let mut daemon = Daemon::start_with_descriptors(descriptors, &["--max-connections", "100000"]);
        let idle: Vec<Client> = (0..400).map(|_| daemon.connect_unix()).collect();
        until("a client is served among 400 idle ones", PATIENCE, || {
            let mut client = daemon.connect_unix();
            client.send("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            String::from_utf8_lossy(&client.read_to_end()).starts_with("HTTP/1.1 200")
        });
        drop(idle);
        assert!(daemon.is_alive());
        for i in 0..50 {
            assert_eq!(daemon.get("/status").status, 200, "request {i} after the storm");
        }
        let failures = daemon.metric("turbopump_http_accept_failures_total");
        println!("{descriptors} descriptors: accepting failed {failures} times");
    }
}

#[test]
fn defect_7_a_client_that_pipelines_without_reading_costs_little() {
    let mut daemon = Daemon::start(&[]);
    let before = daemon.peak_kib();
    let requests = "GET /status HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let mut client = daemon.connect();
    client.set_write_timeout(Duration::from_secs(3));
    let taken = (0..400).take_while(|_| client.try_send(&requests).is_ok()).count();
    assert!(taken < 400, "400,000 requests were swallowed");
    assert!(daemon.peak_kib() < before + FEW_KIB, "{} KiB more", daemon.peak_kib() - before);
    assert!(daemon.is_alive());
    // One that reads gets all its answers, in order.
    let mut client = daemon.connect();
    let requests: String = (0..500)
        .map(|i| format!("GET /nothing-{i} HTTP/1.1\r\nHost: x\r\n\r\nGET /status HTTP/1.1\r\n\r\n"))
        .collect();
    client.send(requests);
    for _ in 0..500 {
        assert_eq!(client.answer().status, 404);
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn defect_8_what_could_be_read_in_two_ways_is_refused() {
    let mut daemon = Daemon::start(&[]);
    for lines in [
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: a\r\n Content-Length: 4\r\n",
        "X: a\rContent-Length: 4\r\n",
        "X: a\nContent-Length: 4\r\n",
    ] {
        let mut client = daemon.connect();
        let request =
            format!("POST /write?name=a HTTP/1.1\r\nHost: x\r\n{lines}\r\nGET /status HTTP/1.1\r\n\r\n");
        assert_eq!(client.ask(&request).error(), (400, "malformed_request".into()), "{lines:?}");
        assert!(client.is_ended(), "nothing behind it is taken for a request: {lines:?}");
    }
    for chunks in
        ["x\r\n", "5\r\nabcdeXX0\r\n\r\n", "-1\r\n", "5;\n\r\nabcde\r\n0\r\n\r\n", "fffffffffffffffff\r\n"]
    {
        let mut client = daemon.connect();
        let request = format!("POST /write?name=a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(client.ask(&request).status, 400, "{chunks:?}");
    }
    assert_eq!(daemon.get("/read?name=a").status, 404);
    // Nothing that a client says becomes a header of its own.
    assert_eq!(daemon.post("/write?name=a%0d%0aX-Evil:%201", b"v").status, 200);
    let read = daemon.get("/read?name=a%0d%0aX-Evil:%201");
    assert_eq!(read.body, b"v");
    assert!(!read.headers.contains_key("x-evil"));
    assert!(daemon.is_alive());
}

#[test]
fn defect_9_connections_end_when_the_daemon_does() {
    let mut daemon = Daemon::start(&[]);
    let mut kept: Vec<Client> =
        (0..20).map(|i| if i % 2 == 0 { daemon.connect() } else { daemon.connect_unix() }).collect();
    kept.iter_mut().for_each(|c| assert_eq!(c.get("/status").status, 200));
    let mut half = daemon.connect();
    half.send("POST /write?name=a HTTP/1.1\r\nContent-Length: 100000\r\n\r\nhalf");
    let mut waiting = daemon.connect();
    waiting.send("GET /wait?name=never&timeout=60 HTTP/1.1\r\nHost: x\r\n\r\n");
    daemon.signal("-TERM");
    let (status, took) = daemon.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(kept.iter_mut().all(Client::is_ended));
    assert!(half.is_ended());
    assert!(waiting.is_ended());
    assert!(!daemon.unix.exists(), "the socket file is removed");
}

#[test]
fn a_thousand_idle_connections_do_not_keep_the_next_client_out() {
    for options in [&[][..], &["--max-connections", "256"]] {
        let daemon = Daemon::start(options);
        let mut idle: Vec<Client> = (0..1_000).map(|_| daemon.connect()).collect();
        idle.iter_mut().rev().take(10).for_each(|c| assert_eq!(c.get("/status").status, 200));
        let begin = Instant::now();
        assert_eq!(daemon.connect().get("/status").status, 200);
        assert_eq!(daemon.connect_unix().get("/status").status, 200);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
}

#[test]
fn hundreds_of_waiting_clients_do_not_starve_the_others_and_leave_nothing_when_they_go() {
    let mut daemon = Daemon::start(&[]);
    let mut waiting: Vec<Client> = (0..300).map(|_| daemon.connect_unix()).collect();
    waiting.iter_mut().for_each(|c| c.send("GET /wait?name=late&timeout=60 HTTP/1.1\r\nHost: x\r\n\r\n"));
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.get("/status").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // Half of them leave, the others get what they came for.
    waiting.truncate(150);
    assert_eq!(daemon.post("/write?name=late", b"v").status, 200);
    for client in &mut waiting {
        let came = client.answer();
        assert_eq!((came.status, came.header("turbopump-siblings")), (200, "1"));
    }
    drop(waiting);
    until("the lanes go down to the base", Duration::from_secs(30), || {
        daemon.metric("turbopump_http_lanes") <= 8
    });
    assert!(daemon.is_alive());
}

#[test]
fn slow_bodies_hold_nobody_up() {
    let daemon = Daemon::start(&[]);
    // More than there are handler threads or lanes for long bodies.
    let mut slow: Vec<Client> = (0..40).map(|_| daemon.connect()).collect();
    for (i, client) in slow.iter_mut().enumerate() {
        let length = if i % 2 == 0 { 1_000 } else { 1_000_000 };
        client.send(format!("POST /write?name=slow{i} HTTP/1.1\r\nContent-Length: {length}\r\n\r\nabc"));
    }
    let begin = Instant::now();
    for i in 0..50 {
        assert_eq!(daemon.post(&format!("/write?name=quick{i}"), b"v").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // They are not forgotten: the short ones end well.
    for client in slow.iter_mut().step_by(2) {
        client.send(vec![b'x'; 997]);
        assert_eq!(client.answer().status, 200);
    }
    drop(slow);
    until("the half bodies are given up", PATIENCE, || daemon.metric("turbopump_http_abandoned_total") >= 16);
    assert_eq!(daemon.get("/read?name=slow1").status, 404);
    let long = thread::scope(|s| {
        s.spawn(|| daemon.post("/write?name=long", &vec![b'y'; 3_000_000])).join().unwrap()
    });
    assert_eq!(long.status, 200);
    assert_eq!(daemon.get("/read?name=long").body, vec![b'y'; 3_000_000]);
}
