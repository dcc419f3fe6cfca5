//! Several daemons that know each other, each with a home of its own, and what can happen to
//! them: kill, pause, restart, empty, restore, grow. On loopback, or in a [`Network`] of their own.
//!
//! Node `i` has the id `i + 1`. A node that was killed stays in `nodes` until it is launched again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{Client, Daemon, binary, network::Network, until};

/// In a release build the figures are held to; elsewhere the machine is busy compiling and
/// checking, and only the behaviour counts.
pub const STRICT: bool = !cfg!(debug_assertions);
pub const SLACK: u32 = if STRICT { 1 } else { 20 };

pub const UDT: &[&str] = &[];
pub const UDP: &[&str] = &["--udp"];
pub const QUIC: &[&str] = &["--transport", "quic"];

/// What one node holds: the names of each key's versions, and of each whether it is a tombstone.
pub type Holdings = BTreeMap<String, BTreeMap<String, bool>>;

/// As many as the full figure says in a release build, fewer elsewhere.
pub const fn scaled(full: usize, debug: usize) -> usize {
    if STRICT { full } else { debug }
}

pub struct Cluster {
    pub nodes: Vec<Daemon>,
    pub folders: Vec<tempfile::TempDir>,
    options: Vec<String>,
    logs: tempfile::TempDir,
    /// Goes last, after the processes in it.
    pub network: Option<Network>,
}

/// A copy of a node's home, identity and members included.
pub struct Backup(tempfile::TempDir);

impl Backup {
    /// Makes another home of it.
    pub fn copy_to(&self, home: &Path) {
        copy(self.0.path(), home);
    }
}

impl Cluster {
    /// On loopback.
    pub fn start(count: usize, options: &[&str]) -> Self {
        Self::start_in(None, count, options)
    }

    /// With node `i` in the namespace `i` of a network, if one is given.
    pub fn start_in(network: Option<Network>, count: usize, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        let logs = tempfile::tempdir().unwrap();
        let mut cluster = Self { nodes: Vec::new(), folders: Vec::new(), options, logs, network };
        for _ in 0..count {
            cluster.add();
        }
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                cluster.tell(a, b);
            }
        }
        cluster.all_up();
        cluster
    }

    /// Starts one more, which knows nobody yet, and says which it is.
    pub fn add(&mut self) -> usize {
        let i = self.nodes.len();
        self.folders.push(tempfile::tempdir().unwrap());
        let node = self.launch(i, 0);
        self.nodes.push(node);
        i
    }

    /// Starts one more, and introduces it to the first; the lists spread from there.
    pub fn grow(&mut self) -> usize {
        let i = self.add();
        self.tell(0, i);
        self.tell(i, 0);
        i
    }

    /// Tells `a` where `b` is.
    pub fn tell(&self, a: usize, b: usize) {
        let mut target = format!("/add-peer?uid={}&ip={}", b + 1, self.nodes[b].peers);
        let status = self.nodes[b].get("/status").json();
        if status["transport"] == "quic" {
            target += &format!("&key={}", status["key"].as_str().unwrap());
        }
        let answer = self.nodes[a].post(&target, b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn launch(&self, i: usize, port: u16) -> Daemon {
        self.launch_with(i, port, &["--name", &(i + 1).to_string()])
    }

    fn launch_with(&self, i: usize, port: u16, more: &[&str]) -> Daemon {
        let port = port.to_string();
        let mut options = vec!["--port", &port];
        options.extend(self.options.iter().map(String::as_str));
        options.extend(more);
        let (mut command, ip) = match &self.network {
            Some(network) => (network.command(i), network.ip(i)),
            None => (binary(), "127.0.0.1".into()),
        };
        options.extend(["--bind", &ip]);
        let log = File::options().create(true).append(true).open(self.logs.path().join(i.to_string()));
        command.stderr(log.unwrap());
        Daemon::spawn(command, self.folders[i].path(), &options)
    }

    /// What a node, in all its lives, said on stderr.
    pub fn log(&self, i: usize) -> String {
        std::fs::read_to_string(self.logs.path().join(i.to_string())).unwrap_or_default()
    }

    pub fn kill(&mut self, i: usize) {
        self.nodes[i].child.kill().unwrap();
        self.nodes[i].child.wait().unwrap();
    }

    /// Freezes the process; the system still takes what is sent to it.
    pub fn pause(&self, i: usize) {
        self.nodes[i].signal("-STOP");
    }

    pub fn resume(&self, i: usize) {
        self.nodes[i].signal("-CONT");
    }

    /// Starts a node again, on the address that it had.
    pub fn relaunch(&mut self, i: usize) {
        let port = self.nodes[i].peers.port();
        self.nodes[i] = self.launch(i, port);
    }

    /// Starts it again on another address.
    pub fn relaunch_elsewhere(&mut self, i: usize) {
        self.nodes[i] = self.launch(i, 0);
    }

    /// Starts it again as whom its home says, on the address that it had, with more options.
    pub fn relaunch_with(&mut self, i: usize, more: &[&str]) {
        let port = self.nodes[i].peers.port();
        self.nodes[i] = self.launch_with(i, port, more);
    }

    /// Deletes what a node that is down has stored; it stays who it was.
    pub fn empty(&self, i: usize) {
        std::fs::remove_dir_all(self.folders[i].path().join("store")).unwrap();
    }

    /// Deletes the whole home of a node that is down, its identity included.
    pub fn lose_home(&self, i: usize) {
        for entry in std::fs::read_dir(self.folders[i].path()).unwrap() {
            let path = entry.unwrap().path();
            let gone =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.unwrap();
        }
    }

    /// Copies the home of a node that is down.
    pub fn back_up(&self, i: usize) -> Backup {
        let backup = Backup(tempfile::tempdir().unwrap());
        copy(self.folders[i].path(), backup.0.path());
        backup
    }

    /// Puts a copy in the place of the home of a node that is down.
    pub fn restore(&self, i: usize, backup: &Backup) {
        self.lose_home(i);
        backup.copy_to(self.folders[i].path());
    }

    /// The state of each member, as one node sees it.
    pub fn states(&self, i: usize) -> BTreeMap<String, String> {
        let members = self.nodes[i].get("/membership").json();
        let members = members["members"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        members.map(|m| (text(&m["id"]), text(&m["state"]))).collect()
    }

    pub fn all_up(&self) {
        until("all nodes see all others up", Duration::from_secs(30), || {
            (0..self.nodes.len()).all(|i| {
                let states = self.states(i);
                states.len() == self.nodes.len() && states.values().all(|s| s == "up")
            })
        });
    }

    pub fn keys(&self, i: usize) -> u64 {
        self.nodes[i].get("/status").json()["keys"].as_u64().unwrap()
    }

    /// A metric, summed over these nodes.
    pub fn sum(&self, nodes: &[usize], metric: &str) -> u64 {
        nodes.iter().map(|i| self.nodes[*i].metric(metric)).sum()
    }

    /// What a node holds, tombstones included, to the end of its pages.
    pub fn holdings(&self, i: usize) -> Holdings {
        let mut client = self.nodes[i].connect_unix();
        let (mut all, mut after) = (Holdings::new(), String::new());
        loop {
            let page = client.get(&format!("/list-keys?deleted=1&limit=1000{after}")).json();
            for key in page["keys"].as_array().unwrap() {
                let versions =
                    key["versions"].as_array().unwrap().iter().map(|v| {
                        (v["version"].as_str().unwrap().to_owned(), v["deleted"].as_bool().unwrap())
                    });
                all.insert(key["name"].as_str().unwrap().to_owned(), versions.collect());
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// Whether these nodes hold the same versions of the same keys. A cheap look goes first.
    pub fn equal_sets(&self, nodes: &[usize]) -> bool {
        let counts = |i: &usize| (self.keys(*i), self.nodes[*i].metric("turbopump_tombstones"));
        let first = counts(&nodes[0]);
        nodes.iter().all(|i| counts(i) == first && self.nodes[*i].metric("turbopump_owed") == 0) && {
            let first = self.holdings(nodes[0]);
            nodes[1..].iter().all(|i| self.holdings(*i) == first)
        }
    }

    /// Waits until they do, and says how long it took.
    pub fn until_equal(&self, nodes: &[usize], within: Duration) -> Duration {
        let begin = Instant::now();
        while !self.equal_sets(nodes) {
            if begin.elapsed() > within {
                panic!("not equal within {within:?}: {}", self.differences(nodes));
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        begin.elapsed()
    }

    /// Some keys that are not the same everywhere.
    fn differences(&self, nodes: &[usize]) -> String {
        let all: Vec<Holdings> = nodes.iter().map(|i| self.holdings(*i)).collect();
        let names: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        let differing = names.into_iter().filter(|n| all.iter().any(|h| h.get(*n) != all[0].get(*n)));
        let shown: Vec<String> = differing
            .map(|n| format!("{n}: {:?}", all.iter().map(|h| h.get(n)).collect::<Vec<_>>()))
            .collect();
        let counts: Vec<usize> = all.iter().map(BTreeMap::len).collect();
        let some = &shown[..shown.len().min(3)];
        format!("{counts:?} keys on nodes {nodes:?}, {} differ, such as {some:#?}", shown.len())
    }

    /// The owners of each of these keys, as one node says.
    pub fn owners(&self, i: usize, names: &[String]) -> BTreeMap<String, BTreeSet<usize>> {
        let mut client = self.nodes[i].connect_unix();
        let ring = names.iter().map(|name| {
            let ring = client.get(&format!("/ring?name={name}")).json();
            let owners = ring["owners"].as_array().unwrap().iter();
            (name.clone(), owners.map(|o| o.as_str().unwrap().parse::<usize>().unwrap() - 1).collect())
        });
        ring.collect()
    }

    /// Which of these keys are not exactly where they belong, or differ between their owners.
    pub fn misplaced(&self, nodes: &[usize], owners: &BTreeMap<String, BTreeSet<usize>>) -> Vec<String> {
        let holdings: BTreeMap<usize, Holdings> = nodes.iter().map(|i| (*i, self.holdings(*i))).collect();
        let is_wrong = |(name, owners): &(&String, &BTreeSet<usize>)| {
            let held = nodes.iter().filter(|i| holdings[i].contains_key(*name)).copied();
            let versions: BTreeSet<_> = holdings.values().filter_map(|h| h.get(*name)).collect();
            held.collect::<BTreeSet<_>>() != **owners || versions.len() != 1
        };
        owners.iter().filter(is_wrong).map(|(name, _)| name.clone()).collect()
    }

    /// Waits until none of these keys is misplaced.
    pub fn until_exact(&self, nodes: &[usize], owners: &BTreeMap<String, BTreeSet<usize>>, within: Duration) {
        let begin = Instant::now();
        loop {
            let misplaced = self.misplaced(nodes, owners);
            if misplaced.is_empty() {
                return;
            }
            let some: Vec<_> = misplaced.iter().take(3).map(|n| (n, &owners[n])).collect();
            let count = misplaced.len();
            assert!(begin.elapsed() < within, "{count} are not exactly on their owners: {some:?}");
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// A test that fails shows the end of what its nodes said.
impl Drop for Cluster {
    fn drop(&mut self) {
        for i in (0..self.nodes.len()).filter(|_| thread::panicking()) {
            let log = self.log(i);
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("-- node {i}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

/// With permissions and extended attributes.
fn copy(from: &Path, to: &Path) {
    // The socket of the process that ended stays where it is.
    let _ = std::fs::remove_file(from.join("sock"));
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success(), "cp -a");
}

/// Has `threads` clients write the keys `key-0` and on, each over one connection.
pub fn write_all(node: &Daemon, threads: usize, count: usize, query: &str, value: fn(usize) -> Vec<u8>) {
    each(node, threads, count, |client, i| {
        let answer = client.post(&format!("/write?name=key-{i}{query}"), &value(i));
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
}

/// Has `threads` clients do what is to be done for each number, each over one connection.
pub fn each(node: &Daemon, threads: usize, count: usize, todo: impl Fn(&mut Client, usize) + Sync) {
    thread::scope(|scope| {
        for t in 0..threads {
            let (mut client, todo) = (node.connect_unix(), &todo);
            scope.spawn(move || (t..count).step_by(threads).for_each(|i| todo(&mut client, i)));
        }
    });
}

/// Reads every name from one node, which asks nobody else.
pub fn read_all(node: &Daemon, count: usize, value: fn(usize) -> Vec<u8>) {
    let mut client = node.connect_unix();
    for i in 0..count {
        let answer = client.get(&format!("/read?name=key-{i}&local=1"));
        assert_eq!(answer.status, 200, "key-{i}");
        assert!(answer.body == value(i), "key-{i} has the wrong bytes");
    }
}

pub fn small(i: usize) -> Vec<u8> {
    let mut value = format!("value of key {i} ").into_bytes();
    value.resize(100, b'.');
    value
}

pub fn medium(i: usize) -> Vec<u8> {
    (0..65_536usize).map(|n| (n * 31 + i * 7) as u8).collect()
}
