//! Digests over the versions that a node holds: what two owners compare to find where they differ.
//!
//! A **tree** stands for all keys with the same number of mirrors. Its leaves are keys, ordered by
//! [`Key::hash64`](crate::model::Key::hash64); the digest of a range of hashes is the number of
//! keys in it and the wrapping sum of their digests. Sums need no order and can be taken back, so
//! a write costs one subtraction and one addition whatever the size of the tree.
//!
//! The sums of whole partitions are kept ([`Trees`]); those of parts of a partition are made from
//! the index when two nodes differ there. A key's digest covers the names of its versions (dots)
//! and never their values: a dot is never used twice, so equal names mean equal values.
//!
//! A range that two nodes speak of is a [`Stretch`]: hashes that begin alike. The number of
//! partitions is a power of two, so a stretch is whole partitions or lies within one.
//!
//! Limits: a sum is 64 bits. Two ranges that differ have equal sums with a chance of 1 in 2^64 a
//! comparison; another write to either ends that. What is sent of the sums of parts is shorter
//! ([`check`]), and salted anew each time.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::model::{Dot, Mirrors};

/// Bits by which the parts of a stretch are told apart: each level of a descent costs one message
/// each way, and each range that differs as many checks as it has parts.
pub const PART_BITS: u8 = 4;
/// Parts of a stretch.
pub const PARTS: usize = 1 << PART_BITS;
/// Bits of a [`check`]. What differs is taken to be equal once in so many times (2^24), for one round.
pub const CHECK_BITS: u32 = 24;

/// Number of keys, and the sum of their digests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sum {
    /// Keys.
    pub keys: u64,
    /// Wrapping sum.
    pub sum: u64,
}

impl Sum {
    /// Adds a key.
    pub fn add(&mut self, digest: u64) {
        self.keys += 1;
        self.sum = self.sum.wrapping_add(digest);
    }

    /// Takes a key back that was added.
    pub fn subtract(&mut self, digest: u64) {
        self.keys -= 1;
        self.sum = self.sum.wrapping_sub(digest);
    }
}

/// The digest of one key: its hash, and the dots of its versions in any order.
pub fn key_digest(hash: u64, dots: impl Iterator<Item = Dot>) -> u64 {
    dots.fold(0, |sum: u64, dot| sum.wrapping_add(version_digest(hash, dot)))
}

/// What one version adds to the digest of the key with that hash.
pub fn version_digest(hash: u64, dot: Dot) -> u64 {
    let mut bytes = [0; 24];
    for (place, word) in bytes.chunks_exact_mut(8).zip([hash, dot.actor.0, dot.counter]) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    xxh3_64(&bytes)
}

/// What stands for a sum or a key's digest between two nodes: `CHECK_BITS` bits that depend on all
/// of it and on the salt. Different ones that look equal under one salt do not under the next.
pub fn check(sum: u64, salt: u32) -> u32 {
    (xxh3_64_with_seed(&sum.to_be_bytes(), salt.into()) >> (64 - CHECK_BITS)) as u32
}

/// All hashes that begin with the same bits, a multiple of [`PART_BITS`] of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stretch {
    bits: u8,
    prefix: u64,
}

impl Stretch {
    /// All hashes.
    pub const WHOLE: Self = Self { bits: 0, prefix: 0 };

    /// The hashes whose first `bits` bits are those of `prefix`. None where that is no stretch.
    pub fn new(bits: u8, prefix: u64) -> Option<Self> {
        let stretch = Self { bits, prefix };
        (bits <= 64 && bits.is_multiple_of(PART_BITS) && prefix & stretch.rest() == 0).then_some(stretch)
    }

    /// How many leading bits its hashes share.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Those bits, followed by zeros: the lowest of its hashes.
    pub fn low(self) -> u64 {
        self.prefix
    }

    /// The highest of its hashes.
    pub fn high(self) -> u64 {
        self.prefix | self.rest()
    }

    /// Whether it is a single hash.
    pub fn is_single(self) -> bool {
        self.bits == 64
    }

    /// One of its [`PARTS`] parts; of a single hash it is that hash.
    pub fn part(self, number: usize) -> Self {
        if self.is_single() {
            return self;
        }
        let bits = self.bits + PART_BITS;
        Self { bits, prefix: self.prefix | (number as u64) << (64 - bits) }
    }

    /// The number of the part that a hash of it lies in.
    pub fn part_of(self, hash: u64) -> usize {
        if self.is_single() {
            return 0;
        }
        (hash >> (64 - self.bits - PART_BITS)) as usize % PARTS
    }

    fn rest(self) -> u64 {
        u64::MAX.checked_shr(self.bits.into()).unwrap_or(0)
    }
}

/// The sums of all partitions of all trees that hold keys.
#[derive(Debug, Default)]
pub struct Trees {
    sums: BTreeMap<(u16, u32), Sum>,
}

impl Trees {
    /// Adds a key to a partition of a tree.
    pub fn add(&mut self, mirrors: Mirrors, partition: u32, digest: u64) {
        self.sums.entry((mirrors.0, partition)).or_default().add(digest);
    }

    /// Takes a key back.
    pub fn subtract(&mut self, mirrors: Mirrors, partition: u32, digest: u64) {
        if let Some(sum) = self.sums.get_mut(&(mirrors.0, partition)) {
            sum.subtract(digest);
            if sum.keys == 0 {
                self.sums.remove(&(mirrors.0, partition));
            }
        }
    }

    /// The digest of a key in a partition of a tree is another one from now on.
    pub fn replace(&mut self, mirrors: Mirrors, partition: u32, old: u64, new: u64) {
        if let Some(sum) = self.sums.get_mut(&(mirrors.0, partition)) {
            sum.subtract(old);
            sum.add(new);
        }
    }

    /// The sum of one partition.
    pub fn sum(&self, mirrors: Mirrors, partition: u32) -> Sum {
        self.sums.get(&(mirrors.0, partition)).copied().unwrap_or_default()
    }

    /// The sums of those partitions from `first` to `last` that hold keys.
    pub fn sums(&self, mirrors: Mirrors, first: u32, last: u32) -> impl Iterator<Item = (u32, Sum)> + '_ {
        let range = self.sums.range((mirrors.0, first)..=(mirrors.0, last));
        range.map(|((_, partition), sum)| (*partition, *sum))
    }

    /// The trees that hold keys here.
    pub fn mirrors(&self) -> Vec<Mirrors> {
        let mut all: Vec<_> = self.sums.keys().map(|(m, _)| Mirrors(*m)).collect();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Actor;

    #[test]
    fn parts_cover_a_stretch_without_gap_or_overlap() {
        for whole in [Stretch::WHOLE, Stretch::new(60, 0xab0).unwrap(), Stretch::new(8, 0xff << 56).unwrap()]
        {
            let parts: Vec<_> = (0..PARTS).map(|number| whole.part(number)).collect();
            assert_eq!((parts[0].low(), parts[PARTS - 1].high()), (whole.low(), whole.high()));
            assert!(parts.windows(2).all(|w| w[0].high() + 1 == w[1].low()));
            for (number, part) in parts.into_iter().enumerate() {
                assert_eq!([part.low(), part.high()].map(|hash| whole.part_of(hash)), [number; 2]);
                assert_eq!(Stretch::new(part.bits(), part.low()), Some(part));
            }
        }
        let single = Stretch::new(64, 7).unwrap();
        assert_eq!((single.low(), single.high(), single.part(3), single.part_of(7)), (7, 7, single, 0));
        for (bits, prefix) in [(3, 0), (68, 0), (4, 1), (0, 1), (60, 1)] {
            assert_eq!(Stretch::new(bits, prefix), None, "{bits} {prefix}");
        }
    }

    #[test]
    fn what_looks_equal_under_one_salt_does_not_under_another() {
        // Goal: a difference that a check hides is seen in the next round. Method: look for one.
        let pair = (1..).find(|sum| check(*sum, 7) == check(0, 7)).unwrap();
        assert_ne!(check(pair, 8), check(0, 8));
        assert!((0..1_000).all(|salt| check(0, salt) < 1 << CHECK_BITS));
    }

    #[test]
    fn what_was_added_and_taken_back_leaves_nothing() {
        let (mut trees, dot) = (Trees::default(), Dot { actor: Actor(1), counter: 2 });
        let digest = key_digest(9, [dot].into_iter());
        trees.add(Mirrors(3), 4, digest);
        assert_eq!(trees.sum(Mirrors(3), 4), Sum { keys: 1, sum: digest });
        trees.subtract(Mirrors(3), 4, digest);
        assert!(trees.mirrors().is_empty());
    }
}
