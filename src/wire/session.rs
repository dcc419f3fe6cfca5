//! The links of a node: who is behind an address, and whether what comes from there is genuine.
//!
//! Not the transport, which moves frames, nor the core, which decides when to dial and when to
//! give a peer up. Both the driver and the simulator run this.
//!
//! ```text
//! A  -- hello (token a, echo 0) -->  B     the core dials; nothing is remembered on either side
//! A  <-- hello (token b, echo a) --  B     A sees its own token: B receives at this address. Up
//! A  -- hello (token a', echo b) --> B     B sees its own token: up as well
//! A  == messages (token b) ========> B     B takes no messages without the token it gave
//! ```
//!
//! - A peer is its id, wherever it speaks from. It may have several proved paths; frames on all of
//!   them are taken, and ours go out on the newest.
//! - A token is a keyed hash of the address, and once a peer has said who it is, of its id and
//!   incarnation. So the node knows its tokens again without having kept them: there are no
//!   half-open sessions to fill up, every hello may be lost, repeated or late, and frames to or from
//!   a process that had the address before are noticed.
//! - A message that is longer than a frame travels in parts, each in a frame of its own with the token.
//!   What has come of it goes with the link.
//! - Where the transport says whose key is behind an address, nobody is believed to be a member that has
//!   another one. A member whose key is not known may show any that is nobody else's.
//! - A hello changes nothing before it has shown a token of ours, and nothing when it is refused.
//! - Whoever sends messages without a link is sent a hello. So after a restart both ends find each other
//!   again at once, whichever of them speaks first.
//!
//! Limits: hellos sent in answer to strangers, paths per peer, frames not yet flushed, messages per frame,
//! and those of messages in parts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use bytes::Bytes;

use super::{
    DecodeError, FRAME_HEADER_BYTES, FrameError, FrameType, Header, Hello, LinkCounters, LinkEvent, Message,
    Refusal, SendRefused,
    link::{Link, Path},
    long::{MAX_MESSAGE_BYTES, Malformed, Partials},
    noise::{Allowance, Once},
};
use crate::model::{MAX_ADDRS, MemberKey, Members, NodeId, PublicKey, Seeded};

/// Messages in one frame. A frame of the smallest ones would be costly to hold decoded.
pub const MAX_MESSAGES_PER_FRAME: usize = 4_096;
/// Frames that wait for [`Links::flush`]. It is called after every step of the loop.
pub const MAX_UNFLUSHED_FRAMES: usize = 16_384;
/// Hellos a second in answer to nodes of the cluster that dial or confirm.
pub const MAX_ANSWERS_PER_SECOND: u32 = 4_000;
/// Hellos a second to those who are refused or whose messages carry no token of ours. Small, so that
/// we are no use to anybody who sends with a false source address.
pub const MAX_REFUSALS_PER_SECOND: u32 = 500;
/// Least time between two hellos to one address whose messages carry no token of ours.
pub const STRAY_ANSWER_MS: u64 = 500;
/// Least time between two events that tell of a refusal of or by one address.
pub const REFUSAL_EVENT_MS: u64 = 60_000;

/// What a node says about itself in every hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// Its name.
    pub id: NodeId,
    /// The cluster's name, at most [`MAX_CLUSTER_BYTES`](super::MAX_CLUSTER_BYTES).
    pub cluster: String,
    /// Which process of this node it is: greater than that of any before, and not that of a second
    /// process which goes by the same id by accident (a start time in milliseconds will do).
    pub incarnation: u64,
    /// The cluster's number of partitions.
    pub partitions: u32,
    /// The kind of the partitioner, at most [`MAX_CLUSTER_BYTES`](super::MAX_CLUSTER_BYTES).
    pub placement: String,
}

/// All links of a node. A peer counts as linked once it has shown that it receives where it says it
/// does; hellos may be lost, repeated or late, and leave nothing behind until they prove that.
pub struct Links {
    local: Local,
    max_frame_bytes: usize,
    /// Makes the tokens; drawn at the start, told to nobody.
    secret: [u8; 32],
    admitted: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
    member_keys: BTreeMap<NodeId, MemberKey>,
    /// Keys shown at addresses; as many as the transport has connections.
    shown: BTreeMap<SocketAddr, PublicKey>,
    links: BTreeMap<NodeId, Link>,
    /// Whose proved path an address is.
    owners: BTreeMap<SocketAddr, NodeId>,
    /// Frames to send, in order.
    ready: VecDeque<(SocketAddr, Bytes)>,
    /// Those whose open frame holds something, in the order in which it was begun.
    begun: Vec<NodeId>,
    partials: Partials,
    answers: Allowance,
    refusals: Allowance,
    strays: Once,
    told: Once,
    counters: LinkCounters,
    /// Whether somebody waits for what was sent since the last flush.
    is_urgent: bool,
}

impl Links {
    /// No links yet, and nobody admitted. Tokens follow from `seed`.
    pub fn new(local: Local, max_frame_bytes: usize, seed: u64) -> Self {
        let mut seeded = Seeded::new(seed);
        let mut secret = [0; 32];
        secret.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&seeded.next_u64().to_le_bytes()));
        Self {
            local,
            max_frame_bytes,
            secret,
            admitted: BTreeSet::new(),
            removed: BTreeSet::new(),
            member_keys: BTreeMap::new(),
            shown: BTreeMap::new(),
            links: BTreeMap::new(),
            owners: BTreeMap::new(),
            ready: VecDeque::new(),
            begun: Vec::new(),
            partials: Partials::default(),
            answers: Allowance::per_second(MAX_ANSWERS_PER_SECOND),
            refusals: Allowance::per_second(MAX_REFUSALS_PER_SECOND),
            strays: Once::per(STRAY_ANSWER_MS),
            told: Once::per(REFUSAL_EVENT_MS),
            counters: LinkCounters::default(),
            is_urgent: false,
        }
    }

    /// Says who may have a link: the members that are present, except ourselves. Links of others
    /// are dropped; these peers are returned, and no event tells of them.
    pub fn admit(&mut self, members: &Members) -> Vec<NodeId> {
        let us = self.local.id;
        self.admitted = members.present().map(|m| m.id).filter(|&id| id != us).collect();
        self.member_keys = members.present().map(|m| (m.id, m.key)).collect();
        self.removed = members.all().map(|m| m.id).filter(|id| !members.contains(*id)).collect();
        let gone: Vec<_> = self.links.keys().filter(|id| !self.admitted.contains(id)).copied().collect();
        gone.iter().for_each(|&peer| self.drop_link(peer));
        gone
    }

    /// Sends a hello to each address, of which a member has at most [`MAX_ADDRS`]. Nothing is
    /// remembered: call it again, every half second or so, until the link is up.
    pub fn dial(&mut self, _now_ms: u64, peer: NodeId, addrs: &[SocketAddr]) {
        if self.admitted.contains(&peer) {
            addrs.iter().take(MAX_ADDRS).for_each(|&addr| self.greet(addr));
        }
    }

    /// Puts a message into the frame that is open for this peer, or cuts it into parts where no frame
    /// takes it. Whoever expects an answer repeats it when none comes: any frame may be lost, and a
    /// message in parts is lost with any of them.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was taken.
    pub fn send(&mut self, peer: NodeId, message: &Message) -> Result<(), SendRefused> {
        let link = self.links.get_mut(&peer).ok_or(SendRefused::NoLink)?;
        if message.shortest() > self.max_frame_bytes.max(MAX_MESSAGE_BYTES) || !message.is_within_limits() {
            return Err(SendRefused::TooLong);
        }
        if self.ready.len() >= MAX_UNFLUSHED_FRAMES {
            return Err(SendRefused::Full);
        }
        let was_blank = link.is_blank();
        let parts = link.append(message, self.max_frame_bytes, &mut self.ready)?;
        match (was_blank, link.is_blank()) {
            (true, false) => self.begun.push(peer),
            (false, true) => self.begun.retain(|&id| id != peer),
            _ => {}
        }
        self.is_urgent |= !message.can_wait();
        self.counters.messages_out += 1;
        self.counters.parts_out += parts as u64;
        Ok(())
    }

    /// Whether somebody waits for one of the frames that [`flush`](Self::flush) will hand out.
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// Hands out all frames, those of one peer in order.
    pub fn flush(&mut self, emit: &mut dyn FnMut(SocketAddr, Bytes)) {
        self.is_urgent = false;
        for peer in self.begun.drain(..) {
            self.ready.extend(self.links.get_mut(&peer).and_then(Link::close));
        }
        for (addr, frame) in self.ready.drain(..) {
            self.counters.frames_out += 1;
            self.counters.bytes_out += frame.len() as u64;
            emit(addr, frame);
        }
    }

    /// Takes in a frame. May queue hellos for [`flush`](Self::flush).
    pub fn received(&mut self, now_ms: u64, from: SocketAddr, frame: Bytes, events: &mut Vec<LinkEvent>) {
        self.counters.frames_in += 1;
        self.counters.bytes_in += frame.len() as u64;
        if !self.partials.is_empty() {
            self.partials.expire(now_ms, &mut self.counters);
        }
        let header = match Header::parse(&frame) {
            Ok(header) => header,
            Err(FrameError::NotOurs) => return self.counters.not_ours += 1,
            Err(FrameError::Type(_)) => return self.counters.unknown_frames += 1,
            Err(FrameError::Length) => return self.counters.malformed += 1,
            Err(FrameError::Version(_)) => {
                // Not answered: the other side could not read it, and would answer that.
                self.counters.wire_version += 1;
                let event = LinkEvent::Refused { addr: from, reason: Refusal::WireVersion };
                return self.tell(now_ms, from, event, events);
            }
        };
        let body = frame.slice(FRAME_HEADER_BYTES..);
        match header.kind {
            FrameType::Messages => {
                if let Some(peer) = self.sender(now_ms, from, header.token) {
                    self.received_messages(peer, body, events);
                }
            }
            FrameType::Part => {
                if let Some(peer) = self.sender(now_ms, from, header.token) {
                    self.received_part(now_ms, peer, body, events);
                }
            }
            FrameType::Hello => match Hello::decode(&body) {
                Ok(hello) => self.received_hello(now_ms, from, hello, events),
                Err(_) => self.counters.malformed += 1,
            },
        }
    }

    /// The transport says that whoever is at this address has this key.
    pub fn opened(&mut self, addr: SocketAddr, key: PublicKey, events: &mut Vec<LinkEvent>) {
        if self.shown.get(&addr).is_some_and(|before| *before != key) {
            self.closed(addr, events);
        }
        self.shown.insert(addr, key);
    }

    /// The transport says that the connection to this address is gone.
    pub fn closed(&mut self, addr: SocketAddr, events: &mut Vec<LinkEvent>) {
        self.shown.remove(&addr);
        if let Some(peer) = self.owners.remove(&addr) {
            self.lose_path(peer, addr, events);
        }
    }

    /// The transport says that whoever has this key turned this node away as one that was removed.
    pub fn turned_away(
        &mut self,
        now_ms: u64,
        addr: SocketAddr,
        key: PublicKey,
        events: &mut Vec<LinkEvent>,
    ) {
        let peer = self.member_keys.iter().find(|(_, known)| known.known() == Some(key)).map(|(id, _)| *id);
        let event = LinkEvent::RefusedBy { peer, addr, reason: Refusal::RemovedNode };
        self.tell(now_ms, addr, event, events);
    }

    /// Drops the link of a peer that was given up. No event tells of it.
    pub fn hang_up(&mut self, peer: NodeId) {
        self.drop_link(peer);
    }

    /// Whether there is a link to this peer.
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.links.contains_key(&peer)
    }

    /// Where frames to this peer go.
    pub fn addr_of(&self, peer: NodeId) -> Option<SocketAddr> {
        self.links.get(&peer).map(|link| link.path().addr)
    }

    /// What went in and out.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Whose link a frame belongs to. Who has none and should is sent a hello.
    fn sender(&mut self, now_ms: u64, from: SocketAddr, token: u64) -> Option<NodeId> {
        let owner = self.owners.get(&from).copied();
        let peer = owner.filter(|id| self.links.get(id).is_some_and(|link| link.accepts(from, token)));
        if peer.is_none() {
            self.counters.wrong_token += 1;
            // A peer that does not know that we restarted, or hung up; or noise.
            if self.strays.allows(now_ms, from) {
                match self.refusals.take(now_ms) {
                    true => self.greet(from),
                    false => self.counters.unanswered += 1,
                }
            }
        }
        peer
    }

    fn received_messages(&mut self, peer: NodeId, mut body: Bytes, events: &mut Vec<LinkEvent>) {
        for _ in 0..MAX_MESSAGES_PER_FRAME {
            if body.is_empty() {
                return;
            }
            self.take_message(peer, &mut body, events);
        }
        self.counters.malformed += u64::from(!body.is_empty());
    }

    fn received_part(&mut self, now_ms: u64, peer: NodeId, body: Bytes, events: &mut Vec<LinkEvent>) {
        self.counters.parts_in += 1;
        match self.partials.take(now_ms, peer, body, &mut self.counters) {
            Ok(None) => {}
            Ok(Some(mut message)) => {
                self.take_message(peer, &mut message, events);
                self.counters.malformed += u64::from(!message.is_empty());
            }
            Err(Malformed) => self.counters.malformed += 1,
        }
    }

    fn take_message(&mut self, peer: NodeId, body: &mut Bytes, events: &mut Vec<LinkEvent>) {
        match Message::decode(body) {
            Ok(message) => {
                self.counters.messages_in += 1;
                events.push(LinkEvent::Message { peer, message });
            }
            Err(DecodeError::UnknownType(_)) => self.counters.unknown_messages += 1,
            Err(_) => self.counters.malformed += 1,
        }
    }

    fn received_hello(&mut self, now_ms: u64, from: SocketAddr, hello: Hello, events: &mut Vec<LinkEvent>) {
        self.counters.hellos_in += 1;
        if hello.id == self.local.id && hello.incarnation == self.local.incarnation {
            // We dialled ourselves: some member was given our own address.
            self.counters.own_hellos += 1;
            return;
        }
        let token = self.peer_token(from, hello.id, hello.incarnation);
        let proved = hello.echo == token || hello.echo == self.dial_token(from);
        if let Some(reason) = hello.refusal {
            // Nobody is believed who did not get our hello. And a refusal is never answered.
            if proved {
                self.refused_by(now_ms, from, &hello, reason, events);
            }
            return;
        }
        if let Some(reason) = self.objection(from, &hello) {
            self.counters.refused[reason as usize] += 1;
            match self.refusals.take(now_ms) {
                true => self.say(from, token, hello.token, Some(reason)),
                false => self.counters.unanswered += 1,
            }
            return self.tell(now_ms, from, LinkEvent::Refused { addr: from, reason }, events);
        }
        // A repeated proof changes nothing, so it needs no answer; that ends the exchange.
        let answer = !proved || self.prove(from, token, &hello, events);
        if answer {
            match self.answers.take(now_ms) {
                true => self.say(from, token, hello.token, None),
                false => self.counters.unanswered += 1,
            }
        }
    }

    /// Why we won't talk to the one who said this.
    fn objection(&self, from: SocketAddr, hello: &Hello) -> Option<Refusal> {
        let Local { id, cluster, partitions, placement, .. } = &self.local;
        let current = || self.links.get(&hello.id).map(Link::incarnation);
        match hello {
            _ if hello.cluster != *cluster => Some(Refusal::Cluster),
            _ if hello.partitions != *partitions => Some(Refusal::Partitions),
            _ if hello.placement != *placement => Some(Refusal::Placement),
            _ if hello.id == *id => Some(Refusal::SelfId),
            _ if self.removed.contains(&hello.id) => Some(Refusal::RemovedNode),
            _ if !self.admitted.contains(&hello.id) => Some(Refusal::UnknownNode),
            _ if !self.has_its_key(from, hello.id) => Some(Refusal::Key),
            _ if current().is_some_and(|now| hello.incarnation < now) => Some(Refusal::Superseded),
            _ => None,
        }
    }

    /// Whether the key shown at this address, if any, may be that of this member.
    fn has_its_key(&self, from: SocketAddr, id: NodeId) -> bool {
        let Some(shown) = self.shown.get(&from) else { return true };
        match self.member_keys.get(&id) {
            Some(MemberKey::Known(key)) => key == shown,
            Some(MemberKey::Unknown) => !self.member_keys.values().any(|key| key.known() == Some(*shown)),
            Some(MemberKey::Disputed) | None => false,
        }
    }

    /// Takes the address as a path of the peer, and says whether that changed anything.
    fn prove(&mut self, from: SocketAddr, ours: u64, hello: &Hello, events: &mut Vec<LinkEvent>) -> bool {
        let peer = hello.id;
        if let (Some(MemberKey::Unknown), Some(&key)) = (self.member_keys.get(&peer), self.shown.get(&from)) {
            self.member_keys.insert(peer, MemberKey::Known(key));
            events.push(LinkEvent::KeyShown { peer, key });
        }
        if self.links.get(&peer).is_some_and(|link| link.incarnation() < hello.incarnation) {
            self.drop_link(peer);
            events.push(LinkEvent::Down { peer });
        }
        if let Some(before) = self.owners.get(&from).copied().filter(|&before| before != peer) {
            self.lose_path(before, from, events);
        }
        self.owners.insert(from, peer);
        let path = Path { addr: from, ours, theirs: hello.token };
        let Some(link) = self.links.get_mut(&peer) else {
            self.links.insert(peer, Link::new(hello.incarnation, path));
            events.push(LinkEvent::Up { peer, incarnation: hello.incarnation, addr: from });
            return true;
        };
        let (changed, forgotten) = link.add(path);
        if let Some(addr) = forgotten {
            self.owners.remove(&addr);
        }
        changed
    }

    fn refused_by(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        hello: &Hello,
        reason: Refusal,
        events: &mut Vec<LinkEvent>,
    ) {
        self.counters.refused_by[reason as usize] += 1;
        let current = self.links.get(&hello.id).map(Link::incarnation);
        if self.owners.get(&from) == Some(&hello.id) && current == Some(hello.incarnation) {
            self.closed(from, events);
        }
        let peer = Some(hello.id).filter(|id| self.admitted.contains(id));
        self.tell(now_ms, from, LinkEvent::RefusedBy { peer, addr: from, reason }, events);
    }

    /// Tells of a refusal, unless one by or of this address was told a moment ago.
    fn tell(&mut self, now_ms: u64, addr: SocketAddr, refusal: LinkEvent, events: &mut Vec<LinkEvent>) {
        if self.told.allows(now_ms, addr) {
            events.push(refusal);
        }
    }

    fn drop_link(&mut self, peer: NodeId) {
        for path in self.links.remove(&peer).iter().flat_map(Link::paths) {
            self.owners.remove(&path.addr);
        }
        self.begun.retain(|&id| id != peer);
        self.partials.forget(peer);
    }

    /// The address is not the peer's any more. Its last one takes the link along.
    fn lose_path(&mut self, peer: NodeId, addr: SocketAddr, events: &mut Vec<LinkEvent>) {
        if self.links.get_mut(&peer).is_some_and(|link| !link.remove(addr)) {
            self.drop_link(peer);
            events.push(LinkEvent::Down { peer });
        }
    }

    /// The hello that begins.
    fn greet(&mut self, to: SocketAddr) {
        self.say(to, self.dial_token(to), 0, None);
    }

    fn say(&mut self, to: SocketAddr, token: u64, echo: u64, refusal: Option<Refusal>) {
        if self.ready.len() >= MAX_UNFLUSHED_FRAMES {
            return self.counters.unanswered += 1;
        }
        let Local { id, cluster, incarnation, partitions, placement } = self.local.clone();
        let hello = Hello { cluster, id, incarnation, partitions, placement, token, echo, refusal };
        self.counters.hellos_out += 1;
        self.is_urgent = true;
        self.ready.push_back((to, hello.to_frame()));
    }

    /// What we tell an address before we know who is there.
    fn dial_token(&self, addr: SocketAddr) -> u64 {
        self.token(format_args!("dial {addr}"))
    }

    /// What we tell this process at this address.
    fn peer_token(&self, addr: SocketAddr, peer: NodeId, incarnation: u64) -> u64 {
        self.token(format_args!("link {addr} {peer} {incarnation}"))
    }

    fn token(&self, what: std::fmt::Arguments<'_>) -> u64 {
        let hash = blake3::keyed_hash(&self.secret, what.to_string().as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk::<8>().expect("a digest has 32 bytes");
        // 0 says that there is none.
        u64::from_le_bytes(*first).max(1)
    }
}

#[cfg(test)]
mod tests;
