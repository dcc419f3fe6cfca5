//! Keys in the order of their hashes, each with some bytes: the bulk of the index.
//!
//! A leaf holds up to [`MAX_KEYS`] neighbours: their names, and one run of bytes that begins with a tag of
//! each key, by which it is found without a look at the names, and goes on with what is kept of each, its
//! length in front. So a key costs a reference to its name, a few bytes, and its part of a leaf's slack,
//! and to find one touches the leaf and the name that it has.
//!
//! ```text
//! lowest hash ──> [key key key ...] [tag tag tag ... | len bytes | len bytes | len bytes ...]
//! ```
//!
//! Invariants: no leaf is empty; a leaf holds hashes from its own lowest on, up to the next leaf's; keys
//! with one hash are in one leaf, in the order of their names, however many there are.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
};

use thin_vec::ThinVec;

use super::packed::{cut_long, put};
use crate::model::Key;

/// Keys in a leaf, unless they all have one hash.
const MAX_KEYS: usize = 64;
/// Keys that a leaf gets where many are put in at once: later ones find room.
const LOADED_KEYS: usize = 56;
/// A leaf with fewer is joined with the next where both fit in one.
const MIN_KEYS: usize = 16;
/// Bytes in a leaf, unless one key has them: what one change moves at most.
const MAX_BYTES: usize = 16 * 1024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Leaves {
    leaves: BTreeMap<u64, Leaf>,
}

#[derive(Debug, Default)]
struct Leaf {
    keys: ThinVec<Key>,
    /// The tags, then the records.
    bytes: ThinVec<u8>,
}

impl Leaves {
    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// What is kept of a key; nothing of one that is not here.
    pub(super) fn find(&self, key: &Key) -> &[u8] {
        let hash = key.hash64();
        let leaf = self.leaves.range(..=hash).next_back();
        leaf.and_then(|(_, leaf)| leaf.find(key)).map_or(&[], |(_, record)| record)
    }

    /// Keys whose hash is in `low..=high`, by hash and name, and what is kept of each.
    pub(super) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = (&Key, &[u8])> {
        let first = self.leaves.range(..=low).next_back().map_or(low, |(first, _)| *first);
        let entries = self.leaves.range(first..=high.max(first)).flat_map(|(_, leaf)| leaf.entries());
        entries
            .skip_while(move |(key, _)| key.hash64() < low)
            .take_while(move |(key, _)| key.hash64() <= high)
    }

    /// Keeps these bytes of a key and no others, and says whether the key is new.
    pub(super) fn set(&mut self, key: &Key, record: &[u8]) -> bool {
        let hash = key.hash64();
        let low = match self.leaves.range(..=hash).next_back() {
            Some((low, _)) => *low,
            None => {
                self.leaves.insert(0, Leaf::default());
                0
            }
        };
        let Some(leaf) = self.leaves.get_mut(&low) else { return false };
        let is_new = leaf.set(key, record);
        if leaf.is_full()
            && let Some((hash, other)) = leaf.split()
        {
            self.leaves.insert(hash, other);
        }
        is_new
    }

    /// Drops a key.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some((&low, leaf)) = self.leaves.range_mut(..=key.hash64()).next_back() else { return };
        let Some(at) = leaf.find(key).map(|(at, _)| at) else { return };
        leaf.remove(at);
        let len = leaf.keys.len();
        if len == 0 {
            self.leaves.remove(&low);
        } else if len < MIN_KEYS {
            self.join(low);
        }
    }

    /// Of keys in the order of their hashes and names, and what is to be kept of each.
    pub(super) fn build<'a>(entries: impl Iterator<Item = (Key, &'a [u8])>) -> Self {
        let (mut leaves, mut leaf) = (Vec::new(), Builder::default());
        for (key, record) in entries {
            let has_room = leaf.keys.len() < LOADED_KEYS && leaf.records.len() < MAX_BYTES;
            if !has_room && leaf.keys.last().is_some_and(|last| last.hash64() != key.hash64()) {
                leaves.push(std::mem::take(&mut leaf).leaf());
            }
            leaf.keys.push(key);
            put_record(record, &mut leaf.records);
        }
        if !leaf.keys.is_empty() {
            leaves.push(leaf.leaf());
        }
        Self { leaves: leaves.into_iter().collect() }
    }

    fn join(&mut self, low: u64) {
        let next = self.leaves.range((Bound::Excluded(low), Bound::Unbounded)).next();
        let Some((&next, other)) = next else { return };
        let Some(leaf) = self.leaves.get(&low) else { return };
        let (keys, bytes) = (leaf.keys.len() + other.keys.len(), leaf.bytes.len() + other.bytes.len());
        if keys > MAX_KEYS / 2 || bytes > MAX_BYTES / 2 {
            return;
        }
        let joined = Leaf::of(leaf.entries().chain(other.entries()));
        self.leaves.remove(&next);
        self.leaves.insert(low, joined);
    }
}

/// A leaf that is being filled in order.
#[derive(Default)]
struct Builder {
    keys: Vec<Key>,
    records: Vec<u8>,
}

impl Builder {
    fn leaf(self) -> (u64, Leaf) {
        let tags = self.keys.iter().map(tag);
        let mut bytes = ThinVec::with_capacity(self.keys.len() + self.records.len());
        bytes.extend(tags);
        bytes.extend_from_slice(&self.records);
        let low = self.keys.first().map_or(0, Key::hash64);
        let mut keys = ThinVec::with_capacity(self.keys.len());
        keys.extend(self.keys);
        (low, Leaf { keys, bytes })
    }
}

impl Leaf {
    fn of<'a>(entries: impl Iterator<Item = (&'a Key, &'a [u8])>) -> Self {
        let mut builder = Builder::default();
        for (key, record) in entries {
            builder.keys.push(key.clone());
            put_record(record, &mut builder.records);
        }
        builder.leaf().1
    }

    fn entries(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        let mut rest = &self.bytes[self.keys.len()..];
        self.keys.iter().map(move |key| (key, cut_long(&mut rest)))
    }

    /// Where a key is, and what is kept of it.
    fn find(&self, key: &Key) -> Option<(usize, &[u8])> {
        let (tags, mut rest) = self.bytes.split_at(self.keys.len());
        let tag = tag(key);
        let is_it = |(other, name): (&u8, &Key)| *other == tag && name == key;
        let at = tags.iter().zip(&self.keys).position(is_it)?;
        (0..at).for_each(|_| _ = cut_long(&mut rest));
        Some((at, cut_long(&mut rest)))
    }

    /// Which bytes the record at `at` has, its length in front included; the end where there is none.
    fn place(&self, at: usize) -> Range<usize> {
        let mut rest = &self.bytes[self.keys.len()..];
        (0..at).for_each(|_| _ = cut_long(&mut rest));
        let begin = self.bytes.len() - rest.len();
        if !rest.is_empty() {
            cut_long(&mut rest);
        }
        begin..self.bytes.len() - rest.len()
    }

    fn set(&mut self, key: &Key, record: &[u8]) -> bool {
        let found = self.find(key).map(|(at, _)| at);
        let mut bytes = Vec::with_capacity(record.len() + 2);
        put_record(record, &mut bytes);
        if let Some(at) = found {
            let place = self.place(at);
            self.splice(place, &bytes);
            return false;
        }
        let hash = key.hash64();
        let at = self.keys.partition_point(|other| (other.hash64(), other) < (hash, key));
        let begin = self.place(at).start;
        self.splice(begin..begin, &bytes);
        self.splice(at..at, &[tag(key)]);
        if self.keys.len() == self.keys.capacity() {
            self.keys.reserve_exact(8);
        }
        self.keys.insert(at, key.clone());
        true
    }

    fn remove(&mut self, at: usize) {
        let place = self.place(at);
        self.splice(place, &[]);
        self.splice(at..at + 1, &[]);
        self.keys.remove(at);
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
            self.keys.shrink_to_fit();
        }
    }

    /// Puts `new` where `old` was. A leaf has an eighth of slack at most: it grows often, and is small.
    fn splice(&mut self, old: Range<usize>, new: &[u8]) {
        let (before, tail) = (self.bytes.len(), old.start + new.len());
        let after = before - old.len() + new.len();
        if after > self.bytes.capacity() {
            self.bytes.reserve_exact(after - before + after / 8);
        }
        if after > before {
            self.bytes.resize(after, 0);
        }
        self.bytes.copy_within(old.end..before, tail);
        self.bytes.truncate(after);
        self.bytes[old.start..tail].copy_from_slice(new);
    }

    fn is_full(&self) -> bool {
        self.keys.len() > MAX_KEYS || self.bytes.len() > MAX_BYTES
    }

    /// Gives away the upper half; nothing where all keys have one hash.
    fn split(&mut self) -> Option<(u64, Self)> {
        let hashes = |at: usize| (self.keys[at - 1].hash64(), self.keys[at].hash64());
        let middle = self.keys.len() / 2;
        let cuts = (middle..self.keys.len()).chain((1..middle).rev());
        let at = cuts.filter(|at| *at > 0).find(|at| hashes(*at).0 != hashes(*at).1)?;
        let upper = Self::of(self.entries().skip(at));
        *self = Self::of(self.entries().take(at));
        Some((upper.keys[0].hash64(), upper))
    }
}

/// Neighbours differ in the last bits of their hashes as in any.
fn tag(key: &Key) -> u8 {
    key.hash64() as u8
}

fn put_record(record: &[u8], out: &mut Vec<u8>) {
    put(record.len() as u64, out);
    out.extend_from_slice(record);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> Key {
        Key::new(n.to_string()).unwrap()
    }

    fn check(leaves: &Leaves, model: &BTreeMap<(u64, Key), Vec<u8>>) {
        let all: Vec<(&Key, &[u8])> = leaves.range(0, u64::MAX).collect();
        assert_eq!(all, model.iter().map(|((_, key), bytes)| (key, &bytes[..])).collect::<Vec<_>>());
        model.iter().for_each(|((_, key), bytes)| assert_eq!(leaves.find(key), bytes));
        for ((low, leaf), (next, _)) in leaves.leaves.iter().zip(leaves.leaves.iter().skip(1)) {
            assert!(!leaf.keys.is_empty() && !leaf.is_full());
            assert!(leaf.keys.iter().all(|key| (*low..*next).contains(&key.hash64())));
        }
    }

    proptest! {
        #[test]
        fn they_hold_what_a_map_holds(
            steps in prop::collection::vec((0..600_u16, prop::option::weighted(0.6, 0..300_usize)), 0..1_500),
        ) {
            let (mut leaves, mut model) = (Leaves::default(), BTreeMap::new());
            for (n, len) in steps {
                let (key, place) = (key(n), (key(n).hash64(), key(n)));
                match len {
                    Some(len) => {
                        let bytes = vec![n as u8; len];
                        let is_new = model.insert(place, bytes.clone()).is_none();
                        prop_assert_eq!(leaves.set(&key, &bytes), is_new);
                    }
                    None => {
                        model.remove(&place);
                        leaves.remove(&key);
                        prop_assert_eq!(leaves.find(&key), &[0_u8; 0][..]);
                    }
                }
            }
            check(&leaves, &model);
            let built = Leaves::build(model.iter().map(|((_, key), bytes)| (key.clone(), &bytes[..])));
            check(&built, &model);
            model.into_keys().for_each(|(_, key)| leaves.remove(&key));
            prop_assert!(leaves.is_empty());
        }

        #[test]
        fn a_range_is_what_lies_in_it(low: u64, high: u64, count in 0..2_000_u16) {
            let mut leaves = Leaves::default();
            (0..count).for_each(|n| _ = leaves.set(&key(n), b"x"));
            let found: Vec<u64> = leaves.range(low, high).map(|(key, _)| key.hash64()).collect();
            let mut wanted: Vec<u64> = (0..count).map(|n| key(n).hash64()).collect();
            wanted.retain(|hash| (low..=high).contains(hash));
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
        }
    }
}
