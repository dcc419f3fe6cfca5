//! Signed membership, through real daemons and the command line: who is a member is what the admin signed,
//! or members where no admin is named, across kills, restarts and old copies.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use support::{Daemon, binary, until};
use turbopump::{Identity, PublicKey};

const WITHIN: Duration = Duration::from_secs(30);
#[cfg(feature = "quic")]
const TRANSPORT: [&str; 2] = ["--transport", "quic"];
#[cfg(not(feature = "quic"))]
const TRANSPORT: [&str; 2] = ["--transport", "udp"];

/// Three folders for nodes, and a file with the admin's secret.
struct Lab {
    folder: tempfile::TempDir,
    admin: PublicKey,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, digit) in [("admin", "5"), ("stranger", "6")] {
            fs::write(folder.path().join(name), format!("{}\n", digit.repeat(64))).unwrap();
        }
        Self { folder, admin: Identity::from_seed([0x55; 32]).public_key() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, name: &str) -> Daemon {
        self.start_with(name, &["--admin-key", &self.admin.to_string()], &TRANSPORT)
    }

    fn start_with(&self, name: &str, who_signs: &[&str], transport: &[&str]) -> Daemon {
        let home = self.path(name);
        fs::create_dir_all(&home).unwrap();
        let options = ["--name", name, "--port", "0", "--durability", "buffered"];
        Daemon::spawn(binary(), &home, &[&options[..], who_signs, transport].concat())
    }

    /// `turbopumpd member`, at this node.
    fn member(&self, at: &Daemon, words: &[&str]) -> Output {
        let mut command = binary();
        command.args(["member", "--node", at.unix.to_str().unwrap()]).args(words);
        command.output().unwrap()
    }

    fn done(&self, at: &Daemon, words: &[&str]) -> String {
        let output = self.member(at, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, at: &Daemon, words: &[&str], why: &str) {
        let output = self.member(at, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(why), "{words:?}: {text}");
    }

    fn add(&self, at: &Daemon, name: &str, node: &Daemon) {
        let (addr, key, admin) = (node.peers.to_string(), node.key(), self.path("admin"));
        self.done(at, &["add", name, &addr, &key, "-k", admin.to_str().unwrap()]);
    }
}

fn standing(node: &Daemon) -> String {
    node.get("/status").json()["state"].as_str().unwrap().to_owned()
}

/// Each of these nodes sees just these members, all up and signed for.
fn all_up(nodes: &[&Daemon], names: &[&str]) {
    let is_seen = |node: &&Daemon| {
        let list = node.get("/membership").json();
        let members = list["members"].as_array().unwrap();
        let is_up = |m: &serde_json::Value| m["state"] == "up" && m["signer"].is_string();
        members.iter().all(is_up)
            && members.iter().map(|m| m["id"].as_str().unwrap()).eq(names.iter().copied())
    };
    until("all see all", WITHIN, || nodes.iter().all(is_seen));
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn members_are_who_the_admin_says_they_are() {
    // Goal: only the admin adds and removes, and whoever was removed stays out. Method: three daemons; a
    // member without the admin's key tries, and so does the removed one, with an old copy of its home.
    let lab = Lab::new();
    let (a, b, c) = (lab.start("a"), lab.start("b"), lab.start("c"));
    let unsigned = a.post(&format!("/add-peer?uid=b&ip={}&key={}", b.peers, b.key()), b"");
    assert_eq!(unsigned.error(), (403, "not_signed".into()));
    lab.refused(&a, &["add", "b", &b.peers.to_string(), &b.key()], "403");
    let stranger = lab.path("stranger");
    let by_stranger = ["-k", stranger.to_str().unwrap()];
    lab.refused(&a, &[&["add", "b", &b.peers.to_string(), &b.key()], &by_stranger[..]].concat(), "no admin");
    assert_eq!(a.get("/membership").json()["members"].as_array().unwrap().len(), 1);
    for (name, node) in [("a", &a), ("b", &b), ("c", &c)] {
        lab.add(&a, name, node);
    }
    lab.add(&b, "a", &a);
    lab.add(&c, "a", &a);
    all_up(&[&a, &b, &c], &["a", "b", "c"]);
    assert_eq!(a.post("/write?name=k&ack=all", b"v").status, 200);
    let list = lab.done(&b, &["list"]);
    assert!(list.lines().count() == 3 && list.lines().all(|line| line.ends_with("up signed")), "{list}");

    let old = lab.path("old");
    copy(&c.folder, &old);
    let c_key = c.key();
    assert_eq!(b.post("/remove-peer?uid=c", b"").error(), (403, "not_signed".into()));
    lab.refused(&b, &["remove", "c"], "403");
    lab.refused(&b, &[&["remove", "c"], &by_stranger[..]].concat(), "no admin");
    all_up(&[&a, &b, &c], &["a", "b", "c"]);
    let admin = lab.path("admin");
    let by_admin = ["-k", admin.to_str().unwrap()];
    lab.done(&b, &[&["remove", "c"], &by_admin[..]].concat());
    all_up(&[&a, &b], &["a", "b"]);
    until("the removed one is told", WITHIN, || standing(&c) == "removed");
    assert_eq!(c.post("/write?name=x", b"v").status, 503, "it is no member");

    // It comes back as it was before its removal; under the same id, and under another one.
    drop(c);
    fs::remove_dir_all(lab.path("c")).unwrap();
    copy(&old, &lab.path("c"));
    let c = lab.start("c");
    until("it is told again", WITHIN, || standing(&c) == "removed");
    let addr = c.peers.to_string();
    for name in ["c", "d"] {
        lab.refused(
            &a,
            &[&["add", name, &addr, &c_key, "--generation", "9"], &by_admin[..]].concat(),
            "for good",
        );
    }
    let (a, b) = {
        drop((a, b));
        (lab.start("a"), lab.start("b"))
    };
    lab.add(&a, "b", &b);
    lab.add(&b, "a", &a);
    all_up(&[&a, &b], &["a", "b"]);
    assert_eq!(standing(&c), "removed");
}

#[test]
fn a_cluster_is_born_from_printed_lines_and_not_from_forged_ones() {
    let lab = Lab::new();
    let id_of = |name: &str| {
        let mut command = binary();
        let output = command.args(["id", "--name", name, "--home"]).arg(lab.path(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let a = lab.start("a");
    let b_key = id_of("b").split_whitespace().find(|word| word.len() == 64).unwrap().to_owned();
    let admin = lab.path("admin");
    let by_admin = ["-k", admin.to_str().unwrap(), "--print"];
    let print = |name: &str, addr: &str, key: &str| {
        lab.done(&a, &[&["add", name, addr, key], &by_admin[..]].concat())
    };
    let a_line = print("a", &a.peers.to_string(), &a.key());
    let lines = print("b", "127.0.0.1:1", &b_key) + &a_line;
    assert_eq!(a.get("/membership").json()["members"].as_array().unwrap().len(), 1, "nothing was changed");
    let file = lab.path("b").join("turbo_members.txt");
    // With another key of `a` than the admin signed; with another signature; with none.
    let signed = a_line.split(" by=").next().unwrap();
    let forged =
        [lines.replace(&a.key(), &b_key), lines.replace(&a_line, &a_line.replacen(":", ":0", 2)[..]), {
            lines.replace(&a_line, signed)
        }];
    for text in forged {
        fs::write(&file, &text).unwrap();
        let mut command = binary();
        command.args(["--admin-key", &lab.admin.to_string(), "-l", ":0", "--port", "0", "--home"]);
        let output = command.arg(lab.path("b")).args(TRANSPORT).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{text}: {output:?}");
    }
    fs::write(&file, &lines).unwrap();
    let b = lab.start("b");
    lab.add(&a, "a", &a);
    lab.add(&a, "b", &b);
    all_up(&[&a, &b], &["a", "b"]);
}

/// Members that sign, as quic has them without being told and the others on demand.
fn members_are_who_members_say_they_are(who_signs: &[&str], transport: &[&str]) {
    // Goal: a member adds and removes others by its signature, and whoever was removed stays out. Method: three
    // daemons, of which one is removed and comes back with an old copy of its home, under two names.
    let lab = Lab::new();
    let start = |name: &str| lab.start_with(name, who_signs, transport);
    let (a, b, c) = (start("a"), start("b"), start("c"));
    let add = |at: &Daemon, name: &str, node: &Daemon| {
        lab.done(at, &["add", name, &node.peers.to_string(), &node.key()]);
    };
    let keyless = a.post(&format!("/add-peer?uid=b&ip={}", b.peers), b"");
    assert_eq!(keyless.error(), (403, "not_signed".into()));
    let stranger = lab.path("stranger");
    let by_stranger = ["-k", stranger.to_str().unwrap()];
    lab.refused(&a, &[&["add", "b", &b.peers.to_string(), &b.key()], &by_stranger[..]].concat(), "signed it");
    for (at, name, node) in [(&a, "b", &b), (&b, "a", &a), (&b, "c", &c), (&c, "b", &b)] {
        add(at, name, node);
    }
    all_up(&[&a, &b, &c], &["a", "b", "c"]);
    assert_eq!(a.post("/write?name=k&ack=all", b"v").status, 200);

    let old = lab.path("old");
    copy(&c.folder, &old);
    let c_key = c.key();
    lab.done(&a, &["remove", "c"]);
    all_up(&[&a, &b], &["a", "b"]);
    until("the removed one is told", WITHIN, || standing(&c) == "removed");
    assert_eq!(c.post("/write?name=x", b"v").status, 503, "it is no member");
    lab.refused(&c, &["add", "d", "127.0.0.1:1", &lab.admin.to_string()], "signed it");

    drop(c);
    fs::remove_dir_all(lab.path("c")).unwrap();
    copy(&old, &lab.path("c"));
    let c = start("c");
    until("it is told again", WITHIN, || standing(&c) == "removed");
    let addr = c.peers.to_string();
    for name in ["c", "d"] {
        lab.refused(&b, &["add", name, &addr, &c_key], "for good");
    }
    drop((a, b));
    let (a, b) = (start("a"), start("b"));
    add(&a, "b", &b);
    all_up(&[&a, &b], &["a", "b"]);
    lab.refused(&a, &["add", "d", &addr, &c_key], "for good");
    assert_eq!(standing(&c), "removed");
}

#[cfg(feature = "quic")]
#[test]
fn members_are_who_members_say_they_are_over_quic() {
    members_are_who_members_say_they_are(&[], &["--transport", "quic"]);
}

#[test]
fn members_are_who_members_say_they_are_over_udp() {
    members_are_who_members_say_they_are(&["--signed-members"], &["--transport", "udp"]);
}

#[test]
fn signed_members_have_keys_from_the_start() {
    let lab = Lab::new();
    let refused = |options: &[&str], why: &str| {
        let mut command = binary();
        command.args(options).args(["-l", ":0", "--port", "0", "--home"]).arg(lab.path("a"));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(why), "{options:?}: {text}");
    };
    fs::create_dir_all(lab.path("a")).unwrap();
    fs::write(lab.path("a").join("turbo_members.txt"), "a none\nb 127.0.0.1:1\n").unwrap();
    refused(&["--signed-members", "--transport", "udp"], "member b");
    #[cfg(feature = "quic")]
    refused(&["--transport", "quic", "--signed-members", "--trust-on-first-use"], "exclude each other");
}
