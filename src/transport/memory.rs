//! A network inside one process: for tests, and for several nodes in one program.
//!
//! No socket is opened and no byte leaves the process: a frame moves from one node's loop to the
//! other's as a shared [`Bytes`]. It is not the simulator, which has virtual time; here the nodes
//! are real and so are their threads.
//!
//! ```text
//!   MemoryTransport a            MemoryNetwork                 MemoryTransport b
//!   send(b, frame) --------> mailboxes: addr -> queue -------> poll() hands it out
//!                            b was empty? wake b's loop
//! ```
//!
//! - Without faults, every frame that was taken arrives once and in order, while the peer lives.
//! - A frame to an address where nobody is started is dropped, as UDP would.
//! - A mailbox that is full refuses; who was refused is woken once there is room.
//!
//! Limits: [`MAILBOX_FRAMES`] and [`MAILBOX_BYTES`] a receiver.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mio::Waker;
use parking_lot::Mutex;

use super::{SendError, Transport, TransportContext, TransportEvent};

/// How many frames wait for one receiver, at most.
pub const MAILBOX_FRAMES: usize = 8_192;
/// How many bytes wait for one receiver, at most.
pub const MAILBOX_BYTES: usize = 16 * 1024 * 1024;
/// The longest frame unless [`MemoryTransport::max_frame_bytes`] says otherwise: what UDP takes
/// on loopback, so that a program tried in memory behaves the same over sockets.
const DEFAULT_MAX_FRAME_BYTES: usize = 60_000;
/// Any number but zero would do; fixed, so that a test loses the same frames again.
const LOSS_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A network of [`MemoryTransport`]s that reach each other and nobody else. Clones are the same
/// network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    mailboxes: Mutex<BTreeMap<SocketAddr, Arc<Mailbox>>>,
    faults: Mutex<Faults>,
    dropped_frames: AtomicU64,
}

#[derive(Default)]
struct Faults {
    loss_percent: u8,
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    drawn: u64,
}

impl MemoryNetwork {
    /// A network without anybody in it, and without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport that takes a free address, such as `127.0.0.1:1`, when it is started.
    pub fn transport(&self) -> MemoryTransport {
        self.transport_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// A transport at this address; port 0 means any free one. The address is only a name here.
    pub fn transport_at(&self, addr: SocketAddr) -> MemoryTransport {
        MemoryTransport {
            network: self.clone(),
            addr,
            mailbox: None,
            waker: None,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            dropped_frames: 0,
        }
    }

    /// Loses this share of all frames from now on: 0 (the default) to 100 percent. Which ones is
    /// drawn from a fixed seed.
    pub fn lose_percent(&self, percent: u8) {
        self.shared.faults.lock().loss_percent = percent.min(100);
    }

    /// Loses every frame from `from` to `to`, and only in this direction, until
    /// [`heal`](Self::heal).
    pub fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.shared.faults.lock().cuts.insert((from, to));
    }

    /// Loses every frame between these two, both ways, until [`heal`](Self::heal).
    pub fn cut(&self, one: SocketAddr, other: SocketAddr) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Undoes every cut and every loss.
    pub fn heal(&self) {
        let mut faults = self.shared.faults.lock();
        faults.cuts.clear();
        faults.loss_percent = 0;
    }

    /// How many frames this network has lost: by a fault, or because nobody was there.
    pub fn dropped_frames(&self) -> u64 {
        self.shared.dropped_frames.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn loses(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let mut faults = self.faults.lock();
        if faults.cuts.contains(&(from, to)) {
            return true;
        }
        if faults.loss_percent == 0 {
            return false;
        }
        faults.drawn += 1;
        splitmix(LOSS_SEED.wrapping_mul(faults.drawn)) % 100 < u64::from(faults.loss_percent)
    }
}

/// Steele, Lea and Flood's SplitMix64, the finishing part: enough to spread losses evenly.
fn splitmix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    addr: SocketAddr,
    mailbox: Option<Arc<Mailbox>>,
    waker: Option<Arc<Waker>>,
    max_frame_bytes: usize,
    dropped_frames: u64,
}

impl MemoryTransport {
    /// Takes frames up to this many bytes: at least 1,200; 60,000 unless set.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = bytes.max(super::MIN_MAX_FRAME_BYTES);
        self
    }

    fn leave(&mut self) {
        let Some(mailbox) = self.mailbox.take() else {
            return;
        };
        let mut mailboxes = self.network.shared.mailboxes.lock();
        mailboxes.remove(&self.addr);
        drop(mailboxes);
        mailbox.wake_refused();
    }
}

impl Transport for MemoryTransport {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr> {
        let mut mailboxes = self.network.shared.mailboxes.lock();
        if self.addr.port() == 0 {
            let free =
                (1..=u16::MAX).find(|port| !mailboxes.contains_key(&SocketAddr::new(self.addr.ip(), *port)));
            let port = free.ok_or(io::ErrorKind::AddrNotAvailable)?;
            self.addr.set_port(port);
        } else if mailboxes.contains_key(&self.addr) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{} is taken in this memory network", self.addr),
            ));
        }
        let mailbox = Arc::new(Mailbox::new(context.waker.clone()));
        mailboxes.insert(self.addr, mailbox.clone());
        self.mailbox = Some(mailbox);
        self.waker = Some(context.waker);
        Ok(self.addr)
    }

    fn max_frame_bytes(&self) -> usize {
        self.max_frame_bytes
    }

    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > self.max_frame_bytes {
            return Err(SendError::TooLong);
        }
        let shared = &self.network.shared;
        let peer = shared.mailboxes.lock().get(&to).cloned();
        match (peer, &self.waker) {
            (Some(peer), Some(waker)) if !frame.is_empty() && !shared.loses(self.addr, to) => {
                peer.push(self.addr, frame, waker).map_err(SendError::Full)
            }
            _ => {
                shared.dropped_frames.fetch_add(1, Ordering::Relaxed);
                self.dropped_frames += 1;
                Ok(())
            }
        }
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        let Some(mailbox) = &self.mailbox else {
            return false;
        };
        for _ in 0..limit {
            // One at a time: the sink may take long, and senders must not wait for it.
            let Some((from, frame)) = mailbox.pop() else {
                return false;
            };
            sink(TransportEvent::Frame { from, frame });
        }
        !mailbox.waiting.lock().frames.is_empty()
    }

    fn close(&mut self, _addr: SocketAddr) {}

    fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    fn stop(&mut self, _within: Duration) {
        self.leave();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.leave();
    }
}

struct Mailbox {
    waiting: Mutex<Waiting>,
    owner: Arc<Waker>,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<(SocketAddr, Bytes)>,
    bytes: usize,
    refused: BTreeMap<SocketAddr, Arc<Waker>>,
}

impl Mailbox {
    fn new(owner: Arc<Waker>) -> Self {
        Self { waiting: Mutex::default(), owner }
    }

    fn push(&self, from: SocketAddr, frame: Bytes, sender: &Arc<Waker>) -> Result<(), Bytes> {
        let mut waiting = self.waiting.lock();
        let full = waiting.frames.len() >= MAILBOX_FRAMES || waiting.bytes + frame.len() > MAILBOX_BYTES;
        if full {
            waiting.refused.insert(from, sender.clone());
            return Err(frame);
        }
        let was_empty = waiting.frames.is_empty();
        waiting.bytes += frame.len();
        waiting.frames.push_back((from, frame));
        drop(waiting);
        if was_empty {
            wake(&self.owner);
        }
        Ok(())
    }

    fn pop(&self) -> Option<(SocketAddr, Bytes)> {
        let mut waiting = self.waiting.lock();
        let next = waiting.frames.pop_front()?;
        waiting.bytes -= next.1.len();
        // Half empty rather than one place free: else a sender is woken for every frame.
        let roomy = waiting.frames.len() <= MAILBOX_FRAMES / 2 && waiting.bytes <= MAILBOX_BYTES / 2;
        let refused = if roomy { std::mem::take(&mut waiting.refused) } else { BTreeMap::new() };
        drop(waiting);
        refused.values().for_each(wake);
        Some(next)
    }

    fn wake_refused(&self) {
        let refused = std::mem::take(&mut self.waiting.lock().refused);
        refused.values().for_each(wake);
    }
}

/// A loop that can't be woken is one that ended: there is nobody left to tell.
fn wake(waker: &Arc<Waker>) {
    if let Err(error) = waker.wake() {
        log::debug!("a loop of the memory network was not woken: {error}");
    }
}
