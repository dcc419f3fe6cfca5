//! The messages.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Context, Dot, Key, Member, Mirrors, Record, Stamp, Version};

/// Parts of a range of which checks are sent together.
pub const PARTS_PER_RANGE: usize = 16;
/// Bits of a check of a sum or of a key's digest.
pub const CHECK_BITS: u32 = 24;
/// Keys of one range of a `List` or `Want`.
pub const MAX_CHECKS_PER_LIST: usize = 255;

/// What became of a version that a peer was sent or offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckStatus {
    /// It is stored, as durably as that node stores.
    Stored,
    /// It was there already, or something that replaced it.
    Known,
    /// It was there already, but for others: it is no reason to drop it elsewhere.
    Held,
    /// A long value is being fetched; `Stored` follows.
    Fetching,
    /// Too much to do; offer it again later.
    Busy,
    /// Its storage failed. The outcome is unknown.
    Failed,
    /// To offer it again is of no use: it is not signed as its key demands, or not by whom it says; or there
    /// is no room for it now, on a node that would only give it away.
    Refused,
}

/// The sum over all keys of one tree that two nodes both own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeDigest {
    /// The tree: keys with this many mirrors.
    pub mirrors: Mirrors,
    /// The sum of their digests.
    pub sum: u64,
}

/// The checks of the parts of one range, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeParts {
    /// The bits with which the hashes of the range begin, followed by zeros.
    pub prefix: u64,
    /// Salted checks of the sums of its parts.
    pub checks: [u32; PARTS_PER_RANGE],
}

/// The checks of keys of one range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeList {
    /// The bits with which the hashes of the range begin, followed by zeros.
    pub prefix: u64,
    /// Salted checks of the digests of keys, at most [`MAX_CHECKS_PER_LIST`].
    pub checks: Vec<u32>,
}

/// A stored version that a peer may lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offered {
    /// [`Key::hash64`] of its key.
    pub hash: u64,
    /// [`Key::check`] of its key, with the tag of the offer.
    pub check: u32,
    /// Its name.
    pub dot: Dot,
}

/// What a node says of a version that it is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Send it.
    Wanted,
    /// It is stored here, or something that replaced it.
    Known,
    /// It is on its way to storage here: ask again later.
    Coming,
}

/// One key as burials speak of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HashedKey {
    /// [`Key::hash64`].
    pub hash: u64,
    /// Digest of the dots of its versions.
    pub digest: u64,
}

/// What two nodes keep telling each other about themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vitals {
    /// Digest of the sender's member list.
    pub members: u64,
    /// None of the sender's `Write`s to the receiver with a lower tag counts any more.
    pub floor: u64,
    /// The highest `floor` that the sender got from this process of the receiver.
    pub floor_heard: u64,
    /// The mark in the sender's store.
    pub stamp: Stamp,
    /// The highest mark of the receiver's store that the sender's store remembers.
    pub stamp_kept: Stamp,
    /// The process of the receiver, by its incarnation, that told of that mark.
    pub run_kept: u64,
    /// The sender's store is an older copy of itself, and it has not looked through it yet.
    pub doubts: bool,
    /// The sender may hold copies that belong elsewhere since owners changed.
    pub moves: bool,
}

/// The steps by which the last traces of deleted keys go away, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BurialStep {
    /// Say that you hold no more of these keys than this, and send nothing else of them any more.
    Quiet,
    /// Say that nothing else can reach you any more.
    Seal,
    /// Drop what you hold of them.
    Bury,
}

/// What one node says to another after the hello. Any of them may be lost, repeated or late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Keep this version. Without a value it is an offer: say whether you want it.
    Write {
        /// Comes back in the `WriteAck`.
        tag: u64,
        /// Of which key.
        key: Key,
        /// The metadata.
        version: Arc<Version>,
        /// The bytes.
        value: Option<Bytes>,
    },
    /// The answer to `Write`.
    WriteAck {
        /// Of the `Write`.
        tag: u64,
        /// What became of it.
        status: AckStatus,
    },
    /// What do you hold of this key?
    Read {
        /// Comes back in the `ReadReply`.
        tag: u64,
        /// Which key.
        key: Key,
        /// Whether short values should come along.
        values: bool,
    },
    /// The answer to `Read`.
    ReadReply {
        /// Of the `Read`.
        tag: u64,
        /// All versions held, tombstones included; `None` where storage failed.
        records: Option<Vec<Record>>,
    },
    /// Tell me when you hold something of this key that the context does not cover.
    Await {
        /// Comes back in the `ReadReply` that answers it.
        tag: u64,
        /// Which key.
        key: Key,
        /// What is known already.
        context: Context,
        /// For how long from now the question stands, in milliseconds.
        within_ms: u64,
    },
    /// A piece of a long value, please.
    Fetch {
        /// Comes back in the `Piece`.
        tag: u64,
        /// Of which key.
        key: Key,
        /// Of which version.
        dot: Dot,
        /// From which byte.
        offset: u64,
        /// At most so many bytes.
        len: u32,
    },
    /// The answer to `Fetch`.
    Piece {
        /// Of the `Fetch`.
        tag: u64,
        /// From which byte.
        offset: u64,
        /// The bytes; `None` where the version is not there (any more).
        bytes: Option<Bytes>,
    },
    /// Are you there?
    Ping {
        /// Comes back in the `Pong`.
        sequence: u64,
        /// Of the sender.
        vitals: Vitals,
    },
    /// The answer to `Ping`.
    Pong {
        /// Of the `Ping`.
        sequence: u64,
        /// Of the sender.
        vitals: Vitals,
    },
    /// Entries of the member list. A long list comes in several.
    Members {
        /// The entries.
        entries: Vec<Member>,
        /// Whether the receiver should send its own in return.
        reply: bool,
    },
    /// These are my trees, those that are not named being empty: answer where yours differ.
    Compare {
        /// Comes back in the `Equal`.
        round: u32,
        /// The trees.
        trees: Vec<TreeDigest>,
    },
    /// The answer to `Compare` where nothing differs.
    Equal {
        /// Of the `Compare`.
        round: u32,
    },
    /// These are the parts of ranges where we differ: answer where yours do.
    Parts {
        /// Of the checks.
        salt: u32,
        /// The tree.
        mirrors: Mirrors,
        /// With how many equal bits the hashes of each range begin.
        bits: u8,
        /// The ranges.
        ranges: Vec<RangeParts>,
    },
    /// These are all my keys in ranges where we differ: send the others, and ask for what you lack.
    List {
        /// Of the checks.
        salt: u32,
        /// The tree.
        mirrors: Mirrors,
        /// With how many equal bits the hashes of each range begin.
        bits: u8,
        /// The ranges.
        ranges: Vec<RangeList>,
    },
    /// Please send the keys with these checks.
    Want {
        /// Of the checks.
        salt: u32,
        /// The tree.
        mirrors: Mirrors,
        /// With how many equal bits the hashes of each range begin.
        bits: u8,
        /// The ranges.
        ranges: Vec<RangeList>,
    },
    /// Which of these versions do you lack?
    Offer {
        /// Comes back in the `OfferAck`.
        tag: u64,
        /// The versions.
        versions: Vec<Offered>,
    },
    /// The answer to `Offer`.
    OfferAck {
        /// Of the `Offer`.
        tag: u64,
        /// For each of its versions; empty: too much to do, ask again later.
        answers: Vec<Interest>,
    },
    /// I am going down in order: don't wait to notice.
    Bye,
    /// A step towards dropping the last traces of deleted keys everywhere.
    Bury {
        /// Names the attempt.
        round: u64,
        /// Digest of the sender's member list: only those who agree on it take part.
        members: u64,
        /// Which step.
        step: BurialStep,
        /// The keys, and the digests of the versions that are to go.
        graves: Vec<HashedKey>,
    },
    /// The answer to the first two steps of `Bury`.
    Buried {
        /// Of the `Bury`.
        round: u64,
        /// Of the `Bury`.
        step: BurialStep,
        /// For each of its keys, whether the sender agrees.
        agreed: Vec<bool>,
    },
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the message does.
    #[error("the message is cut short")]
    Truncated,
    /// A field of another type, or out of its bounds.
    #[error("the field {0} is malformed")]
    Malformed(&'static str),
    /// A message type of a later release.
    #[error("unknown message type {0}")]
    UnknownType(u64),
}
