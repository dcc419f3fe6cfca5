//! Who is up: probes in turn, and silence.
//!
//! Every `ping_interval` some peers are pinged, and some of those that are down dialled, in turn by
//! their ids from a random one on. A peer of which nothing was heard since it was pinged is pinged
//! every time until it is heard of, or has been silent for `down_after`: then it is down, until a
//! link comes up again. So is one that copies are on their way to. Any message is a sign of life. Who
//! has been silent for half of that time is pinged four times as often: so many pings do not get
//! lost by chance.
//!
//! In a cluster of up to `MAX_PROBES_PER_BEAT` peers that means that all are pinged every time, and
//! that silence counts from the last sign of life: who dies is down for all others after `down_after`
//! and at most one interval. In a larger one silence counts from the first ping without an answer, and
//! that comes a turn later at most: peers / `MAX_PROBES_PER_BEAT` intervals, 17 s for 1,000 nodes at the
//! defaults.
//!
//! Limits: `MAX_PROBES_PER_BEAT` pings that are not repetitions, and `MAX_DIALS_PER_BEAT` dials, in an
//! interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{Core, Output, Timer, outbox::Peer};
use crate::{config::USUAL_PATIENCE, model::NodeId, wire::Message};

/// Peers pinged in turn in one interval. Up to that many are all pinged every time.
pub(crate) const MAX_PROBES_PER_BEAT: usize = 30;
/// Peers that are down and dialled in turn in one interval.
pub(crate) const MAX_DIALS_PER_BEAT: usize = 30;

/// Pings in an interval to a peer that has been silent for half of `down_after`.
const URGES_PER_BEAT: u64 = 4;

/// Whose turn it was last.
#[derive(Debug)]
pub(crate) struct Probes {
    pinged: Turn,
    dialled: Turn,
}

/// A place in the circle of ids.
#[derive(Debug)]
struct Turn(Option<NodeId>);

impl Probes {
    pub(super) fn new() -> Self {
        Self { pinged: Turn(None), dialled: Turn(None) }
    }
}

impl Turn {
    /// The next peers of a kind, at most `count`, each once.
    fn next(
        &mut self,
        peers: &BTreeMap<NodeId, Peer>,
        count: usize,
        is_one: fn(&Peer) -> bool,
    ) -> Vec<NodeId> {
        let after = self.0.map_or(Bound::Unbounded, Bound::Excluded);
        let again = self.0.into_iter().flat_map(|last| peers.range(..=last));
        let in_turn = peers.range((after, Bound::Unbounded)).chain(again).filter(|(_, p)| is_one(p));
        let next: Vec<NodeId> = in_turn.take(count).map(|(id, _)| *id).collect();
        self.0 = next.last().copied().or(self.0);
        next
    }
}

impl Core {
    pub(super) fn heartbeat(&mut self) {
        #[cfg(turbopump_mutations)]
        if crate::mutation::is_planted(crate::mutation::Mutation::TombstoneDroppedByAge) {
            self.drop_old_tombstones();
        }
        let now_ms = self.now.mono_ms;
        self.timers.set(Timer::Heartbeat, now_ms + self.config.ping_interval.as_millis() as u64);
        self.renew_lists();
        self.write_ledger();
        self.hang_up_on_the_silent();
        self.start_turns();
        let dialled = self.probes.dialled.next(&self.peers, MAX_DIALS_PER_BEAT, |p| !p.up);
        dialled.into_iter().for_each(|id| self.dial(id));
        let in_turn = self.probes.pinged.next(&self.peers, MAX_PROBES_PER_BEAT, |p| p.up);
        let is_awaited = |p: &Peer| p.up && (p.silent_since_ms.is_some() || p.first_flight().is_some());
        let awaited = self.peers.iter().filter(|(_, p)| is_awaited(p)).map(|(id, _)| *id);
        let pinged: BTreeSet<NodeId> = in_turn.into_iter().chain(awaited).collect();
        pinged.into_iter().for_each(|id| self.ping(id));
        self.plan_urging();
    }

    /// Pings those that may be down soon, more often than others.
    pub(super) fn urge(&mut self) {
        self.hang_up_on_the_silent();
        let urged = self.silent_for(self.down_after_ms() / 2);
        urged.into_iter().for_each(|id| self.ping(id));
        self.plan_urging();
    }

    fn down_after_ms(&self) -> u64 {
        self.config.silence_allowed(USUAL_PATIENCE).as_millis() as u64
    }

    /// How long it takes until all peers that are up have been pinged.
    pub(super) fn turn_ms(&self) -> u64 {
        let beats = self.peers.len().div_ceil(MAX_PROBES_PER_BEAT) as u64;
        beats * self.config.ping_interval.as_millis() as u64
    }

    pub(super) fn heard(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            (peer.heard_ms, peer.silent_since_ms) = (self.now.mono_ms, None);
        }
    }

    pub(super) fn on_bye(&mut self, from: NodeId) {
        self.out.push(Output::HangUp { peer: from });
        self.link_down(from);
    }

    pub(super) fn ping(&mut self, id: NodeId) {
        let since_ms = if self.is_small_cluster() { None } else { Some(self.now.mono_ms) };
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.silent_since_ms.get_or_insert(since_ms.unwrap_or(peer.heard_ms));
        }
        let (sequence, vitals) = (self.fresh_id(), self.vitals(id, self.members_digest()));
        self.send(id, Message::Ping { sequence, vitals });
    }

    pub(super) fn dial(&mut self, peer: NodeId) {
        let addrs = self.members.find(peer).map(|m| m.addrs.clone()).unwrap_or_default();
        if !addrs.is_empty() {
            self.out.push(Output::Dial { peer, addrs });
        }
    }

    fn hang_up_on_the_silent(&mut self) {
        for id in self.silent_for(self.down_after_ms()) {
            self.out.push(Output::HangUp { peer: id });
            self.link_down(id);
        }
    }

    /// Urging begins once half of the time that a peer may be silent is over.
    fn plan_urging(&mut self) {
        let interval_ms = self.config.ping_interval.as_millis() as u64;
        let half_ms = self.down_after_ms() / 2;
        if !self.silent_for(half_ms.saturating_sub(interval_ms).max(1)).is_empty() {
            self.timers.set_earlier(Timer::Urge, self.now.mono_ms + (interval_ms / URGES_PER_BEAT).max(1));
        }
    }

    /// Peers that count as up, and of which nothing was heard for so long.
    fn silent_for(&self, ms: u64) -> Vec<NodeId> {
        let now_ms = self.now.mono_ms;
        let is_silent = |p: &Peer| p.silent_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= ms);
        self.peers.iter().filter(|(_, p)| p.up && is_silent(p)).map(|(id, _)| *id).collect()
    }

    /// Nodes that begin with different peers meet different ones all along.
    fn start_turns(&mut self) {
        if self.probes.pinged.0.is_some() || self.is_small_cluster() {
            return;
        }
        let first = self.chance.below(self.peers.len() as u64) as usize;
        let first = self.peers.keys().nth(first).copied();
        self.probes = Probes { pinged: Turn(first), dialled: Turn(first) };
    }
}
