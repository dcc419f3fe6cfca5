//! Keys in the order of their hashes, each with some bytes: the bulk of the index.
//!
//! A leaf holds up to [`MAX_KEYS`] neighbours: their names, and one run of bytes that begins with a tag of
//! each key, the next bits of its hash, by which it is found without a look at the names, and goes on with the
//! length of what is kept of each, and with that. So a key costs a reference to its name, a few bytes, and
//! its part of a leaf's slack, and to find one touches the leaf, and of the names that of the key alone.
//!
//! ```text
//! first bits of a hash, lowest hash ──> [key key key ...] [tag tag tag ... | len len len ... | bytes ...]
//! ```
//!
//! Invariants: no leaf is empty; a leaf holds hashes from its own lowest on, up to the next leaf's; keys
//! with one hash are in one leaf, in the order of their names, however many there are.

use std::{hint::black_box, ops::Range};

use thin_vec::ThinVec;

use super::packed::{put, take};
use crate::model::Key;

/// Keys in a leaf, unless they all have one hash.
const MAX_KEYS: usize = 64;
/// Keys that a leaf gets where many are put in at once: later ones find room.
const LOADED_KEYS: usize = 56;
/// A leaf with fewer is joined with the next where both fit in one.
const MIN_KEYS: usize = 16;
/// Bytes in a leaf, unless one key has them: what one change moves at most.
const MAX_BYTES: usize = 16 * 1024;
/// Bits of a hash by which leaves are grouped: what one leaf more or less moves is short.
const GROUP_BITS: u32 = 8;
/// Steps in which a leaf is found, or searched for otherwise.
const NEAR: usize = 16;
/// Bytes of a tag.
const TAG_BYTES: usize = 2;
/// Bytes that a processor brings from memory at once.
const LINE_BYTES: usize = 64;
/// Stands for a length that does not fit in a byte: it is in front of the record.
const LONG: u8 = u8::MAX;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Leaves {
    /// Leaves and the lowest hash that each may have, by that.
    groups: Box<[Vec<(u64, Leaf)>]>,
    count: usize,
}

/// Where a key is, or has to come, until something is changed.
pub(super) struct Place {
    /// Its leaf among those of its group, and its place there; none where there is no leaf yet.
    at: Option<(usize, Result<usize, usize>)>,
}

#[derive(Debug, Default)]
struct Leaf {
    keys: ThinVec<Key>,
    /// The tags, the lengths, the records.
    bytes: ThinVec<u8>,
}

impl Default for Leaves {
    fn default() -> Self {
        Self { groups: (0..1 << GROUP_BITS).map(|_| Vec::new()).collect(), count: 0 }
    }
}

impl Leaves {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is kept of a key; nothing of one that is not here.
    pub(super) fn find(&self, key: &Key) -> &[u8] {
        self.record(key, &self.place(key))
    }

    /// Brings near what [`find`](Self::find) will look at for each of these keys: first where it searches, then
    /// what it finds. What one key waits for hangs on the step before, not on other keys.
    pub(super) fn prefetch(&self, keys: &[&Key]) {
        let leaves = keys.iter().filter_map(|key| self.leaf(key));
        let searched: usize = leaves.map(|(_, leaf)| leaf.touch()).sum();
        let ends =
            |record: &[u8]| record.first().into_iter().chain(record.last()).map(|b| usize::from(*b)).sum();
        let found: usize = keys.iter().map(|key| -> usize { ends(self.find(key)) }).sum();
        black_box((searched, found));
    }

    /// Where a key is.
    pub(super) fn place(&self, key: &Key) -> Place {
        Place { at: self.leaf(key).map(|(n, leaf)| (n, leaf.search(key))) }
    }

    /// The leaf that has a key, if any has, and its place among those of its group.
    fn leaf(&self, key: &Key) -> Option<(usize, &Leaf)> {
        let leaves = &self.groups[group(key.hash64())];
        leaf_of(leaves, key.hash64()).map(|n| (n, &leaves[n].1))
    }

    /// What is kept of a key, of which the place is known.
    pub(super) fn record(&self, key: &Key, place: &Place) -> &[u8] {
        let Some((n, Ok(at))) = place.at else { return &[] };
        let leaf = &self.groups[group(key.hash64())][n].1;
        leaf.record(leaf.place(at))
    }

    /// All keys, by hash and name, and what is kept of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &[u8])> + Clone {
        self.groups.iter().flatten().flat_map(|(_, leaf)| leaf.entries())
    }

    /// Keys whose hash is in `low..=high`, by hash and name, and what is kept of each.
    pub(super) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = (&Key, &[u8])> {
        let from = move |leaves: &[(u64, Leaf)]| leaf_of(leaves, low).unwrap_or(0);
        let groups = self.groups.iter().take(group(high) + 1).skip(group(low));
        let leaves = groups.flat_map(move |leaves| &leaves[from(leaves)..]);
        let entries =
            leaves.take_while(move |(lowest, _)| *lowest <= high).flat_map(|(_, leaf)| leaf.entries());
        entries
            .skip_while(move |(key, _)| key.hash64() < low)
            .take_while(move |(key, _)| key.hash64() <= high)
    }

    /// Keeps these bytes of a key and no others, and says whether the key is new.
    pub(super) fn set(&mut self, key: &Key, place: Place, record: &[u8]) -> bool {
        let group = group(key.hash64());
        let leaves = &mut self.groups[group];
        let (n, at) = place.at.unwrap_or_else(|| {
            leaves.insert(0, ((group as u64) << (u64::BITS - GROUP_BITS), Leaf::default()));
            (0, Err(0))
        });
        let leaf = &mut leaves[n].1;
        leaf.set(key, at, record);
        if leaf.is_full()
            && let Some(upper) = leaf.split()
        {
            leaves.insert(n + 1, upper);
        }
        self.count += usize::from(at.is_err());
        at.is_err()
    }

    /// Drops a key.
    pub(super) fn remove(&mut self, key: &Key, place: Place) {
        let Some((n, Ok(at))) = place.at else { return };
        let leaves = &mut self.groups[group(key.hash64())];
        let leaf = &mut leaves[n].1;
        leaf.remove(at);
        self.count -= 1;
        if leaf.keys.is_empty() {
            leaves.remove(n);
        } else if leaf.keys.len() < MIN_KEYS
            && let Some((_, next)) = leaves.get(n + 1)
            && let Some(joined) = leaves[n].1.joined(next)
        {
            leaves[n].1 = joined;
            leaves.remove(n + 1);
        }
    }
}

/// Fills leaves with keys in the order of their hashes and names.
#[derive(Default)]
pub(super) struct Filler {
    full: Leaves,
    leaf: Builder,
    last: u64,
}

impl Filler {
    /// The next key, which has this hash, and what is to be kept of it.
    pub(super) fn push(&mut self, hash: u64, key: Key, record: &[u8]) {
        let has_room = self.leaf.keys.len() < LOADED_KEYS && self.leaf.records.len() < MAX_BYTES;
        if group(self.last) != group(hash) || !has_room && self.last != hash {
            self.close();
        }
        self.last = hash;
        self.leaf.add(hash, key, record);
    }

    /// All of them.
    pub(super) fn leaves(mut self) -> Leaves {
        self.close();
        self.full.groups.iter_mut().for_each(|leaves| leaves.shrink_to_fit());
        self.full
    }

    fn close(&mut self) {
        if self.leaf.keys.is_empty() {
            return;
        }
        self.full.count += self.leaf.keys.len();
        let (low, leaf) = std::mem::take(&mut self.leaf).leaf();
        self.full.groups[group(low)].push((low, leaf));
    }
}

/// The leaf that has a hash, if any has. Hashes lie evenly, so it is nearly always close to where it should be.
fn leaf_of(leaves: &[(u64, Leaf)], hash: u64) -> Option<usize> {
    let mut n = ((u128::from(hash << GROUP_BITS) * leaves.len() as u128) >> u64::BITS) as usize;
    for _ in 0..NEAR {
        if leaves.get(n)?.0 > hash {
            n = n.checked_sub(1)?;
        } else if leaves.get(n + 1).is_some_and(|(low, _)| *low <= hash) {
            n += 1;
        } else {
            return Some(n);
        }
    }
    leaves.partition_point(|(low, _)| *low <= hash).checked_sub(1)
}

fn group(hash: u64) -> usize {
    (hash >> (u64::BITS - GROUP_BITS)) as usize
}

/// The bits of the hash behind those of the group: in one group tags have the order of the hashes.
fn tag(hash: u64) -> [u8; TAG_BYTES] {
    ((hash << GROUP_BITS >> (u64::BITS - u16::BITS)) as u16).to_be_bytes()
}

/// A leaf that is being filled in order.
#[derive(Default)]
struct Builder {
    keys: Vec<Key>,
    tags: Vec<u8>,
    lens: Vec<u8>,
    records: Vec<u8>,
}

impl Builder {
    fn of<'a>(entries: impl Iterator<Item = (&'a Key, &'a [u8])>) -> Self {
        let mut builder = Self::default();
        entries.for_each(|(key, record)| builder.add(key.hash64(), key.clone(), record));
        builder
    }

    fn add(&mut self, hash: u64, key: Key, record: &[u8]) {
        self.keys.push(key);
        self.tags.extend_from_slice(&tag(hash));
        self.lens.push(short_len(record));
        self.records.extend_from_slice(&front(record));
        self.records.extend_from_slice(record);
    }

    fn leaf(self) -> (u64, Leaf) {
        let mut bytes = ThinVec::with_capacity((TAG_BYTES + 1) * self.keys.len() + self.records.len());
        bytes.extend_from_slice(&self.tags);
        bytes.extend_from_slice(&self.lens);
        bytes.extend_from_slice(&self.records);
        let mut keys = ThinVec::with_capacity(self.keys.len());
        keys.extend(self.keys);
        (keys[0].hash64(), Leaf { keys, bytes })
    }
}

fn short_len(record: &[u8]) -> u8 {
    u8::try_from(record.len()).unwrap_or(LONG)
}

/// What stands in front of a record that is long: its length.
fn front(record: &[u8]) -> Vec<u8> {
    let mut front = Vec::new();
    if short_len(record) == LONG {
        put(record.len() as u64, &mut front);
    }
    front
}

impl Leaf {
    fn entries(&self) -> impl Iterator<Item = (&Key, &[u8])> + Clone {
        let mut begin = self.begin(0);
        self.keys.iter().zip(self.lens()).map(move |(key, len)| {
            let place = begin..self.end(begin, *len);
            begin = place.end;
            (key, self.record(place))
        })
    }

    /// Looks at the tags and lengths, and at where the names stand.
    fn touch(&self) -> usize {
        let lines = (TAG_BYTES + 1) * MAX_KEYS / LINE_BYTES + 1;
        let bytes = self.bytes.iter().step_by(LINE_BYTES).take(lines);
        self.keys.len() + bytes.map(|b| usize::from(*b)).sum::<usize>()
    }

    fn tags(&self) -> &[[u8; TAG_BYTES]] {
        self.bytes[..TAG_BYTES * self.keys.len()].as_chunks().0
    }

    fn lens(&self) -> &[u8] {
        &self.bytes[TAG_BYTES * self.keys.len()..][..self.keys.len()]
    }

    /// Which of the keys it is; where it would have to stand, if it is none of them.
    fn search(&self, key: &Key) -> Result<usize, usize> {
        let (tags, tag) = (self.tags(), tag(key.hash64()));
        let mut at = tags.partition_point(|other| *other < tag);
        while tags.get(at) == Some(&tag) {
            let other = &self.keys[at];
            if other == key {
                return Ok(at);
            }
            if (other.hash64(), other) > (key.hash64(), key) {
                break;
            }
            at += 1;
        }
        Err(at)
    }

    /// Where the record of the key at `at` is, with what stands in front of it.
    fn place(&self, at: usize) -> Range<usize> {
        let begin = self.begin(at);
        begin..self.end(begin, self.lens()[at])
    }

    /// Where the record of the key at `at` begins; the end where there is none.
    fn begin(&self, at: usize) -> usize {
        let first = (TAG_BYTES + 1) * self.keys.len();
        self.lens()[..at].iter().fold(first, |begin, len| self.end(begin, *len))
    }

    /// Where a record ends that begins there and has this length.
    fn end(&self, begin: usize, len: u8) -> usize {
        if len < LONG {
            return begin + usize::from(len);
        }
        let mut rest = &self.bytes[begin..];
        let len = take(&mut rest) as usize;
        self.bytes.len() - rest.len() + len
    }

    fn record(&self, place: Range<usize>) -> &[u8] {
        let mut record = &self.bytes[place];
        if record.len() >= LONG.into() {
            take(&mut record);
        }
        record
    }

    fn set(&mut self, key: &Key, found: Result<usize, usize>, record: &[u8]) {
        let count = self.keys.len();
        let (at, place) = match found {
            Ok(at) => (at, self.place(at)),
            Err(at) => {
                let begin = self.begin(at);
                (at, begin..begin)
            }
        };
        let start = place.start;
        self.splice(place, record);
        let front = front(record);
        if !front.is_empty() {
            self.splice(start..start, &front);
        }
        let (len, begin) = (TAG_BYTES * count + at, TAG_BYTES * at);
        if found.is_ok() {
            self.bytes[len] = short_len(record);
            return;
        }
        self.splice(len..len, &[short_len(record)]);
        self.splice(begin..begin, &tag(key.hash64()));
        if count == self.keys.capacity() {
            self.keys.reserve_exact(8);
        }
        self.keys.insert(at, key.clone());
    }

    fn remove(&mut self, at: usize) {
        let count = self.keys.len();
        self.splice(self.place(at), &[]);
        let (len, begin) = (TAG_BYTES * count + at, TAG_BYTES * at);
        self.splice(len..len + 1, &[]);
        self.splice(begin..begin + TAG_BYTES, &[]);
        self.keys.remove(at);
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
            self.keys.shrink_to_fit();
        }
    }

    /// Puts `new` where `old` was. A leaf that grows gets a third more than it needs: to move it is rare then,
    /// which glibc's allocator takes for the moment to tidy up behind all small pieces.
    fn splice(&mut self, old: Range<usize>, new: &[u8]) {
        let (before, tail) = (self.bytes.len(), old.start + new.len());
        let after = before - old.len() + new.len();
        if after > self.bytes.capacity() {
            self.bytes.reserve_exact(after - before + after / 3);
        }
        if after > before {
            self.bytes.resize(after, 0);
        }
        if after != before {
            self.bytes.copy_within(old.end..before, tail);
            self.bytes.truncate(after);
        }
        self.bytes[old.start..tail].copy_from_slice(new);
    }

    fn is_full(&self) -> bool {
        self.keys.len() > MAX_KEYS || self.bytes.len() > MAX_BYTES
    }

    /// Gives away the upper half; nothing where all keys have one hash.
    fn split(&mut self) -> Option<(u64, Self)> {
        let middle = self.keys.len() / 2;
        let mut cuts = (middle..self.keys.len()).chain((1..middle).rev()).filter(|at| *at > 0);
        let at = cuts.find(|at| self.keys[at - 1].hash64() != self.keys[*at].hash64())?;
        let upper = Builder::of(self.entries().skip(at)).leaf();
        *self = Builder::of(self.entries().take(at)).leaf().1;
        Some(upper)
    }

    /// Both in one, where they fit.
    fn joined(&self, next: &Self) -> Option<Self> {
        let (keys, bytes) = (self.keys.len() + next.keys.len(), self.bytes.len() + next.bytes.len());
        let fits = keys <= MAX_KEYS / 2 && bytes <= MAX_BYTES / 2;
        fits.then(|| Builder::of(self.entries().chain(next.entries())).leaf().1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> Key {
        Key::new(n.to_string()).unwrap()
    }

    fn set(leaves: &mut Leaves, key: &Key, record: &[u8]) -> bool {
        leaves.set(key, leaves.place(key), record)
    }

    fn remove(leaves: &mut Leaves, key: &Key) {
        leaves.remove(key, leaves.place(key));
    }

    fn check(leaves: &Leaves, model: &BTreeMap<(u64, Key), Vec<u8>>) {
        let all: Vec<(&Key, &[u8])> = leaves.range(0, u64::MAX).collect();
        assert!(leaves.all().eq(all.iter().copied()));
        assert_eq!(all, model.iter().map(|((_, key), bytes)| (key, &bytes[..])).collect::<Vec<_>>());
        model.iter().for_each(|((_, key), bytes)| assert_eq!(leaves.find(key), bytes));
        leaves.prefetch(&(0..300).map(key).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        assert_eq!(leaves.count, model.len());
        let all: Vec<&(u64, Leaf)> = leaves.groups.iter().flatten().collect();
        for (n, (low, leaf)) in all.iter().enumerate() {
            let next = all.get(n + 1).map_or(u64::MAX, |(next, _)| *next);
            assert!(!leaf.keys.is_empty() && !leaf.is_full());
            assert!(leaf.keys.iter().all(|key| (*low..next).contains(&key.hash64())));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn they_hold_what_a_map_holds(
            steps in prop::collection::vec((0..9_000_u16, prop::option::weighted(0.7, 1..600_usize)), 0..9_000),
        ) {
            let (mut leaves, mut model) = (Leaves::default(), BTreeMap::new());
            for (n, len) in steps {
                let (key, place) = (key(n), (key(n).hash64(), key(n)));
                match len {
                    Some(len) => {
                        let bytes = vec![n as u8; len];
                        let is_new = model.insert(place, bytes.clone()).is_none();
                        prop_assert_eq!(set(&mut leaves, &key, &bytes), is_new);
                    }
                    None => {
                        model.remove(&place);
                        remove(&mut leaves, &key);
                        prop_assert_eq!(leaves.find(&key), &[0_u8; 0][..]);
                    }
                }
            }
            check(&leaves, &model);
            let mut filler = Filler::default();
            model.iter().for_each(|((hash, key), bytes)| filler.push(*hash, key.clone(), bytes));
            check(&filler.leaves(), &model);
            model.into_keys().for_each(|(_, key)| remove(&mut leaves, &key));
            prop_assert!(leaves.is_empty());
        }

        #[test]
        fn a_range_is_what_lies_in_it(low: u64, high: u64, count in 0..2_000_u16) {
            let mut leaves = Leaves::default();
            (0..count).for_each(|n| _ = set(&mut leaves, &key(n), b"x"));
            let found: Vec<u64> = leaves.range(low, high).map(|(key, _)| key.hash64()).collect();
            let mut wanted: Vec<u64> = (0..count).map(|n| key(n).hash64()).collect();
            wanted.retain(|hash| (low..=high).contains(hash));
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn keys_with_one_tag_are_told_apart() {
        let mut by_tag: BTreeMap<(usize, [u8; TAG_BYTES]), Vec<Key>> = BTreeMap::new();
        for n in 0..40_000 {
            by_tag.entry((group(key(n).hash64()), tag(key(n).hash64()))).or_default().push(key(n));
        }
        let alike: Vec<Key> = by_tag.into_values().filter(|keys| keys.len() > 1).flatten().collect();
        assert!(alike.len() > 8, "{}", alike.len());
        for keys in [alike.clone(), alike.iter().rev().cloned().collect()] {
            let (mut leaves, mut model) = (Leaves::default(), BTreeMap::new());
            for key in &keys {
                assert!(leaves.find(key).is_empty());
                let bytes = key.as_str().as_bytes().to_vec();
                assert!(set(&mut leaves, key, &bytes) && !set(&mut leaves, key, &bytes));
                model.insert((key.hash64(), key.clone()), bytes);
            }
            check(&leaves, &model);
            keys.iter().for_each(|key| remove(&mut leaves, key));
            assert!(leaves.is_empty());
        }
    }
}
