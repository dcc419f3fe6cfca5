//! Who belongs to the cluster: a list that merges.
//!
//! Each entry is a register whose greatest value wins, so lists may meet in any order, any number
//! of times, and end up equal. What counts, in this order: the generation (raised only when a
//! removed id is deliberately added again), removal, leaving, the revision (raised by whoever
//! changes the entry), and at last the content, so that two different entries are never a draw.
//!
//! Where entries are signed (`warrant`), a removal is for good, and the public key is part of the content.
//!
//! Where they are not, the key goes its own way, so that no later news change it: within a generation it
//! is joined ([`MemberKey::joined`]), and a new generation begins with that of its entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use xxhash_rust::xxh3::Xxh3;

use super::{MemberKey, NodeId, PublicKey, Vouched};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};

/// Addresses kept per member.
pub const MAX_ADDRS: usize = 8;

/// What a member is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MemberState {
    /// Holds its share of the keys.
    Active,
    /// Owns nothing any more and hands off what it has.
    Leaving,
    /// Not a member any more. Kept so that stale news can't bring it back.
    Removed,
}

/// One entry of the list. The order of its fields decides which of two entries wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Raised when a removed id is added again.
    pub generation: u32,
    /// What it is doing.
    pub state: MemberState,
    /// Raised with every change of the entry by the member itself.
    pub revision: u64,
    /// Its share of the keys relative to others; 1 is usual, 0 holds nothing.
    pub weight: u16,
    /// Where it can be dialled, best first, at most [`MAX_ADDRS`].
    pub addrs: Vec<SocketAddr>,
    /// Its public key.
    pub key: MemberKey,
    /// Who stands by this.
    pub vouched: Vouched,
}

/// The member list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members {
    entries: BTreeMap<NodeId, Member>,
    /// Keys of those who were removed for good.
    banned: BTreeSet<PublicKey>,
}

impl Member {
    /// An entry as one introduces it: generation and revision 0, weight 1, active.
    ///
    /// The scope and flow of IPv6 addresses mean something on one machine only and are left out.
    pub fn new(id: NodeId, addrs: Vec<SocketAddr>) -> Self {
        let addrs = addrs.into_iter().map(|a| SocketAddr::new(a.ip(), a.port())).collect();
        let (state, key) = (MemberState::Active, MemberKey::Unknown);
        Self { id, generation: 0, state, revision: 0, weight: 1, addrs, key, vouched: Vouched::default() }
    }

    /// What is known by those who know this entry and those who know that one, of the same id.
    pub fn joined(&self, other: &Self) -> Self {
        let later = self.max(other);
        let is_joined = self.generation == other.generation && later.vouched.0.is_none();
        let key = if is_joined { self.key.joined(other.key) } else { later.key };
        Self { key, ..later.clone() }
    }

    /// Whether it belongs to the cluster: active or leaving.
    pub fn is_present(&self) -> bool {
        self.state != MemberState::Removed
    }
}

impl Members {
    /// Takes in news of one member and says whether they changed anything.
    pub fn merge(&mut self, news: &Member) -> bool {
        if let (true, Some(key)) = (news.is_gone_for_good(), news.key.known()) {
            self.banned.insert(key);
        }
        match self.entries.get_mut(&news.id) {
            #[cfg(turbopump_mutations)]
            Some(known) if known.revision != news.revision && is_planted(Mutation::RemovalForgotten) => {
                let is_later = known.revision < news.revision;
                *known = if is_later { news.clone() } else { known.clone() };
                is_later
            }
            Some(known) => {
                let joined = known.joined(news);
                let is_news = *known != joined;
                *known = joined;
                is_news
            }
            None => {
                self.entries.insert(news.id, news.clone());
                true
            }
        }
    }

    /// The entry of `id`, removed ones included.
    pub fn find(&self, id: NodeId) -> Option<&Member> {
        self.entries.get(&id)
    }

    /// Whether `id` belongs to the cluster.
    pub fn contains(&self, id: NodeId) -> bool {
        self.find(id).is_some_and(|m| self.has_place(m))
    }

    /// Whether an entry of the list belongs to the cluster: unless it, or another with its key, was removed.
    fn has_place(&self, m: &Member) -> bool {
        m.is_present() && m.key.known().is_none_or(|key| !self.is_banned(&key))
    }

    /// Whether whoever has this key was removed for good.
    pub fn is_banned(&self, key: &PublicKey) -> bool {
        self.banned.contains(key)
    }

    /// How many entries there are, removed ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries by id, removed ones included.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.entries.values()
    }

    /// Those that belong to the cluster, by id. None of them has the key of one that was removed for good.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.all().filter(|m| self.has_place(m))
    }

    /// A hash over all entries: equal lists have equal digests, whoever built the program.
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for m in self.all() {
            hasher.update(&[m.id.as_str().len() as u8]);
            hasher.update(m.id.as_str().as_bytes());
            hasher.update(&m.generation.to_be_bytes());
            hasher.update(&[m.state as u8]);
            hasher.update(&m.revision.to_be_bytes());
            hasher.update(&m.weight.to_be_bytes());
            hasher.update(&(m.addrs.len() as u64).to_be_bytes());
            for addr in &m.addrs {
                match addr.ip() {
                    IpAddr::V4(ip) => hasher.update(&ip.octets()),
                    IpAddr::V6(ip) => hasher.update(&ip.octets()),
                }
                hasher.update(&[u8::from(addr.is_ipv6())]);
                hasher.update(&addr.port().to_be_bytes());
            }
            match m.key {
                MemberKey::Unknown => hasher.update(&[0]),
                MemberKey::Known(key) => {
                    hasher.update(&[1]);
                    hasher.update(&key.0);
                }
                MemberKey::Disputed => hasher.update(&[2]),
            }
        }
        hasher.digest()
    }
}
