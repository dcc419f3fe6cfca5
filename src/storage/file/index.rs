//! Which versions are on disk, in memory: so a reader opens the right files and lists no folder.
//!
//! By the key's hash and not by the key, about 50 bytes for a key of one version. Keys whose hashes
//! are equal share an entry; a dot names a write of one key only, so a file that is not there tells
//! which it is. Readers see an entry before or after a change, never between.

use smallvec::SmallVec;

use crate::{model::Dot, storage::shards::Shards};

/// The versions of a key: usually one, and then without memory of its own.
pub(super) type Dots = SmallVec<[Dot; 1]>;

/// See the module.
pub(super) struct Index(Shards<u64, Dots>);

impl Index {
    pub(super) fn new() -> Self {
        Self(Shards::new())
    }

    /// What is there for a key hash.
    pub(super) fn dots(&self, hash: u64) -> Dots {
        self.0.read(&hash, |dots| dots.cloned().unwrap_or_default())
    }

    /// Adds `new`, takes `gone` out, and answers those of `gone` that were there.
    pub(super) fn replace(&self, hash: u64, new: Option<Dot>, gone: &[Dot]) -> Dots {
        self.0.write(&hash, |shard| {
            let dots = shard.entry(hash).or_default();
            let leaves = |dot: &Dot| gone.contains(dot) && Some(*dot) != new;
            let left: Dots = dots.iter().copied().filter(leaves).collect();
            dots.retain(|dot| !leaves(dot));
            dots.extend(new.filter(|new| !dots.contains(new)));
            if dots.is_empty() {
                shard.remove(&hash);
            }
            left
        })
    }
}
