//! One UDT socket that closes itself: the only place that calls the crate `udt`.
//!
//! The crate's socket is a number that anybody may copy and nobody closes; some of its calls
//! panic, some block for minutes. Here they are safe to use:
//!
//! - IPv4 only: others make the crate panic, so the callers refuse them first.
//! - Connecting and accepting never block inside UDT: a thread that waits there can't be told to
//!   stop, and keeps the process from ending. Both are polled instead.
//! - A socket that connects is closed neither while an answer is likely, which would find it closed and
//!   end the process, nor once UDT itself has given up, which then goes on using it.
//! - No linger: a close that waits for a dead peer takes 46 s. Who wants to flush waits for
//!   [`Socket::unacknowledged_packets`] first.
//! - Closing from any thread ends a `send` or `receive` that blocks on another.
//!
//! Limits: [`SEND_BUFFER_BYTES`], [`RECEIVE_BUFFER_BYTES`], [`WINDOW_PACKETS`], [`MSS_BYTES`].

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use udt::{Linger, SocketFamily, SocketType, UdtError, UdtOpts, UdtSocket, UdtStatus};

/// The size of a packet with all its headers. Fixed: sockets share a port only if they agree on
/// it, and [`framing`](super::framing) pads to it.
const MSS_BYTES: i32 = 1_500;
/// How many packets may be under way, and how many the slow start lasts: as many as UDT takes by
/// default, at the price of 400 KB a connection. With fewer it ends before UDT has measured the
/// path, and echoes then wait for its pacing: 8 ms instead of 0.2 ms with 2,048.
const WINDOW_PACKETS: i32 = 25_600;
/// UDT's receive buffer of one connection. The slow start ends when this many packets were
/// acknowledged, so it is as large as the window; memory is taken only for what is in it.
const RECEIVE_BUFFER_BYTES: i32 = WINDOW_PACKETS * (MSS_BYTES - 28);
/// UDT's send buffer of one connection: what a dead peer can keep of our memory.
const SEND_BUFFER_BYTES: i32 = 4 * 1_024 * 1_024;
/// What is asked of the system for the port's own buffers.
const PORT_BUFFER_BYTES: i32 = 8 * 1_024 * 1_024;
/// How many connections wait to be accepted.
const BACKLOG: i32 = 256;
/// A `receive` that got nothing returns after this long, to look if it is still wanted.
const RECEIVE_TURN_MS: i32 = 1_000;
/// How long to wait for an answer to a connection request. UDT repeats it every 250 ms or a little more, and
/// gives up after 3 s: this is well before, and between two of them.
const CONNECT_TIME: Duration = Duration::from_millis(2_125);
/// How often a connection request is looked after.
const CONNECT_TURN: Duration = Duration::from_millis(1);
/// UDT holds a port for up to this long after its listener was closed, inside the process.
const PORT_HELD: Duration = Duration::from_secs(8);
const PORT_TURN: Duration = Duration::from_millis(50);

const NO_CONNECTION_WAITS: i32 = 6_002;
const RECEIVE_TIMED_OUT: i32 = 6_003;

/// Ports that UDT may still hold for listeners closed in this process, and until when.
static HELD_PORTS: Mutex<BTreeMap<u16, Instant>> = Mutex::new(BTreeMap::new());

/// A UDT socket in stream mode. See the [module](self).
pub(super) struct Socket {
    raw: UdtSocket,
    closed: AtomicBool,
    /// Where it listens, if it does.
    listens_at: Option<SocketAddr>,
}

impl Socket {
    /// A socket that listens at an IPv4 address, and where that is.
    pub(super) fn listen(addr: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let held_until = HELD_PORTS.lock().get(&addr.port()).copied();
        loop {
            match Self::try_listen(addr) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && held_until.is_some_and(|until| Instant::now() < until) =>
                {
                    thread::sleep(PORT_TURN);
                }
                result => return result,
            }
        }
    }

    fn try_listen(addr: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        if addr.port() != 0 {
            // UDT shares a port that this process has already, and its own errors don't say why
            // one can't be had. The system's do.
            drop(UdpSocket::bind(addr)?);
        }
        let mut socket = Self::open(addr)?;
        socket.raw.setsockopt(UdtOpts::UDT_RCVSYN, false).map_err(broken)?;
        socket
            .raw
            .listen(BACKLOG)
            .map_err(|error| io::Error::new(io::ErrorKind::AddrInUse, describe(&error)))?;
        let addr = socket.raw.getsockname().map_err(broken)?;
        socket.listens_at = Some(addr);
        Ok((socket, addr))
    }

    /// The next connection that came in, if one did, and from where.
    pub(super) fn accept(&self) -> io::Result<Option<(Self, SocketAddr)>> {
        match self.raw.accept() {
            Ok((raw, from)) => {
                let socket = Self::own(raw);
                // Inherited from the listener, which must not block; this one should.
                socket.raw.setsockopt(UdtOpts::UDT_RCVSYN, true).map_err(broken)?;
                Ok(Some((socket, from)))
            }
            Err(error) if error.err_code == NO_CONNECTION_WAITS => Ok(None),
            Err(error) => Err(broken(error)),
        }
    }

    /// Connects to an IPv4 address from the port that we listen at, which is how the peer knows
    /// us. Blocks for up to two seconds, less if `wanted` turns false.
    pub(super) fn connect(from: SocketAddr, to: SocketAddr, wanted: impl Fn() -> bool) -> io::Result<Self> {
        let socket = Self::open(from)?;
        socket.raw.setsockopt(UdtOpts::UDT_RCVSYN, false).map_err(broken)?;
        let begun = Instant::now();
        socket.raw.connect(to).map_err(broken)?;
        loop {
            match socket.raw.getstate() {
                UdtStatus::CONNECTED => break,
                UdtStatus::INIT | UdtStatus::OPENED | UdtStatus::CONNECTING => {}
                _ => return Err(io::ErrorKind::ConnectionRefused.into()),
            }
            if begun.elapsed() > CONNECT_TIME {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !wanted() {
                socket.close_at(begun + CONNECT_TIME);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(CONNECT_TURN);
        }
        socket.raw.setsockopt(UdtOpts::UDT_RCVSYN, true).map_err(broken)?;
        Ok(socket)
    }

    /// Hands all these bytes to UDT, and blocks while its buffer is full.
    pub(super) fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.raw.send(bytes).map_err(broken)?;
            // Nothing sent without an error: woken up by a close.
            if sent <= 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            bytes = &bytes[(sent as usize).min(bytes.len())..];
        }
        Ok(())
    }

    /// Waits for bytes, at most a second: 0 means that none came.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len();
        match self.raw.recv(buffer, length) {
            Ok(received) => Ok(received.max(0) as usize),
            Err(error) if error.err_code == RECEIVE_TIMED_OUT => Ok(0),
            Err(error) => Err(broken(error)),
        }
    }

    /// How many packets were sent, or wait to be, that the peer's UDT has not acknowledged; 0 for
    /// a broken connection.
    pub(super) fn unacknowledged_packets(&self) -> usize {
        let packets: i32 = self.raw.getsockopt(UdtOpts::UDT_SNDDATA).unwrap_or(0);
        packets.max(0) as usize
    }

    /// Closes, once; whoever blocks in a call on this socket returns. What was not acknowledged
    /// yet is lost. Takes microseconds, but may wait for UDT's own housekeeping: not for a loop.
    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(addr) = self.listens_at {
            let mut held = HELD_PORTS.lock();
            let now = Instant::now();
            held.retain(|_, until| *until > now);
            held.insert(addr.port(), now + PORT_HELD);
        }
        if let Err(error) = self.raw.close() {
            log::trace!("closing a UDT socket: {}", describe(&error));
        }
    }

    /// Closes later, on a thread that nobody waits for.
    fn close_at(self, at: Instant) {
        let later = thread::Builder::new().name("turbopump-udt-late".into()).spawn(move || {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            drop(self);
        });
        if let Err(error) = later {
            // The closure is gone, and the socket closed with it: too early, but nothing else is left.
            log::debug!("no thread to close a UDT socket later: {error}");
        }
    }

    fn open(addr: SocketAddr) -> io::Result<Self> {
        udt::init();
        let raw = UdtSocket::new(SocketFamily::AFInet, SocketType::Stream).map_err(broken)?;
        let socket = Self::own(raw);
        // The window before the buffers: UDT cuts them to it.
        raw.setsockopt(UdtOpts::UDT_MSS, MSS_BYTES).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDT_FC, WINDOW_PACKETS).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDT_SNDBUF, SEND_BUFFER_BYTES).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDT_RCVBUF, RECEIVE_BUFFER_BYTES).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDP_SNDBUF, PORT_BUFFER_BYTES).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDP_RCVBUF, PORT_BUFFER_BYTES).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDT_LINGER, Linger { onoff: 0, linger: 0 }).map_err(broken)?;
        raw.setsockopt(UdtOpts::UDT_RCVTIMEO, RECEIVE_TURN_MS).map_err(broken)?;
        raw.bind(addr).map_err(broken)?;
        Ok(socket)
    }

    fn own(raw: UdtSocket) -> Self {
        Self { raw, closed: AtomicBool::new(false), listens_at: None }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

fn broken(error: UdtError) -> io::Error {
    io::Error::other(describe(&error))
}

fn describe(error: &UdtError) -> String {
    format!("UDT: {} ({})", error.err_msg.trim_end(), error.err_code)
}
