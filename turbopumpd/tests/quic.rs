//! Daemons over QUIC: who gets in, what is said of those who do not, and secrets.
#![cfg(feature = "quic")]

mod support;

use std::{fs, path::PathBuf, time::Duration};

use support::{
    Daemon, binary,
    cluster::{Cluster, QUIC},
    until,
};

const WITHIN: Duration = Duration::from_secs(30);

fn metric(node: &Daemon, name: &str) -> u64 {
    let text = node.get("/metrics").text();
    let name = format!("turbopump_{name}_total ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).expect(&text);
    line.parse().unwrap()
}

fn add(to: &Daemon, id: &str, node: &Daemon, key: Option<&str>) {
    let key = key.map(|key| format!("&key={key}")).unwrap_or_default();
    let answer = to.post(&format!("/add-peer?uid={id}&ip={}{key}", node.peers), b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn state(node: &Daemon, of: &str) -> String {
    let members = node.get("/membership").json();
    let member = members["members"].as_array().unwrap().iter().find(|m| m["id"] == of).cloned();
    member.map_or("none".into(), |m| m["state"].as_str().unwrap().to_owned())
}

/// A daemon in a folder, with what it says on stderr.
struct Told {
    node: Daemon,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Told {
    fn start(name: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = binary();
        command.stderr(fs::File::create(&log).unwrap());
        let common = ["--name", name, "--port", "0", "--store", "memory", "--transport", "quic"];
        let node = Daemon::spawn(command, folder.path(), &[&common, options].concat());
        Self { node, log, _folder: folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

#[test]
fn a_node_with_another_key_than_the_members_is_refused_counted_and_told() {
    // Goal: neither a name nor an address lets anybody in. Method: an imposter by the name of a member.
    let [a, b, imposter] = ["a", "b", "b"].map(|name| Told::start(name, &[]));
    add(&a.node, "b", &b.node, Some(&b.node.key()));
    add(&b.node, "a", &a.node, Some(&a.node.key()));
    add(&imposter.node, "a", &a.node, Some(&a.node.key()));
    until("the members are up", WITHIN, || state(&a.node, "b") == "up" && state(&b.node, "a") == "up");
    until("the imposter is refused and counted", WITHIN, || metric(&a.node, "handshakes_refused") > 1);
    until("it is told why", WITHIN, || imposter.log().contains("it does not know this node's key"));
    let line = format!("its key {} is no member's", imposter.node.key());
    assert_eq!(a.log().matches(&line).count(), 1, "one line a minute: {}", a.log());
    assert_eq!(state(&imposter.node, "a"), "down");
    let answer = a.node.post("/write?name=k&ack=all", b"v");
    assert_eq!((answer.status, answer.json()["acked"].as_u64()), (200, Some(2)));
    assert_eq!(imposter.node.get("/status").json()["keys"], 0);
}

#[test]
fn a_member_whose_key_nobody_named_is_refused_unless_it_is_to_be_trusted() {
    let start = |options: &[&str]| {
        let (a, b) = (Told::start("a", options), Told::start("b", options));
        add(&a.node, "b", &b.node, None);
        add(&b.node, "a", &a.node, None);
        (a, b)
    };
    let (a, _b) = start(&["--signed-members=no"]);
    until("nobody gets in without a key", WITHIN, || metric(&a.node, "handshakes_refused") > 0);
    assert_eq!(state(&a.node, "b"), "down");
    let (a, b) = start(&["--trust-on-first-use"]);
    until("in a lab they do", WITHIN, || state(&a.node, "b") == "up" && state(&b.node, "a") == "up");
    assert!(a.log().contains("--trust-on-first-use: whoever reaches"), "{}", a.log());
    assert!(a.log().contains(&format!("node b is taken at its word that its key is {}", b.node.key())));
}

#[test]
fn who_does_not_know_the_secret_of_the_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, same, bad) = (
        secret("good", "sixteen bytes and more"),
        secret("same", "sixteen bytes and more\n"),
        secret("bad", "seventeen bytes and more"),
    );
    let [a, b, c] = [("a", &good), ("b", &same), ("c", &bad)]
        .map(|(name, path)| Told::start(name, &["--cluster-secret-file", path]));
    for (one, id, other) in [(&a, "b", &b), (&b, "a", &a), (&a, "c", &c), (&c, "a", &a)] {
        add(&one.node, id, &other.node, Some(&other.node.key()));
    }
    until("those who know it are up", WITHIN, || state(&a.node, "b") == "up" && state(&b.node, "a") == "up");
    until("who does not is refused", WITHIN, || {
        metric(&a.node, "handshakes_refused") + metric(&c.node, "handshakes_refused") > 0
    });
    until("it is told", WITHIN, || a.log().contains("secret") && c.log().contains("secret"));
    assert_eq!((state(&a.node, "c"), state(&c.node, "a")), ("down".into(), "down".into()));
    for path in [secret("short", "fifteen bytes.."), "/nonexistent/secret".into()] {
        let output = binary()
            .args([
                "--transport",
                "quic",
                "--port",
                "0",
                "-l",
                ":0",
                "--cluster-secret-file",
                &path,
                "--home",
            ])
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&path), "{output:?}");
    }
}

#[test]
fn a_removed_node_is_told_why_nobody_talks_to_it() {
    let mut cluster = Cluster::start(3, &[QUIC, &["--store", "memory"]].concat());
    cluster.kill(2);
    for i in 0..2 {
        cluster.nodes[i].post("/remove-peer?uid=3", b"");
    }
    cluster.relaunch(2);
    until("it hears that it was removed", WITHIN, || {
        cluster.log(2).contains("this node was removed from the cluster")
    });
    assert!((0..2).all(|i| cluster.states(i).len() == 2), "it is no member");
}

#[test]
fn what_is_quics_needs_quic() {
    for option in [&["--trust-on-first-use"][..], &["--cluster-secret-file", "x"]] {
        let home = tempfile::tempdir().unwrap();
        let common = ["--udp", "--port", "0", "-l", ":0", "--home", home.path().to_str().unwrap()];
        let output = binary().args(common).args(option).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--transport quic"), "{output:?}");
    }
}
