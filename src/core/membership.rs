//! Who belongs to the cluster: a list that members change and merge.
//!
//! Who of them is up is found out in `probes`, and how news spread is said in `gossip`. A node
//! keeps its own entry true: news about it that are not what it says of itself are answered with a
//! higher revision, except its removal, which it is told.
//!
//! Limits: `MAX_MEMBERS` entries, removed ones included.

use std::net::SocketAddr;

use super::{Core, leave::LastWord};
use crate::{
    error::MemberError,
    model::{FOR_GOOD, MAX_ADDRS, Member, MemberKey, MemberState, NodeId, PublicKey, Warrant},
    wire::{Message, Vitals},
};

/// Entries of the member list, removed ones included.
pub(crate) const MAX_MEMBERS: usize = 10_000;

impl Core {
    pub(super) fn start_membership(&mut self) {
        self.members_changed();
        self.heartbeat();
    }

    pub(super) fn link_up(&mut self, id: NodeId, incarnation: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        (peer.up, peer.heard_ms, peer.silent_since_ms) = (true, self.now.mono_ms, None);
        peer.speaks_as(incarnation);
        self.refused_by.remove(&id);
        self.ping(id);
        self.greet_with_members(id);
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
        self.pieces_lost(id);
        self.sync_lost(id);
        self.dial(id);
    }

    /// The removal itself was said once, and may have been lost.
    pub(super) fn refused_as_removed(&mut self, by: NodeId) {
        if self.peers.contains_key(&by) {
            self.last_word_heard(by);
            self.refused_by.insert(by);
        }
    }

    pub(super) fn on_ping(&mut self, from: NodeId, sequence: u64, theirs: Vitals) {
        self.on_pong(from, theirs);
        let vitals = self.vitals(from, self.members_digest());
        self.send(from, Message::Pong { sequence, vitals });
    }

    pub(super) fn on_pong(&mut self, from: NodeId, theirs: Vitals) {
        self.hear_vitals(from, theirs);
        self.compare_members(from, theirs.members);
    }

    pub(super) fn on_members(&mut self, from: NodeId, entries: &[Member], reply: bool) {
        let mut changed = false;
        // Of who leaves: all that it says with its last word.
        let signers = self.signers(from);
        for news in entries {
            if news.id == self.me {
                changed |= self.hear_of_myself(from, news, &signers);
            } else if self.is_news(news) && self.lets_in_member(from, news, &signers) {
                changed |= self.take_member(news.clone());
            }
        }
        self.answer_last_word(from, entries);
        if changed {
            self.members_heard();
        }
        if reply {
            self.answer_with_members(from);
        }
    }

    fn is_news(&self, news: &Member) -> bool {
        match self.members.find(news.id) {
            Some(known) => known.joined(news) != *known,
            None => self.members.len() < MAX_MEMBERS,
        }
    }

    pub(super) fn add_member(
        &mut self,
        id: NodeId,
        addrs: Vec<SocketAddr>,
        key: Option<PublicKey>,
        appointed: Option<(u32, Warrant)>,
    ) -> Result<(), MemberError> {
        if addrs.len() > MAX_ADDRS {
            return Err(MemberError::Limit(format!("a member has at most {MAX_ADDRS} addresses")));
        }
        if self.members.find(id).is_none() && self.members.len() >= MAX_MEMBERS {
            return Err(MemberError::Limit(format!("the list has its {MAX_MEMBERS} entries")));
        }
        if id == self.me && self.config.admin_keys.is_empty() {
            return Err(MemberError::Myself(id));
        }
        if self.config.has_signed_members() {
            return self.appoint(id, addrs, key, appointed);
        }
        let mut entry = Member { key: key.into(), ..Member::new(id, addrs) };
        match self.members.find(id) {
            Some(known) if known.is_present() => {
                let key = known.key.joined(entry.key);
                if key == MemberKey::Disputed && entry.key != MemberKey::Unknown {
                    return Err(MemberError::Key(id));
                }
                let addrs = std::mem::take(&mut entry.addrs);
                entry = Member { addrs, revision: known.revision.saturating_add(1), key, ..known.clone() };
            }
            Some(known) => entry.generation = known.generation.saturating_add(1).min(FOR_GOOD - 1),
            None => {}
        }
        if self.members.merge(&entry) {
            self.members_changed();
        }
        self.dial(id);
        Ok(())
    }

    pub(super) fn remove_member(
        &mut self,
        id: NodeId,
        key: Option<PublicKey>,
        warrant: Option<Warrant>,
    ) -> Result<(), MemberError> {
        if id == self.me {
            return Err(MemberError::Myself(id));
        }
        let known = self.members.find(id).filter(|m| m.is_present()).ok_or(MemberError::Unknown(id))?;
        let removed = if self.config.has_signed_members() {
            self.removal(known, key, warrant)?
        } else {
            let revision = known.revision.saturating_add(1);
            Member { state: MemberState::Removed, revision, ..known.clone() }
        };
        // Those that are up hear of it at once, the removed one included: it has a link until then.
        let mut entries = vec![removed.clone()];
        entries.extend(self.members.find(self.me).cloned());
        self.send(id, Message::Members { entries, reply: false });
        self.take_member(removed);
        self.members_changed();
        Ok(())
    }

    /// News about this node. It knows best, except that others may remove it.
    pub(super) fn hear_of_myself(&mut self, from: NodeId, news: &Member, signers: &[PublicKey]) -> bool {
        let Some(mine) = self.members.find(self.me).cloned() else { return false };
        if news.state == MemberState::Removed && news.generation == mine.generation {
            self.last_word_heard(from);
        }
        let is_appointment = mine.vouched.0.is_none() && news.vouched.0.is_some();
        if (mine.joined(news) == mine && !is_appointment) || !self.lets_in_member(from, news, signers) {
            return false;
        }
        if news.state == MemberState::Removed {
            if !self.removed {
                self.notice("this node was removed from the cluster by another member".into());
            }
            self.removed = true;
            let changed = self.take_member(news.clone());
            self.look_whether_left();
            return changed;
        }
        // Others remember that this node was leaving: it goes on.
        let Member { generation, state, .. } = mine.joined(news);
        // Whoever added it again may have done so with a key, and then that one counts.
        let key = match news.key {
            MemberKey::Unknown => mine.key,
            key if generation > mine.generation => key,
            key => key.joined(mine.key),
        };
        if key != mine.key {
            self.notice("another key than its own was named for this node".into());
            if self.config.has_signed_members() {
                return false;
            }
        }
        (self.removed, self.last_word) = (false, LastWord::Unsaid);
        let revision = news.revision.max(mine.revision).saturating_add(1);
        let is_appointed = is_appointment || generation > mine.generation;
        let vouched = if is_appointed { news.vouched.clone() } else { mine.vouched.clone() };
        let changed = self.merge_mine(Member { generation, state, revision, key, vouched, ..mine });
        self.look_whether_left();
        changed
    }
}
