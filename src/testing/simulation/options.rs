//! What one run is made of, all drawn from its seed.

use std::{fmt, time::Duration};

use crate::{
    config::Config,
    model::{Mirrors, Seeded},
};

/// The kinds of faults, each of which can be switched off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A process dies and comes back later.
    Crash,
    /// A process stands still for a while.
    Pause,
    /// The network is cut, one way or both, between two nodes, around one, or through the middle.
    Cut,
    /// A node dies and comes back with an empty disk.
    LoseDisk,
    /// A node dies and comes back with an older copy of its disk.
    Restore,
    /// A wall clock jumps, by up to a day either way.
    ClockJump,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk refuses changes and reads for a while, or makes changes and says that it did not.
    FailDisk,
    /// A node joins.
    Join,
    /// A node is removed by another one.
    Remove,
    /// A node comes back with another weight.
    Weigh,
    /// A node comes back at another address.
    Move,
    /// A byte of a value changes on a disk, of which another node has a whole copy.
    Rot,
    /// A node gives all that it holds to others and leaves.
    Leave,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Crash,
        Self::Pause,
        Self::Cut,
        Self::LoseDisk,
        Self::Restore,
        Self::ClockJump,
        Self::SlowDisk,
        Self::FailDisk,
        Self::Join,
        Self::Remove,
        Self::Weigh,
        Self::Move,
        Self::Rot,
        Self::Leave,
    ];

    /// Whether there were seeds before it, which keep what they drew.
    fn came_later(self) -> bool {
        matches!(self, Self::Rot | Self::Leave)
    }
}

/// Everything that is chosen about a run. Time is virtual.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Others that each node is told of before it starts; 0: all.
    pub acquaintances: usize,
    /// Nodes that may join later.
    pub spares: usize,
    /// Partitions of the cluster, a power of two.
    pub partitions: u32,
    /// Every key on every node, instead of the ring.
    pub everywhere: bool,
    /// Different keys that clients write.
    pub keys: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Mean pause between two operations, microseconds.
    pub operation_gap_us: u64,
    /// Writes that delete, percent.
    pub delete_percent: u64,
    /// Writes that expire, percent.
    pub ttl_percent: u64,
    /// Whether writes name mirrors of their own now and then.
    pub mixed_mirrors: bool,
    /// The longest value that is written, bytes.
    pub max_value_bytes: u64,
    /// The longest frame that the network takes, bytes.
    pub max_frame_bytes: usize,
    /// How the nodes behave.
    pub config: Config,
    /// Faults that may happen.
    pub faults: Vec<Fault>,
    /// Mean pause between two faults, microseconds.
    pub fault_gap_us: u64,
    /// Frames lost, percent.
    pub drop_percent: u64,
    /// Frames that come twice, percent.
    pub duplicate_percent: u64,
    /// Frames that are late by up to some seconds, percent.
    pub late_percent: u64,
    /// The least time that a frame takes, microseconds.
    pub delay_us: u64,
    /// What is added to that at most, microseconds.
    pub jitter_us: u64,
    /// A disk that answers at once, like memory.
    pub inline_disk: bool,
    /// Mean time that a disk takes for a group, microseconds.
    pub disk_us: u64,
    /// Whether the operations begin on nodes with clocks that differ.
    pub skewed_clocks: bool,
}

impl Options {
    /// A quiet cluster of that many nodes: no faults, a fast network and disk, default behaviour.
    pub fn quiet(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            acquaintances: 0,
            spares: 0,
            partitions: 16,
            everywhere: false,
            keys: 10,
            operations: 50,
            operation_gap_us: 20_000,
            delete_percent: 30,
            ttl_percent: 10,
            mixed_mirrors: false,
            max_value_bytes: 100,
            max_frame_bytes: 1_400,
            config: Config {
                down_after: Some(Duration::from_secs(3)),
                bury_after: Duration::from_secs(1),
                scrub_interval: Duration::ZERO,
                ..Config::default()
            },
            faults: Vec::new(),
            fault_gap_us: 1_000_000,
            drop_percent: 0,
            duplicate_percent: 0,
            late_percent: 0,
            delay_us: 100,
            jitter_us: 100,
            inline_disk: false,
            disk_us: 200,
            skewed_clocks: false,
        }
    }

    /// What the seed says.
    pub fn draw(seed: u64) -> Self {
        let mut chance = Seeded::new(seed ^ 0x6f70_7469_6f6e_7321);
        let c = &mut chance;
        let ms = Duration::from_millis;
        let ping_ms = c.below(450) + 50;
        let config = Config {
            mirrors: *c.pick(&[Mirrors(1), Mirrors(2), Mirrors(3), Mirrors(3), Mirrors(5), Mirrors::ALL]),
            ping_interval: ms(ping_ms),
            down_after: Some(ms(ping_ms * (c.below(8) + 4))),
            retry_interval: ms(c.below(300) + 20),
            sync_interval: ms(c.below(3_000) + 100),
            operation_timeout: ms(*c.pick(&[300, 2_000, 10_000])),
            max_flights_per_peer: *c.pick(&[1, 4, 64, 1_024]),
            max_owed_per_peer: *c.pick(&[20, 100, 100_000]),
            max_transfers: *c.pick(&[1, 2, 16]),
            max_disk_jobs: *c.pick(&[8, 100, 65_536, 65_536]),
            bury_after: ms(500),
            ..Config::default()
        };
        let harsh = c.percent(70);
        let mut faults: Vec<Fault> =
            Fault::ALL.into_iter().filter(|f| !f.came_later() && harsh && c.percent(45)).collect();
        let max_frame_bytes = *c.pick(&[1_200, 1_400, 9_000, 65_000]);
        // What came later has a generator of its own: older seeds keep what they drew.
        let mut later = Seeded::new(seed ^ 0x6c61_7465_7221_2121);
        let scrub_interval = match later.percent(30) {
            true => ms(*later.pick(&[1, 5])),
            false => Duration::ZERO,
        };
        if scrub_interval > Duration::ZERO {
            faults.push(Fault::Rot);
        }
        let config = Config { scrub_interval, signed_members: later.percent(15), ..config };
        if harsh && later.percent(25) && !faults.iter().any(|f| matches!(f, Fault::Remove | Fault::Move)) {
            // Who is removed may be the only one that knows who has left. Who moves and knows is not found by
            // who has left, and does not look for it.
            faults.push(Fault::Leave);
        }
        Self {
            seed,
            nodes: c.below(7) as usize + 1,
            acquaintances: 0,
            spares: c.below(3) as usize,
            partitions: *c.pick(&[1, 4, 16, 64]),
            everywhere: c.percent(15),
            keys: *c.pick(&[1, 3, 10, 40, 150]),
            operations: c.below(250) + 20,
            operation_gap_us: *c.pick(&[500, 5_000, 30_000, 100_000]),
            delete_percent: 30,
            ttl_percent: 10,
            mixed_mirrors: c.percent(40),
            max_value_bytes: *c.pick(&[50, 500, 5_000, 30_000]),
            max_frame_bytes,
            config,
            faults,
            fault_gap_us: *c.pick(&[100_000, 500_000, 2_000_000]),
            drop_percent: *c.pick(&[0, 0, 1, 5, 20, 40]),
            duplicate_percent: *c.pick(&[0, 1, 10]),
            late_percent: *c.pick(&[0, 0, 1, 5]),
            delay_us: *c.pick(&[50, 500, 5_000, 40_000]),
            jitter_us: *c.pick(&[50, 1_000, 20_000, 100_000]),
            inline_disk: c.percent(20),
            disk_us: *c.pick(&[100, 2_000, 20_000]),
            skewed_clocks: c.percent(50),
        }
    }

    /// The options of the seed, changed by words such as `nodes=3 operations=20 no=Crash drop=0`.
    ///
    /// # Panics
    /// On a word that is none of these.
    pub fn adjusted(mut self, words: &str) -> Self {
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            let number = || value.parse::<u64>().expect("a number");
            match name {
                "nodes" => self.nodes = number() as usize,
                "operations" => self.operations = number(),
                "keys" => self.keys = number(),
                "drop" => self.drop_percent = number(),
                "duplicate" => self.duplicate_percent = number(),
                "late" => self.late_percent = number(),
                "delete" => self.delete_percent = number(),
                "ttl" => self.ttl_percent = number(),
                "value" => self.max_value_bytes = number(),
                "frame" => self.max_frame_bytes = number() as usize,
                "mixed" => self.mixed_mirrors = number() != 0,
                "sync" => self.config.active_sync = number() != 0,
                "inline" => self.inline_disk = number() != 0,
                "no" => self.faults.retain(|fault| format!("{fault:?}") != value),
                _ => panic!("{word:?} is no adjustment"),
            }
        }
        self
    }

    /// Whether nodes may lose what they stored, or come and go: then quorums promise less.
    pub fn is_steady(&self) -> bool {
        use Fault::{FailDisk, Join, Leave, LoseDisk, Remove, Restore, Weigh};
        !self
            .faults
            .iter()
            .any(|f| matches!(f, LoseDisk | Restore | Join | Remove | Weigh | FailDisk | Leave))
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, spares, operations, keys, faults, drop_percent, .. } = self;
        let Config { mirrors, .. } = self.config;
        write!(f, "{nodes}+{spares} nodes, mirrors {}, {operations} operations on {keys} keys, ", mirrors.0)?;
        write!(f, "drop {drop_percent} %, faults {faults:?}")
    }
}
