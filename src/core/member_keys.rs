//! Keys of members: what this node tells the person who runs it of them.
//!
//! Not which key is believed, which follows from the entries alone, nor who is let in, which is the
//! transport's.

use std::collections::BTreeMap;

use super::Core;
use crate::model::{Member, MemberKey, Members, NodeId, PublicKey};

impl Core {
    /// Takes the first key that a member shows as its own, and tells the others.
    pub(super) fn key_shown(&mut self, id: NodeId, key: PublicKey) {
        if self.config.has_signed_members() {
            return;
        }
        let nobodys = |m: &&Member| m.is_present() && m.key == MemberKey::Unknown;
        let Some(known) = self.members.find(id).filter(nobodys) else { return };
        let news = Member { key: MemberKey::Known(key), ..known.clone() };
        if self.members.merge(&news) {
            self.notice(format!(
                "node {id} is taken at its word that its key is {key}: nobody named another"
            ));
            self.members_changed();
        }
    }

    /// The list changed: says which keys came into doubt by that.
    pub(super) fn tell_of_keys(&mut self, before: &Members) {
        let told = disputed(before);
        for id in disputed(&self.members).into_iter().filter(|id| !told.contains(id)) {
            self.notice(format!(
                "two keys were named for node {id}: none is believed. Remove it, and add it again with its key"
            ));
        }
        let told = twins(before);
        for (a, b) in twins(&self.members).into_iter().filter(|pair| !told.contains(pair)) {
            self.notice(format!(
                "the nodes {a} and {b} have the same key: one of them is a copy of the other"
            ));
        }
    }
}

/// Members for which two keys were named.
fn disputed(members: &Members) -> Vec<NodeId> {
    members.present().filter(|m| m.key == MemberKey::Disputed).map(|m| m.id).collect()
}

/// Members that have one key.
fn twins(members: &Members) -> Vec<(NodeId, NodeId)> {
    let mut holders: BTreeMap<PublicKey, NodeId> = BTreeMap::new();
    let mut twins = Vec::new();
    for (id, key) in members.present().filter_map(|m| Some((m.id, m.key.known()?))) {
        if let Some(other) = holders.insert(key, id) {
            twins.push((other, id));
        }
    }
    twins
}

#[cfg(test)]
mod tests;
