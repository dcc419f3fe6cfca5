//! One link: a UDT connection, the thread that writes to it and the thread that reads from it.
//!
//! Whatever can block happens on these two threads: connecting, a full window, a full inbox. The
//! loop only touches the link's queues. Which link a frame takes is decided by
//! [`UdtTransport`](super::UdtTransport).
//!
//! ```text
//!   dial or accept -> [writer thread: connect] -> [reader thread: preamble -> Up, frames]
//!                       outbox -> pieces -> pads      |
//!                       until finished, cut or broken-+-> both end -> socket closed -> Down
//! ```
//!
//! - `Down` is said once, after the last frame of the link.
//! - An accepted link is `Up` only once the peer has said the preamble: strangers stay unknown.
//! - A dialed peer that doesn't say it in [`GREETING_TIME`] is given up, whatever UDT believes.
//!
//! Limits: [`MAX_LINKS`], [`COALESCED_BYTES`], [`READ_BYTES`]; those of the queues.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::Waker;
use parking_lot::Mutex;

use super::{
    framing::{self, Deframer},
    queues::{Credit, Inbox, Outbox, Threads},
    socket::Socket,
};

/// How many links there are at most, incoming, outgoing and half-made ones together. Each takes
/// two threads and about 500 KB.
const MAX_LINKS: usize = 256;
/// Frames that wait are sent together, up to about this many bytes at a time.
const COALESCED_BYTES: usize = 256 * 1_024;
/// How much is read from UDT at a time.
const READ_BYTES: usize = 64 * 1_024;
/// How long a peer may take to say that it speaks our format.
const GREETING_TIME: Duration = Duration::from_secs(3);
/// How often a writer that ends looks whether its last bytes have arrived.
const FLUSH_TURN: Duration = Duration::from_millis(1);

/// What the loop, the door and all links share.
pub(super) struct Shared {
    pub(super) local: SocketAddr,
    pub(super) waker: Arc<Waker>,
    pub(super) inbox: Inbox<Item>,
    pub(super) threads: Arc<Threads>,
    pub(super) live: Mutex<Live>,
    pub(super) dropped_frames: AtomicU64,
    pub(super) stopping: AtomicBool,
    /// Links that were told to finish wait no longer than this for acknowledgements.
    pub(super) flush_until: Mutex<Option<Instant>>,
}

/// All links whose threads run.
#[derive(Default)]
pub(super) struct Live {
    links: BTreeMap<u64, Arc<Link>>,
    next: u64,
}

impl Live {
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.links.values().cloned().collect()
    }
}

/// What links tell the loop.
pub(super) enum Item {
    /// A peer connected to us and speaks our format.
    Up(Arc<Link>),
    /// A frame came in.
    Frame(Arc<Link>, Bytes),
    /// This link is gone.
    Down(Arc<Link>),
}

/// One connection. See the [module](self).
pub(super) struct Link {
    pub(super) addr: SocketAddr,
    pub(super) outbox: Outbox,
    credit: Credit,
    socket: OnceLock<Socket>,
    cut: AtomicBool,
    number: u64,
    shared: Arc<Shared>,
}

impl Link {
    /// Begins to connect; frames can be queued at once. `None`: there are too many links.
    pub(super) fn dial(shared: &Arc<Shared>, addr: SocketAddr) -> Option<Arc<Self>> {
        Self::begin(shared, addr, None)
    }

    /// Takes over a connection that came in; where there are too many links, it is closed.
    pub(super) fn accept(shared: &Arc<Shared>, addr: SocketAddr, socket: Socket) {
        if Self::begin(shared, addr, Some(socket)).is_none() {
            log::warn!("refused a UDT connection from {addr}: {MAX_LINKS} links");
        }
    }

    fn begin(shared: &Arc<Shared>, addr: SocketAddr, accepted: Option<Socket>) -> Option<Arc<Self>> {
        let mut live = shared.live.lock();
        if live.links.len() >= MAX_LINKS || shared.stopping.load(Ordering::Acquire) {
            return None;
        }
        let number = live.next;
        live.next += 1;
        let link = Arc::new(Self {
            addr,
            outbox: Outbox::new(shared.waker.clone()),
            credit: Credit::default(),
            socket: OnceLock::new(),
            cut: AtomicBool::new(false),
            number,
            shared: shared.clone(),
        });
        live.links.insert(number, link.clone());
        drop(live);
        let ending = Ending(link.clone());
        let spawned = shared.threads.spawn("turbopump-udt", move || {
            let ending = ending;
            ending.0.run(accepted);
        });
        spawned.then_some(link)
    }

    /// Ends the link now, from the loop: what is queued is dropped, and the socket is closed on
    /// another thread, since UDT may take its time.
    pub(super) fn cut(self: &Arc<Self>) {
        self.mark_cut();
        if self.socket.get().is_some() {
            let link = self.clone();
            self.shared.threads.spawn("turbopump-udt-close", move || link.cut_here());
        }
    }

    /// Ends the link now, from a thread that may wait.
    pub(super) fn cut_here(&self) {
        self.mark_cut();
        if let Some(socket) = self.socket.get() {
            socket.close();
        }
    }

    /// The loop has handed out a frame of this link.
    pub(super) fn refund(&self, frame: &Bytes) {
        self.credit.refund(frame.len());
    }

    fn mark_cut(&self) {
        // Before the socket is looked at: whoever sets the socket looks at this afterwards.
        self.cut.store(true, Ordering::SeqCst);
        let dropped = self.outbox.discard();
        self.shared.dropped_frames.fetch_add(dropped as u64, Ordering::Relaxed);
        self.credit.cancel();
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn run(self: &Arc<Self>, accepted: Option<Socket>) {
        let dialed = accepted.is_none();
        let socket = match accepted {
            Some(socket) => Ok(socket),
            None => Socket::connect(self.shared.local, self.addr, || !self.is_cut()),
        };
        let socket = match socket {
            Ok(socket) => self.socket.get_or_init(|| socket),
            Err(error) => {
                log::debug!("no UDT connection to {}: {error}", self.addr);
                return;
            }
        };
        if self.is_cut() {
            return;
        }
        thread::scope(|scope| {
            let reader = thread::Builder::new().name("turbopump-udt-read".into());
            let spawned = reader.spawn_scoped(scope, || {
                if let Err(error) = self.read(socket, dialed) {
                    log::debug!("UDT link with {}: {error}", self.addr);
                }
                self.cut_here();
            });
            if spawned.is_ok()
                && let Err(error) = self.write(socket)
            {
                log::debug!("UDT link to {}: {error}", self.addr);
            }
            self.cut_here();
        });
    }

    fn write(&self, socket: &Socket) -> io::Result<()> {
        let mut stream = framing::PREAMBLE.to_vec();
        let mut is_urgent = true;
        self.send_burst(socket, &mut stream, &mut is_urgent)?;
        loop {
            stream.clear();
            let any = self.outbox.pop_some(COALESCED_BYTES, |frame, urgent| {
                framing::append(&mut stream, &frame);
                is_urgent |= urgent;
            });
            if !any {
                break;
            }
            self.send_burst(socket, &mut stream, &mut is_urgent)?;
        }
        self.flush(socket);
        Ok(())
    }

    /// Pads are owed from an urgent frame on until they are sent.
    fn send_burst(&self, socket: &Socket, stream: &mut Vec<u8>, is_urgent: &mut bool) -> io::Result<()> {
        framing::end_short(stream);
        for piece in stream.chunks(framing::PIECE_BYTES) {
            socket.send_all(piece)?;
        }
        // More frames do what the pads do, and then they would only be in the way.
        if *is_urgent && self.outbox.is_empty() {
            *is_urgent = false;
            for _ in 0..framing::PADS {
                socket.send_all(&framing::pad())?;
            }
        }
        Ok(())
    }

    /// Waits for acknowledgements of all frames, as long as the stop allows. The pads' own may
    /// take 100 ms more, and nobody needs them.
    fn flush(&self, socket: &Socket) {
        while !self.is_cut() && socket.unacknowledged_packets() > framing::PADS {
            let until = *self.shared.flush_until.lock();
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            thread::sleep(FLUSH_TURN);
        }
    }

    fn read(self: &Arc<Self>, socket: &Socket, dialed: bool) -> io::Result<()> {
        let greeted_by = Instant::now() + GREETING_TIME;
        let mut deframer = Deframer::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut frames = Vec::new();
        let mut up = dialed;
        while self.credit.wait() {
            let received = socket.receive(&mut buffer)?;
            if let Err(garbage) = deframer.take(&buffer[..received], &mut frames) {
                self.shared.dropped_frames.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::new(io::ErrorKind::InvalidData, garbage));
            }
            if !deframer.greeted() && Instant::now() > greeted_by {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing"));
            }
            if deframer.greeted() && !up {
                up = true;
                self.shared.inbox.push_all([Item::Up(self.clone())]);
            }
            self.credit.charge(frames.len(), frames.iter().map(Bytes::len).sum());
            let items = frames.drain(..).map(|frame| Item::Frame(self.clone(), frame));
            self.shared.inbox.push_all(items);
        }
        Ok(())
    }
}

/// Takes the link off the books and says `Down`, even where a thread was not to be had.
struct Ending(Arc<Link>);

impl Drop for Ending {
    fn drop(&mut self) {
        let link = &self.0;
        link.cut_here();
        link.shared.live.lock().links.remove(&link.number);
        link.shared.inbox.push_all([Item::Down(link.clone())]);
    }
}
