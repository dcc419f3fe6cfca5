//! The README's commands do what it says.
//!
//! Each block of shell that stands behind a comment (`<!-- three nodes -->`) is run with bash, with the
//! ports and folders of this test in place of its own. What stands behind `#->` in a line has to come
//! out, in that order. Without curl there is nothing to run, and the tests say so.

mod support;

use std::{
    net::{TcpListener, UdpSocket},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use support::until;

const README: &str = include_str!("../../README.md");

/// No block takes nearly as long.
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_node_answers_the_calls_of_the_readme() {
    let script = script("one node");
    assert!(README.contains("```sh\ncargo run --release -p turbopumpd\n```"), "the node's own command");
    let start = "target/release/turbopumpd -l :1592 --port 1593 & node=$!\n\
                 curl -s --retry 9 --retry-connrefused localhost:1592/status\n";
    run(&format!("{start}{script}\nkill $node\n"), &expected(&script));
}

#[test]
fn three_nodes_heal_as_the_readme_shows() {
    let script = script("three nodes");
    run(&script, &expected(&script));
}

#[cfg(feature = "quic")]
#[test]
fn two_nodes_keep_to_themselves_as_the_readme_shows() {
    let script = script("two nodes over quic");
    run(&script, &expected(&script));
}

#[test]
fn a_prefix_takes_its_authors_writes_only_as_the_readme_shows() {
    let script = script("a signed write");
    run(&script, &expected(&script));
}

#[test]
fn members_are_added_by_an_admin_as_the_readme_shows() {
    let script = script("an admin");
    run(&script, &expected(&script));
}

#[test]
fn the_options_that_the_readme_names_exist() {
    let help = |words: &[&str]| {
        let output = support::binary().args(words).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let help = help(&[]) + &help(&["member"]);
    let words = README.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let of_others = ["--workspace", "--all-features", "--release", "--example", "--open", "--retry"];
    let of_others = [&of_others[..], &["--retry-connrefused", "--help"]].concat();
    let is_option = |word: &&str| word.strip_prefix("--").is_some_and(|w| w.starts_with(char::is_alphabetic));
    for option in words.filter(is_option).filter(|word| !of_others.contains(word)) {
        assert!(help.contains(option), "{option} is no option");
    }
}

/// The blocks behind the comment `name`, one after the other.
fn script(name: &str) -> String {
    let mark = format!("<!-- {name} -->\n```sh\n");
    let blocks = README.split(&mark).skip(1);
    let script: String = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!script.is_empty(), "there are blocks behind {name:?}");
    script
}

/// What has to come out.
fn expected(script: &str) -> Vec<String> {
    let promised = script.lines().filter_map(|line| line.split_once("#->"));
    promised.map(|(_, text)| text.trim().to_owned()).collect()
}

fn run(script: &str, expected: &[String]) {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("curl is not installed: the commands of the README were not run");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // By way of marks: a free port may look like another of the README's.
    let ports = ["1592", "2592", "3592", "1593", "2593", "3593"];
    let mut script = script.to_owned();
    for port in ports {
        script = script.replace(port, &format!("@{port}@"));
    }
    script = script.replace("target/release/turbopumpd", env!("CARGO_BIN_EXE_turbopumpd"));
    script = script.replace("/tmp/turbopump", folder.path().to_str().unwrap());
    for port in ports {
        script = script.replace(&format!("@{port}@"), &free_port());
    }
    // Whatever happens, no node outlives the test.
    let script = format!("set -eu\ntrap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n{script}\nwait\n");
    println!("{script}");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(folder.path()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("TURBOPUMP_")) {
        command.env_remove(name);
    }
    let out = std::fs::File::create(folder.path().join("out")).unwrap();
    let mut child = command.stdout(out).spawn().unwrap();
    let (begin, mut status) = (Instant::now(), None);
    until("the script ends", WITHIN, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let output = std::fs::read_to_string(folder.path().join("out")).unwrap();
    println!("{output}\nafter {:?}", begin.elapsed());
    let mut rest = output.as_str();
    for text in expected {
        let at = rest.find(text).unwrap_or_else(|| panic!("{text:?} comes in\n{rest}"));
        rest = &rest[at + text.len()..];
    }
    assert!(status.unwrap().success(), "{status:?}");
}

/// A port that was free just now, for clients and for peers.
fn free_port() -> String {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port.to_string();
        }
    }
}
