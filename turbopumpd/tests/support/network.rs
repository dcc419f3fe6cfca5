//! A network of its own: one namespace per node, each joined to a bridge in one more namespace, so
//! that nothing of it shows on the machine. Links are cut and made lossy by nftables rules.
//!
//! ```text
//! tpPID-N-0 (eth0 10.77.0.1) --+
//! tpPID-N-1 (eth0 10.77.0.2) --+-- bridge in tpPID-N-b
//! ```
//!
//! It needs root, `ip` and `nft`. Dropping it removes it; what a killed process left behind is
//! removed by the next one.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

const PREFIX: &str = "tp";

pub struct Network {
    bridge: String,
    nodes: Vec<String>,
    /// (from, to): nothing gets through.
    cuts: BTreeSet<(usize, usize)>,
    loss_percent: u32,
}

impl Network {
    /// Of so many nodes; where the machine does not permit it, says so loudly and gives none.
    pub fn try_new(count: usize) -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        remove_leftovers();
        let name = format!("{PREFIX}{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let nodes: Vec<String> = (0..count).map(|i| format!("{name}-{i}")).collect();
        // From here on it is removed whatever happens.
        let network = Self { bridge: format!("{name}-b"), nodes, cuts: BTreeSet::new(), loss_percent: 0 };
        match network.build() {
            Ok(()) => Some(network),
            Err(reason) => {
                eprintln!("SKIPPED: no network namespaces on this machine: {reason}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let bridge = &self.bridge;
        ip(&format!("netns add {bridge}"))?;
        ip(&format!("-n {bridge} link add br0 type bridge"))?;
        ip(&format!("-n {bridge} link set br0 up"))?;
        for (i, node) in self.nodes.iter().enumerate() {
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {bridge} link add v{i} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {bridge} link set v{i} master br0 up"))?;
            ip(&format!("-n {node} addr add {}/24 dev eth0", self.ip(i)))?;
            ip(&format!("-n {node} link set eth0 up"))?;
            ip(&format!("-n {node} link set lo up"))?;
            self.filter(i)?;
        }
        Ok(())
    }

    /// The daemon's binary, to be run by a node.
    pub fn command(&self, i: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.nodes[i], env!("CARGO_BIN_EXE_turbopumpd")]);
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("TURBOPUMP_")) {
            command.env_remove(name);
        }
        command
    }

    /// The address of a node.
    pub fn ip(&self, i: usize) -> String {
        format!("10.77.0.{}", i + 1)
    }

    /// Lets nothing through from one node to the other; the way back stays open.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
        self.filter(to).unwrap();
    }

    /// Lets nothing through between the nodes of the two sides.
    pub fn cut(&mut self, one: &[usize], other: &[usize]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cuts.extend([(a, b), (b, a)]);
        }
        self.filter_all();
    }

    /// Drops so many of a hundred packets at random, on each way between any two nodes.
    pub fn lose(&mut self, percent: u32) {
        self.loss_percent = percent;
        self.filter_all();
    }

    /// Everything gets through again.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.lose(0);
    }

    /// Bytes that came to and left a node over the network so far, headers included.
    pub fn bytes(&self, i: usize) -> u64 {
        let text = run(Command::new("ip").args(["netns", "exec", &self.nodes[i], "cat", "/proc/net/dev"]));
        let text = text.unwrap();
        let line = text.lines().find_map(|l| l.trim().strip_prefix("eth0:")).unwrap();
        let fields: Vec<u64> = line.split_whitespace().map(|f| f.parse().unwrap()).collect();
        fields[0] + fields[8]
    }

    fn filter_all(&self) {
        (0..self.nodes.len()).for_each(|i| self.filter(i).unwrap());
    }

    /// Makes the rules of a node what they should be, in one step. They look at what comes in.
    fn filter(&self, to: usize) -> Result<(), String> {
        let cuts = self.cuts.iter().filter(|(_, t)| *t == to);
        let mut rules: Vec<String> =
            cuts.map(|(from, _)| format!("ip saddr {} drop", self.ip(*from))).collect();
        if self.loss_percent > 0 {
            rules.push(format!("ip saddr 10.77.0.0/24 numgen random mod 100 < {} drop", self.loss_percent));
        }
        let text = format!(
            "flush ruleset\ntable inet links {{\nchain input {{\ntype filter hook input priority 0; policy accept;\n{}\n}}\n}}\n",
            rules.join("\n")
        );
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &self.nodes[to], "nft", "-f", "-"]);
        feed(&mut nft, &text).map(|_| ())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.nodes.iter().chain([&self.bridge]) {
            // It may not have come to be.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Namespaces of test processes that are gone.
fn remove_leftovers() {
    let Ok(names) = ip("netns list") else { return };
    for name in names.lines().filter_map(|l| l.split_whitespace().next()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<String, String> {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

fn run(command: &mut Command) -> Result<String, String> {
    feed(command, "")
}

/// Runs a command with this input; its output, or what it complained of.
fn feed(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    // A command that reads nothing closes its end; its outcome says what matters.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
