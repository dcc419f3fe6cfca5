//! Reads while keys move: who owns a key has changed, and the copies are still with those who had them.
//!
//! The owners alone can't say then that there is no such key, nor which version is the latest: they may all
//! be new. So a read asks the **former** owners too: members that own nothing of the key and may hold it.
//! They let go of a copy only once all owners have it, which makes the order matter: an owner's answer
//! counts if it was asked after the former ones had answered.
//!
//! ```text
//! Quorum, All:  former owners at once ──all have answered──> owners at once
//! One:          owners in turn ──none has any──> former ones in turn ──nor they──> owners again
//! ```
//!
//! A peer says in its pings whether it has copies to give away since owners changed. Until it can
//! have said so, for `NEWS_MS` after this node saw them change, any peer may. A node that has just started, or
//! has just heard of new owners, tells nobody that a key is nowhere while it has met no other, or knows
//! other members than its peers do: the read waits. A read during which owners change begins anew.
//!
//! Not covered: a former owner that is away with the only copies, as with one mirror.
//!
//! Limits: `MAX_FORMER` of them are asked, those next to the owners first, which had it if others joined.

use std::sync::Arc;

use super::{Core, OpId, outbox::Peer, read::ReadOperation};
use crate::{
    config::Read,
    model::{Key, MemberState, Mirrors, NodeId},
};

/// Members that are asked beside the owners.
const MAX_FORMER: usize = 30;
/// Within this time, or two turns of pings, all peers know that owners changed, and say whether they give
/// copies away. What a node has just heard of owners is news for as long.
const NEWS_MS: u64 = 10_000;

impl Core {
    /// Whether this node has just heard of other owners, or has just started.
    fn has_new_owners(&self) -> bool {
        self.now.mono_ms < self.placed_ms + NEWS_MS.max(2 * self.turn_ms())
    }

    /// Whether this node, which nobody can be asked, would have to say that a key is nowhere without having met
    /// another since owners changed.
    pub(super) fn is_too_new_to_tell(&self, read: &ReadOperation) -> bool {
        let is_unmet =
            |peer: &Peer| !peer.up && peer.compared.answered_ms.is_none_or(|at_ms| at_ms < self.placed_ms);
        read.found.is_empty() && self.has_new_owners() && self.peers.values().any(is_unmet)
    }

    /// Whether it would be said that a key is nowhere by one who knows other members than its peers, or was
    /// told of members that it has not met yet.
    pub(super) fn knows_too_little(&self, read: &ReadOperation) -> bool {
        let digest = self.members_digest();
        let is_strange = |peer: &Peer| match peer.members_told {
            Some(told) => peer.up && told != digest,
            None => peer.up || self.placed_ms > 0,
        };
        read.found.is_empty() && self.has_new_owners() && self.peers.values().any(is_strange)
    }

    /// Whether owners changed, or others came up that may hold the key, while a read was under way that depends
    /// on them.
    pub(super) fn is_overtaken(&self, read: &ReadOperation) -> bool {
        let depends = read.read != Read::One || read.found.is_empty();
        let is_unasked = |id: &NodeId| !read.former.contains(id);
        depends
            && (!Arc::ptr_eq(&read.placement, &self.placement)
                || self.former_owners(&read.key, &read.owners).iter().any(is_unasked))
    }

    /// Members that may hold a key which they do not own, those next to the owners first.
    pub(super) fn former_owners(&self, key: &Key, owners: &[NodeId]) -> Vec<NodeId> {
        let is_new = self.placed_ms > 0 && self.has_new_owners();
        if !is_new && !self.peers.values().any(|peer| peer.up && peer.moves) {
            return Vec::new();
        }
        let may_hold = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.up && (is_new || peer.moves));
        let is_placeless = |state, weight| state == MemberState::Leaving || weight == 0;
        let placeless = self.members.present().filter(|m| is_placeless(m.state, m.weight)).map(|m| m.id);
        let ring = self.placement.owners(key.hash64(), Mirrors::ALL);
        let mut former: Vec<NodeId> = placeless.chain(ring).filter(may_hold).collect();
        former.retain(|id| !owners.contains(id));
        former.truncate(MAX_FORMER);
        former
    }

    /// Once all former owners have answered: has the owners asked, whose answers before do not count.
    pub(super) fn begin_last_round(&mut self, op: OpId) {
        let Some(read) = self.operations.read(op) else { return };
        if read.last_round.is_empty() || read.is_answered() || read.awaits_former() {
            return;
        }
        let owners = std::mem::take(&mut read.last_round);
        read.answers.retain(|(id, _)| !owners.contains(id));
        let (key, distrust) = (read.key.clone(), read.distrust);
        let held = if owners.contains(&self.me) { self.own_answer(&key, distrust) } else { None };
        let up: Vec<NodeId> = owners.into_iter().filter(|id| self.is_up(*id)).collect();
        let Some(read) = self.operations.read(op) else { return };
        if let Some(held) = held {
            read.answers.push((self.me, held.iter().map(|r| r.version.dot).collect()));
            held.into_iter().for_each(|record| read.found.insert(record));
        }
        read.to_ask.splice(..0, up);
    }
}

impl ReadOperation {
    /// Has the former owners asked as well, and then the owners, of whom so many are up.
    pub(super) fn ask_former(&mut self, former: Vec<NodeId>, owners_up: usize) {
        if former.is_empty() {
            return;
        }
        match self.read {
            Read::One => {
                self.to_ask.retain(|id| !former.contains(id));
                self.to_ask.splice(owners_up..owners_up, former.iter().copied());
            }
            Read::Quorum | Read::All => self.to_ask.clone_from(&former),
        }
        (self.former, self.last_round) = (former, self.owners.clone());
    }

    /// Whether a former owner is yet to answer.
    pub(super) fn awaits_former(&self) -> bool {
        let is_asked =
            |id: &NodeId| self.to_ask.contains(id) || self.tags.iter().any(|(_, asked)| asked == id);
        self.former.iter().any(is_asked)
    }
}
