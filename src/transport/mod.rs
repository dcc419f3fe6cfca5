//! How frames get from one address to another: the trait, and the built-in transports.
//!
//! A transport moves opaque frames of limited length between [`SocketAddr`]s. It may lose, repeat
//! and reorder them; the core repeats and acknowledges what matters. It need not know who is
//! behind an address: sessions (`wire`) find that out. It never blocks the loop and never queues
//! without a bound: a full queue gives the frame back.
//!
//! Native transports register their sockets with the loop's mio registry. Foreign ones run
//! threads of their own, keep a bounded queue and wake the loop with its one
//! [`Waker`].

mod admission;
mod memory;
#[cfg(feature = "quic")]
mod quic;
mod udp;
#[cfg(feature = "udt")]
mod udt;

pub use admission::{Admission, Handshakes};
pub use memory::{MemoryNetwork, MemoryTransport};
#[cfg(feature = "quic")]
pub use quic::QuicTransport;
pub use udp::UdpTransport;
#[cfg(feature = "udt")]
pub use udt::UdtTransport;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Registry, Token, Waker};

use crate::{config::USUAL_PATIENCE, identity::Identity, model::PublicKey};

/// Every transport takes frames of at least this many bytes: what any IPv6 path carries, and room
/// enough for every message that can't be split.
pub const MIN_MAX_FRAME_BYTES: usize = 1_200;

/// What a transport gets from the loop at its start.
pub struct TransportContext<'a> {
    /// To register sources with, under `token`.
    pub registry: &'a Registry,
    /// The token whose readiness is passed to [`Transport::ready`].
    pub token: Token,
    /// Wakes the loop from another thread; `poll` is called soon after.
    pub waker: Arc<Waker>,
    /// The node's key pair, for those that show who they are.
    pub identity: Arc<Identity>,
}

/// What a transport tells the loop.
#[derive(Debug)]
pub enum TransportEvent {
    /// A frame came in.
    Frame {
        /// From this address: where an answer goes.
        from: SocketAddr,
        /// Its bytes: not empty, as long as the *sender's* transport allows, which may be more
        /// than ours does.
        frame: Bytes,
    },
    /// Whoever is at this address has shown to hold this key. Comes before the first frame from there, and
    /// holds until `Closed`. Transports that know no keys never say so.
    Opened {
        /// Where.
        addr: SocketAddr,
        /// The key.
        key: PublicKey,
    },
    /// Whoever has this key, and was dialled at this address, turned this node away as one that was removed.
    /// Transports that know no keys never say so.
    Removed {
        /// Where.
        addr: SocketAddr,
        /// Whose word it is.
        key: PublicKey,
    },
    /// The connection to this address is gone. Connectionless transports never say so.
    Closed {
        /// Which.
        addr: SocketAddr,
    },
}

/// Why a frame was not taken. It was not sent and never will be.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The queue to that address is full. The frame comes back; try when the loop turns again.
    #[error("the queue to this peer is full")]
    Full(Bytes),
    /// Longer than [`Transport::max_frame_bytes`].
    #[error("the frame is longer than this transport takes")]
    TooLong,
    /// The address can't be reached by this transport at all (another family, for example).
    #[error("this transport does not reach {0}")]
    Unreachable(SocketAddr),
}

/// A way to carry frames. See the [module](self) for what it owes and what it may do.
///
/// All methods run on the loop's thread and must not block, except [`stop`](Self::stop), which is
/// bounded by its argument.
pub trait Transport: Send {
    /// A short word for `/status` and logs: `udp`, `udt`, `memory`.
    fn kind(&self) -> &'static str;

    /// Binds, and begins to receive. Called once, before anything else.
    ///
    /// # Errors
    /// Whatever keeps it from binding; the node then refuses to start.
    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr>;

    /// The longest frame that [`send`](Self::send) takes, in bytes; at least
    /// [`MIN_MAX_FRAME_BYTES`]. Fixed after `start`.
    fn max_frame_bytes(&self) -> usize;

    /// Queues a frame to `to`, connecting first where that is needed.
    ///
    /// # Errors
    /// [`SendError`]; the frame was not taken.
    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError>;

    /// As [`send`](Self::send), for a frame that nobody waits for: it may come some tenths of a second
    /// later where that spares traffic.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_later(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        self.send(to, frame)
    }

    /// For how long nothing may be heard of a peer that is alive, where much is lost on the way. The
    /// default of [`Config::down_after`](crate::Config::down_after). Fixed after `start`.
    fn patience(&self) -> Duration {
        USUAL_PATIENCE
    }

    /// Called when the loop's queues to all peers have run empty for now: the moment to push out
    /// what was held back for a fuller packet.
    fn flush(&mut self) {}

    /// The source under the transport's token became ready. Remember it; `poll` follows.
    fn ready(&mut self) {}

    /// Hands what came in to `sink`, at most `limit` events, and says whether more is waiting.
    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool;

    /// When `poll` is to be called at the latest, though nothing became ready: for transports with timers.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Says who may connect, at the start and whenever the members change. Connections of others are
    /// closed. Transports that know no keys let everybody in.
    fn admit(&mut self, _admission: Admission) {}

    /// What came of handshakes since the start. For `/status` and metrics.
    fn handshakes(&self) -> Handshakes {
        Handshakes::default()
    }

    /// Forgets the connection to `addr`, if there is one.
    fn close(&mut self, addr: SocketAddr);

    /// How many frames were lost for want of room, refused by the system or malformed, since the
    /// start. For `/status` and metrics.
    fn dropped_frames(&self) -> u64 {
        0
    }

    /// Sends what is queued as far as `within` allows, then closes everything.
    fn stop(&mut self, within: Duration);
}
