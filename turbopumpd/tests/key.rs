//! The node's key pair: made once, kept to itself, and shown by its public half.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use support::{Daemon, binary};

fn key_file(home: &Path) -> PathBuf {
    home.join("turbopump.key")
}

fn identify(home: &Path, more: &[&str]) -> Output {
    binary().arg("id").arg("--home").arg(home).args(more).output().unwrap()
}

/// The two words that `turbopumpd id` prints.
fn id_and_key(home: &Path, more: &[&str]) -> (String, String) {
    let output = identify(home, more);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (id, key) = text.trim_end().split_once(' ').expect(&text);
    (id.into(), key.into())
}

fn refusal(home: &Path) -> String {
    let output =
        binary().arg("--home").arg(home).args(["--udp", "--port", "0", "-l", ":0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_node_without_a_name_goes_by_the_short_form_of_its_key() {
    let home = tempfile::tempdir().unwrap();
    let (id, key) = id_and_key(home.path(), &[]);
    assert_eq!((key.len(), id.as_str()), (64, &key[..16]));
    assert_eq!(id_and_key(home.path(), &[]), (id.clone(), key.clone()), "it is made once");
    let mode = fs::metadata(key_file(home.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let node = Daemon::start_in(home.path(), &[]);
    let status = node.get("/status").json();
    assert_eq!((&status["node"], &status["key"]), (&id.clone().into(), &key.clone().into()));
    let members = node.get("/membership").json();
    assert_eq!(members["members"][0]["key"], key.as_str());
    assert_eq!(id_and_key(home.path(), &[]), (id, key.clone()), "a running node can be asked about");
    drop(node);
    let secret = fs::read_to_string(key_file(home.path())).unwrap();
    assert_ne!(secret.trim_end(), key);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".part")), "{left:?}");
}

#[test]
fn a_home_of_before_keeps_its_id_and_gets_a_key() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("turbo_members.txt"), "veteran 127.0.0.1:1593\n2 none\n").unwrap();
    let (id, key) = id_and_key(home.path(), &[]);
    assert_eq!(id, "veteran");
    let node = Daemon::start_in(home.path(), &[]);
    assert_eq!(node.get("/status").json()["node"], "veteran");
    support::until("the members file names the key", support::PATIENCE, || {
        let text = fs::read_to_string(home.path().join("turbo_members.txt")).unwrap();
        text.lines().any(|line| line.starts_with("veteran ") && line.ends_with(&key))
    });
}

#[test]
fn a_name_that_is_given_is_the_id() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(id_and_key(home.path(), &["--name", "n1"]).0, "n1");
}

#[test]
fn a_key_that_others_may_read_keeps_the_node_from_starting() {
    let home = tempfile::tempdir().unwrap();
    id_and_key(home.path(), &[]);
    fs::set_permissions(key_file(home.path()), fs::Permissions::from_mode(0o640)).unwrap();
    let text = refusal(home.path());
    assert!(text.contains("turbopump.key") && text.contains("600"), "{text}");
    assert!(!identify(home.path(), &[]).status.success());
    fs::set_permissions(key_file(home.path()), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(key_file(home.path()), "not a key\n").unwrap();
    assert!(refusal(home.path()).contains("64 hexadecimal digits"));
}

#[test]
fn a_key_that_is_not_the_one_of_the_members_file_keeps_the_node_from_starting() {
    // Goal: a lost key is not replaced silently, which would put the node in doubt everywhere.
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_in(home.path(), &["--name", "n1"]);
    // Its members file is written once this is answered; then it is killed.
    assert_eq!(daemon.post("/add-peer?uid=n2&ip=127.0.0.1:9", b"").status, 200);
    drop(daemon);
    fs::remove_file(key_file(home.path())).unwrap();
    let text = refusal(home.path());
    assert!(text.contains("n1") && text.contains("secret key"), "{text}");
}

#[test]
fn a_member_is_added_with_its_key_and_keeps_it() {
    let node = Daemon::start(&[]);
    let (key, other) = ("ab".repeat(32), "cd".repeat(32));
    let add = |uid: &str, key: &str| node.post(&format!("/add-peer?uid={uid}&ip=127.0.0.1:9&key={key}"), b"");
    let answer = add("2", &key);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let keys = |answer: support::Answer| {
        let members = answer.json()["members"].clone();
        let member = members.as_array().unwrap().iter().find(|m| m["id"] == "2").cloned();
        member.map(|m| m["key"].clone())
    };
    assert_eq!(keys(answer), Some(key.as_str().into()));
    let answer = add("2", &other);
    assert_eq!((answer.status, &answer.json()["error"]), (400, &"another_key".into()));
    assert_eq!(node.post("/add-peer?uid=2&ip=127.0.0.1:10", b"").status, 200, "another address, no key");
    assert_eq!(keys(node.get("/membership")), Some(key.as_str().into()));
    assert_eq!(add("2", "xyz").status, 400);
    assert_eq!(node.post("/remove-peer?uid=2", b"").status, 200);
    assert_eq!(keys(add("2", &other)), Some(other.as_str().into()), "added again, with another key");
}
