//! The UDP socket: datagrams in batches, both ways.
//!
//! Where the system can, it cuts one long write into datagrams (GSO), joins datagrams of one sender
//! (GRO), and hands out several in one call. What it does not take now is kept, one write at most, and
//! nothing more is written until it has gone.

use std::{io, io::IoSliceMut, net::SocketAddr};

use bytes::BytesMut;
use mio::{Interest, Registry, Token, net::UdpSocket};
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// Writes of the system that are taken in by one call, at most.
const BATCH: usize = 16;
/// The longest datagram that is taken, in bytes.
const MAX_DATAGRAM_BYTES: usize = 2_048;
/// What is asked of the system for the socket's buffers, each way.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    registry: Registry,
    token: Token,
    buffer: Box<[u8]>,
    metas: [RecvMeta; BATCH],
    is_readable: bool,
    /// What the system did not take yet.
    waiting: Option<(Transmit, Vec<u8>)>,
    dropped: u64,
}

impl Socket {
    pub(super) fn bind(addr: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if addr.is_ipv6() {
            // One family a transport: otherwise the system decides whether IPv4 peers appear as IPv6.
            socket.set_only_v6(true)?;
        }
        for granted in [
            socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
            socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
        ] {
            if let Err(error) = granted {
                log::debug!("UDP socket buffer of {SOCKET_BUFFER_BYTES} bytes: {error}");
            }
        }
        socket.bind(&addr.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE)?;
        let buffer = vec![0; BATCH * MAX_DATAGRAM_BYTES * state.gro_segments()].into_boxed_slice();
        Ok(Self {
            socket,
            state,
            registry: registry.try_clone()?,
            token,
            buffer,
            metas: [RecvMeta::default(); BATCH],
            is_readable: true,
            waiting: None,
            dropped: 0,
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether it is a socket of the system's loopback.
    pub(super) fn segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// How many writes the system refused for good.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// It became ready: for reading, or for writing, or both.
    pub(super) fn ready(&mut self) {
        self.is_readable = true;
        if let Some((transmit, bytes)) = self.waiting.take() {
            match self.try_send(&transmit, &bytes) {
                true => self.watch(Interest::READABLE),
                false => self.waiting = Some((transmit, bytes)),
            }
        }
    }

    pub(super) fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Whether the system takes no more for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes a batch in, which [`batch`](Self::batch) hands out. Says how many.
    pub(super) fn receive(&mut self) -> usize {
        if !self.is_readable {
            return 0;
        }
        let length = self.buffer.len() / BATCH;
        let mut parts = self.buffer.chunks_exact_mut(length);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().expect("there is one for each")));
        match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut self.metas) {
            Ok(count) => {
                // The next one to come after a batch that was not full is told anew.
                self.is_readable = count == BATCH;
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                0
            }
            // A peer's host answering that nobody listens: about an earlier write, not this.
            Err(error) => {
                log::trace!("UDP receive: {error}");
                0
            }
        }
    }

    /// One of the batch: datagrams of one sender, each as long as `stride` says but the last.
    pub(super) fn batch(&self, at: usize) -> (RecvMeta, BytesMut) {
        let meta = self.metas[at];
        let from = at * (self.buffer.len() / BATCH);
        (meta, BytesMut::from(&self.buffer[from..from + meta.len]))
    }

    /// Writes, or keeps it for later. Must not be called while it is full.
    pub(super) fn send(&mut self, transmit: Transmit, bytes: &[u8]) {
        if !self.try_send(&transmit, bytes) {
            let bytes = bytes[..transmit.size].to_vec();
            self.waiting = Some((transmit, bytes));
            self.watch(Interest::READABLE | Interest::WRITABLE);
        }
    }

    pub(super) fn close(&mut self) {
        if let Err(error) = self.registry.deregister(&mut self.socket) {
            log::debug!("UDP socket not deregistered: {error}");
        }
    }

    fn try_send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let write = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.send(UdpSockRef::from(&self.socket), &write) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                log::debug!("UDP send to {}: {error}", transmit.destination);
                self.dropped += 1;
                true
            }
        }
    }

    /// Watched for writing only while something waits: else every datagram that the system gets
    /// rid of would wake the loop.
    fn watch(&mut self, interest: Interest) {
        if let Err(error) = self.registry.reregister(&mut self.socket, self.token, interest) {
            log::warn!("UDP socket can't be watched: {error}");
        }
    }
}

/// How the network marked a datagram.
pub(super) fn ecn(meta: &RecvMeta) -> Option<EcnCodepoint> {
    meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8))
}
