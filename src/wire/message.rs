//! The messages.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Context, Dot, Key, Member, Mirrors, Record, Stamp, Version};

/// What became of a version that a peer was sent or offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckStatus {
    /// It is stored, as durably as that node stores.
    Stored,
    /// It was there already, or something that replaced it.
    Known,
    /// A long value is being fetched; `Stored` follows.
    Fetching,
    /// Too much to do; offer it again later.
    Busy,
    /// Its storage failed. The outcome is unknown.
    Failed,
}

/// The sum over the versions whose key hash lies in a range of one tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeDigest {
    /// The tree: keys with this many mirrors.
    pub mirrors: Mirrors,
    /// Lowest key hash, inclusive.
    pub low: u64,
    /// Highest key hash, inclusive.
    pub high: u64,
    /// How many keys lie in it.
    pub keys: u64,
    /// The sum of their digests.
    pub sum: u64,
}

/// One key as sync speaks of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HashedKey {
    /// [`Key::hash64`].
    pub hash: u64,
    /// Digest of the dots of its versions.
    pub digest: u64,
}

/// All keys of a range. What is not listed is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeList {
    /// The tree.
    pub mirrors: Mirrors,
    /// Lowest key hash, inclusive.
    pub low: u64,
    /// Highest key hash, inclusive.
    pub high: u64,
    /// By hash, ascending.
    pub keys: Vec<HashedKey>,
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
    /// The sender's store is an older copy of itself, and it has not looked through it yet.
    pub doubts: bool,
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
    /// These are my digests: answer where yours differ. Without a range: nothing differs.
    Compare {
        /// The ranges.
        ranges: Vec<RangeDigest>,
    },
    /// These are my keys in ranges where we differ.
    List {
        /// The ranges.
        ranges: Vec<RangeList>,
    },
    /// Please send the keys with these hashes.
    Want {
        /// The tree.
        mirrors: Mirrors,
        /// Key hashes.
        hashes: Vec<u64>,
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
