//! Copies on their way to peers, and those that are owed.
//!
//! A copy goes out as a *flight*: sent, repeated with backoff, ended by an acknowledgement. What
//! finds no room among a peer's flights, or a peer that is away, or is not acknowledged after
//! some tries, becomes *owed*: only the key's name is kept. When the peer is there, the name is
//! *offered* (`offer`), and turns into flights of what the peer lacks.
//!
//! ```text
//! copy ──room, peer up──> flight ──Stored/Known──────────────────────> acknowledged
//!   │                       ^  └──tries used up, Busy, Failed──┐             ^
//!   │                       └──loaded── wanted <──┐            v             │
//!   └─────────else────────> owed ──────────────> offered ──> owed         known
//!                                                  └─────────────────────────┘
//! ```
//!
//! Values that do not fit into a frame are sent without their bytes; the peer fetches them
//! (`transfer`). Limits: flights per peer, and names in all states before a flight. Past the latter
//! a name is dropped and sync finds the difference.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{Core, PeerStats, Timer, offer::Debts, sync::Compared};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    model::{Dot, Key, Kind, NodeId, Record, Stamp, Version},
    wire::{AckStatus, Message},
};

/// Times a copy is sent before it becomes owed.
pub(super) const MAX_TRIES: u32 = 5;
/// How long a peer that is fetching a long value may take between two signs of life.
const FETCHING_MS: u64 = 5_000;
/// Pause after a peer said that it is busy.
pub(super) const BUSY_PAUSE_MS: u64 = 100;
/// Pause after a peer's storage failed, or it did not acknowledge anything.
pub(super) const FAILED_PAUSE_MS: u64 = 1_000;
/// The fewest flights that losses can bring a peer's window down to.
const MIN_WINDOW: usize = 16;

/// What this node knows of another one, and has for it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) up: bool,
    pub(crate) heard_ms: u64,
    /// It was pinged and has not been heard of since then.
    pub(crate) silent_since_ms: Option<u64>,
    pub(crate) compared: Compared,
    pub(crate) members_sent: (u64, u64),
    /// The digest of its member list, as it told last.
    pub(crate) members_told: Option<u64>,
    /// Which process speaks for it.
    pub(super) incarnation: u64,
    /// None of its `Write`s with a lower tag counts any more.
    pub(crate) floor: u64,
    /// The highest floor of ours that it has heard.
    pub(crate) floor_heard: u64,
    /// How far its store has come, as this process of it says.
    pub(crate) stamp: Option<Stamp>,
    /// How far our store has come, as its store remembers.
    pub(crate) stamp_kept: Stamp,
    /// It looks through an older copy of its store.
    pub(crate) doubts: bool,
    /// It may hold copies that belong elsewhere, as far as it has told.
    pub(crate) moves: bool,
    flights: BTreeMap<u64, Flight>,
    /// Of these, long values that the peer is fetching. They take no room from others.
    fetching: usize,
    pub(super) loading: usize,
    pub(super) debts: Debts,
    pub(super) paused_until_ms: u64,
    window: usize,
}

#[derive(Debug)]
struct Flight {
    key: Key,
    version: Arc<Version>,
    value: Option<Bytes>,
    tries: u32,
    due_ms: u64,
    is_fetched: bool,
}

impl Flight {
    /// Whether it says that there is a value, for the peer to fetch.
    fn is_long(&self) -> bool {
        self.value.is_none() && !Core::is_bare(&self.version)
    }
}

impl Peer {
    fn land(&mut self, tag: u64) -> Option<Flight> {
        let flight = self.flights.remove(&tag)?;
        self.fetching -= usize::from(flight.is_fetched);
        Some(flight)
    }

    pub(super) fn new(window: usize) -> Self {
        Self {
            up: false,
            heard_ms: 0,
            silent_since_ms: None,
            compared: Compared::default(),
            members_sent: (0, 0),
            members_told: None,
            incarnation: 0,
            floor: 0,
            floor_heard: 0,
            stamp: None,
            stamp_kept: Stamp::default(),
            doubts: false,
            moves: true,
            flights: BTreeMap::new(),
            fetching: 0,
            loading: 0,
            debts: Debts::default(),
            paused_until_ms: 0,
            window,
        }
    }

    /// A link came up, maybe with another process than before: what that one said is over.
    pub(super) fn speaks_as(&mut self, incarnation: u64) {
        if self.incarnation != incarnation {
            (self.incarnation, self.floor, self.floor_heard) = (incarnation, 0, 0);
            (self.stamp, self.stamp_kept, self.doubts) = (None, Stamp::default(), false);
            self.moves = true;
        }
    }

    /// The lowest tag of a copy that is on its way to it.
    pub(super) fn first_flight(&self) -> Option<u64> {
        self.flights.first_key_value().map(|(tag, _)| *tag)
    }

    pub(super) fn stats(&self, node: NodeId, now_ms: u64) -> PeerStats {
        let ago = |at_ms: u64| now_ms.saturating_sub(at_ms);
        PeerStats {
            node,
            up: self.up,
            in_flight: self.flights.len() - self.fetching,
            owed: self.debts.names(),
            synced_ms_ago: self.compared.equal_ms.map(ago),
            compared_ms_ago: self.compared.answered_ms.map(ago),
            differing: self.compared.differing,
        }
    }

    /// Copies on their way, offered or owed to it.
    pub(super) fn outstanding(&self) -> usize {
        self.flights.len() + self.debts.names() + self.loading
    }

    /// Whether it is up and nothing is on its way or owed to it, but for what it has and does not vouch for:
    /// it may wait for something from here before it does.
    pub(super) fn is_idle(&self) -> bool {
        self.up && self.outstanding() == self.debts.coming()
    }

    /// How many more copies may be on their way to it.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.flights.len() - self.fetching + self.loading)
    }
}

impl Core {
    /// Sends a copy now if the peer has room for it, else owes it.
    pub(super) fn send_copy(&mut self, to: NodeId, key: &Key, version: &Arc<Version>, value: &Bytes) {
        let Some(peer) = self.peers.get(&to) else { return };
        if !peer.up || peer.room() == 0 || peer.paused_until_ms > self.now.mono_ms {
            self.owe(to, key);
            return;
        }
        let value = self.fits(key, version).then(|| value.clone());
        self.launch(to, key.clone(), version.clone(), value);
    }

    /// Notes that a peer lacks something of a key, to be sent as soon as it can be.
    pub(super) fn owe(&mut self, to: NodeId, key: &Key) {
        if let Some(debts) = self.debts_with_room(to) {
            debts.owe(key.clone());
            self.indebted.insert(to);
        }
    }

    pub(super) fn on_write_ack(&mut self, from: NodeId, tag: u64, status: AckStatus) {
        let now_ms = self.now.mono_ms;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(flight) = peer.flights.get_mut(&tag) else { return };
        if status == AckStatus::Fetching {
            (flight.tries, flight.due_ms) = (1, now_ms + FETCHING_MS);
            peer.fetching += usize::from(!std::mem::replace(&mut flight.is_fetched, true));
            return;
        }
        let Some(flight) = peer.land(tag) else { return };
        if flight.is_long() && matches!(status, AckStatus::Busy | AckStatus::Failed) {
            // It fetches as many as it likes: no reason to keep others from it.
            return self.owe_later(from, flight.key);
        }
        match status {
            AckStatus::Busy => peer.paused_until_ms = now_ms + BUSY_PAUSE_MS,
            AckStatus::Failed => peer.paused_until_ms = now_ms + FAILED_PAUSE_MS,
            _ => peer.window = (peer.window + 1).min(self.config.max_flights_per_peer),
        }
        if status == AckStatus::Refused {
            // Again and again it would say the same. What has to leave here is owed anew by `handoff`.
            self.pay(from);
        } else if status == AckStatus::Held {
            // It counts for who wrote it; who holds it for others goes on giving it away.
            self.write_acknowledged(from, flight.version.dot);
            self.read_acknowledged(from, &flight.key, flight.version.dot);
            self.pay(from);
        } else if matches!(status, AckStatus::Busy | AckStatus::Failed) {
            let until = peer.paused_until_ms;
            self.owe(from, &flight.key);
            self.timers.set_earlier(Timer::Retry, until);
        } else {
            self.copy_acknowledged(from, &flight.key, flight.version.dot);
            self.pay(from);
        }
    }

    /// A wanted key was read: what the peer does not know of it flies.
    pub(super) fn copies_loaded(
        &mut self,
        to: NodeId,
        key: &Key,
        known: &[Dot],
        result: Result<Vec<Record>, String>,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        // A peer that was removed and added again in between does not count it.
        peer.loading = peer.loading.saturating_sub(1);
        // There is room for the next one, even if nothing comes of this one.
        self.indebted.insert(to);
        let records = match result {
            Ok(records) => records,
            Err(error) => {
                self.counters.storage_failed += 1;
                self.notice(format!("a copy of {key:?} owed to {to} can't be read: {error}"));
                // It may hand out none of several versions where one is damaged: the peer fetches each by itself.
                let held = self.held(key);
                if held.len() == 1 || !self.is_up(to) {
                    return; // Sync comes back to it.
                }
                held
            }
        };
        for Record { version, value } in records {
            // Read a moment ago: by now it may have been replaced.
            let is_passed = !self.index.holds(key, version.dot) || self.is_doubted(key);
            if is_passed || known.contains(&version.dot) {
                continue;
            }
            if !self.is_up(to) {
                return self.owe(to, key);
            }
            let value = value.filter(|_| self.fits(key, &version));
            self.launch(to, key.clone(), version, value);
        }
    }

    /// Repeats what is due, and goes on with what is owed.
    pub(super) fn retry(&mut self) {
        let ids: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        for id in ids {
            self.retry_peer(id);
            self.retry_offers(id);
            self.pay(id);
        }
    }

    /// Everything that was on its way to a peer is owed to it now.
    pub(super) fn ground(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.debts.take_back();
        let flights = std::mem::take(&mut peer.flights);
        peer.fetching = 0;
        #[cfg(turbopump_mutations)]
        if is_planted(Mutation::OwedForgotten) {
            return;
        }
        flights.values().for_each(|flight| self.owe(id, &flight.key));
    }

    /// Whether a version and its value go into one frame.
    pub(super) fn fits(&self, key: &Key, version: &Version) -> bool {
        Message::write_len_hint(key, version, Some(version.len as usize)) <= self.max_message_bytes
    }

    fn launch(&mut self, to: NodeId, key: Key, version: Arc<Version>, value: Option<Bytes>) {
        let tag = self.fresh_id();
        let due_ms = self.now.mono_ms + self.retry_ms(0);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let flight = Flight {
            key: key.clone(),
            version: version.clone(),
            value: value.clone(),
            tries: 1,
            due_ms,
            is_fetched: false,
        };
        peer.flights.insert(tag, flight);
        self.counters.copies_sent += 1;
        self.timers.set_earlier(Timer::Retry, due_ms);
        self.send(to, Message::Write { tag, key, version, value });
    }

    fn retry_peer(&mut self, id: NodeId) {
        let now_ms = self.now.mono_ms;
        let pauses: Vec<u64> = (0..=MAX_TRIES).map(|tries| self.retry_ms(tries)).collect();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (mut again, mut given_up) = (Vec::new(), Vec::new());
        for (tag, flight) in peer.flights.iter_mut().filter(|(_, f)| f.due_ms <= now_ms) {
            if flight.tries >= MAX_TRIES {
                given_up.push(*tag);
                continue;
            }
            flight.due_ms = now_ms + pauses[flight.tries as usize];
            flight.tries += 1;
            let (key, version, value) = (flight.key.clone(), flight.version.clone(), flight.value.clone());
            again.push(Message::Write { tag: *tag, key, version, value });
        }
        if !again.is_empty() || !given_up.is_empty() {
            peer.window = (peer.window / 2).max(MIN_WINDOW.min(self.config.max_flights_per_peer));
        }
        let lost: Vec<Flight> = given_up.iter().filter_map(|tag| peer.land(*tag)).collect();
        if !lost.is_empty() {
            peer.paused_until_ms = now_ms + FAILED_PAUSE_MS;
        }
        if let Some(due_ms) = peer.flights.values().map(|f| f.due_ms).min() {
            self.timers.set_earlier(Timer::Retry, due_ms);
        }
        self.counters.copies_resent += again.len() as u64;
        again.into_iter().for_each(|message| self.send(id, message));
        #[cfg(turbopump_mutations)]
        if is_planted(Mutation::OwedForgotten) {
            return;
        }
        lost.iter().for_each(|flight| self.owe(id, &flight.key));
    }

    /// The pause after the `tries`-th repetition: doubled each time, at most 32-fold.
    pub(super) fn retry_ms(&self, tries: u32) -> u64 {
        (self.config.retry_interval.as_millis() as u64) << tries.min(5)
    }

    /// Whether a version can be sent without reading storage: it has no bytes.
    pub(super) fn is_bare(version: &Version) -> bool {
        version.kind == Kind::Tombstone || version.len == 0
    }
}
