//! What goes into the core and what comes out of it: the whole of its dealings with the world.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{Event, OpId, Outcome, Progress, Request, Sign, WatchId};
use crate::{
    config::Config,
    model::{Dot, Key, Member, Members, NodeId, PublicKey, Record, Verify, Version},
    partition::{PartitionCount, Partitioner, Placement},
    storage::{Change, StageId},
    wire::Message,
};

/// The time of an input, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Never goes back. Timers run by it.
    pub mono_ms: u64,
    /// Since 1970, as the machine believes. Stamps versions and decides on expiry.
    pub wall_ms: u64,
}

/// Names a piece of work for storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks for something.
    Request {
        /// Names it; not used before.
        op: OpId,
        /// What.
        request: Request,
    },
    /// A peer said something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Storage finished.
    Done {
        /// Which work.
        job: JobId,
        /// How it ended.
        result: Done,
    },
    /// A peer can be talked to.
    LinkUp {
        /// Who.
        peer: NodeId,
        /// Which process of it.
        incarnation: u64,
    },
    /// A member whose key nobody named has shown one, and is believed.
    KeyShown {
        /// Who.
        peer: NodeId,
        /// The key.
        key: PublicKey,
    },
    /// A peer turned this node away as one that was removed, and is believed to be who it says.
    RefusedAsRemoved {
        /// Who.
        by: NodeId,
    },
    /// A peer can't be talked to any more.
    LinkDown {
        /// Who.
        peer: NodeId,
    },
    /// Nothing but time went by.
    Tick,
}

/// Work for storage. Work on one key is done in the order in which it was given out.
#[derive(Clone, Debug)]
pub enum Work {
    /// Change what is kept.
    Change(Change),
    /// Read all versions of a key.
    Read(Key),
    /// Read the metadata of all versions of a key; answered by records without values.
    Versions(Key),
    /// Read a piece of a long value.
    Piece {
        /// Of which key.
        key: Key,
        /// Of which version.
        dot: Dot,
        /// From which byte.
        offset: u64,
        /// At most so many bytes.
        len: usize,
    },
    /// Begin the stage of a value that is to be fetched, or go on with what is left of one.
    Resume {
        /// Of which key.
        key: Key,
        /// Under which name from now on.
        stage: StageId,
        /// Of which version.
        version: Arc<Version>,
    },
    /// Keep a piece of a value that is being fetched.
    Stage {
        /// Of which key.
        key: Key,
        /// Which value.
        stage: StageId,
        /// From which byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Forget a staged value. Nothing is answered.
    Discard {
        /// Of which key.
        key: Key,
        /// Which value.
        stage: StageId,
    },
}

impl Work {
    /// How many bytes of values it carries.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Change(Change::Put { value, .. }) => value.len() as u64,
            Self::Stage { bytes, .. } => bytes.len() as u64,
            _ => 0,
        }
    }
}

/// How work for storage ended; a failure in words.
#[derive(Clone, Debug)]
pub enum Done {
    /// Of a change or a stage.
    Changed(Result<(), String>),
    /// Of a read.
    Records(Result<Vec<Record>, String>),
    /// Of a piece.
    Piece(Result<Bytes, String>),
    /// Of a resume: from which byte on the value is missing.
    Resumed(Result<u64, String>),
}

/// What a node is to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell a peer something. It may get lost.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Have storage do something and hand in how it ended.
    Work {
        /// Its name.
        job: JobId,
        /// What.
        work: Work,
    },
    /// An operation is over.
    Finish {
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// A mirror of a running write has stored it.
    Progress {
        /// Which operation.
        op: OpId,
        /// Who, and how many by now.
        progress: Progress,
    },
    /// A watch saw a version.
    Notify {
        /// Which.
        watch: WatchId,
        /// What.
        event: Event,
    },
    /// The member list changed: keep it, let these talk to us, place by it.
    Publish {
        /// The list.
        members: Arc<Members>,
        /// Who owns what from now on.
        placement: Arc<Placement>,
    },
    /// Try to reach a peer.
    Dial {
        /// Whom.
        peer: NodeId,
        /// Where.
        addrs: Vec<SocketAddr>,
    },
    /// Give a link up: its peer is silent.
    HangUp {
        /// Whose.
        peer: NodeId,
    },
    /// Something that an operator should read.
    Notice(String),
}

/// What a core starts with.
#[derive(Debug)]
pub struct Setup {
    /// This node's entry in the member list.
    pub this: Member,
    /// The other members as far as known, removed ones included.
    pub peers: Vec<Member>,
    /// Where keys belong.
    pub partitioner: Arc<dyn Partitioner>,
    /// How many partitions the cluster has.
    pub partitions: PartitionCount,
    /// How to behave.
    pub config: Config,
    /// Which process of its node this is: as its hellos say.
    pub incarnation: u64,
    /// Determines everything that is left to chance.
    pub seed: u64,
    /// The longest message that goes into one frame, in bytes. Values that would make one longer
    /// travel in pieces.
    pub max_message_bytes: usize,
    /// Says who signed what.
    pub verify: Verify,
    /// Signs what this node says of itself.
    pub sign: Sign,
    /// The cluster's name, which is part of what is signed.
    pub cluster: String,
}
