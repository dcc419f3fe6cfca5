//! Frames as UDP datagrams, one each: no connection, no thread, the fewest microseconds.
//!
//! It does not repeat, order or pace anything: what is lost is lost, and the core sends again.
//! [`UdtTransport`](super::UdtTransport) is the one that repeats.
//!
//! ```text
//!   send() -> sendto()                       ready() -> readable
//!               `- would block -> backlog    poll()  -> recvfrom() until it would block
//! ```
//!
//! - Readiness is an edge: it is remembered until the system says that there is nothing more.
//! - Once the backlog holds a frame, later ones queue behind it: nothing is overtaken here.
//! - A frame has a buffer of its own, of just its size: keeping one does not pin its neighbours.
//! - Errors that come back from a peer's host (nobody listens there) are no errors of ours.
//!
//! Limits: [`BACKLOG_FRAMES`], [`BACKLOG_BYTES`], [`SOCKET_BUFFER_BYTES`] asked of the system.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Interest, Registry, Token, net::UdpSocket};
use socket2::{Domain, Protocol, Socket, Type};

use super::{MIN_MAX_FRAME_BYTES, SendError, Transport, TransportContext, TransportEvent};

/// How many frames wait for a socket that would block, at most.
pub const BACKLOG_FRAMES: usize = 1_024;
/// How many bytes wait for a socket that would block, at most.
pub const BACKLOG_BYTES: usize = 4 * 1024 * 1024;
/// What is asked of the system for the socket's buffers, each way. It grants what it allows
/// (`net.core.rmem_max` and `wmem_max` on Linux); more of it survives longer bursts.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// The longest frame on loopback: its MTU is 65,536 bytes, so such a datagram is one packet.
pub const LOOPBACK_MAX_FRAME_BYTES: usize = 60_000;
/// The longest frame anywhere else: an Ethernet's 1,500 bytes less an IPv6 header, an UDP header
/// and 20 bytes for a tunnel on the way. A datagram in fragments is lost when any of them is.
pub const NETWORK_MAX_FRAME_BYTES: usize = 1_432;

/// How long a stopping transport sleeps between two tries to send what is left.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

/// Frames as UDP datagrams. See the [module](crate::transport) for what a transport owes.
pub struct UdpTransport {
    addr: SocketAddr,
    wanted_max_frame_bytes: Option<usize>,
    started: Option<Started>,
    dropped_frames: u64,
}

struct Started {
    socket: UdpSocket,
    registry: Registry,
    token: Token,
    readable: bool,
    backlog: VecDeque<(SocketAddr, Bytes)>,
    backlog_bytes: usize,
    receive_buffer: Box<[u8]>,
}

impl UdpTransport {
    /// A transport that binds `addr` when it is started; port 0 lets the system pick one.
    pub fn bind(addr: SocketAddr) -> Self {
        Self { addr, wanted_max_frame_bytes: None, started: None, dropped_frames: 0 }
    }

    /// Takes frames up to this many bytes: 1,200 to 65,507. Default: 60,000 when bound to
    /// loopback and 1,432 otherwise, so that no frame travels in fragments.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.wanted_max_frame_bytes = Some(bytes.clamp(MIN_MAX_FRAME_BYTES, 65_507));
        self
    }

    /// Peers may be bound to another kind of address and so send longer frames than we do.
    fn max_received_bytes(&self) -> usize {
        Transport::max_frame_bytes(self).max(LOOPBACK_MAX_FRAME_BYTES)
    }
}

impl Transport for UdpTransport {
    fn kind(&self) -> &'static str {
        "udp"
    }

    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr> {
        let mut socket = open(self.addr)
            .map_err(|error| io::Error::new(error.kind(), format!("UDP address {}: {error}", self.addr)))?;
        context.registry.register(&mut socket, context.token, Interest::READABLE)?;
        self.addr = socket.local_addr()?;
        self.started = Some(Started {
            socket,
            registry: context.registry.try_clone()?,
            token: context.token,
            readable: true,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            // One byte more than allowed tells an oversize datagram from the longest good one.
            receive_buffer: vec![0; self.max_received_bytes() + 1].into_boxed_slice(),
        });
        Ok(self.addr)
    }

    fn max_frame_bytes(&self) -> usize {
        match self.wanted_max_frame_bytes {
            Some(bytes) => bytes,
            None if self.addr.ip().is_loopback() => LOOPBACK_MAX_FRAME_BYTES,
            None => NETWORK_MAX_FRAME_BYTES,
        }
    }

    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > Transport::max_frame_bytes(self) {
            return Err(SendError::TooLong);
        }
        if to.is_ipv4() != self.addr.is_ipv4() || to.port() == 0 {
            return Err(SendError::Unreachable(to));
        }
        let Some(started) = &mut self.started else {
            return Err(SendError::Full(frame));
        };
        if frame.is_empty() {
            self.dropped_frames += 1;
            return Ok(());
        }
        if !started.backlog.is_empty() {
            return started.queue(to, frame);
        }
        match try_send(&started.socket, to, &frame) {
            Sent::Yes => Ok(()),
            Sent::Later => started.queue(to, frame),
            Sent::Never => {
                self.dropped_frames += 1;
                Ok(())
            }
        }
    }

    fn ready(&mut self) {
        if let Some(started) = &mut self.started {
            started.readable = true;
            self.dropped_frames += started.flush_backlog();
        }
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        let max_received_bytes = self.max_received_bytes();
        let Some(started) = &mut self.started else {
            return false;
        };
        // Bounded by datagrams and not by events, so that a flood of bad ones can't hold the loop.
        for _ in 0..limit {
            if !started.readable {
                return false;
            }
            match started.socket.recv_from(&mut started.receive_buffer) {
                Ok((length, from)) if length > 0 && length <= max_received_bytes => {
                    let frame = Bytes::copy_from_slice(&started.receive_buffer[..length]);
                    sink(TransportEvent::Frame { from, frame });
                }
                Ok(_) => self.dropped_frames += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => started.readable = false,
                // A peer's host answering that nobody listens: about an earlier send, not this.
                Err(error) => log::trace!("UDP receive: {error}"),
            }
        }
        started.readable
    }

    fn close(&mut self, _addr: SocketAddr) {}

    fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    fn stop(&mut self, within: Duration) {
        let Some(mut started) = self.started.take() else {
            return;
        };
        let deadline = Instant::now() + within;
        loop {
            self.dropped_frames += started.flush_backlog();
            if started.backlog.is_empty() || Instant::now() + FLUSH_PAUSE > deadline {
                break;
            }
            std::thread::sleep(FLUSH_PAUSE);
        }
        self.dropped_frames += started.backlog.len() as u64;
        if let Err(error) = started.registry.deregister(&mut started.socket) {
            log::debug!("UDP socket not deregistered: {error}");
        }
    }
}

impl Started {
    fn queue(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        let full = self.backlog.len() >= BACKLOG_FRAMES || self.backlog_bytes + frame.len() > BACKLOG_BYTES;
        if full {
            return Err(SendError::Full(frame));
        }
        if self.backlog.is_empty() {
            self.watch(Interest::READABLE | Interest::WRITABLE);
        }
        self.backlog_bytes += frame.len();
        self.backlog.push_back((to, frame));
        Ok(())
    }

    /// Sends what it can and says how many frames the system refused for good.
    fn flush_backlog(&mut self) -> u64 {
        let mut refused = 0;
        let had_backlog = !self.backlog.is_empty();
        while let Some((to, frame)) = self.backlog.front() {
            match try_send(&self.socket, *to, frame) {
                Sent::Later => break,
                Sent::Yes => {}
                Sent::Never => refused += 1,
            }
            self.backlog_bytes -= frame.len();
            self.backlog.pop_front();
        }
        if had_backlog && self.backlog.is_empty() {
            self.watch(Interest::READABLE);
        }
        refused
    }

    /// Watched for writing only while something waits: else every datagram that the system gets
    /// rid of would wake the loop.
    fn watch(&mut self, interest: Interest) {
        if let Err(error) = self.registry.reregister(&mut self.socket, self.token, interest) {
            log::warn!("UDP socket can't be watched: {error}");
        }
    }
}

enum Sent {
    Yes,
    Later,
    Never,
}

fn try_send(socket: &UdpSocket, to: SocketAddr, frame: &[u8]) -> Sent {
    // Twice: the error of an earlier datagram may be reported by this call, which then did nothing.
    for _ in 0..2 {
        match socket.send_to(frame, to) {
            Ok(_) => return Sent::Yes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Later,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                log::debug!("UDP send to {to}: {error}");
                return Sent::Never;
            }
        }
    }
    Sent::Never
}

fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        // One family a transport: otherwise the system decides whether IPv4 peers appear as IPv6.
        socket.set_only_v6(true)?;
    }
    for granted in
        [socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES), socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)]
    {
        if let Err(error) = granted {
            log::debug!("UDP socket buffer of {SOCKET_BUFFER_BYTES} bytes: {error}");
        }
    }
    socket.bind(&addr.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
