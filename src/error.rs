//! What can go wrong, per operation; each variant says what happened to the state.

use std::{io, path::PathBuf};

use crate::{
    model::{KeyError, MembersFileError, NodeId, NodeIdError, SealError, WarrantError},
    storage::StorageError,
};

/// A node did not start. Nothing runs, nothing was changed beyond what `storage` cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Config(String),
    /// The id is none.
    #[error(transparent)]
    Id(#[from] NodeIdError),
    /// The members file has a line that does not parse. It was not touched.
    #[error("{}, {error}", path.display())]
    MembersFile {
        /// Which file.
        path: PathBuf,
        /// Which line, and what is wrong with it.
        error: MembersFileError,
    },
    /// A file or folder under the home could not be read or written.
    #[error("{}: {error}", path.display())]
    Home {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The transport could not bind.
    #[error("{addr}: {error}")]
    Bind {
        /// Where it was to listen.
        addr: String,
        /// Why.
        error: io::Error,
    },
    /// The storage could not be opened or loaded.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The loop or a thread could not be made.
    #[error("the event loop can't start: {0}")]
    Loop(io::Error),
}

/// A request was not taken. Nothing was or will be done, and its closure never runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The name is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value is over the limit `max_value_bytes`.
    #[error("the value has {len} bytes, the limit max_value_bytes is {max}")]
    ValueTooLong {
        /// Its length in bytes.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The value is over the limit `max_stream_bytes`.
    #[error("the value is longer than the limit max_stream_bytes of {max} bytes")]
    StreamTooLong {
        /// The limit.
        max: u64,
    },
    /// More is under way than the limits allow. Try again later.
    #[error("busy: too much is under way, try again later")]
    Busy,
    /// The node is shutting down or has stopped.
    #[error("the node is stopping")]
    Stopping,
    /// The node has left the cluster, or was removed from it: nobody would get what is written here.
    #[error("this node is no member of its cluster any more, ask another one")]
    NoMember,
    /// Its signature is missing or wrong, or what was signed is out of date.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A write did not reach what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It was refused. Nothing was stored anywhere.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// More acknowledgements were asked for than the key has owners. Nothing was stored anywhere.
    #[error("{asked} acknowledgements were asked for, the key has {owners} owners")]
    AckImpossible {
        /// How many were asked for.
        asked: u16,
        /// How many nodes own the key now.
        owners: usize,
    },
    /// The time was up. *Unknown*: copies may exist, and may spread.
    #[error("time is up with {acked} acknowledgements; the outcome is unknown, copies may spread")]
    TimedOut {
        /// Owners that have stored it.
        acked: usize,
    },
    /// This node's storage failed. *Unknown*: copies may exist on other nodes, and may spread.
    #[error("the outcome is unknown: {0}")]
    Storage(String),
    /// The node was shut down first. *Unknown*: copies may exist, and may spread.
    #[error("the node stopped first; the outcome is unknown, copies may spread")]
    Stopped,
}

/// A read brought no answer. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// The time was up before enough owners had answered.
    #[error("time is up with {answered} of {needed} answers")]
    TimedOut {
        /// Owners that have answered.
        answered: usize,
        /// How many were needed.
        needed: usize,
    },
    /// Fewer owners are up than the read needs.
    #[error("the read needs {needed} owners, {up} are up")]
    Unavailable {
        /// How many were needed.
        needed: usize,
        /// How many are up, this node included.
        up: usize,
    },
    /// The value is over the limit `max_value_bytes` of what is read whole.
    #[error(
        "the value has {len} bytes, the limit max_value_bytes for reading it whole is {max}; use a reader"
    )]
    TooLong {
        /// Its length in bytes.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The version was replaced or deleted while it was read in pieces.
    #[error("the value was replaced or deleted while it was read; read it again")]
    Replaced,
    /// Storage failed, or a value does not fit its digest and no other owner has it.
    #[error("{0}")]
    Storage(String),
    /// The node was shut down first.
    #[error("the node stopped first")]
    Stopped,
}

/// The member list was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// The id is none.
    #[error(transparent)]
    Id(#[from] NodeIdError),
    /// There is no such member.
    #[error("node {0} is no member")]
    Unknown(NodeId),
    /// Another key of it is known. It has to leave or to be removed first, and then added with the new one;
    /// where members are signed, one that was removed with another id.
    #[error("another key of node {0} is known: it has to leave or to be removed first")]
    Key(NodeId),
    /// Members are signed here, and this is not, or not by one whose signature counts.
    #[error(transparent)]
    Warrant(#[from] WarrantError),
    /// It was removed where members are signed, or whoever had this key.
    #[error("node {0}, or the key named for it, was removed for good: give it a new key and another id")]
    RemovedForGood(NodeId),
    /// It left, or was appointed to a later generation before.
    #[error("node {id} was here before: appoint it to generation {next}")]
    Generation {
        /// Which.
        id: NodeId,
        /// The lowest that counts.
        next: u32,
    },
    /// A node does not add or remove itself.
    #[error("node {0} is this node")]
    Myself(NodeId),
    /// Nobody else could hold what this node holds.
    #[error("the last member can't leave: there is nobody to give its copies to")]
    LastMember,
    /// A limit on members or addresses.
    #[error("{0}")]
    Limit(String),
    /// The node was shut down first.
    #[error("the node stopped first")]
    Stopped,
}

impl From<std::convert::Infallible> for SubmitError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl ReadError {
    /// Where a storage error ends a read.
    pub(crate) fn storage(error: &StorageError) -> Self {
        Self::Storage(error.to_string())
    }
}
