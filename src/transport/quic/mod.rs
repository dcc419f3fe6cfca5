//! Frames over QUIC: reliable, encrypted, and only with those whose keys are known.
//!
//! It needs no authority and no names: each node shows the key pair that it made for itself, and lets
//! in whom the member list names with a key ([`Transport::admit`]). Nothing of a stranger reaches the
//! core. A secret that all nodes of the cluster share can be asked for on top.
//!
//! ```text
//! Transport ─> engine ─> link: outbox, inbox ─> quinn-proto ─┐
//!                └─> tls: keys, admission                    ├─> socket
//!                └─> guard: who may begin, how often         ┘
//! ```
//!
//! - All runs on the loop's thread, with the loop's clock of deadlines; there is no runtime and no thread.
//! - Short frames share one ordered stream of a link; each long one has a stream of its own, so that
//!   none waits for it. What is lost is sent again.
//! - A link keeps its name, the address that it was made with, when the peer's address changes. A node
//!   that restarts on its address is noticed at once, since the process before told its peers what a
//!   stranger's answer will look like.
//! - A peer that does not answer what was sent for 1.4 s is gone; the node's pings ask often enough.
//! - Nothing is resumed and nothing sent early (no 0-RTT): no handshake can be repeated by somebody else.
//!
//! Limits: `limits`; a link that is full gives frames back.

mod engine;
mod guard;
mod inbox;
mod limits;
mod link;
mod outbox;
mod socket;
mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig, HashedConnectionIdGenerator, ServerConfig};
use ring::hmac;

use self::{
    engine::{Engine, Parts},
    socket::Socket,
    tls::Door,
};
use super::{Admission, Handshakes, SendError, Transport, TransportContext, TransportEvent};

pub use limits::MAX_FRAME_BYTES;

/// What the cluster's secret is turned into a key for.
const SECRET: &str = "turbopump 2026-11 secret of a cluster";
/// What connection ids are recognized by after a restart.
const IDS: &str = "turbopump 2026-11 ids of links";

/// Frames over QUIC. See the [module](crate::transport) for what a transport owes.
pub struct QuicTransport {
    addr: SocketAddr,
    is_trusting: bool,
    secret: [u8; 32],
    door: Arc<Door>,
    engine: Option<Engine>,
    /// Of an engine that was stopped.
    last: (Handshakes, u64),
}

impl QuicTransport {
    /// A transport that binds `addr` when it is started; port 0 lets the system pick one.
    pub fn bind(addr: SocketAddr) -> Self {
        Self {
            addr,
            is_trusting: false,
            secret: blake3::derive_key(SECRET, &[]),
            door: Arc::default(),
            engine: None,
            last: Default::default(),
        }
    }

    /// Lets in keys of which nothing is known: a member that has none in the list is taken at its word, once,
    /// and its key is kept. Whoever reaches the port first may be anybody, so this is for a lab.
    pub fn trust_on_first_use(mut self) -> Self {
        self.is_trusting = true;
        self
    }

    /// What all nodes of the cluster know and nobody else. Each proves on every link that it does; it is
    /// never sent. Default: none, and those that have one are refused.
    pub fn cluster_secret(mut self, secret: &[u8]) -> Self {
        self.secret = blake3::derive_key(SECRET, secret);
        self
    }
}

impl Transport for QuicTransport {
    fn kind(&self) -> &'static str {
        "quic"
    }

    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("UDP address {}: {error}", self.addr));
        let socket = Socket::bind(self.addr, context.registry, context.token).map_err(named)?;
        self.addr = socket.local_addr()?;
        self.door = Arc::new(Door::new(self.is_trusting));
        let (client, server) = tls::configs(&context.identity, &self.door).map_err(io::Error::other)?;
        let transport = limits::transport_config();
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport.clone());
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport).migration(true);

        let secret = context.identity.reset_secret();
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        let [ids, ..] = *blake3::derive_key(IDS, &secret).as_chunks::<8>().0 else {
            return Err(io::Error::other("a derived key is too short"));
        };
        let ids = u64::from_le_bytes(ids);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)), true, None);
        let (door, secret, key) = (self.door.clone(), self.secret, context.identity.public_key());
        self.engine = Some(Engine::new(Parts { socket, endpoint, client, door, secret, key }));
        Ok(self.addr)
    }

    fn max_frame_bytes(&self) -> usize {
        MAX_FRAME_BYTES
    }

    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(SendError::TooLong);
        }
        if to.is_ipv4() != self.addr.is_ipv4() || to.port() == 0 {
            return Err(SendError::Unreachable(to));
        }
        match &mut self.engine {
            None => Err(SendError::Full(frame)),
            Some(_) if frame.is_empty() => {
                self.last.1 += 1;
                Ok(())
            }
            Some(engine) => engine.send(to, frame),
        }
    }

    fn flush(&mut self) {
        self.engine.iter_mut().for_each(Engine::flush);
    }

    fn ready(&mut self) {
        self.engine.iter_mut().for_each(|engine| engine.socket.ready());
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        self.engine.as_mut().is_some_and(|engine| engine.poll(limit, sink))
    }

    fn deadline(&self) -> Option<Instant> {
        self.engine.as_ref().and_then(Engine::deadline)
    }

    fn admit(&mut self, admission: Admission) {
        self.door.admission.store(Arc::new(admission));
        self.engine.iter_mut().for_each(Engine::expel);
    }

    fn close(&mut self, addr: SocketAddr) {
        self.engine.iter_mut().for_each(|engine| engine.close(addr));
    }

    fn dropped_frames(&self) -> u64 {
        self.last.1 + self.engine.as_ref().map_or(0, Engine::dropped)
    }

    fn handshakes(&self) -> Handshakes {
        self.engine.as_ref().map_or(self.last.0, Engine::handshakes)
    }

    fn stop(&mut self, within: Duration) {
        if let Some(mut engine) = self.engine.take() {
            engine.stop(within);
            self.last = (engine.handshakes(), self.last.1 + engine.dropped());
        }
    }
}
