//! A map cut into shards, each behind its own lock, so that readers on many threads rarely meet.
//!
//! Not for ordered walks and not a cache: what is put in stays until it is taken out. Nothing here
//! calls foreign code or does I/O with a lock held, except the closures handed in.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, BuildHasherDefault, Hash},
};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::fixed_map::{FixedHasher, FixedMap};

/// Shards per map. Well above the number of threads that a machine runs at once.
const SHARDS: usize = 256;

/// See the module.
pub(super) struct Shards<K, V> {
    shards: Box<[RwLock<FixedMap<K, V>>]>,
    hasher: BuildHasherDefault<FixedHasher>,
}

impl<K: Hash + Eq, V> Shards<K, V> {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: BuildHasherDefault::default(),
        }
    }

    /// Runs `reader` on what stands under `key`, with the shard locked for reading.
    pub(super) fn read<Q: Hash + Eq + ?Sized, R>(&self, key: &Q, reader: impl FnOnce(Option<&V>) -> R) -> R
    where
        K: Borrow<Q>,
    {
        reader(self.shard(key).read().get(key))
    }

    /// Runs `reader` on what stands under each of `keys` that is there, with their shards locked for reading.
    pub(super) fn read_all<Q: Hash + Eq + ?Sized, R>(&self, keys: &[&Q], reader: impl FnOnce(&[&V]) -> R) -> R
    where
        K: Borrow<Q>,
    {
        // A shard may be locked twice here, and must not wait for a writer between that waits for the first.
        let shards: SmallVec<[_; 32]> = keys.iter().map(|key| self.shard(*key).read_recursive()).collect();
        let found: SmallVec<[&V; 32]> =
            keys.iter().zip(&shards).filter_map(|(key, shard)| shard.get(*key)).collect();
        reader(&found)
    }

    /// Runs `writer` on the shard of `key`, locked for writing.
    pub(super) fn write<Q: Hash + Eq + ?Sized, R>(
        &self,
        key: &Q,
        writer: impl FnOnce(&mut FixedMap<K, V>) -> R,
    ) -> R
    where
        K: Borrow<Q>,
    {
        writer(&mut self.shard(key).write())
    }

    /// Runs `visit` on every entry, one shard locked for reading at a time.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            shard.read().iter().for_each(|(key, value)| visit(key, value));
        }
    }

    /// By bits that the map inside a shard uses for neither its buckets nor its tags.
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &RwLock<FixedMap<K, V>> {
        &self.shards[(self.hasher.hash_one(key) >> 48) as usize % SHARDS]
    }
}
