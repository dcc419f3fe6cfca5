//! Frames over UDT: reliable and ordered while a link lives, for networks that lose packets.
//!
//! This folder is the only place that knows the crate `udt`; it hides what that has of traps. It
//! encrypts nothing and knows nobody: UDT itself can be crashed by any host that reaches its
//! port, so bind it to loopback or to a network whose every host you trust.
//!
//! ```text
//!             mio loop              |   threads
//!   send(to) -> Outbox -------------|-> writer -> UDT      two a link; link.rs
//!   poll()  <-- Inbox <-- Waker ----|-- reader <- UDT      queues.rs, framing.rs
//!                 '---- Up, Down ---|-- accept             one a transport; here
//! ```
//!
//! - The loop never enters UDT: everything that may block has a thread of its own.
//! - All connections use the one port that was bound, so a peer sees our listening address.
//! - Two nodes that dial each other at once have two links. Frames are taken from both; frames
//!   to the address go over the one that was made last, which is the live one if the peer died.
//! - UDT notices a dead peer only after 48 s: the session above has to, and calls `close`.
//! - IPv4 only.
//! - A lost packet ends UDT's slow start early, and its pacing may stay slow after that: echoes
//!   then take about 8 ms instead of 0.2 ms. No padding cures that; UDP has no such memory. UDT itself
//!   loses packets of a port's first burst: warm_up.rs.
//!
//! Threads grow with peers: right for tens of them. Limits: those of [`link`],
//! [`framing::MAX_FRAME_BYTES`], [`queues`].

mod framing;
mod link;
mod queues;
mod socket;
mod warm_up;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use self::{
    link::{Item, Link, Live, Shared},
    queues::{Inbox, NotQueued, Threads},
    socket::Socket,
    warm_up::warm_up,
};
use super::{SendError, Transport, TransportContext, TransportEvent};

/// How long UDT may go on with a request to connect after the door was closed.
const DOOR_CLOSING: Duration = Duration::from_millis(50);
/// How often the door looks for connections. A thread that blocks in UDT's accept would keep a
/// process from ending; UDT itself wakes up more often than this.
const ACCEPT_TURN: Duration = Duration::from_millis(10);
/// UDT repeats what was lost after pauses that grow: with a fifth of the packets lost, a link that lives
/// has been seen silent for 7 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a stop's bound is kept for closing, after flushing.
const CLOSING_TIME: Duration = Duration::from_millis(100);

/// Frames over UDT connections. See the [module](crate::transport) for what a transport owes.
///
/// Reliable and in order while a connection lives; it connects by itself when something is sent.
/// A frame is at most 72 KiB long. On loopback, an echo takes about 0.2 ms; on a network that loses
/// one packet in a thousand, about 8 ms, where [`UdpTransport`](super::UdpTransport) does not
/// slow down. Each peer costs two threads, so it is made for tens of peers. A start takes some 50 ms, in
/// which the port is made ready for a burst.
///
/// **Any host that reaches the port can crash the process** (the protocol's implementation trusts
/// its packets), so bind it to loopback or to a network whose every host you trust.
pub struct UdtTransport {
    addr: SocketAddr,
    started: Option<Started>,
}

struct Started {
    shared: Arc<Shared>,
    /// The last link of an address is the one to send over.
    peers: BTreeMap<SocketAddr, Vec<Arc<Link>>>,
}

impl UdtTransport {
    /// A transport that binds this IPv4 address when it is started; port 0 lets the system pick
    /// one.
    ///
    /// UDT holds a port for some seconds after a stop. A start at the same port in the same
    /// process waits for it, up to 8 s.
    pub fn bind(addr: SocketAddr) -> Self {
        Self { addr, started: None }
    }
}

impl Transport for UdtTransport {
    fn kind(&self) -> &'static str {
        "udt"
    }

    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr> {
        if !self.addr.is_ipv4() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("UDT address {}: the UDT transport speaks IPv4 only", self.addr),
            ));
        }
        let (door, addr) = Socket::listen(self.addr)
            .map_err(|error| io::Error::new(error.kind(), format!("UDT address {}: {error}", self.addr)))?;
        if !addr.ip().is_loopback() {
            log::warn!(
                "UDT listens at {addr}: every host that reaches this port can crash this process; \
                 let no stranger near it"
            );
        }
        let shared = Arc::new(Shared {
            local: addr,
            waker: context.waker.clone(),
            inbox: Inbox::new(context.waker),
            threads: Arc::new(Threads::default()),
            live: Mutex::new(Live::default()),
            dropped_frames: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            flush_until: Mutex::new(None),
        });
        let mut others = Vec::new();
        if let Err(error) = warm_up(&door, addr, &mut others) {
            log::warn!("the first burst over UDT may be slow: {addr} can't reach itself: {error}");
        }
        others.into_iter().for_each(|(socket, from)| Link::accept(&shared, from, socket));
        let for_door = shared.clone();
        if !shared.threads.spawn("turbopump-udt-door", move || keep_door(&door, &for_door)) {
            return Err(io::Error::other("no thread for the UDT transport"));
        }
        self.addr = addr;
        self.started = Some(Started { shared, peers: BTreeMap::new() });
        Ok(addr)
    }

    fn max_frame_bytes(&self) -> usize {
        framing::MAX_FRAME_BYTES
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        self.queue(to, frame, true)
    }

    /// Without the pads that hurry it along: it comes up to 0.2 s later.
    fn send_later(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        self.queue(to, frame, false)
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        let Some(started) = &mut self.started else {
            return false;
        };
        for _ in 0..limit {
            let Some(item) = started.shared.inbox.pop() else {
                return false;
            };
            match item {
                Item::Frame(link, frame) => {
                    link.refund(&frame);
                    sink(TransportEvent::Frame { from: link.addr, frame });
                }
                Item::Up(link) => started.peers.entry(link.addr).or_default().push(link),
                Item::Down(link) => {
                    if started.forget(&link) {
                        sink(TransportEvent::Closed { addr: link.addr });
                    }
                }
            }
        }
        !started.shared.inbox.is_empty()
    }

    fn close(&mut self, addr: SocketAddr) {
        let links = self.started.as_mut().and_then(|started| started.peers.remove(&addr));
        links.iter().flatten().for_each(Link::cut);
    }

    fn dropped_frames(&self) -> u64 {
        self.started.as_ref().map_or(0, |started| started.shared.dropped_frames.load(Ordering::Relaxed))
    }

    fn stop(&mut self, within: Duration) {
        if let Some(started) = self.started.take() {
            started.stop(within);
        }
    }
}

impl Drop for UdtTransport {
    fn drop(&mut self) {
        self.stop(CLOSING_TIME);
    }
}

impl UdtTransport {
    fn queue(&mut self, to: SocketAddr, frame: Bytes, is_urgent: bool) -> Result<(), SendError> {
        if frame.len() > framing::MAX_FRAME_BYTES {
            return Err(SendError::TooLong);
        }
        if !reachable(to) {
            return Err(SendError::Unreachable(to));
        }
        let Some(started) = &mut self.started else {
            return Err(SendError::Full(frame));
        };
        if frame.is_empty() {
            started.shared.dropped_frames.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        started.send(to, frame, is_urgent).map_err(SendError::Full)
    }
}

impl Started {
    fn send(&mut self, to: SocketAddr, mut frame: Bytes, is_urgent: bool) -> Result<(), Bytes> {
        let links = self.peers.entry(to).or_default();
        for link in links.iter().rev() {
            match link.outbox.push(frame, is_urgent) {
                Ok(()) => return Ok(()),
                Err(NotQueued::Full(returned)) => return Err(returned),
                // Gone, and its `Down` is on the way: not to be waited for.
                Err(NotQueued::Finished(returned)) => frame = returned,
            }
        }
        let Some(link) = Link::dial(&self.shared, to) else {
            if links.is_empty() {
                self.peers.remove(&to);
            }
            return Err(frame);
        };
        let queued = link.outbox.push(frame, is_urgent);
        links.push(link);
        queued.map_err(|(NotQueued::Full(frame) | NotQueued::Finished(frame))| frame)
    }

    /// Whether this was the last link to its address.
    fn forget(&mut self, link: &Arc<Link>) -> bool {
        let Some(links) = self.peers.get_mut(&link.addr) else {
            return false;
        };
        let before = links.len();
        links.retain(|other| !Arc::ptr_eq(other, link));
        let was_last = links.is_empty() && before > 0;
        if links.is_empty() {
            self.peers.remove(&link.addr);
        }
        was_last
    }

    fn stop(self, within: Duration) {
        self.shared.inbox.shut();
        let deadline = Instant::now() + within;
        let flush_until = deadline - CLOSING_TIME.min(within / 2);
        *self.shared.flush_until.lock() = Some(flush_until);
        // Under the lock that links begin under: none begins that isn't in the list.
        let live = self.shared.live.lock();
        self.shared.stopping.store(true, Ordering::Release);
        let links = live.links();
        drop(live);
        links.iter().for_each(|link| link.outbox.finish());
        if self.shared.threads.wait(flush_until) {
            return;
        }
        self.shared.threads.spawn("turbopump-udt-close", move || {
            links.iter().for_each(|link| link.cut_here());
        });
        if !self.shared.threads.wait(deadline) {
            log::debug!("UDT threads at {} end later than asked for", self.shared.local);
        }
    }
}

fn reachable(to: SocketAddr) -> bool {
    match to {
        SocketAddr::V4(v4) => {
            let ip = v4.ip();
            v4.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
        }
        SocketAddr::V6(_) => false,
    }
}

/// Accepts until the transport stops, and then closes the door before anything else is closed.
fn keep_door(door: &Socket, shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::Acquire) {
        match door.accept() {
            Ok(Some((socket, from))) => Link::accept(shared, from, socket),
            Ok(None) => std::thread::sleep(ACCEPT_TURN),
            Err(error) => {
                log::debug!("UDT accept at {}: {error}", shared.local);
                std::thread::sleep(ACCEPT_TURN);
            }
        }
    }
    door.close();
    // A request to connect that UDT is at work on still uses what the process frees as it ends.
    std::thread::sleep(DOOR_CLOSING);
}
