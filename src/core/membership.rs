//! Who belongs to the cluster, who is up, and how the news of both spread.
//!
//! Every peer is pinged at an interval; any message from it is a sign of life, silence for
//! `down_after` ends the link. Pings carry a digest of the member list: where it differs, the
//! lists are exchanged and merged ([`Members`](crate::model::Members)), which is all the gossip
//! there is. A node keeps its own entry true: news about it that are not what it says of itself
//! are answered with a higher revision, except its removal, which it is told.
//!
//! Limits: `MAX_MEMBERS` entries, removed ones included. Pings grow with the number of members:
//! fine for tens; hundreds would ping a sample.

use std::{net::SocketAddr, sync::Arc};

use super::{Core, Output, Timer, outbox::Peer};
use crate::{
    error::MemberError,
    model::{MAX_ADDRS, Member, MemberState, NodeId},
    partition::Placement,
    wire::{Message, Vitals},
};

/// Entries of the member list, removed ones included.
pub(crate) const MAX_MEMBERS: usize = 10_000;
/// Pause before the same list is sent to the same peer again.
const RESEND_MS: u64 = 300;
/// Bytes of an entry in a message, at most.
pub(super) const ENTRY_BYTES: usize = 260;

impl Core {
    pub(super) fn start_membership(&mut self) {
        self.members_changed();
        self.heartbeat();
    }

    pub(super) fn heartbeat(&mut self) {
        #[cfg(turbopump_mutations)]
        if crate::mutation::is_planted(crate::mutation::Mutation::TombstoneDroppedByAge) {
            self.drop_old_tombstones();
        }
        let now_ms = self.now.mono_ms;
        let down_after_ms = self.config.down_after.as_millis() as u64;
        self.timers.set(Timer::Heartbeat, now_ms + self.config.ping_interval.as_millis() as u64);
        let digest = self.members.digest();
        self.write_ledger();
        let peers: Vec<(NodeId, bool, u64)> =
            self.peers.iter().map(|(id, p)| (*id, p.up, p.heard_ms)).collect();
        for (id, up, heard_ms) in peers {
            if !up {
                self.dial(id);
            } else if now_ms.saturating_sub(heard_ms) >= down_after_ms {
                self.out.push(Output::HangUp { peer: id });
                self.link_down(id);
            } else {
                self.ping(id, digest);
            }
        }
    }

    pub(super) fn heard(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard_ms = self.now.mono_ms;
        }
    }

    pub(super) fn link_up(&mut self, id: NodeId, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        (peer.up, peer.heard_ms) = (true, self.now.mono_ms);
        peer.speaks_as(incarnation);
        self.ping(id, self.members.digest());
        self.send_members(id, true);
        self.pay(id);
        self.sync_with(id);
    }

    pub(super) fn link_down(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.up) else { return };
        peer.up = false;
        self.counters.peers_lost += 1;
        self.ground(id);
        self.reads_lost(id);
        self.transfers_lost(id);
        self.sync_lost(id);
        self.dial(id);
    }

    pub(super) fn on_ping(&mut self, from: NodeId, sequence: u64, theirs: Vitals) {
        self.on_pong(from, theirs);
        let vitals = self.vitals(from, self.members.digest());
        self.send(from, Message::Pong { sequence, vitals });
    }

    pub(super) fn on_pong(&mut self, from: NodeId, theirs: Vitals) {
        self.hear_vitals(from, theirs);
        self.compare_members(from, self.members.digest(), theirs.members);
    }

    pub(super) fn on_members(&mut self, from: NodeId, entries: &[Member], reply: bool) {
        let mut changed = false;
        for news in entries {
            if news.id == self.me {
                changed |= self.hear_of_myself(news);
            } else if self.members.find(news.id).is_some() || self.members.all().count() < MAX_MEMBERS {
                changed |= self.members.merge(news);
            }
        }
        if changed {
            self.members_changed();
        }
        if reply {
            self.send_members(from, false);
        }
    }

    pub(super) fn on_bye(&mut self, from: NodeId) {
        self.out.push(Output::HangUp { peer: from });
        self.link_down(from);
    }

    pub(super) fn add_member(&mut self, id: NodeId, addrs: Vec<SocketAddr>) -> Result<(), MemberError> {
        if id == self.me {
            return Err(MemberError::Myself(id));
        }
        if addrs.len() > MAX_ADDRS {
            return Err(MemberError::Limit(format!("a member has at most {MAX_ADDRS} addresses")));
        }
        let mut entry = Member::new(id, addrs);
        match self.members.find(id) {
            Some(known) if known.is_present() => {
                let addrs = std::mem::take(&mut entry.addrs);
                entry = Member { addrs, revision: known.revision.saturating_add(1), ..known.clone() };
            }
            Some(known) => entry.generation = known.generation.saturating_add(1),
            None if self.members.all().count() >= MAX_MEMBERS => {
                return Err(MemberError::Limit(format!("the list has its {MAX_MEMBERS} entries")));
            }
            None => {}
        }
        if self.members.merge(&entry) {
            self.members_changed();
        }
        self.dial(id);
        Ok(())
    }

    pub(super) fn remove_member(&mut self, id: NodeId) -> Result<(), MemberError> {
        if id == self.me {
            return Err(MemberError::Myself(id));
        }
        let known = self.members.find(id).filter(|m| m.is_present()).ok_or(MemberError::Unknown(id))?;
        let revision = known.revision.saturating_add(1);
        let removed = Member { state: MemberState::Removed, revision, ..known.clone() };
        // Those that are up hear of it at once, the removed one included: it has a link until then.
        let mut entries = vec![removed.clone()];
        entries.extend(self.members.find(self.me).cloned());
        self.send(id, Message::Members { entries, reply: false });
        self.members.merge(&removed);
        self.members_changed();
        Ok(())
    }

    /// News about this node. It knows best, except that others may remove it.
    fn hear_of_myself(&mut self, news: &Member) -> bool {
        let Some(mine) = self.members.find(self.me).cloned() else { return false };
        if *news <= mine {
            return false;
        }
        if news.state == MemberState::Removed {
            if !self.removed {
                self.notice("this node was removed from the cluster by another member".into());
            }
            self.removed = true;
            return self.members.merge(news);
        }
        (self.removed, self.left) = (false, false);
        let revision = news.revision.max(mine.revision).saturating_add(1);
        // Others remember that this node was leaving: it goes on.
        let (generation, state) = (news.generation, news.state);
        let changed = self.members.merge(&Member { generation, state, revision, ..mine });
        self.look_whether_left();
        changed
    }

    pub(super) fn members_changed(&mut self) {
        let ids: Vec<NodeId> = self.members.present().map(|m| m.id).filter(|id| *id != self.me).collect();
        self.peers.retain(|id, _| ids.contains(id));
        for id in ids {
            let window = self.config.max_flights_per_peer;
            self.peers.entry(id).or_insert_with(|| Peer::new(window));
        }
        let placement = Placement::new(&*self.partitioner, &self.members, self.partitions);
        if !placement.places_like(&self.placement) {
            self.placement = Arc::new(placement);
            self.start_handoff();
            self.doubt_anew();
        }
        self.stop_burial();
        self.forget_stamps();
        self.check_generation();
        let (members, placement) = (Arc::new(self.members.clone()), self.placement.clone());
        self.out.push(Output::Publish { members, placement });
        let up: Vec<NodeId> = self.peers.iter().filter(|(_, p)| p.up).map(|(id, _)| *id).collect();
        up.into_iter().for_each(|id| self.send_members(id, false));
    }

    fn ping(&mut self, id: NodeId, members: u64) {
        let (sequence, vitals) = (self.fresh_id(), self.vitals(id, members));
        self.send(id, Message::Ping { sequence, vitals });
    }

    fn compare_members(&mut self, peer: NodeId, mine: u64, theirs: u64) {
        if mine != theirs {
            self.send_members_once(peer, mine);
        }
    }

    /// Sends the list unless this very list went to the peer just now.
    fn send_members_once(&mut self, to: NodeId, digest: u64) {
        let now_ms = self.now.mono_ms;
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let (sent, at_ms) = peer.members_sent;
        if sent != digest || now_ms.saturating_sub(at_ms) >= RESEND_MS {
            peer.members_sent = (digest, now_ms);
            self.send_members(to, true);
        }
    }

    fn send_members(&mut self, to: NodeId, reply: bool) {
        let entries: Vec<Member> = self.members.all().cloned().collect();
        let per_message = (self.max_message_bytes / ENTRY_BYTES).max(1);
        for (i, entries) in entries.chunks(per_message).enumerate() {
            self.send(to, Message::Members { entries: entries.to_vec(), reply: reply && i == 0 });
        }
    }

    fn dial(&mut self, peer: NodeId) {
        let addrs = self.members.find(peer).map(|m| m.addrs.clone()).unwrap_or_default();
        if !addrs.is_empty() {
            self.out.push(Output::Dial { peer, addrs });
        }
    }
}
