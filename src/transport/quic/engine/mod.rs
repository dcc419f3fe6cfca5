//! The started transport: the socket, QUIC's endpoint, and all links, in the thread of the loop.
//!
//! ```text
//! poll:  socket ─> endpoint ─> links ─> events and frames, as many as the loop wants
//! flush: frames ─> links ─> endpoint's packets ─> socket
//! ```
//!
//! Who changes a link puts it into the line of the *dirty*; [`Engine::flush`] writes what those have to
//! write. Two nodes that dial each other at once make two links; both ends then use the one that was
//! begun by the node with the smaller key, and the other one dies of silence.

mod lives;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, ConnectError, ConnectionHandle, DatagramEvent, Endpoint, Incoming};
use quinn_udp::RecvMeta;

use super::{
    guard::{Allowance, Told},
    limits::{HANDSHAKES_PER_SECOND, MAX_HANDSHAKES, MAX_LINKS, UNPROVED_HANDSHAKES},
    link::{Due, Farewell, Link, Phase},
    socket::{Socket, ecn},
    tls::Door,
};
use crate::{
    model::PublicKey,
    transport::{Handshakes, SendError, TransportEvent},
};

/// Batches of datagrams taken in by one poll.
const BATCHES_PER_POLL: usize = 8;
/// While stopping: how long to sleep before looking again whether all has arrived.
const STOP_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Engine {
    pub(super) socket: Socket,
    endpoint: Endpoint,
    client: ClientConfig,
    door: Arc<Door>,
    secret: [u8; 32],
    key: PublicKey,
    links: BTreeMap<usize, Link>,
    /// The link that frames to an address go out on.
    used: BTreeMap<SocketAddr, usize>,
    timers: BTreeSet<(Instant, usize)>,
    dirty: Vec<usize>,
    waiting: VecDeque<usize>,
    news: VecDeque<TransportEvent>,
    allowance: Allowance,
    told: Told,
    counts: Handshakes,
    dropped: u64,
    scratch: Vec<u8>,
}

/// What an engine is made of.
pub(super) struct Parts {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    pub(super) door: Arc<Door>,
    pub(super) secret: [u8; 32],
    pub(super) key: PublicKey,
}

impl Engine {
    pub(super) fn new(Parts { socket, endpoint, client, door, secret, key }: Parts) -> Self {
        Self {
            socket,
            endpoint,
            client,
            door,
            secret,
            key,
            links: BTreeMap::new(),
            used: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: Vec::new(),
            waiting: VecDeque::new(),
            news: VecDeque::new(),
            allowance: Allowance::per_second(HANDSHAKES_PER_SECOND, Instant::now()),
            told: Told::new(Instant::now()),
            counts: Handshakes::default(),
            dropped: 0,
            scratch: Vec::new(),
        }
    }

    pub(super) fn handshakes(&self) -> Handshakes {
        Handshakes { refused: self.counts.refused + self.door.refused(), ..self.counts }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped + self.socket.dropped()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.dirty.is_empty() || self.socket.is_full() {
            true => self.timers.first().map(|(at, _)| *at),
            // Somebody forgot to flush: then the next poll does.
            false => Some(Instant::now()),
        }
    }

    pub(super) fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        let now = Instant::now();
        let handle = match self.used.get(&to) {
            Some(handle) => *handle,
            None if self.links.len() >= MAX_LINKS => return Err(SendError::Full(frame)),
            None => self.dial(now, to)?,
        };
        let Some(link) = self.links.get_mut(&handle) else { return Err(SendError::Full(frame)) };
        let taken = match link.outbox.push(frame) {
            Ok(()) => Ok(()),
            Err(frame) => {
                link.pump();
                link.outbox.push(frame).map_err(SendError::Full)
            }
        };
        self.soil(handle);
        taken
    }

    /// Writes what links have to write.
    pub(super) fn flush(&mut self) {
        let now = Instant::now();
        for handle in std::mem::take(&mut self.dirty) {
            if let Some(link) = self.links.get_mut(&handle) {
                link.is_dirty = false;
            }
            self.write(now, handle);
        }
    }

    pub(super) fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        let now = Instant::now();
        self.flush();
        // Before the timers: what came while this thread was away is heard in time.
        self.receive(now);
        self.tick(now);
        let mut left = limit;
        while left > 0 {
            if let Some(event) = self.news.pop_front() {
                sink(event);
                left -= 1;
            } else if let Some(handle) = self.waiting.pop_front() {
                self.hand_out(now, handle, &mut left, sink);
            } else {
                break;
            }
        }
        !self.news.is_empty() || !self.waiting.is_empty() || self.socket.is_readable()
    }

    pub(super) fn stop(&mut self, within: Duration) {
        let until = Instant::now() + within;
        for link in self.links.values_mut().filter(|link| link.phase == Phase::Up) {
            link.pump();
            link.ending = link.outbox.finish(&mut link.connection);
        }
        let handles: Vec<usize> = self.links.keys().copied().collect();
        handles.iter().for_each(|handle| self.soil(*handle));
        loop {
            self.socket.ready();
            let more = self.poll(usize::MAX, &mut |_| {});
            self.flush();
            let is_done =
                |link: &Link| link.phase != Phase::Up || link.ending.is_none() && !link.outbox.has_unacked();
            if self.links.values().all(is_done) || Instant::now() + STOP_PAUSE > until {
                break;
            }
            if !more {
                std::thread::sleep(STOP_PAUSE);
            }
        }
        self.dropped += self.links.values().map(|link| link.outbox.frames() as u64).sum::<u64>();
        self.close_where(Farewell::Done, |_| true);
        self.socket.close();
    }

    fn dial(&mut self, now: Instant, to: SocketAddr) -> Result<usize, SendError> {
        match self.endpoint.connect(now, self.client.clone(), to, "turbopump") {
            Ok((handle, connection)) => {
                let mut link = Link::new(connection, to, true, now);
                link.is_used = true;
                self.links.insert(handle.0, link);
                self.used.insert(to, handle.0);
                Ok(handle.0)
            }
            Err(ConnectError::InvalidRemoteAddress(_)) => Err(SendError::Unreachable(to)),
            Err(error) => {
                log::warn!("{to} can't be dialled: {error}");
                Err(SendError::Unreachable(to))
            }
        }
    }

    fn receive(&mut self, now: Instant) {
        for _ in 0..BATCHES_PER_POLL {
            let count = self.socket.receive();
            for at in 0..count {
                let (meta, mut bytes) = self.socket.batch(at);
                while !bytes.is_empty() {
                    let one = bytes.split_to(meta.stride.clamp(1, bytes.len()));
                    self.datagram(now, &meta, one);
                }
            }
            if count == 0 {
                return;
            }
        }
    }

    fn datagram(&mut self, now: Instant, meta: &RecvMeta, bytes: BytesMut) {
        self.scratch.clear();
        let event = self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn(meta), bytes, &mut self.scratch);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(link) = self.links.get_mut(&handle.0) else { return };
                link.connection.handle_event(event);
                link.heard(now);
                self.look(now, handle.0);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
            Some(DatagramEvent::Response(transmit)) if !self.socket.is_full() => {
                self.socket.send(transmit, &self.scratch);
            }
            Some(DatagramEvent::Response(_)) => {}
            // It belongs to no link and begins none.
            None => self.dropped += 1,
        }
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let is_begun = |link: &&Link| !link.is_ours && link.phase != Phase::Up && link.phase != Phase::Over;
        let begun = self.links.values().filter(is_begun).count();
        let full = begun >= MAX_HANDSHAKES || self.links.len() >= MAX_LINKS || self.socket.is_full();
        if full || !self.allowance.take(now) {
            self.counts.limited += 1;
            return self.endpoint.ignore(incoming);
        }
        self.scratch.clear();
        if begun >= UNPROVED_HANDSHAKES && !incoming.remote_address_validated() && incoming.may_retry() {
            match self.endpoint.retry(incoming, &mut self.scratch) {
                Ok(transmit) => self.socket.send(transmit, &self.scratch),
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut self.scratch, None) {
            Ok((handle, connection)) => {
                let addr = connection.remote_address();
                self.links.insert(handle.0, Link::new(connection, addr, false, now));
                self.look(now, handle.0);
            }
            Err(error) => {
                self.counts.failed += 1;
                if let Some(transmit) = error.response {
                    self.socket.send(transmit, &self.scratch);
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some((_, handle)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            let Some(link) = self.links.get_mut(&handle) else { continue };
            link.timer = None;
            match link.tick(now) {
                Due::Nothing => {}
                Due::Unmade => {
                    self.counts.failed += 1;
                    self.end(now, handle, Farewell::Late);
                }
                Due::Silent => self.end(now, handle, Farewell::Late),
            }
            self.look(now, handle);
            // Its packets are written by the next flush, and its timer is set then.
            self.soil(handle);
        }
    }

    /// Something happened on a link.
    fn look(&mut self, now: Instant, handle: usize) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let end = link.events(&self.secret);
        match link.check_proof(&self.secret) {
            Ok(false) => {}
            Ok(true) => self.made(now, handle),
            Err(why) => {
                self.counts.refused += u64::from(why == Farewell::Secret);
                self.counts.failed += u64::from(why != Farewell::Secret);
                self.tell_of_secret(now, handle, why);
                self.end(now, handle, why);
            }
        }
        if let Some(reason) = end {
            self.lost(now, handle, &reason);
        }
        self.wait(handle);
        self.soil(handle);
    }

    /// Hands out frames of a link, and tells of its end when there are no more.
    fn hand_out(
        &mut self,
        now: Instant,
        handle: usize,
        left: &mut usize,
        sink: &mut dyn FnMut(TransportEvent),
    ) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.is_waiting = false;
        let mut is_broken = false;
        if link.was_proved {
            while *left > 0 {
                match link.inbox.next(&mut link.connection) {
                    Ok(Some(frame)) => {
                        sink(TransportEvent::Frame { from: link.addr, frame });
                        *left -= 1;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        is_broken = true;
                        break;
                    }
                }
            }
        }
        if is_broken {
            self.dropped += 1;
            self.end(now, handle, Farewell::Broken);
        } else if *left == 0 {
            return self.wait(handle);
        }
        // Room for more has come, which the other side is told.
        self.soil(handle);
        let Some(link) = self.links.get_mut(&handle) else { return };
        if std::mem::take(&mut link.says_closed) {
            self.news.push_back(TransportEvent::Closed { addr: link.addr });
        }
    }

    /// Puts a link into the line of those that have something to write.
    fn soil(&mut self, handle: usize) {
        if let Some(link) = self.links.get_mut(&handle).filter(|link| !link.is_dirty) {
            link.is_dirty = true;
            self.dirty.push(handle);
        }
    }

    /// Puts a link into the line of those that may have frames.
    fn wait(&mut self, handle: usize) {
        if let Some(link) = self.links.get_mut(&handle).filter(|link| !link.is_waiting) {
            link.is_waiting = true;
            self.waiting.push_back(handle);
        }
    }

    /// Writes what a link has to write, as far as the socket takes it, and sets its timer.
    fn write(&mut self, now: Instant, handle: usize) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.pump();
        let segments = self.socket.segments();
        loop {
            if self.socket.is_full() {
                self.soil(handle);
                break;
            }
            let Some(link) = self.links.get_mut(&handle) else { return };
            self.scratch.clear();
            let Some(transmit) = link.connection.poll_transmit(now, segments, &mut self.scratch) else {
                break;
            };
            self.socket.send(transmit, &self.scratch);
            link.wrote(now);
        }
        self.settle(handle);
    }

    /// Passes on what the link and the endpoint have to tell each other, and sets the link's timer.
    fn settle(&mut self, handle: usize) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        while let Some(event) = link.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(handle), event) {
                link.connection.handle_event(event);
            }
        }
        let is_gone = link.connection.is_drained() && !link.is_waiting;
        let timer = link.deadline().filter(|_| !is_gone);
        if link.timer != timer {
            if let Some(before) = link.timer {
                self.timers.remove(&(before, handle));
            }
            if let Some(at) = timer {
                self.timers.insert((at, handle));
            }
            link.timer = timer;
        }
        if is_gone {
            self.links.remove(&handle);
        }
    }
}
