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

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionError, ConnectionHandle, DatagramEvent, Endpoint, Incoming,
};
use quinn_udp::RecvMeta;

use super::{
    guard::{Allowance, Told},
    limits::{HANDSHAKES_PER_SECOND, MAX_HANDSHAKES, MAX_LINKS, MAX_LINKS_PER_KEY, UNPROVED_HANDSHAKES},
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
            told: Told::default(),
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
                link.pump(now);
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

    pub(super) fn close(&mut self, addr: SocketAddr) {
        self.close_where(Farewell::Done, |link| link.addr == addr);
        self.used.remove(&addr);
    }

    /// Members changed: ends the links of those that are none any more.
    pub(super) fn expel(&mut self) {
        let door = self.door.clone();
        let gone = |link: &Link| link.key.is_some_and(|key| !door.admits(&key));
        let addrs: Vec<SocketAddr> = self.links.values().filter(|link| gone(link)).map(|l| l.addr).collect();
        self.close_where(Farewell::Removed, gone);
        for addr in addrs {
            if self.used.remove(&addr).is_some() {
                self.news.push_back(TransportEvent::Closed { addr });
            }
        }
    }

    pub(super) fn stop(&mut self, within: Duration) {
        let until = Instant::now() + within;
        for link in self.links.values_mut().filter(|link| link.phase == Phase::Up) {
            link.pump(Instant::now());
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
            Some(DatagramEvent::Response(_)) | None => {}
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

    /// Both sides know each other: the link carries frames from now on.
    fn made(&mut self, now: Instant, handle: usize) {
        let Some(link) = self.links.get(&handle) else { return };
        let (addr, Some(key)) = (link.addr, link.key) else { return };
        self.news.push_back(TransportEvent::Opened { addr, key });
        let other = self.used.get(&addr).copied().filter(|other| *other != handle);
        let is_better = other.is_none_or(|other| self.is_better(handle, other));
        if let Some(other) = other.filter(|_| is_better) {
            self.replace(now, other, handle);
        }
        if let (true, Some(link)) = (is_better, self.links.get_mut(&handle)) {
            link.is_used = true;
            self.used.insert(addr, handle);
        }
        self.thin_out(now, key);
    }

    /// Which of two links to one address is used. Both ends come to the same.
    fn is_better(&self, new: usize, old: usize) -> bool {
        let (Some(new), Some(old)) = (self.links.get(&new), self.links.get(&old)) else { return true };
        if old.phase != Phase::Up || new.key != old.key || new.is_ours == old.is_ours {
            return true;
        }
        let is_mine_smaller = new.key.is_some_and(|theirs| self.key < theirs);
        new.is_ours == is_mine_smaller
    }

    /// A better link to the same address takes the place of one.
    fn replace(&mut self, now: Instant, old: usize, new: usize) {
        let Some(mut before) = self.links.remove(&old) else { return };
        before.is_used = false;
        let same_way = self.links.get(&new).is_some_and(|link| link.is_ours == before.is_ours);
        if let Some(link) = self.links.get_mut(&new) {
            link.outbox.take_over(&mut before.outbox);
        }
        let was_up = before.phase == Phase::Up;
        self.links.insert(old, before);
        // Dialled again on the same way: the process that was there before is gone.
        if was_up && same_way {
            self.end(now, old, Farewell::Done);
        }
    }

    /// Keeps one key from taking all links.
    fn thin_out(&mut self, now: Instant, key: PublicKey) {
        let of_key = |(_, link): &(&usize, &Link)| link.key == Some(key) && link.phase == Phase::Up;
        let mut held: Vec<(Duration, usize)> =
            self.links.iter().filter(of_key).map(|(handle, link)| (link.age(now), *handle)).collect();
        held.sort();
        for (_, handle) in held.into_iter().skip(MAX_LINKS_PER_KEY) {
            self.end(now, handle, Farewell::Many);
        }
    }

    /// Ends a link, and says so if it was one that frames went out on.
    fn end(&mut self, now: Instant, handle: usize, why: Farewell) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let was_up = link.phase == Phase::Up;
        link.close(now, why);
        self.dropped += link.outbox.frames() as u64;
        link.outbox = Default::default();
        self.forget(handle, was_up);
        self.soil(handle);
    }

    fn lost(&mut self, now: Instant, handle: usize, reason: &ConnectionError) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let (addr, phase) = (link.addr, link.phase);
        if phase == Phase::Over {
            return;
        }
        link.phase = Phase::Over;
        self.dropped += link.outbox.frames() as u64;
        if phase != Phase::Up {
            self.tell_of_failure(now, addr, reason);
        }
        log::debug!("the link to {addr} is lost: {reason}");
        self.forget(handle, phase == Phase::Up);
    }

    /// A link is used no more: another one to the address takes its place, or the address is gone.
    fn forget(&mut self, handle: usize, was_up: bool) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let addr = link.addr;
        if !std::mem::take(&mut link.is_used) || self.used.get(&addr) != Some(&handle) {
            return;
        }
        let next = self.links.iter_mut().find(|(_, link)| link.addr == addr && link.phase == Phase::Up);
        match next {
            Some((next, link)) => {
                link.is_used = true;
                self.used.insert(addr, *next);
            }
            None => {
                self.used.remove(&addr);
                if was_up {
                    // What came before it is handed out before.
                    self.wait(handle);
                    if let Some(link) = self.links.get_mut(&handle) {
                        link.says_closed = true;
                    }
                }
            }
        }
    }

    fn tell_of_secret(&mut self, now: Instant, handle: usize, why: Farewell) {
        let Some(link) = self.links.get(&handle) else { return };
        if why == Farewell::Secret && self.told.allows(link.addr.ip(), now) {
            log::warn!("refused a node at {}: it does not know the secret of this cluster", link.addr);
        }
    }

    fn tell_of_failure(&mut self, now: Instant, addr: SocketAddr, reason: &ConnectionError) {
        let refused = self.door.take_refused();
        let why = match (refused, reason) {
            (Some(key), _) => Some(format!("refused a node at {addr}: its key {key} is no member's")),
            (None, ConnectionError::ConnectionClosed(close)) => {
                Some(format!("a node at {addr} refuses this node: {}", why_refused(close)))
            }
            (None, ConnectionError::ApplicationClosed(close)) => {
                Some(format!("a node at {addr} refuses this node: {}", why_closed(close)))
            }
            _ => None,
        };
        self.counts.failed += u64::from(refused.is_none());
        if let Some(why) = why.filter(|_| self.told.allows(addr.ip(), now)) {
            log::warn!("{why}");
        }
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

    fn close_where(&mut self, why: Farewell, chosen: impl Fn(&Link) -> bool) {
        let now = Instant::now();
        let is_open = |link: &Link| link.phase != Phase::Over;
        let handles: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, link)| is_open(link) && chosen(link))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in handles {
            // What was sent before goes out before.
            self.write(now, handle);
            if let Some(link) = self.links.get_mut(&handle) {
                (link.is_used, link.was_proved) = (false, false);
                link.close(now, why);
                link.outbox = Default::default();
            }
            self.write(now, handle);
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
        link.pump(now);
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

/// What the other side's TLS says about ours.
fn why_refused(close: &quinn_proto::ConnectionClose) -> String {
    const REVOKED: u64 = 0x100 + 44;
    const ACCESS_DENIED: u64 = 0x100 + 49;
    const UNKNOWN: u64 = 0x100 + 46;
    match u64::from(close.error_code) {
        REVOKED => "this node was removed from the cluster".into(),
        ACCESS_DENIED | UNKNOWN => "it does not know this node's key".into(),
        _ => close.to_string(),
    }
}

fn why_closed(close: &quinn_proto::ApplicationClose) -> &'static str {
    match close.error_code.into_inner() {
        code if code == Farewell::Secret as u64 => "this node does not know the secret of the cluster",
        code if code == Farewell::Removed as u64 => "this node was removed from the cluster",
        code if code == Farewell::Many as u64 => "this node has too many links",
        _ => "it closed the link before it was made",
    }
}
