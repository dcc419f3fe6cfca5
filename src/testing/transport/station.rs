//! A started transport on a mio loop of its own, which turns when it is told to.
//!
//! The suite and tests of single transports drive transports with it; a node's loop is the
//! driver's.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};

use super::PATIENCE;
use crate::{
    identity::Identity,
    model::PublicKey,
    transport::{SendError, Transport, TransportContext, TransportEvent},
};

/// One turn waits this long at most.
const TURN: Duration = Duration::from_millis(2);
const SOURCE_TOKEN: Token = Token(0);
const WAKER_TOKEN: Token = Token(1);

/// A started transport on a mio loop that turns when it is told to. For tests of transports that
/// want more than the suite.
pub struct Station {
    /// The transport, started.
    pub transport: Box<dyn Transport>,
    /// What `start` returned.
    pub addr: SocketAddr,
    /// The public half of the key pair that it was started with.
    pub key: PublicKey,
    /// Frames that came in, and from where; never emptied by the station.
    pub frames: Vec<(SocketAddr, Bytes)>,
    /// Connections that were reported as closed.
    pub closed: Vec<SocketAddr>,
    poll: Poll,
    events: Events,
}

impl Station {
    /// Starts a transport on a new loop.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(transport: Box<dyn Transport>) -> Self {
        let kind = transport.kind();
        match Self::try_start(transport) {
            Ok(station) => station,
            Err(error) => panic!("a {kind} transport starts: {error}"),
        }
    }

    /// Starts a transport on a new loop, for tests of starts that have to fail.
    ///
    /// # Errors
    /// What [`Transport::start`] answers.
    pub fn try_start(transport: Box<dyn Transport>) -> io::Result<Self> {
        Self::start_as(transport, Arc::new(Identity::generate()))
    }

    /// Starts a transport on a new loop, with a key pair of one's own.
    ///
    /// # Errors
    /// What [`Transport::start`] answers.
    pub fn start_as(mut transport: Box<dyn Transport>, identity: Arc<Identity>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER_TOKEN)?);
        let key = identity.public_key();
        let context = TransportContext { registry: poll.registry(), token: SOURCE_TOKEN, waker, identity };
        let addr = transport.start(context)?;
        Ok(Self {
            transport,
            addr,
            key,
            frames: Vec::new(),
            closed: Vec::new(),
            poll,
            events: Events::with_capacity(16),
        })
    }

    /// One turn of the loop: wait a little for readiness, then take what came in.
    pub fn turn(&mut self) {
        self.wait();
        let (frames, closed) = (&mut self.frames, &mut self.closed);
        let mut sink = |event| match event {
            TransportEvent::Frame { from, frame } => {
                assert!(!frame.is_empty(), "an incoming frame is not empty");
                frames.push((from, frame));
            }
            TransportEvent::Closed { addr } => closed.push(addr),
            TransportEvent::Opened { .. } | TransportEvent::Removed { .. } => {}
        };
        while self.transport.poll(64, &mut sink) {}
        self.transport.flush();
    }

    /// Waits for readiness and passes it on, at most two milliseconds.
    pub(super) fn wait(&mut self) {
        match self.poll.poll(&mut self.events, Some(TURN)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => panic!("mio poll: {error}"),
        }
        if self.events.iter().any(|event| event.token() == SOURCE_TOKEN) {
            self.transport.ready();
        }
    }

    /// Sends and says if the frame was taken; a full queue is the only refusal that is expected.
    ///
    /// # Panics
    /// If the transport refuses for another reason, or hands back another frame.
    pub fn offer(&mut self, to: SocketAddr, frame: &Bytes) -> bool {
        match self.transport.send(to, frame.clone()) {
            Ok(()) => true,
            Err(SendError::Full(returned)) => {
                assert_eq!(returned, *frame, "a frame that was not taken comes back unchanged");
                false
            }
            Err(error) => panic!("a good frame to {to} is taken or `Full`, not {error:?}"),
        }
    }

    /// Turns until the condition holds.
    ///
    /// # Panics
    /// After [`PATIENCE`], with the promise.
    pub fn turn_until(&mut self, promise: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{promise}");
            self.turn();
        }
    }

    /// Stops the transport and ends the loop.
    pub fn stop(mut self, within: Duration) {
        self.transport.stop(within);
    }
}
