//! Every knob: its unit, default, bounds and reason.
//!
//! What belongs to one node (id, addresses, parts) is set on the
//! [`NodeBuilder`](crate::NodeBuilder); what shapes its behaviour is here.

use std::time::Duration;

use crate::model::{Mirrors, PublicKey};

/// When a write counts as complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ack {
    /// This node has stored it. Fast, and lost with this node's disk until mirrors follow.
    #[default]
    Local,
    /// So many owners have stored it; this node counts if it is one.
    Mirrors(u16),
    /// More than half of the owners have stored it.
    Quorum,
    /// All owners have stored it.
    All,
}

/// Whom a read asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Read {
    /// This node if it holds the key, else the owners one after the other until one has it.
    #[default]
    One,
    /// More than half of the owners; what they hold is merged.
    Quorum,
    /// All owners; fails if one does not answer.
    All,
}

/// What [`Config::max_value_bytes`] may be at most.
const MAX_VALUE_BYTES: u64 = 1 << 30;
/// The longest value that any node takes, in bytes: what [`Config::max_stream_bytes`] may be at most.
pub(crate) const MAX_STREAM_BYTES: u64 = 1 << 50;

/// The patience of a transport that names none.
pub(crate) const USUAL_PATIENCE: Duration = Duration::from_secs(3);

/// How a node behaves. `Config::default()` suits a cluster of a few to some tens of nodes.
///
/// Durations are counted in whole milliseconds. A value out of bounds is refused at start by
/// [`StartError::Config`](crate::StartError::Config).
#[derive(Clone, Debug)]
pub struct Config {
    /// Mirrors of a write that names none. Default 3: survives two lost disks. 0 = all nodes.
    pub mirrors: Mirrors,
    /// When a write that does not say counts as complete. Default [`Ack::Local`].
    pub ack: Ack,
    /// How long an operation may take before it ends as *unknown*. Default 10 s, 1 ms to 1 h. A write that
    /// does not say has a second more for each MiB of its value.
    pub operation_timeout: Duration,
    /// The longest value that is written or read as a whole, in bytes. Default 64 MiB, because it is
    /// held in memory meanwhile; at most 1 GiB. Longer ones go through
    /// [`Node::writer`](crate::Node::writer) and [`Node::reader`](crate::Node::reader).
    pub max_value_bytes: u64,
    /// The longest value that is written with a [`ValueWriter`](crate::ValueWriter), in bytes. Default
    /// 1 TiB, at most 1 PiB: it is as long as the disks have room for.
    pub max_stream_bytes: u64,
    /// Operations under way at once; more are refused as busy. Default 16,384, at least 1.
    pub max_operations: usize,
    /// Bytes of values in operations under way; more are refused as busy. Default 256 MiB.
    pub max_operation_bytes: u64,
    /// Watches and waits at once, each. Default 10,000.
    pub max_watches: usize,
    /// How often peers are asked whether they are there. Default 500 ms, 10 ms to 1 min. In a cluster of
    /// more than 31 nodes, 30 peers in turn each time.
    pub ping_interval: Duration,
    /// Silence after which a peer counts as down, longer than `ping_interval`. Default: what the
    /// transport takes for longer than losses alone can make it
    /// ([`Transport::patience`](crate::transport::Transport::patience): 3 s, over UDT 10 s), and four
    /// times `ping_interval` at least. Who has been silent for half of it is asked four times as often.
    ///
    /// At 3 s, in the simulator, with that many of all frames lost each way; a dead node is
    /// down for all others after 3.5 s at the latest, whatever is lost:
    ///
    /// | Nodes | Node-hours | 0 % | 5 % | 20 % | 40 % |
    /// |---|---|---|---|---|---|
    /// | 3 | 30 each | 0 mistakes | 0 | 0 | 0 |
    /// | 10 | 10 each | 0 | 0 | 0 | 1 |
    ///
    /// In a cluster of more than 31 nodes a dead one is noticed by those who speak to it just as soon,
    /// and by others when they ask it in turn: nodes / 30 intervals later, 17 s for 1,000 nodes.
    pub down_after: Option<Duration>,
    /// First pause before an unacknowledged copy is sent again; doubles up to 32 times that.
    /// Default 200 ms, 10 ms to 10 s.
    pub retry_interval: Duration,
    /// Copies on their way to one peer at once. Default 1,024, at least 1.
    pub max_flights_per_peer: usize,
    /// Names of copies owed to one peer; past it sync covers the rest. Default 100,000,
    /// at least 1, since what sync finds goes this way too.
    pub max_owed_per_peer: usize,
    /// How often a random co-owner is compared with. Default 2 s, 10 ms to 1 h.
    pub sync_interval: Duration,
    /// How long a deleted or expired key is listed as such before its members are asked to let go of
    /// its last trace. Default 1 min, 0 to 1 year. No promise hangs on it: what decides is that all agree.
    pub bury_after: Duration,
    /// Pause between two stored values that are read to see whether they are still whole; longer by
    /// the time that the value takes at 4 MiB/s. Default 100 ms: 100,000 keys are gone through in
    /// three hours, for less than a thousandth of a core. 0 switches it off, else 1 ms to 1 h.
    pub scrub_interval: Duration,
    /// Long values being fetched at once. Default 16, at least 1.
    pub max_transfers: usize,
    /// Beginnings of keys that take signed writes only, and whose; the longest that fits a key decides.
    /// Default: none. Every node is to have the same, before the first such key is written: a node takes
    /// in nothing from any other that does not follow its own.
    pub signed_prefixes: Vec<(String, Vec<PublicKey>)>,
    /// Admins: where there are any, members are added and removed by their signatures only. Default: none,
    /// and any member adds and removes others. Every node is to have the same.
    pub admin_keys: Vec<PublicKey>,
    /// Without admins: whether a node takes of its member list only what the present member that says it
    /// has signed with its key, and a removal is for good. All members are named with their keys then.
    /// Default false: a change is as good as the link that it comes over. Every node is to have the same.
    pub signed_members: bool,
    /// Test only: false keeps a write here until sync spreads it. Default true.
    pub write_chaining: bool,
    /// Test only: false switches sync off. Default true.
    pub active_sync: bool,
    /// Threads that change storages which are slow, unless those want fewer
    /// ([`max_writers`](crate::storage::Storage::max_writers)). Default 2, 1 to 64. One key is always
    /// handled by the same one, so its changes keep their order.
    pub disk_threads: usize,
    /// Jobs waiting for the disk threads; past it writes are refused as busy, and peers that ask
    /// for values are not answered. Default 65,536.
    pub max_disk_jobs: usize,
    /// Bytes of values in those jobs; past it the same. Default 256 MiB, at least 1.
    pub max_disk_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mirrors: Mirrors(3),
            ack: Ack::Local,
            operation_timeout: Duration::from_secs(10),
            max_value_bytes: 64 << 20,
            max_stream_bytes: 1 << 40,
            max_operations: 16_384,
            max_operation_bytes: 256 << 20,
            max_watches: 10_000,
            ping_interval: Duration::from_millis(500),
            down_after: None,
            retry_interval: Duration::from_millis(200),
            max_flights_per_peer: 1_024,
            max_owed_per_peer: 100_000,
            sync_interval: Duration::from_secs(2),
            bury_after: Duration::from_secs(60),
            scrub_interval: Duration::from_millis(100),
            max_transfers: 16,
            signed_prefixes: Vec::new(),
            admin_keys: Vec::new(),
            signed_members: false,
            write_chaining: true,
            active_sync: true,
            disk_threads: 2,
            max_disk_jobs: 65_536,
            max_disk_bytes: 256 << 20,
        }
    }
}

impl Config {
    /// Whether who is a member is signed: by admins, or by members.
    pub(crate) fn has_signed_members(&self) -> bool {
        self.signed_members || !self.admin_keys.is_empty()
    }

    /// The silence after which a peer counts as down, over a transport of such patience.
    pub(crate) fn silence_allowed(&self, patience: Duration) -> Duration {
        self.down_after.unwrap_or_else(|| patience.max(self.ping_interval * 4))
    }

    /// Says which setting is out of its bounds, if one is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ms = Duration::from_millis;
        let within = |name: &str, value: Duration, low: Duration, high: Duration| {
            if value < low || value > high {
                return Err(format!("{name} is {value:?}, it must be from {low:?} to {high:?}"));
            }
            Ok(())
        };
        within("operation_timeout", self.operation_timeout, ms(1), ms(3_600_000))?;
        within("ping_interval", self.ping_interval, ms(10), ms(60_000))?;
        within(
            "down_after",
            self.silence_allowed(Duration::ZERO),
            self.ping_interval + ms(1),
            ms(3_600_000),
        )?;
        within("retry_interval", self.retry_interval, ms(10), ms(10_000))?;
        within("bury_after", self.bury_after, ms(0), Duration::from_secs(366 * 86_400))?;
        within("sync_interval", self.sync_interval, ms(10), ms(3_600_000))?;
        if self.scrub_interval != Duration::ZERO {
            within("scrub_interval", self.scrub_interval, ms(1), ms(3_600_000))?;
        }
        let counts = [
            ("max_operations", self.max_operations),
            ("max_flights_per_peer", self.max_flights_per_peer),
            ("max_owed_per_peer", self.max_owed_per_peer),
            ("max_transfers", self.max_transfers),
            ("max_disk_jobs", self.max_disk_jobs),
        ];
        if self.max_disk_bytes == 0 {
            return Err("max_disk_bytes is 0, it must be at least 1".into());
        }
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(format!("{name} is 0, it must be at least 1"));
        }
        if let Some((prefix, _)) = self.signed_prefixes.iter().find(|(_, authors)| authors.is_empty()) {
            return Err(format!(
                "signed_prefixes names no author of {prefix:?}, so nobody could write there"
            ));
        }
        if !(1..=64).contains(&self.disk_threads) {
            return Err(format!("disk_threads is {}, it must be from 1 to 64", self.disk_threads));
        }
        if self.max_value_bytes > MAX_VALUE_BYTES {
            return Err(format!("max_value_bytes is {}, it must be at most 1 GiB", self.max_value_bytes));
        }
        if self.max_stream_bytes > MAX_STREAM_BYTES {
            return Err(format!("max_stream_bytes is {}, it must be at most 1 PiB", self.max_stream_bytes));
        }
        Ok(())
    }
}
