//! How the daemon starts, what keeps it from starting, how it ends, and that it comes back.

mod support;

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    process::Output,
    time::{Duration, Instant},
};

use support::{Client, Daemon, PATIENCE, binary, until};

/// Runs it with what must keep it from starting.
fn refused(options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary();
    if !options.contains(&"--home") {
        command.arg("--home").arg(folder.path());
    }
    if !options.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    let output: Output = command.args(options).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.trim().lines().count(), 1, "one line: {stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn wrong_options_are_one_line_and_exit_code_2() {
    for (options, named) in [
        (&["--store", "tape"][..], "--store"),
        (&["--mirrors", "many"], "--mirrors"),
        (&["--ack", "0"], "--ack"),
        (&["--partitions", "1000"], "--partitions"),
        (&["--sync-interval", "x"], "--sync-interval"),
        (&["--name", "a b"], "--name"),
        (&["--bind", "nowhere"], "--bind"),
        (&["--advertise", "1.2.3.4"], "--advertise"),
        (&["--advertise", "0.0.0.0:1593"], "--advertise"),
        (&["--bind", "0.0.0.0"], "--advertise"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--idle-timeout", "0"], "--idle-timeout"),
        (&["--no-such-option"], "--no-such-option"),
        (&["-l", "host:99999"], "--local-addr"),
        (&["-l", "no.such.host.invalid:1"], "no.such.host.invalid"),
        (&["-l", "/no/such/folder/sock"], "/no/such/folder/sock"),
        (&["--sync-interval", "1", "-l", "127.0.0.1:0"], "sync_interval"),
    ] {
        let line = refused(options);
        assert!(line.contains(named), "{named} in {line}");
    }
}

#[test]
fn an_address_in_use_is_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert!(refused(&["-l", &addr]).contains(&addr));
    let peers = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = peers.local_addr().unwrap().port().to_string();
    assert!(refused(&["-l", "127.0.0.1:0", "--udp", "--port", &port]).contains(&port));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let live = UnixListener::bind(&path).unwrap();
    refused(&["-l", path.to_str().unwrap()]);
    drop(live);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    refused(&["-l", path.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_bad_line_of_the_members_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turbo_members.txt");
    for (text, line) in [
        ("# me\n1 127.0.0.1:1593\n2 nonsense\n", "line 3"),
        ("1 none\n1 127.0.0.1:1\n", "line 2"),
        ("1\n", "line 1"),
        ("a b c d\n", "line 1"),
        ("", "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = refused(&["--home", folder.path().to_str().unwrap(), "-l", "127.0.0.1:0"]);
        assert!(said.contains(line) && said.contains("turbo_members.txt"), "{text:?}: {said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "it is not touched");
    }
}

#[test]
fn it_says_in_one_line_whom_it_serves() {
    let daemon = Daemon::start(&["--name", "one"]);
    let expected = format!(
        "turbopumpd one serving http://{} unix:{} peers {}",
        daemon.tcp,
        daemon.unix.display(),
        daemon.peers
    );
    assert_eq!(daemon.line, expected);
}

#[test]
fn options_come_from_the_environment_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let mut command = binary();
    command.env("TURBOPUMP_STORE", "memory").env("TURBOPUMP_NAME", "env").env("TURBOPUMP_PORT", "0");
    command
        .env("TURBOPUMP_LOCAL_ADDR", &path)
        .env("TURBOPUMP_CLONE", "true")
        .env("TURBOPUMP_UDP", "1")
        .env("TURBOPUMP_HOME", folder.path());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("it listens", PATIENCE, || std::os::unix::net::UnixStream::connect(&path).is_ok());
    let status = Client::unix(&path).get("/status").json();
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(
        (&status["node"], &status["store"], &status["mode"]),
        (&"env".into(), &"memory".into(), &"clone".into())
    );
    assert_eq!(status["transport"], "udp");
}

#[test]
fn a_killed_daemon_comes_back_on_its_addresses_with_its_name_and_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Daemon::start_in(folder.path(), &[]);
    let name = first.get("/status").json()["node"].as_str().unwrap().to_owned();
    for i in 0..50 {
        assert_eq!(first.post(&format!("/write?name=k{i}"), format!("v{i}").as_bytes()).status, 200);
    }
    let long: Vec<u8> = (0..3_000_000u32).map(|i| (i % 241) as u8).collect();
    assert_eq!(first.post("/write?name=long", &long).status, 200);
    let tcp = first.tcp.to_string();
    first.signal("-KILL");
    first.wait_end(PATIENCE);
    assert!(first.unix.exists(), "killed: the socket file stays");
    let second = Daemon::start_in(folder.path(), &["-l", &tcp]);
    assert!(second.line.contains(&tcp));
    let status = second.get("/status").json();
    assert_eq!((status["node"].as_str().unwrap(), &status["keys"]), (name.as_str(), &51.into()));
    assert!(second.get("/read?name=long").body == long);
    for i in 0..50 {
        assert_eq!(second.get(&format!("/read?name=k{i}")).text(), format!("v{i}"));
    }
}

#[test]
fn a_stop_ends_within_two_seconds_whatever_hangs() {
    for signal in ["-TERM", "-INT"] {
        let mut daemon = Daemon::start(&[]);
        // A peer that is dead, with a write that waits for it.
        daemon.post("/add-peer?uid=dead&ip=127.0.0.1:9", b"");
        let mut unacked = daemon.connect();
        unacked
            .send("POST /write?name=a&mirrors=2&ack=all HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv");
        // A client that reads nothing of a long answer, one that sends half, and idle ones.
        daemon.post("/write?name=long&mirrors=1", &vec![b'x'; 30_000_000]);
        let mut deaf = daemon.connect();
        deaf.send("GET /read?name=long HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut half = daemon.connect();
        half.send("POST /write?name=b HTTP/1.1\r\nContent-Length: 200000\r\n\r\nhalf");
        let mut waiting = daemon.connect();
        waiting.send("GET /wait?name=never&timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n");
        let idle: Vec<Client> = (0..50).map(|_| daemon.connect()).collect();
        until("they are inside", PATIENCE, || daemon.metric("turbopump_http_connections") >= 54);
        daemon.signal(signal);
        let (status, took) = daemon.wait_end(PATIENCE);
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!daemon.unix.exists());
        drop(idle);
    }
}

#[test]
fn what_runs_when_the_stop_comes_is_answered() {
    let mut daemon = Daemon::start(&[]);
    let mut waiting = daemon.connect();
    waiting.send("GET /wait?name=never&timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it waits", PATIENCE, || {
        daemon.metric("turbopump_operations") >= 1 || daemon.metric("turbopump_http_connections") >= 2
    });
    daemon.signal("-TERM");
    let last = waiting.answer();
    assert_eq!(last.error(), (503, "stopping".into()));
    assert_eq!(last.header("retry-after"), "1");
    assert_eq!(last.header("connection"), "close");
    daemon.wait_end(PATIENCE);
}

#[test]
fn a_quiet_daemon_stops_at_once_and_a_second_signal_does_not_wait() {
    let mut daemon = Daemon::start(&[]);
    assert_eq!(daemon.get("/status").status, 200);
    let begin = Instant::now();
    daemon.signal("-TERM");
    let (status, _) = daemon.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_millis(1_200), "{:?}", begin.elapsed());

    let mut daemon = Daemon::start(&[]);
    let mut waiting = daemon.connect();
    waiting.send("GET /wait?name=never&timeout=600 HTTP/1.1\r\nHost: x\r\n\r\n");
    until("it waits", PATIENCE, || daemon.metric("turbopump_http_connections") >= 2);
    daemon.signal("-TERM");
    until("it has begun to stop", PATIENCE, || {
        std::os::unix::net::UnixStream::connect(&daemon.unix).is_err()
    });
    let _ = std::process::Command::new("kill").args(["-TERM", &daemon.child.id().to_string()]).status();
    let (_, took) = daemon.wait_end(PATIENCE);
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_member_that_was_told_is_known_after_a_crash() {
    // Goal: what is acknowledged is written down. Method: after each answer look at the file that a node
    // starts from, which is all that a killed one leaves.
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_in(folder.path(), &["--store", "memory"]);
    for n in 0..20 {
        let added = daemon.post(&format!("/add-peer?uid=peer-{n}&ip=127.0.0.1:9"), b"");
        assert_eq!(added.status, 200, "{}", added.text());
        let members = std::fs::read_to_string(folder.path().join("turbo_members.txt")).unwrap();
        assert!(members.contains(&format!("peer-{n} ")), "{members}");
    }
}
