//! From the command line to a running daemon, and to its end.
//!
//! ```text
//! bind listeners -> start the node -> start the gate -> say so -> wait for a signal
//!   -> no new requests -> what runs ends -> the node hands over and stops -> connections close
//! ```
//!
//! The end is bounded: whatever hangs, the process is gone within [`STOP_WITHIN`]; a second
//! signal ends it at once. What can't start is one line on stderr and exit code 2.

use std::{
    error::Error,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
#[cfg(feature = "fjall")]
use turbopump::storage::FjallStorage;
#[cfg(feature = "quic")]
use turbopump::transport::QuicTransport;
use turbopump::{
    Config, FetchStats, Mirrors, Node, NodeId, PeerStats, Standing, Stats,
    partition::Everywhere,
    storage::{Durability, FileStorage, MemoryStorage},
    transport::{Transport, UdpTransport, UdtTransport},
};

use crate::{
    args::{Args, DurabilityArg, StoreKind, TransportArg},
    gate::{BearerToken, Gate, GateParts, GateStats, Limits, ListenAt, Listener},
    routes::{Router, is_long},
};

/// The whole stop, whatever hangs. The contract says 2 s; this leaves room for the system.
pub const STOP_WITHIN: Duration = Duration::from_millis(1_700);

/// What running requests get of it before the node stops.
const DRAIN_WITHIN: Duration = Duration::from_millis(400);

/// What the node gets of it.
const NODE_WITHIN: Duration = Duration::from_millis(900);

/// What the last answers get of it.
const FLUSH_WITHIN: Duration = Duration::from_millis(250);

/// The exit code of whatever keeps the daemon from starting.
pub const EXIT_WRONG: i32 = 2;

/// What calls need to know.
pub struct App {
    /// The node.
    pub node: Node,
    /// What the gate counts.
    pub gate_stats: Arc<GateStats>,
    /// Mirrors of a write that names none.
    pub default_mirrors: Mirrors,
    /// Whether every key lives on every node.
    pub is_clone: bool,
    /// When it started.
    pub started: Instant,
}

impl App {
    /// What `/status` says.
    pub fn status(&self, stats: &Stats) -> Value {
        let state = match stats.standing {
            Standing::Member => "running",
            Standing::Leaving => "leaving",
            Standing::Left => "left",
            Standing::Removed => "removed",
        };
        let peers: Vec<Value> = stats.peers.iter().map(peer).collect();
        let fetches: Vec<Value> = stats.fetches.iter().map(fetch).collect();
        let waits_for: Vec<&str> = stats.burial_waits_for.iter().map(NodeId::as_str).collect();
        json!({
            "state": state,
            "node": self.node.id().as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "transport": self.node.transport_kind(),
            "store": self.node.storage_kind(),
            "mode": if self.is_clone { "clone" } else { "partition" },
            "mirrors": self.default_mirrors.0,
            "members": stats.members,
            "keys": stats.keys,
            "tombstones": stats.tombstones,
            "oldest_tombstone_ms": stats.oldest_tombstone_ms,
            "burial_waits_for": waits_for,
            "owed": stats.owed,
            "handoff": stats.handoff,
            "moving_percent": stats.moving_percent,
            "transfers": stats.transfers,
            "fetches": fetches,
            "checking_store": stats.doubts,
            "safe_to_stop": stats.safe_to_stop,
            "peers": peers,
            "key": self.node.public_key().to_string(),
            "uptime_ms": self.started.elapsed().as_millis() as u64,
        })
    }
}

fn fetch(f: &FetchStats) -> Value {
    json!({
        "name": f.key.as_str(),
        "version": f.version.to_string(),
        "from": f.from.as_str(),
        "bytes": f.done_bytes,
        "size": f.total_bytes,
    })
}

fn peer(p: &PeerStats) -> Value {
    json!({
        "node": p.node.as_str(),
        "up": p.up,
        "owed": p.owed,
        "in_flight": p.in_flight,
        "synced_ms_ago": p.synced_ms_ago,
        "compared_ms_ago": p.compared_ms_ago,
        "differing": p.differing,
    })
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Whatever kept it from starting, as one line.
pub fn run(args: &Args) -> Result<(), String> {
    env_logger::Builder::new().filter_level(args.log).init();
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(line)?;
    let token = args.token_file.as_deref().map(BearerToken::read).transpose()?;
    let listeners = bind_all(args, token.is_some())?;
    let names: Vec<String> = listeners.iter().map(|l| l.name().to_owned()).collect();
    let socket_files: Vec<PathBuf> = args.local_addr.iter().filter_map(socket_file).collect();

    let gate_stats = Arc::new(GateStats::default());
    let node = start_node(args)?;
    let app = Arc::new(App {
        node: node.clone(),
        gate_stats: gate_stats.clone(),
        default_mirrors: args.mirrors,
        is_clone: args.clone,
        started: Instant::now(),
    });
    let gate = Gate::start(GateParts {
        listeners,
        limits: limits(args).fit(descriptors()),
        stats: gate_stats,
        is_long,
        token,
        handler_threads: args.handler_threads as usize,
        handler: Box::new(Router(app)),
    })
    .map_err(|e| format!("the HTTP side can't start: {e}"))?;

    println!("turbopumpd {} serving {} peers {}", node.id(), names.join(" "), node.local_addr());
    let _ = std::io::stdout().flush();

    signals.forever().next();
    thread::spawn(move || {
        signals.forever().next();
        leave(&socket_files, 1);
    });
    let socket_files: Vec<PathBuf> = args.local_addr.iter().filter_map(socket_file).collect();
    thread::spawn(move || {
        thread::sleep(STOP_WITHIN);
        leave(&socket_files, 0);
    });
    gate.drain();
    gate.wait_drained(DRAIN_WITHIN);
    node.shutdown(NODE_WITHIN);
    gate.stop(FLUSH_WITHIN);
    Ok(())
}

/// Prints who the node of a home is, as it stands in a members file but for the addresses.
///
/// # Errors
/// Whatever would keep the node from starting, as one line.
pub fn identify(args: &Args) -> Result<(), String> {
    let mut builder = Node::builder().home(&args.home);
    if let Some(id) = &args.name {
        builder = builder.id(id.as_str());
    }
    let (id, key) = builder.identify().map_err(line)?;
    println!("{id} {key}");
    Ok(())
}

/// Ends the process without waiting for anything.
fn leave(socket_files: &[PathBuf], code: i32) -> ! {
    for path in socket_files {
        let _ = std::fs::remove_file(path);
    }
    process::exit(code)
}

fn socket_file(at: &ListenAt) -> Option<PathBuf> {
    match at {
        ListenAt::Unix(path) => Some(path.clone()),
        ListenAt::Tcp(..) => None,
    }
}

fn bind_all(args: &Args, has_token: bool) -> Result<Vec<Listener>, String> {
    let bind = |at: &ListenAt| {
        let fail = |e| format!("can't listen on {at}: {e}");
        let listener = Listener::bind(at, args.socket_mode).map_err(fail)?;
        if listener.is_remote().map_err(fail)? && !has_token && !args.allow_remote_without_token {
            return Err(format!(
                "{at} can be reached from other machines: it needs --token-file, or else \
                 --allow-remote-without-token"
            ));
        }
        Ok(listener)
    };
    args.local_addr.iter().map(bind).collect()
}

fn start_node(args: &Args) -> Result<Node, String> {
    std::fs::create_dir_all(&args.home).map_err(|e| format!("{}: {e}", args.home.display()))?;
    if args.bind.is_unspecified() && args.advertise.is_none() {
        // Peers would be told to dial an address that means themselves.
        return Err(format!("--bind {} needs --advertise IP:PORT: what peers should dial", args.bind));
    }
    let peers = SocketAddr::new(args.bind, args.port);
    let config = Config {
        mirrors: args.mirrors,
        ack: args.ack,
        max_value_bytes: Config::default().max_value_bytes.min(args.max_value),
        max_stream_bytes: args.max_value,
        sync_interval: Duration::from_millis(args.sync_interval),
        bury_after: Duration::from_millis(args.bury_after),
        scrub_interval: Duration::from_millis(args.scrub_interval),
        signed_prefixes: args.require_signed.iter().map(|(p, keys)| (p.clone(), keys.to_vec())).collect(),
        admin_keys: args.admin_key.clone(),
        signed_members: args.signs_members()?,
        write_chaining: !args.no_write_chaining,
        active_sync: !args.no_active_sync,
        ..Config::default()
    };
    let mut builder = Node::builder()
        .home(&args.home)
        .listen(peers)
        .partitions(args.partitions)
        .cluster(&args.cluster)
        .config(config);
    if let Some(id) = &args.name {
        builder = builder.id(id.as_str());
    }
    if let Some(advertise) = args.advertise {
        builder = builder.advertise(advertise);
    }
    builder = builder.transport_boxed(transport(args, peers)?);
    if args.clone {
        builder = builder.partitioner(Everywhere);
    }
    let durability = match args.durability {
        DurabilityArg::Synced => Durability::Synced,
        DurabilityArg::Buffered => Durability::Buffered,
    };
    builder = match &args.store {
        StoreKind::Memory => builder.storage(MemoryStorage::new()),
        StoreKind::File(path) => {
            builder.storage(FileStorage::open(args.home.join(path), durability).map_err(line)?)
        }
        #[cfg(feature = "fjall")]
        StoreKind::Fjall(path) => {
            builder.storage(FjallStorage::open(args.home.join(path), durability).map_err(line)?)
        }
    };
    builder.start().map_err(line)
}

fn transport(args: &Args, peers: SocketAddr) -> Result<Box<dyn Transport>, String> {
    let chosen = args.transport();
    #[cfg(feature = "quic")]
    if chosen == TransportArg::Quic {
        let mut quic = QuicTransport::bind(peers);
        if args.trust_on_first_use {
            log::warn!(
                "--trust-on-first-use: whoever reaches the peer port first may take the place of a member \
                 without a key"
            );
            quic = quic.trust_on_first_use();
        }
        if let Some(path) = &args.cluster_secret_file {
            quic = quic.cluster_secret(&secret(path)?);
        }
        return Ok(Box::new(quic));
    }
    if args.trust_on_first_use || args.cluster_secret_file.is_some() {
        return Err("--trust-on-first-use and --cluster-secret-file need --transport quic".into());
    }
    Ok(match chosen {
        TransportArg::Udp => Box::new(UdpTransport::bind(peers)),
        _ => Box::new(UdtTransport::bind(peers)),
    })
}

/// The shortest secret of a cluster, in bytes.
#[cfg(feature = "quic")]
const MIN_SECRET_BYTES: usize = 16;

/// The secret of a cluster, without the line break that editors put at its end.
#[cfg(feature = "quic")]
fn secret(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let fail = |reason: String| format!("{}: {reason}", path.display());
    let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let text = text.trim_ascii_end();
    match text.len() < MIN_SECRET_BYTES {
        true => Err(fail(format!("a secret has at least {MIN_SECRET_BYTES} bytes"))),
        false => Ok(text.into()),
    }
}

fn limits(args: &Args) -> Limits {
    Limits {
        body_bytes: args.max_value,
        connections: args.max_connections,
        head_timeout: Duration::from_millis(args.head_timeout),
        body_idle: Duration::from_millis(args.body_timeout),
        keep_alive_idle: Duration::from_millis(args.idle_timeout),
        ..Limits::default()
    }
}

/// How many descriptors this process may have; as many as the system lets it.
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some() && limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// An error as one line.
fn line(error: impl Error) -> String {
    error.to_string().replace('\n', " ")
}
