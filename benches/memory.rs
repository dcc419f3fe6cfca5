//! What keys cost in memory: `cargo bench --bench memory`.
//!
//! A million keys with names of 32 B and one version each are loaded into a core, as from a store when a
//! node starts. What the process has resident more than before is divided by the keys; the names
//! themselves are taken off. Each round is a process of its own, so that nothing is left from the one before.

mod common;

use std::{process::Command, sync::Arc, time::Instant};

use common::{Bar, Table};
use turbopump::{
    Config, PartitionCount,
    core::{Core, Now, Setup},
    model::{Actor, Context, Digest, Dot, Key, Kind, Member, Mirrors, Seeded, Version},
    partition::Ring,
};

const KEYS: u64 = 1_000_000;
const NAME_BYTES: f64 = 32.0;
const ROUNDS: usize = 3;
/// The argument that makes a process a round.
const ROUND: &str = "--round";
const PAGE_BYTES: f64 = 4_096.0;

fn main() {
    if std::env::args().any(|a| a == ROUND) {
        return round();
    }
    let mut table = Table::new("memory");
    for _ in 0..ROUNDS {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program).arg(ROUND).output().expect("a round");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("figures");
        let mut figures = text.split_whitespace().map(|f| f.parse::<f64>().expect("a figure"));
        let mut next = || figures.next().expect("three figures");
        table.add("index, 1 M keys of 32 B names: bytes a key beside its name", "B", next());
        table.add("index, 1 M keys: resident in all", "MiB", next());
        table.add("index, 1 M keys: loaded in", "s", next());
    }
    table.hold("index, 1 M keys of 32 B names: bytes a key beside its name", Bar::AtMost(100.0));
    table.finish();
}

fn round() {
    let mut core = Core::new(Setup {
        this: Member::new("alone".parse().expect("an id"), vec![]),
        peers: vec![],
        partitioner: Arc::new(Ring),
        partitions: PartitionCount::default(),
        config: Config::default(),
        incarnation: 1,
        seed: 1,
        max_message_bytes: 60_000,
        verify: turbopump::identity::is_signed_by,
        sign: turbopump::core::Sign(Arc::new(|_| [0; 64])),
        cluster: "bench".into(),
    });
    let before = resident_bytes();
    let (begin, mut chance) = (Instant::now(), Seeded::new(7));
    for n in 1..=KEYS {
        let key = Key::new(format!("{:016x}{n:016}", chance.next_u64())).expect("a key");
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&chance.next_u64().to_be_bytes());
        core.load(&key, version(n, Digest(digest)));
    }
    core.start(Now::default(), &mut Vec::new());
    let took = begin.elapsed().as_secs_f64();
    let after = resident_bytes();
    println!("{} {} {took}", (after - before) / KEYS as f64 - NAME_BYTES, after / 1_048_576.0);
    drop(core);
}

fn version(n: u64, digest: Digest) -> Version {
    Version {
        dot: Dot { actor: Actor(1), counter: n },
        since: 0,
        context: Context::EMPTY,
        written_ms: 1_700_000_000_000 + n,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: 100,
        digest,
        seal: None,
    }
}

fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split_whitespace().nth(1).expect("resident pages").parse::<f64>().expect("a number") * PAGE_BYTES
}
