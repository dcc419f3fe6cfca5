//! Who may talk to the daemon: a token, where one is asked for; the mode of the unix socket; and no
//! stranger from another machine by accident.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use support::{Answer, Client, Daemon, binary};

const TOKEN: &str = "a-token-of-enough-bytes";

fn token_file(folder: &Path) -> PathBuf {
    let path = folder.join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    path
}

fn ask(client: &mut Client, header: &str) -> Answer {
    client.ask(&format!("GET /status HTTP/1.1\r\nHost: x\r\n{header}\r\n"))
}

#[test]
fn a_daemon_with_a_token_answers_nobody_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&["--token-file", token_file(folder.path()).to_str().unwrap()]);
    for connect in [Daemon::connect, Daemon::connect_unix] {
        for wrong in [
            String::new(),
            "Authorization: Bearer wrong-token-of-23-bytes\r\n".into(),
            format!("Authorization: Bearer {TOKEN}x\r\n"),
            format!("Authorization: Basic {TOKEN}\r\n"),
            format!("X-Authorization: Bearer {TOKEN}\r\n"),
        ] {
            let answer = ask(&mut connect(&daemon), &wrong);
            assert_eq!((answer.status, &answer.json()["error"]), (401, &"unauthorized".into()), "{wrong}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let mut client = connect(&daemon);
        for header in
            [format!("Authorization: Bearer {TOKEN}\r\n"), format!("authorization: bearer {TOKEN}\r\n")]
        {
            assert_eq!(ask(&mut client, &header).status, 200);
        }
        let twice = format!("Authorization: Bearer {TOKEN}\r\n").repeat(2);
        assert_eq!(ask(&mut client, &twice).status, 400);
    }
}

#[test]
fn a_body_is_not_taken_without_the_token() {
    // Goal: strangers fill no memory. Method: the answer comes though the body never does.
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&["--token-file", token_file(folder.path()).to_str().unwrap()]);
    let mut client = daemon.connect();
    let answer = client.ask("POST /write?name=k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(answer.status, 401);
    let mut client = daemon.connect();
    let header = format!("Authorization: Bearer {TOKEN}");
    let request = format!("POST /write?name=k HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 1\r\n\r\nv");
    assert_eq!(client.ask(&request).status, 200);
}

fn refusal(options: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output =
        binary().args(["--udp", "--port", "0", "--home"]).arg(home.path()).args(options).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn other_machines_are_served_only_with_a_token_or_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let text = refusal(&["-l", "0.0.0.0:0"]);
    assert!(text.contains("--token-file") && text.contains("--allow-remote-without-token"), "{text}");
    let file = token_file(folder.path());
    for more in [&["--token-file", file.to_str().unwrap()][..], &["--allow-remote-without-token"]] {
        let daemon = Daemon::start(&[&["-l", "0.0.0.0:0"], more].concat());
        assert!(daemon.line.contains("http://0.0.0.0:"), "{}", daemon.line);
    }
}

#[test]
fn a_token_that_is_none_keeps_the_daemon_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    fs::write(&short, "short\n").unwrap();
    for path in [short.to_str().unwrap(), "/nonexistent/token"] {
        let text = refusal(&["-l", ":0", "--token-file", path]);
        assert!(text.contains(path), "{text}");
    }
}

#[test]
fn the_unix_socket_is_the_owners_alone_unless_told_otherwise() {
    let mode = |daemon: &Daemon| fs::metadata(&daemon.unix).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&Daemon::start(&[])), 0o600);
    assert_eq!(mode(&Daemon::start(&["--socket-mode", "660"])), 0o660);
}
