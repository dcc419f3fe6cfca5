//! HTTP as people and programs speak it: versions, connections, bodies, `nc`, early leavers.

mod support;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use support::{Daemon, PATIENCE, until};

#[test]
fn http_1_0_gets_one_answer_and_the_end() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    client.send("GET /status HTTP/1.0\r\n\r\n");
    let text = String::from_utf8(client.read_to_end()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"), "{text}");
    assert!(text.contains("\"state\":\"running\""), "{text}");
    let mut client = daemon.connect();
    for _ in 0..3 {
        let kept = client.ask("GET /status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.header("connection"), "keep-alive");
    }
}

#[test]
fn a_request_typed_into_netcat_is_answered_and_the_connection_ends() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect_unix();
    client.send("GET /status HTTP/1.1\r\n\r\n");
    let begin = Instant::now();
    let text = String::from_utf8(client.read_to_end()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("running"), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(6), "a person waits for {:?}", begin.elapsed());
    if Command::new("nc").arg("-h").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok() {
        let command =
            format!("printf 'GET /status HTTP/1.1\\r\\n\\r\\n' | timeout 10 nc -U {}", daemon.unix.display());
        let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("running"), "{output:?}");
    }
}

#[test]
fn a_client_that_ends_its_sending_half_still_gets_its_answers() {
    let daemon = Daemon::start(&[]);
    for mut client in [daemon.connect(), daemon.connect_unix()] {
        client.send("GET /status HTTP/1.1\r\nHost: x\r\n\r\nGET /membership HTTP/1.1\r\nHost: x\r\n\r\n");
        client.end_sending();
        assert!(client.answer().json()["uptime_ms"].is_number());
        assert!(client.answer().json()["members"].is_array());
        assert!(client.is_ended());
    }
}

#[test]
fn a_connection_is_kept_until_someone_ends_it() {
    let daemon = Daemon::start(&["--idle-timeout", "1000"]);
    let mut client = daemon.connect();
    for _ in 0..100 {
        let answer = client.get("/status");
        assert!(!answer.headers.contains_key("connection"));
    }
    let begin = Instant::now();
    assert!(client.is_ended(), "an idle connection is ended");
    assert!(begin.elapsed() > Duration::from_millis(900));
    let mut client = daemon.connect();
    let last = client.ask("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(last.header("connection"), "close");
    assert!(client.is_ended());
}

#[test]
fn bodies_come_with_a_length_in_chunks_or_after_a_continue() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    client.send("POST /write?name=chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["5\r\nhel", "lo\r\n", "7;x=y\r\n, world\r\n0\r\nT: x\r", "\n\r\n"] {
        client.send(piece);
    }
    assert_eq!(client.answer().json()["size"], 12);
    assert_eq!(client.get("/read?name=chunks").text(), "hello, world");

    client.send(
        "PUT /write?name=continued HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.answer().status, 100);
    client.send("hello");
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.get("/read?name=continued").text(), "hello");

    let refused = daemon
        .connect()
        .ask("PUT /write?name=big HTTP/1.1\r\nContent-Length: 9999999999999\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(refused.status, 413, "refused before the body is sent");
    let refused =
        daemon.connect().ask("PUT /write?name=a HTTP/1.1\r\nContent-Length: 1\r\nExpect: magic\r\n\r\n");
    assert_eq!(refused.status, 417);
}

#[test]
fn long_bodies_stream_whole_whatever_their_framing() {
    let daemon = Daemon::start(&[]);
    let value: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut client = daemon.connect();
    assert_eq!(client.post("/write?name=long", &value).json()["size"], value.len());
    assert_eq!(client.get("/read?name=long").body, value, "and the connection goes on");
    client.send("POST /write?name=chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in value.chunks(70_001) {
        client.send([format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().json()["size"], value.len());
    assert_eq!(client.get("/read?name=chunked").body, value);
}

#[test]
fn a_value_over_the_limit_is_refused_and_the_limit_is_named() {
    let daemon = Daemon::start(&["--max-value", "100000"]);
    assert_eq!(daemon.post("/write?name=a", &[b'x'; 100_000]).status, 200);
    let refused = daemon.post("/write?name=b", &[b'x'; 100_001]);
    assert_eq!(refused.error(), (413, "too_large".into()));
    assert!(refused.text().contains("100000"));
    let mut client = daemon.connect();
    client.send("POST /write?name=b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        let _ = client.try_send([&b"2000\r\n"[..], &[b'x'; 0x2000], b"\r\n"].concat());
    }
    assert_eq!(client.answer().error(), (413, "too_large".into()));
    assert_eq!(daemon.get("/read?name=b").status, 404);
}

#[test]
fn a_request_that_breaks_off_midway_stores_nothing() {
    let mut daemon = Daemon::start(&[]);
    let body = vec![b'x'; 200_000];
    for (i, cut) in [0, 1, 1_000, 60_000, 66_000, 150_000, 199_999].into_iter().enumerate() {
        let mut client = if i % 2 == 0 { daemon.connect() } else { daemon.connect_unix() };
        client.send("POST /write?name=half HTTP/1.1\r\nContent-Length: 200000\r\n\r\n");
        client.send(&body[..cut]);
        drop(client);
        let mut client = daemon.connect();
        client.send("POST /write?name=half HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n");
        client.send(&body[..cut]);
        drop(client);
        let mut client = daemon.connect();
        client.send("POST /write?name=half HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n");
        client.send(&body);
        client.send("\r\n");
        client.end_sending();
        assert!(client.is_ended(), "without its last chunk a body is not whole");
    }
    until("all of them are given up", PATIENCE, || {
        daemon.metric("turbopump_http_connections") <= 1 && daemon.metric("turbopump_http_queued") == 0
    });
    assert_eq!(daemon.get("/read?name=half").status, 404);
    assert_eq!(daemon.get("/list-keys").json()["keys"].as_array().unwrap().len(), 0);
    assert_eq!(daemon.post("/write?name=half", b"whole").status, 200, "the name is not blocked");
    assert!(daemon.is_alive());
}

#[test]
fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let daemon = Daemon::start(&[]);
    for round in 0..5 {
        let waiting: Vec<_> = (0..60)
            .map(|i| {
                let mut client = if i % 2 == 0 { daemon.connect() } else { daemon.connect_unix() };
                client.send(format!("GET /wait?name=never{round}&timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n"));
                client
            })
            .collect();
        drop(waiting);
    }
    until("all are given up", PATIENCE, || daemon.metric("turbopump_http_connections") <= 1);
    until("their threads end", Duration::from_secs(40), || daemon.proc_status("Threads:") < 40);
}

#[test]
fn absolute_targets_of_proxies_and_empty_lines_before_a_request_are_understood() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.connect();
    assert_eq!(client.ask("GET http://localhost:1592/status HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(client.ask("\r\n\r\nGET /status HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    client.send("HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer_to(true).status, 405, "a HEAD has no body, and its connection goes on");
    assert_eq!(client.get("/status").status, 200);
    assert_eq!(daemon.connect().ask("GET /status HTTP/3.0\r\n\r\n").status, 505);
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_a_long_answer_and_holds_nobody_up() {
    let mut daemon = Daemon::start(&[]);
    let value: Vec<u8> = (0..20_000_000u32).map(|i| (i % 253) as u8).collect();
    assert_eq!(daemon.post("/write?name=long", &value).status, 200);
    let mut slow: Vec<_> = (0..10).map(|_| daemon.connect()).collect();
    slow.iter_mut().for_each(|c| c.send("GET /read?name=long HTTP/1.1\r\nHost: x\r\n\r\n"));
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.get("/status").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for mut client in slow {
        assert!(client.answer().body == value);
    }
    assert!(daemon.is_alive());
}
