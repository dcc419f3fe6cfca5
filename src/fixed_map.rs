//! A hash map that is the same in every run: where nothing depends on an order, it finds things faster than
//! an ordered one.
//!
//! Its hasher has no secret, so it is not for names that strangers choose, except those of keys: they stand
//! in it by their hash, and who makes many with one hash makes one partition slow, not only this map.

use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// See the [module](self).
#[expect(clippy::disallowed_types, reason = "the hasher is fixed")]
pub(crate) type FixedMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FixedHasher>>;

/// XXH3 of what is hashed; numbers, which are hashes or well spread already, go through a single mix.
#[derive(Default)]
pub(crate) struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
