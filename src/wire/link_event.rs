//! What the session layer reports: events, refusals to send, counters.

use std::net::SocketAddr;

use super::{Message, Refusal};
use crate::model::{NodeId, PublicKey};

/// What happened on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The peer has shown that it receives at this address. Also comes, after a `Down`, when
    /// another process takes over.
    Up {
        /// Who.
        peer: NodeId,
        /// Which of its processes.
        incarnation: u64,
        /// Where.
        addr: SocketAddr,
    },
    /// A member whose key is not known has shown this one, and nobody else has it. Comes before its `Up`.
    KeyShown {
        /// Who.
        peer: NodeId,
        /// The key.
        key: PublicKey,
    },
    /// The link is gone, and with it what was not flushed.
    Down {
        /// Whose.
        peer: NodeId,
    },
    /// It says something.
    Message {
        /// Who.
        peer: NodeId,
        /// What.
        message: Message,
    },
    /// Somebody was turned away. At most once per address and [`REFUSAL_EVENT_MS`](super::REFUSAL_EVENT_MS).
    Refused {
        /// Where from.
        addr: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// A node turned us away. At most once per address and [`REFUSAL_EVENT_MS`](super::REFUSAL_EVENT_MS).
    RefusedBy {
        /// Who, if it is a member.
        peer: Option<NodeId>,
        /// Where.
        addr: SocketAddr,
        /// Why.
        reason: Refusal,
    },
}

/// Why a message was not taken. It will not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// There is no link to this peer.
    #[error("there is no link to this peer")]
    NoLink,
    /// Longer than [`MAX_MESSAGE_BYTES`](super::MAX_MESSAGE_BYTES), or it has too many of something.
    #[error("the message is too long")]
    TooLong,
    /// [`MAX_UNFLUSHED_FRAMES`](super::MAX_UNFLUSHED_FRAMES) are waiting.
    #[error("too many frames wait to be flushed")]
    Full,
}

/// What went in and out since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct LinkCounters {
    pub frames_in: u64,
    pub frames_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub hellos_in: u64,
    pub hellos_out: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    /// Parts of messages that are longer than a frame.
    pub parts_in: u64,
    pub parts_out: u64,
    /// Messages given up while parts of them were missing: too old, or too many at once.
    pub partials_dropped: u64,
    /// Frames that are not of this protocol.
    pub not_ours: u64,
    /// Frames of another wire version.
    pub wire_version: u64,
    /// Frames of an unknown type.
    pub unknown_frames: u64,
    /// Frames cut short; hellos, parts and messages that don't parse.
    pub malformed: u64,
    /// Messages of an unknown type.
    pub unknown_messages: u64,
    /// Frames with messages or parts that carried no token of ours.
    pub wrong_token: u64,
    /// Our own hellos, come back to us.
    pub own_hellos: u64,
    /// Hellos that were not answered because there were too many, or no room to queue them.
    pub unanswered: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
    pub(super) refused_by: [u64; Refusal::ALL.len()],
}

impl LinkCounters {
    /// How many hellos were refused for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    /// How many of our hellos were refused for this reason.
    pub fn refused_by(&self, reason: Refusal) -> u64 {
        self.refused_by[reason as usize]
    }
}
