//! What clients ask of the core, and what they get.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::Departure;
use crate::{
    config::{Ack, Read},
    error::{MemberError, ReadError, WriteError},
    model::{
        Context, Digest, Dot, Key, Kind, Member, Mirrors, NodeId, PublicKey, Seal, Siblings, Statement,
        Version, Warrant,
    },
    storage::StageId,
};

/// Names an operation from its submit to its outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// Names a watch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// The bytes of a version that is to be kept.
#[derive(Clone, Debug)]
pub enum Content {
    /// At hand.
    Whole(Bytes),
    /// In storage already, and not committed. The core commits or discards it.
    Staged {
        /// Under which name.
        stage: StageId,
        /// How many.
        len: u64,
    },
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Whole(value) => value.len() as u64,
            Self::Staged { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A write or a delete.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Which key.
    pub key: Key,
    /// Value or tombstone.
    pub kind: Kind,
    /// The bytes.
    pub content: Content,
    /// Their digest.
    pub digest: Digest,
    /// How many nodes shall hold it; none: as it was, else as configured.
    pub mirrors: Option<Mirrors>,
    /// When it is complete; none: as configured.
    pub ack: Option<Ack>,
    /// What it replaces; none: all that this node knows of the key.
    pub context: Option<Context>,
    /// Wall clock from which it counts as absent, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// How long it may take, milliseconds; none: as configured.
    pub timeout_ms: Option<u64>,
    /// Whether every mirror's acknowledgement is to be reported.
    pub progress: bool,
    /// Who signed it: the sequence, and the seal.
    pub seal: Option<(u64, Seal)>,
}

impl WriteRequest {
    /// What an author says by it, as the statement number `sequence`. The mirrors are `default` where it
    /// does not say.
    pub fn statement(&self, author: PublicKey, sequence: u64, default: Mirrors) -> Statement {
        Statement {
            author,
            sequence,
            kind: self.kind,
            len: self.content.len(),
            digest: self.digest,
            mirrors: self.mirrors.unwrap_or(default),
            expires_ms: self.expires_ms,
            context: self.context.clone().unwrap_or_default(),
        }
    }
}

/// A read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Which key.
    pub key: Key,
    /// Whom to ask.
    pub read: Read,
    /// How long it may take, milliseconds; none: as configured.
    pub timeout_ms: Option<u64>,
    /// Leave out what this node holds: it turned out to be damaged.
    pub distrust: bool,
    /// Leave values out that do not come with an answer, to be read in pieces.
    pub short: bool,
}

impl ReadRequest {
    /// An ordinary read of one key.
    pub fn one(key: Key) -> Self {
        Self { key, read: Read::One, timeout_ms: None, distrust: false, short: false }
    }
}

/// A piece of a value that this node does not hold.
#[derive(Clone, Debug)]
pub struct PieceRequest {
    /// Of which key.
    pub key: Key,
    /// Of which version.
    pub version: Arc<Version>,
    /// From which byte.
    pub offset: u64,
    /// At most so many bytes.
    pub len: usize,
    /// Whom to ask first: who gave the piece before.
    pub first: Option<NodeId>,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Write or delete.
    Write(WriteRequest),
    /// Read what the owners hold.
    Read(ReadRequest),
    /// Read a piece of a long value from an owner.
    Piece(PieceRequest),
    /// End when a value of the key is there that the context does not cover.
    Wait {
        /// Which key.
        key: Key,
        /// What is known already.
        context: Context,
        /// For how long, milliseconds.
        timeout_ms: u64,
    },
    /// Report every version of keys with this prefix that this node stores.
    Watch {
        /// Its name from now on.
        watch: WatchId,
        /// Beginning of the keys.
        prefix: String,
    },
    /// End a watch.
    Unwatch(WatchId),
    /// List what this node holds.
    Keys {
        /// Beginning of the keys.
        prefix: String,
        /// Only names behind this one.
        after: Option<String>,
        /// At most so many.
        limit: usize,
        /// Whether to list keys of which nothing but tombstones is left.
        deleted: bool,
    },
    /// Drop this node's copies of a key.
    Forget(Key),
    /// Make a node a member, or give a member other addresses.
    AddMember {
        /// Which.
        id: NodeId,
        /// Where it can be dialled.
        addrs: Vec<SocketAddr>,
        /// Its public key, if that is known.
        key: Option<PublicKey>,
        /// The generation that it is appointed to, and the signature of who says so. `None` where this
        /// node signs, or nobody does.
        appointed: Option<(u32, Warrant)>,
    },
    /// Remove a member.
    RemoveMember {
        /// Which.
        id: NodeId,
        /// Its key, where none is known.
        key: Option<PublicKey>,
        /// The signature of who appoints it to [`FOR_GOOD`](crate::model::FOR_GOOD), if that is not this node.
        warrant: Option<Warrant>,
    },
    /// Give all copies to others, then stop being a member.
    Leave {
        /// For how long to wait for the end, milliseconds.
        timeout_ms: u64,
    },
    /// Count.
    Stats,
}

/// A completed write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Which key.
    pub key: Key,
    /// The name of the write.
    pub version: Dot,
    /// What one knows after it: hand it back with the next write.
    pub context: Context,
    /// Length of the value in bytes.
    pub len: u64,
    /// How many nodes shall hold it.
    pub mirrors: Mirrors,
    /// How many owners have stored it by now.
    pub acked: usize,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of which key.
    pub key: Key,
    /// Its versions, tombstones included.
    pub siblings: Siblings,
    /// Long values are left out.
    pub short: bool,
}

/// A piece of a long value, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The bytes; at least one.
    pub bytes: Bytes,
    /// Whom to ask for the next one.
    pub by: NodeId,
}

/// A mirror has stored a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who.
    pub node: NodeId,
    /// How many owners have stored it by now.
    pub acked: usize,
    /// How many owners there are.
    pub owners: usize,
}

/// A version that this node has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of which key.
    pub key: Key,
    /// What is known of it.
    pub version: Arc<Version>,
}

/// One key of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub key: Key,
    /// How many nodes shall hold it.
    pub mirrors: Mirrors,
    /// Its versions here, newest first.
    pub versions: Vec<Arc<Version>>,
}

/// A page of a listing, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyInfo>,
    /// Hand it back as `after` for the next page; none: this was the last.
    pub next: Option<Key>,
}

/// A member, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its entry in the list.
    pub member: Member,
    /// Whether it is up; this node always is.
    pub up: bool,
}

/// One peer as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// Who.
    pub node: NodeId,
    /// Whether it is up.
    pub up: bool,
    /// Copies on their way to it, without long values that it is fetching.
    pub in_flight: usize,
    /// Names of keys that it may lack and that are not on their way yet: how far it lags behind.
    pub owed: usize,
    /// Milliseconds since a sync round with it found nothing that differs; none: not since the start.
    /// Under constant writes there is always something on its way: see `compared_ms_ago` then.
    pub synced_ms_ago: Option<u64>,
    /// Milliseconds since it answered a sync round last; none: not since the start.
    pub compared_ms_ago: Option<u64>,
    /// Keys found different between it and this node since then, in either direction.
    pub differing: usize,
}

/// A long value on its way to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchStats {
    /// Of which key.
    pub key: Key,
    /// Of which version.
    pub version: Dot,
    /// Who sends it.
    pub from: NodeId,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Its length in bytes.
    pub total_bytes: u64,
}

/// How a node stands to its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// It belongs to it.
    #[default]
    Member,
    /// It is giving its copies to others, or telling them that it has.
    Leaving,
    /// It gave its copies to others, and they know that it is no member any more.
    Left,
    /// Another member removed it.
    Removed,
}

/// Counts of one node, taken at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys of which a value is stored here.
    pub keys: usize,
    /// Keys of which only tombstones are stored here.
    pub tombstones: usize,
    /// Members, this node included.
    pub members: usize,
    /// Names of keys owed to peers, over all peers.
    pub owed: usize,
    /// Copies held here for owners that do not have them all yet.
    pub handoff: usize,
    /// How far this node has looked through its keys for copies that belong elsewhere, in percent,
    /// while it does: after its start, and when members or weights changed.
    pub moving_percent: Option<u8>,
    /// Nothing waits here to be given to others: this node can be stopped, for a while or, if it
    /// has left, for good.
    pub safe_to_stop: bool,
    /// How this node stands to its cluster.
    pub standing: Standing,
    /// Operations under way.
    pub operations: usize,
    /// Long values being fetched.
    pub transfers: usize,
    /// How far these are.
    pub fetches: Vec<FetchStats>,
    /// Whether the store of this node is an older copy of itself, and what it holds is still being
    /// checked with the others.
    pub doubts: bool,
    /// Age of the oldest tombstone of a key without values, milliseconds.
    pub oldest_tombstone_ms: Option<u64>,
    /// Members without whose agreement tombstones can't go: away, or behind. Usually nobody.
    pub burial_waits_for: Vec<NodeId>,
    /// Events since the start.
    pub counters: Counters,
    /// The peers.
    pub peers: Vec<PeerStats>,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Events since the start of the node.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Name and value of each, in a fixed order.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    /// Writes and deletes submitted here.
    writes,
    /// Of those, ended as unknown.
    writes_unknown,
    /// Reads that had to ask peers.
    reads,
    /// Of those, ended without an answer.
    reads_failed,
    /// Reads by quorum that waited until enough owners had what they found.
    reads_settled,
    /// Versions stored here, of clients and of peers.
    stored,
    /// Changes that storage failed to make.
    storage_failed,
    /// Values of peers that did not fit their digest.
    damaged_received,
    /// Writes of clients and versions of peers refused for their signature, or for having none.
    signatures_refused,
    /// News of members refused for want of a signature that counts, or of the member's own.
    members_refused,
    /// Copies sent to peers.
    copies_sent,
    /// Of those, sent again for want of an acknowledgement.
    copies_resent,
    /// Versions that peers were asked whether they lack them.
    offered,
    /// Of those, lacking.
    wanted,
    /// Copies dropped here after all their owners had them.
    handed_off,
    /// Long values fetched from peers.
    fetched,
    /// Bytes of long values that came from peers.
    fetched_bytes,
    /// Bytes of long values that needed not come again after a fetch had been interrupted.
    resumed_bytes,
    /// Values read here to see whether they are whole.
    scrubbed,
    /// Times that a value here was found damaged, by that or by a reader.
    damage_found,
    /// Damaged values replaced with an owner's good copy.
    damage_mended,
    /// Sync rounds begun here.
    sync_rounds,
    /// Keys that sync found different and asked for or sent.
    sync_repaired,
    /// Links of others refused for their keys or for not knowing the cluster's secret. Counted by the
    /// transport, as the next three are.
    handshakes_refused,
    /// Links that were not made for any other reason.
    handshakes_failed,
    /// Links that were not begun because there were too many.
    handshakes_limited,
    /// Frames lost for want of room, refused by the system or malformed.
    frames_dropped,
    /// Times a peer was noticed to be down.
    peers_lost,
    /// Deleted and expired keys of which the last trace was dropped.
    buried,
    /// Times the store of this node turned out to be an older copy, or lost.
    stores_doubted,
    /// Versions of such a store that no other owner knew, dropped.
    ghosts_dropped,
    /// Messages of peers left aside until it is known how far their stores have come.
    distrusted,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of a write.
    Written(Result<Written, WriteError>),
    /// Of a read. Values that this node holds are not filled in yet.
    Read(Result<Found, ReadError>),
    /// Of a wait; `None`: the time was up. Values as in `Read`.
    Waited(Result<Option<Found>, ReadError>),
    /// Of a piece.
    Piece(Result<Given, ReadError>),
    /// Of a listing.
    Keys(KeyPage),
    /// Of a forget: how many versions were dropped.
    Forgotten(Result<usize, WriteError>),
    /// Of a change of the member list.
    Members(Result<(), MemberError>),
    /// Of a departure.
    Departure(Result<Departure, MemberError>),
    /// Of a count.
    Stats(Box<Stats>),
    /// A watch was set, or could not be: the limit.
    Watching(bool),
    /// The node stopped first.
    Stopped,
}
