//! The command line: every option, its default, and the environment variable beside it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use clap::{Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use turbopump::{Ack, Context, Mirrors, NodeId, PartitionCount, PublicKey};

use crate::{
    gate::ListenAt,
    member::MemberArgs,
    params::{ACK_FORMS, is_of_a_host, parse_ack},
};

/// A distributed key-value store: one node of it, behind HTTP and unix sockets.
///
/// Every option can also come from an environment variable: TURBOPUMP_ and its name, as --help shows.
#[derive(Parser, Clone, Debug)]
#[command(name = "turbopumpd", version, max_term_width = 110)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where clients talk HTTP/1.1: HOST:PORT, :PORT (loopback) or a path = unix socket; repeatable
    #[arg(
        short,
        long = "local-addr",
        value_name = "ADDR",
        env = "TURBOPUMP_LOCAL_ADDR",
        default_value = "localhost:1592",
        value_delimiter = ','
    )]
    pub local_addr: Vec<ListenAt>,

    /// A file with the token that clients have to show, as Authorization: Bearer TOKEN
    #[arg(long, value_name = "PATH", env = "TURBOPUMP_TOKEN_FILE", global = true)]
    pub token_file: Option<PathBuf>,

    /// Serve clients of other machines though no token is asked for
    #[arg(long, env = "TURBOPUMP_ALLOW_REMOTE_WITHOUT_TOKEN", value_parser = BoolishValueParser::new())]
    pub allow_remote_without_token: bool,

    /// Who may use the unix sockets for clients, as chmod takes it
    #[arg(long, value_name = "MODE", env = "TURBOPUMP_SOCKET_MODE", default_value = "600", value_parser = mode)]
    pub socket_mode: u32,

    /// Peer port (UDP); 0 picks a free one
    #[arg(short, long, value_name = "PORT", env = "TURBOPUMP_PORT", default_value_t = 1593)]
    pub port: u16,

    /// Address the peer port binds
    #[arg(long, value_name = "IP", env = "TURBOPUMP_BIND", default_value = "127.0.0.1")]
    pub bind: IpAddr,

    /// What peers should dial, where it differs from --bind
    #[arg(long, value_name = "IP:PORT", env = "TURBOPUMP_ADVERTISE", value_parser = advertised)]
    pub advertise: Option<SocketAddr>,

    /// Identity, members and data live here
    #[arg(long, value_name = "DIR", env = "TURBOPUMP_HOME", default_value = ".", global = true)]
    pub home: PathBuf,

    /// file | fjall | memory; fjall is for millions of small values; a relative PATH is under --home
    #[arg(long, value_name = "KIND[:PATH]", env = "TURBOPUMP_STORE", default_value = "file:store")]
    pub store: StoreKind,

    /// This node's id, where the members file names none [default: short form of its public key]
    #[arg(long, value_name = "ID", env = "TURBOPUMP_NAME", global = true)]
    pub name: Option<NodeId>,

    /// Name of the cluster; nodes of another one are turned away
    #[arg(long, value_name = "NAME", env = "TURBOPUMP_CLUSTER", default_value = "turbopump", global = true)]
    pub cluster: String,

    /// Every key on every node, whatever its mirrors
    #[arg(short, long, env = "TURBOPUMP_CLONE", value_parser = BoolishValueParser::new())]
    pub clone: bool,

    /// Plain UDP between peers instead of UDT: the same as --transport udp
    #[arg(long, env = "TURBOPUMP_UDP", value_parser = BoolishValueParser::new())]
    pub udp: bool,

    /// How peers talk: quic encrypts, and lets in members' keys only; udt and udp do neither
    #[arg(long, value_name = "KIND", env = "TURBOPUMP_TRANSPORT", default_value = "udt")]
    pub transport: TransportArg,

    /// Over quic, for a lab: take the first key that a member shows where the list names none
    #[arg(long, env = "TURBOPUMP_TRUST_ON_FIRST_USE", value_parser = BoolishValueParser::new())]
    pub trust_on_first_use: bool,

    /// Over quic: a file with the secret that all nodes of the cluster share, and prove to each other
    #[arg(long, value_name = "PATH", env = "TURBOPUMP_CLUSTER_SECRET_FILE")]
    pub cluster_secret_file: Option<PathBuf>,

    /// Mirrors of a write that names none; 0 = all nodes
    #[arg(long, value_name = "N", env = "TURBOPUMP_MIRRORS", default_value = "3", value_parser = parse_mirrors, global = true)]
    pub mirrors: Mirrors,

    /// local | N | quorum | all: default for writes
    #[arg(long, value_name = "LEVEL", env = "TURBOPUMP_ACK", default_value = "local", value_parser = ack)]
    pub ack: Ack,

    /// Take keys that begin so only if one of these authors signed them; repeatable, the same on all nodes
    #[arg(long, value_name = "PREFIX=KEY[,KEY]", env = "TURBOPUMP_REQUIRE_SIGNED", value_parser = signed_prefix)]
    pub require_signed: Vec<(String, Authors)>,

    /// Take changes of members only if signed by one of these; repeatable, the same on all nodes
    #[arg(long, value_name = "KEY[,KEY]", env = "TURBOPUMP_ADMIN_KEY", value_delimiter = ',')]
    pub admin_key: Vec<PublicKey>,

    /// Without admins: take changes of members only if signed by the member that says them, and remove
    /// for good; all members need keys. The same on all nodes [default over quic, unless keys are trusted on
    /// first use]
    #[arg(long, value_name = "yes|no", env = "TURBOPUMP_SIGNED_MEMBERS", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "yes")]
    pub signed_members: Option<bool>,

    /// Power of two, fixed when the cluster is born
    #[arg(long, value_name = "N", env = "TURBOPUMP_PARTITIONS", default_value = "1024", value_parser = partitions)]
    pub partitions: PartitionCount,

    /// How often a random co-owner is compared with, in milliseconds
    #[arg(long, value_name = "MS", env = "TURBOPUMP_SYNC_INTERVAL", default_value_t = 2000)]
    pub sync_interval: u64,

    /// synced: an acknowledged write survives a power cut; buffered: it survives the process
    #[arg(long, value_name = "HOW", env = "TURBOPUMP_DURABILITY", default_value = "synced")]
    pub durability: DurabilityArg,

    /// How long a deleted key is listed as such before its last trace may go, in milliseconds
    #[arg(long, value_name = "MS", env = "TURBOPUMP_BURY_AFTER", default_value_t = 60_000)]
    pub bury_after: u64,

    /// Pause after each stored value that is checked for damage, in milliseconds; 0 checks none
    #[arg(long, value_name = "MS", env = "TURBOPUMP_SCRUB_INTERVAL", default_value_t = 100)]
    pub scrub_interval: u64,

    /// Test only: a write stays here until sync spreads it
    #[arg(long, env = "TURBOPUMP_NO_WRITE_CHAINING", value_parser = BoolishValueParser::new())]
    pub no_write_chaining: bool,

    /// Test only: no sync between peers
    #[arg(long, env = "TURBOPUMP_NO_ACTIVE_SYNC", value_parser = BoolishValueParser::new())]
    pub no_active_sync: bool,

    /// Log lines on stderr: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "TURBOPUMP_LOG", default_value = "warn")]
    pub log: log::LevelFilter,

    /// Longest value, in bytes; it is never held whole in memory
    #[arg(long, value_name = "BYTES", env = "TURBOPUMP_MAX_VALUE", default_value_t = 1 << 40, help_heading = "Limits")]
    pub max_value: u64,

    /// Client connections at once; past it an idle one makes room
    #[arg(
        long,
        value_name = "N",
        env = "TURBOPUMP_MAX_CONNECTIONS",
        default_value_t = 4096,
        value_parser = at_least_one::<usize>,
        help_heading = "Limits"
    )]
    pub max_connections: usize,

    /// A request's head must be complete within this time
    #[arg(
        long,
        value_name = "MS",
        env = "TURBOPUMP_HEAD_TIMEOUT",
        default_value_t = 10_000,
        value_parser = at_least_one::<u64>,
        help_heading = "Limits"
    )]
    pub head_timeout: u64,

    /// A body must not stand still for longer
    #[arg(
        long,
        value_name = "MS",
        env = "TURBOPUMP_BODY_TIMEOUT",
        default_value_t = 30_000,
        value_parser = at_least_one::<u64>,
        help_heading = "Limits"
    )]
    pub body_timeout: u64,

    /// A kept-alive connection is closed after being idle for so long
    #[arg(
        long,
        value_name = "MS",
        env = "TURBOPUMP_IDLE_TIMEOUT",
        default_value_t = 75_000,
        value_parser = at_least_one::<u64>,
        help_heading = "Limits"
    )]
    pub idle_timeout: u64,

    /// Threads that route requests
    #[arg(
        long,
        value_name = "N",
        env = "TURBOPUMP_HANDLER_THREADS",
        default_value_t = crate::gate::HANDLER_THREADS as u64,
        value_parser = clap::value_parser!(u64).range(1..=64),
        help_heading = "Limits"
    )]
    pub handler_threads: u64,
}

/// What to do instead of serving.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print this node's id and public key, as they stand in a members file; makes the key where there is none
    Id,
    /// Sign a write of the value on stdin, and print the parameters for /write (or /delete)
    Sign(SignArgs),
    /// List the members of a cluster, add one, or remove one
    Member(MemberArgs),
}

/// What is signed.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct SignArgs {
    /// The name of the key
    pub key: String,

    /// The author's secret key: 64 hexadecimal digits, as openssl rand -hex 32 gives, or a node's key file
    #[arg(short, long, value_name = "PATH")]
    pub key_file: PathBuf,

    /// Which of the author's writes of the key: the highest counts [default: milliseconds since 1970]
    #[arg(long, value_name = "N")]
    pub sequence: Option<u64>,

    /// When the value ceases to exist, in milliseconds since 1970 [default: never]
    #[arg(long, value_name = "MS")]
    pub expires: Option<u64>,

    /// What Turbopump-Context said, to replace what others wrote [default: the author's own writes]
    #[arg(long, value_name = "CONTEXT", default_value = "", hide_default_value = true)]
    pub context: Context,

    /// For /delete: there is no value
    #[arg(long)]
    pub delete: bool,
}

/// Public keys of those who may write.
pub type Authors = Arc<[PublicKey]>;

/// Where versions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In memory: gone with the process.
    Memory,
    /// One file per version, below this path.
    File(PathBuf),
    /// In an LSM tree below this path, long values in files.
    #[cfg(feature = "fjall")]
    Fjall(PathBuf),
}

/// How peers talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// Reliable and encrypted, between known keys.
    #[cfg(feature = "quic")]
    Quic,
    /// Reliable.
    Udt,
    /// Plain datagrams.
    Udp,
}

impl Args {
    /// How peers talk, by either option.
    pub fn transport(&self) -> TransportArg {
        if self.udp { TransportArg::Udp } else { self.transport }
    }

    /// Whether members sign what they say of others.
    ///
    /// # Errors
    /// That, and taking keys unsigned.
    pub fn signs_members(&self) -> Result<bool, String> {
        match (self.signed_members, self.trust_on_first_use) {
            (Some(true), true) => Err(
                "--signed-members and --trust-on-first-use exclude each other: a key is signed, or taken \
                     as it comes"
                    .into(),
            ),
            (Some(signs), _) => Ok(signs),
            (None, trusts) => Ok(self.pins_keys() && !trusts),
        }
    }

    #[cfg(feature = "quic")]
    fn pins_keys(&self) -> bool {
        self.transport() == TransportArg::Quic
    }

    #[cfg(not(feature = "quic"))]
    fn pins_keys(&self) -> bool {
        false
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// A power cut.
    Synced,
    /// The end of the process.
    Buffered,
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("memory", "") => Ok(Self::Memory),
            ("file", "") => Ok(Self::File("store".into())),
            ("file", path) => Ok(Self::File(path.into())),
            #[cfg(feature = "fjall")]
            ("fjall", "") => Ok(Self::Fjall("store".into())),
            #[cfg(feature = "fjall")]
            ("fjall", path) => Ok(Self::Fjall(path.into())),
            #[cfg(not(feature = "fjall"))]
            ("fjall", _) => Err("this turbopumpd was built without fjall".into()),
            _ => Err("a store is memory, file, fjall, file:PATH or fjall:PATH".into()),
        }
    }
}

fn parse_mirrors(text: &str) -> Result<Mirrors, String> {
    text.parse().map(Mirrors).map_err(|_| "mirrors are a number from 0 to 65535, 0 means all nodes".into())
}

fn ack(text: &str) -> Result<Ack, String> {
    parse_ack(text).ok_or_else(|| format!("an ack is {ACK_FORMS}"))
}

fn signed_prefix(text: &str) -> Result<(String, Authors), String> {
    let expected = "it is PREFIX=KEY[,KEY], where a key has 64 hexadecimal digits";
    let (prefix, keys) = text.rsplit_once('=').ok_or(expected)?;
    let keys: Result<Vec<PublicKey>, _> = keys.split(',').map(str::parse).collect();
    Ok((prefix.into(), keys.map_err(|_| expected)?.into()))
}

/// A limit of nothing would serve nobody.
fn at_least_one<N: FromStr + Default + PartialEq>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|n| *n != N::default());
    number.ok_or_else(|| "it is a number, at least 1".into())
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "a mode is three octal digits, as 660".into())
}

fn advertised(text: &str) -> Result<SocketAddr, String> {
    let addr = text.parse().ok().filter(is_of_a_host);
    addr.ok_or_else(|| "it is IP:PORT, an address at which peers reach this node".into())
}

fn partitions(text: &str) -> Result<PartitionCount, String> {
    let count = text.parse().map_err(|_| "partitions are a number, a power of two".to_owned())?;
    PartitionCount::new(count).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent_and_have_the_promised_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["turbopumpd"]);
        assert_eq!(args.local_addr, vec!["localhost:1592".parse().unwrap()]);
        assert_eq!((args.port, args.mirrors, args.ack), (1593, Mirrors(3), Ack::Local));
        assert_eq!((args.store, args.sync_interval), (StoreKind::File("store".into()), 2000));
        assert_eq!(args.partitions.get(), 1024);
    }

    #[test]
    fn a_command_stands_beside_the_options() {
        assert_eq!(Args::parse_from(["turbopumpd"]).command, None);
        for line in [&["turbopumpd", "--home", "x", "id"], &["turbopumpd", "id", "--home", "x"]] {
            let args = Args::parse_from(line);
            assert_eq!((args.command, args.home), (Some(Command::Id), "x".into()));
        }
    }

    #[test]
    fn a_store_has_a_kind_and_mostly_a_path() {
        let store = |text: &str| text.parse::<StoreKind>();
        assert_eq!(store("file"), Ok(StoreKind::File("store".into())));
        assert_eq!(store("file:/a:b"), Ok(StoreKind::File("/a:b".into())));
        #[cfg(feature = "fjall")]
        {
            assert_eq!(store("fjall"), Ok(StoreKind::Fjall("store".into())));
            assert_eq!(store("fjall:x"), Ok(StoreKind::Fjall("x".into())));
        }
        assert!(store("memory:x").is_err() && store("fjal").is_err() && store("").is_err());
    }

    #[test]
    fn local_addr_is_repeatable() {
        let args = Args::parse_from(["turbopumpd", "-l", ":80", "-l", "/tmp/sock"]);
        assert_eq!(args.local_addr.len(), 2);
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            ["--advertise", "0.0.0.0:5"],
            ["--advertise", "1.2.3.4:0"],
            ["--max-connections", "0"],
            ["--head-timeout", "0"],
            ["--store", "tape"],
            ["--socket-mode", "680"],
            ["--socket-mode", "7777"],
            ["--transport", "pigeons"],
            ["--ack", "0"],
            ["--require-signed", "prefix"],
            ["--require-signed", "prefix=12"],
            ["--partitions", "1000"],
            ["--port", "x"],
            ["-l", "a:b"],
        ] {
            assert!(Args::try_parse_from(["turbopumpd", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }
}
