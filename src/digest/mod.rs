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
//! Limits: a sum is 64 bits. Two ranges that differ have equal sums with a chance of 1 in 2^64 a
//! comparison; another write to either ends that.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::model::{Dot, Mirrors};

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
    let of = |dot: Dot| {
        let mut hasher = Xxh3::new();
        hasher.update(&hash.to_be_bytes());
        hasher.update(&dot.actor.0.to_be_bytes());
        hasher.update(&dot.counter.to_be_bytes());
        hasher.digest()
    };
    dots.fold(0, |sum: u64, dot| sum.wrapping_add(of(dot)))
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

/// Cuts the inclusive range `low..=high` into at most `parts` neighbouring ranges.
pub fn split(low: u64, high: u64, parts: u64) -> impl Iterator<Item = (u64, u64)> {
    let span = u128::from(high - low) + 1;
    let parts = u128::from(parts).min(span);
    (0..parts).map(move |i| {
        let from = u128::from(low) + span * i / parts;
        let to = u128::from(low) + span * (i + 1) / parts - 1;
        (from as u64, to as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Actor;

    #[test]
    fn parts_cover_a_range_without_gap_or_overlap() {
        for (low, high) in [(0, u64::MAX), (5, 5), (5, 7), (1 << 54, (2 << 54) - 1), (u64::MAX, u64::MAX)] {
            let parts: Vec<_> = split(low, high, 16).collect();
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (low, high));
            assert!(parts.windows(2).all(|w| w[0].1 + 1 == w[1].0));
        }
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
