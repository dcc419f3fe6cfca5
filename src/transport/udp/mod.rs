//! Frames as UDP datagrams, one each: no connection, no thread, the fewest microseconds.
//!
//! It does not repeat, order or pace anything: what is lost is lost, and the core sends again.
//! [`UdtTransport`](super::UdtTransport) is the one that repeats.
//!
//! ```text
//!   send()  -> queue                         ready() -> readable
//!   flush() -> batches of the queue out      poll()  -> batches in, until one is not full
//! ```
//!
//! - Readiness is an edge: it is remembered until the system had no more to hand out.
//! - Frames leave in the order in which they came, whomever they are for: nothing is overtaken here.
//! - A frame has a buffer of its own, of just its size: keeping one does not pin its neighbours.
//! - Errors that come back from a peer's host (nobody listens there) are no errors of ours.
//!
//! Limits: [`BACKLOG_FRAMES`], [`BACKLOG_BYTES`], [`SOCKET_BUFFER_BYTES`] asked of the system.

mod batch;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Interest, Registry, Token, net::UdpSocket};
use socket2::{Domain, Protocol, Socket, Type};

use super::{MIN_MAX_FRAME_BYTES, SendError, Transport, TransportContext, TransportEvent};

/// How many frames wait to be flushed, or for a socket that would block, at most.
pub const BACKLOG_FRAMES: usize = 1_024;
/// How many bytes wait so, at most.
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
    /// What is to be sent.
    backlog: batch::Frames,
    backlog_bytes: usize,
    /// Whether the system takes no more for now, and the socket is watched for when it does.
    is_full: bool,
    /// Slots for a batch of datagrams. Memory is taken only for what was ever in them.
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

    /// Peers may be bound to another kind of address and so send longer frames than we do. One byte more
    /// than allowed tells an oversize datagram from the longest good one.
    fn slot_bytes(&self) -> usize {
        Transport::max_frame_bytes(self).max(LOOPBACK_MAX_FRAME_BYTES) + 1
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
            backlog: batch::Frames::new(),
            backlog_bytes: 0,
            is_full: false,
            receive_buffer: vec![0; batch::BATCH * self.slot_bytes()].into_boxed_slice(),
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
        if started.is_out_of_room(frame.len()) {
            self.dropped_frames += started.flush_backlog();
        }
        if started.is_out_of_room(frame.len()) {
            return Err(SendError::Full(frame));
        }
        started.backlog_bytes += frame.len();
        started.backlog.push_back((to, frame));
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(started) = self.started.as_mut().filter(|started| !started.is_full) {
            self.dropped_frames += started.flush_backlog();
        }
    }

    fn ready(&mut self) {
        if let Some(started) = &mut self.started {
            started.readable = true;
            self.dropped_frames += started.flush_backlog();
        }
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        let slot_bytes = self.slot_bytes();
        let Some(Started { socket, readable, receive_buffer, .. }) = &mut self.started else {
            return false;
        };
        // Bounded by datagrams and not by events, so that a flood of bad ones can't hold the loop.
        let mut left = limit;
        while *readable && left > 0 {
            let slots = receive_buffer[..left.min(batch::BATCH) * slot_bytes].chunks_exact_mut(slot_bytes);
            let mut dropped = 0;
            let received = batch::receive(socket, slots, &mut |from, bytes| {
                left = left.saturating_sub(1);
                match bytes.len() {
                    length if length > 0 && length < slot_bytes => {
                        sink(TransportEvent::Frame { from, frame: Bytes::copy_from_slice(bytes) });
                    }
                    _ => dropped += 1,
                }
            });
            self.dropped_frames += dropped;
            match received {
                Ok(may_have_more) => *readable = may_have_more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *readable = false,
                // A peer's host answering that nobody listens: about an earlier send, not this.
                Err(error) => {
                    left -= 1;
                    log::trace!("UDP receive: {error}");
                }
            }
        }
        *readable
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
    fn is_out_of_room(&self, bytes: usize) -> bool {
        self.backlog.len() >= BACKLOG_FRAMES || self.backlog_bytes + bytes > BACKLOG_BYTES
    }

    /// Sends what it can and says how many frames the system refused for good.
    fn flush_backlog(&mut self) -> u64 {
        let (mut refused, mut is_full, mut was_told) = (0, false, false);
        while !self.backlog.is_empty() {
            let gone = match batch::send(&self.socket, &self.backlog) {
                Ok(gone) => gone,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    is_full = true;
                    break;
                }
                // That of an earlier datagram may be reported by this call, which then did nothing.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !was_told => {
                    was_told = true;
                    continue;
                }
                Err(error) => {
                    log::debug!("UDP send to {}: {error}", self.backlog[0].0);
                    refused += 1;
                    1
                }
            };
            was_told = false;
            for (_, frame) in self.backlog.drain(..gone) {
                self.backlog_bytes -= frame.len();
            }
        }
        if is_full != self.is_full {
            self.is_full = is_full;
            let interest = if is_full { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            self.watch(interest);
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
