//! How news of members spread: changes at once, and what is left by comparing digests.
//!
//! A list that changed is *published*: peers come and go by it, keys are placed by it, and the
//! entries that are news go to others, who do the same if it is news to them. In a small cluster
//! that is everybody; in a large one `FANOUT` random peers, which reaches all in a few steps. Pings
//! and pongs carry a digest of the published list: where it differs, something got lost, and the
//! full lists are exchanged and merged.
//!
//! 1,000 simulated nodes that know six others each know all within 1.1 s of virtual time, at 580 KB per
//! node; 100 removals are everywhere within 1.1 s. At rest each takes in 121 messages a second and
//! sends 7 KB, frames only (`tests/simulation/large.rs`).
//!
//! Limits, all but the first in large clusters only: one full list per peer and `RESEND_MS`,
//! `MAX_LISTS_PER_BEAT` full lists in a ping interval, one publication per `SETTLE_MS`, since placing
//! keys anew takes long where there are many nodes.

use std::sync::Arc;

use super::{
    Core, Output, Timer,
    leave::LastWord,
    outbox::Peer,
    probes::{MAX_DIALS_PER_BEAT, MAX_PROBES_PER_BEAT},
};
use crate::{
    model::{Member, Members, NodeId},
    partition::Placement,
    wire::{MAX_MEMBERS_PER_MESSAGE, Message, member_len_hint},
};

/// Peers that a change is sent to in a large cluster.
const FANOUT: usize = 8;
/// Full lists sent in a ping interval, in a large cluster.
const MAX_LISTS_PER_BEAT: usize = 4;
/// Pause before the same list is sent to the same peer again.
const RESEND_MS: u64 = 300;
/// Least time between two publications, in a large cluster.
const SETTLE_MS: u64 = 200;
/// Bytes of a message around its entries, at most.
pub(super) const AROUND_BYTES: usize = 32;

/// What was said of the member list.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    /// The list that peers, placement and pings follow.
    published: Arc<Members>,
    published_ms: u64,
    digest: u64,
    lists_left: usize,
}

impl Core {
    /// Whether everybody can be told everything at once.
    pub(super) fn is_small_cluster(&self) -> bool {
        self.peers.len() <= MAX_PROBES_PER_BEAT
    }

    /// Digest of the published list.
    pub(super) fn members_digest(&self) -> u64 {
        self.gossip.digest
    }

    /// Others changed the list: publishes it, at once or soon.
    pub(super) fn members_heard(&mut self) {
        self.members_agree_anew();
        let next_ms = self.gossip.published_ms + SETTLE_MS;
        match self.is_small_cluster() || self.now.mono_ms >= next_ms {
            true => self.publish_members(),
            false => self.timers.set_earlier(Timer::Members, next_ms),
        }
    }

    /// This node changed the list: publishes it.
    pub(super) fn members_changed(&mut self) {
        self.members_agree_anew();
        self.publish_members();
    }

    pub(super) fn publish_members(&mut self) {
        if *self.gossip.published == self.members {
            return;
        }
        let members = Arc::new(self.members.clone());
        let before = std::mem::replace(&mut self.gossip.published, members.clone());
        (self.gossip.published_ms, self.gossip.digest) = (self.now.mono_ms, members.digest());
        self.peers.retain(|id, _| members.contains(*id));
        self.refused_by.retain(|id| members.contains(*id));
        let mut fresh = Vec::new();
        for id in members.present().map(|m| m.id).filter(|id| *id != self.me) {
            self.peers.entry(id).or_insert_with(|| {
                fresh.push(id);
                Peer::new(self.config.max_flights_per_peer)
            });
        }
        let placement = Placement::new(&*self.partitioner, &members, self.partitions);
        if !placement.places_like(&self.placement) {
            self.placement = Arc::new(placement);
            self.placed_ms = self.now.mono_ms;
            self.start_handoff();
            self.doubt_anew();
        }
        self.tell_of_keys(&before);
        // Said once, with all that this node knows.
        let is_last_word = self.last_word == LastWord::Said && before.contains(self.me);
        let is_news = |m: &&Member| is_last_word || before.find(m.id) != Some(m);
        let news: Vec<Member> = members.all().filter(is_news).cloned().collect();
        self.out.push(Output::Publish { members, placement: self.placement.clone() });
        self.spread(&news);
        if !self.is_small_cluster() {
            fresh.into_iter().take(MAX_DIALS_PER_BEAT).for_each(|id| self.dial(id));
        }
    }

    /// Tells a peer whose link came up what it may not know.
    pub(super) fn greet_with_members(&mut self, to: NodeId) {
        if self.is_small_cluster() {
            return self.send_members(to, true);
        }
        // The ping that goes out with it says whether there is more.
        let mine: Vec<Member> = self.members.find(self.me).cloned().into_iter().collect();
        self.send_entries(to, &mine, false);
    }

    /// A peer said what its list's digest is.
    pub(super) fn compare_members(&mut self, peer: NodeId, theirs: u64) {
        if self.gossip.digest != theirs {
            self.send_members_once(peer);
        }
    }

    /// Sends the whole list.
    pub(super) fn send_members(&mut self, to: NodeId, reply: bool) {
        let members = self.members.clone();
        self.send_entries(to, members.all(), reply);
    }

    /// Sends the whole list to one who asked for it.
    pub(super) fn answer_with_members(&mut self, to: NodeId) {
        if self.take_list() {
            self.send_members(to, false);
        }
    }

    /// A ping interval begins.
    pub(super) fn renew_lists(&mut self) {
        self.gossip.lists_left = MAX_LISTS_PER_BEAT;
    }

    /// What members agreed on, others agreed on.
    fn members_agree_anew(&mut self) {
        self.stop_burial();
        self.forget_stamps();
        self.check_generation();
    }

    /// Sends the list unless this very list went to the peer just now.
    fn send_members_once(&mut self, to: NodeId) {
        let (now_ms, digest) = (self.now.mono_ms, self.gossip.digest);
        let Some(peer) = self.peers.get(&to) else { return };
        let (sent, at_ms) = peer.members_sent;
        if (sent != digest || now_ms.saturating_sub(at_ms) >= RESEND_MS) && self.take_list() {
            self.peers.entry(to).and_modify(|peer| peer.members_sent = (digest, now_ms));
            self.send_members(to, true);
        }
    }

    fn take_list(&mut self) -> bool {
        if self.is_small_cluster() {
            return true;
        }
        let left = self.gossip.lists_left;
        self.gossip.lists_left = left.saturating_sub(1);
        left > 0
    }

    fn spread(&mut self, news: &[Member]) {
        let mut to: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        if !self.is_small_cluster() {
            for chosen in 0..FANOUT.min(to.len()) {
                let other = chosen + self.chance.below((to.len() - chosen) as u64) as usize;
                to.swap(chosen, other);
            }
            to.truncate(FANOUT);
        }
        to.into_iter().for_each(|id| self.send_entries(id, news, false));
    }

    pub(super) fn send_entries<'a>(
        &mut self,
        to: NodeId,
        entries: impl IntoIterator<Item = &'a Member>,
        mut reply: bool,
    ) {
        let whole = self.max_message_bytes.saturating_sub(AROUND_BYTES);
        let (mut batch, mut room) = (Vec::new(), whole);
        for entry in entries {
            let bytes = member_len_hint(entry);
            if batch.len() >= MAX_MEMBERS_PER_MESSAGE || bytes > room && !batch.is_empty() {
                let entries = std::mem::take(&mut batch);
                self.send(to, Message::Members { entries, reply: std::mem::take(&mut reply) });
                room = whole;
            }
            room = room.saturating_sub(bytes);
            batch.push(entry.clone());
        }
        if !batch.is_empty() {
            self.send(to, Message::Members { entries: batch, reply });
        }
    }
}
