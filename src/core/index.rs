//! Which versions of which keys this node holds: the memory on which every decision rests.
//!
//! It mirrors storage, with one difference: a version that is on its way to storage stands here
//! as *pending*. It counts when the next write is judged and named, and nowhere else: it is not
//! acknowledged, not listed, not in the digests. When storage says `Stored`, the version becomes
//! part of the key and what it covers leaves.
//!
//! Ordered by key hash, so that a partition, and any range within it, is one stretch. Names are a
//! second order, touched only when a key comes or goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use smallvec::SmallVec;

#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    digest::{Trees, version_digest},
    model::{Context, Dot, Key, Kind, MAX_KEY_BYTES, Mirrors, Version},
    partition::PartitionCount,
};

#[derive(Clone, Debug)]
struct Held {
    version: Arc<Version>,
    stored: bool,
}

type Entry = SmallVec<[Held; 1]>;

/// The keys with one hash: nearly always a single one. In the order of their names.
type Slots = SmallVec<[(Key, Entry); 1]>;

/// What to do with a version that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Keep it; it replaces these.
    New(Vec<Dot>),
    /// This very version is on its way to storage.
    Pending,
    /// It is stored, or something stored replaced it.
    Known,
    /// Something that is on its way to storage replaces it: this one.
    Overtaken(Dot),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Index {
    entries: BTreeMap<u64, Slots>,
    names: BTreeSet<Key>,
    totals: Totals,
    /// Versions that storage held when the node started, by hash, until all have come.
    loaded: Vec<(u64, Key, Arc<Version>)>,
}

/// What all keys with stored versions add up to.
#[derive(Debug)]
struct Totals {
    trees: Trees,
    partitions: PartitionCount,
    everywhere: bool,
    stored_keys: usize,
    graves: Graves,
}

/// What the stored versions of one key add to the totals.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Weight {
    tree: Mirrors,
    digest: u64,
    grave: Option<Grave>,
}

/// A key without a value is deleted since, or expires at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grave {
    Deleted(u64),
    Expiring(u64),
}

/// Keys of which no value is left, and since when: of tombstones alone; and of values that expire.
#[derive(Debug, Default)]
struct Graves {
    deleted: BTreeSet<Place>,
    expiring: BTreeSet<Place>,
}

/// A time in milliseconds since 1970, a hash, and its key.
pub(crate) type Place = (u64, u64, Key);

impl Index {
    pub(crate) fn new(partitions: PartitionCount, everywhere: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            names: BTreeSet::new(),
            totals: Totals {
                trees: Trees::default(),
                partitions,
                everywhere,
                stored_keys: 0,
                graves: Graves::default(),
            },
            loaded: Vec::new(),
        }
    }

    /// Keys of which a value is stored.
    pub(crate) fn keys(&self) -> usize {
        self.totals.stored_keys - self.tombstones()
    }

    /// Keys of which only tombstones are stored.
    pub(crate) fn tombstones(&self) -> usize {
        self.totals.graves.deleted.len()
    }

    /// When the oldest tombstone of a key without values was written, milliseconds since 1970.
    pub(crate) fn oldest_tombstone_ms(&self) -> Option<u64> {
        self.totals.graves.deleted.first().map(|(at_ms, ..)| *at_ms)
    }

    /// Keys of which no value is left, after the place `after`, oldest first: those that were
    /// deleted, or those that have `expired` by `wall_ms`.
    pub(crate) fn graves(
        &self,
        expired: bool,
        after: Option<&Place>,
        wall_ms: u64,
    ) -> impl Iterator<Item = &Place> {
        let places = if expired { &self.totals.graves.expiring } else { &self.totals.graves.deleted };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        places.range((from, Bound::Unbounded)).take_while(move |(at_ms, ..)| !expired || *at_ms <= wall_ms)
    }

    /// In how many milliseconds from `wall_ms` on a grave will be `after_ms` old.
    pub(crate) fn next_grave(&self, wall_ms: u64, after_ms: u64) -> Option<u64> {
        let due = |(at_ms, ..): &Place| at_ms.saturating_add(after_ms).saturating_sub(wall_ms);
        // One that a clock dated ahead does not wait.
        let deleted =
            self.totals.graves.deleted.first().map(|place| if place.0 > wall_ms { 0 } else { due(place) });
        deleted.into_iter().chain(self.totals.graves.expiring.first().map(due)).min()
    }

    /// The digest of a key of which nothing is left but tombstones and what has expired.
    pub(crate) fn grave_digest(&self, key: &Key, wall_ms: u64) -> Option<u64> {
        let entry = self.entry(key);
        let is_dead = entry.iter().all(|h| h.stored && !h.version.is_live(wall_ms));
        self.digest_of(key.hash64(), entry).filter(|_| is_dead).map(|(_, digest)| digest)
    }

    /// Whether no key with this hash is held, or only one, as the grave with this digest.
    pub(crate) fn holds_at_most(&self, hash: u64, digest: u64, wall_ms: u64) -> bool {
        match self.entries.get(&hash).map(|slots| slots.as_slice()) {
            None => true,
            Some([(key, _)]) => self.grave_digest(key, wall_ms) == Some(digest),
            Some(_) => false,
        }
    }

    /// The keys with this hash.
    pub(crate) fn keys_at(&self, hash: u64) -> Vec<Key> {
        self.entries.get(&hash).into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// Whether nothing is stored or on its way to storage.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stored versions of a key.
    pub(crate) fn stored(&self, key: &Key) -> impl Iterator<Item = &Arc<Version>> {
        self.entry(key).iter().filter(|h| h.stored).map(|h| &h.version)
    }

    /// The versions of a key, those on their way to storage too.
    pub(crate) fn all(&self, key: &Key) -> impl Iterator<Item = &Arc<Version>> {
        self.entry(key).iter().map(|h| &h.version)
    }

    /// All stored versions of all keys.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.entries.values().flatten().flat_map(|(_, entry)| entry).filter(|h| h.stored).map(|h| &h.version)
    }

    /// The stored version of a key with that name.
    pub(crate) fn find(&self, key: &Key, dot: Dot) -> Option<&Arc<Version>> {
        self.stored(key).find(|v| v.dot == dot)
    }

    /// Whether some version of the key has not reached storage yet.
    pub(crate) fn has_pending(&self, key: &Key) -> bool {
        self.entry(key).iter().any(|h| !h.stored)
    }

    /// All that is known of a key, pending versions included.
    pub(crate) fn context(&self, key: &Key) -> Context {
        self.look(key).1
    }

    /// The widest spread among all versions of a key, none if there are none, and all that is known of it.
    pub(crate) fn look(&self, key: &Key) -> (Option<Mirrors>, Context) {
        let mut context = Context::EMPTY;
        let entry = self.entry(key);
        entry.iter().for_each(|h| context.see(&h.version));
        (entry.iter().map(|h| h.version.mirrors).max(), context)
    }

    /// A client's context, together with what was replaced by the versions that it covers:
    /// siblings merge alike everywhere only if contexts are closed in that way.
    pub(crate) fn closed(&self, key: &Key, mut context: Context) -> Context {
        let asked = context.clone();
        let covered = self.entry(key).iter().filter(|h| asked.contains(h.version.dot));
        covered.for_each(|h| context.merge(&h.version.context));
        context
    }

    /// The widest spread among all versions of a key, pending ones included.
    pub(crate) fn mirrors(&self, key: &Key) -> Option<Mirrors> {
        self.entry(key).iter().map(|h| h.version.mirrors).max()
    }

    /// The widest spread among the versions of a key, and among those that `version` leaves there.
    pub(crate) fn spread_with(&self, key: &Key, version: &Version) -> (Mirrors, Mirrors) {
        let (mut all, mut left) = (version.mirrors, version.mirrors);
        for held in self.entry(key).iter().map(|h| &h.version) {
            all = all.max(held.mirrors);
            if !version.covers(held.dot) {
                left = left.max(held.mirrors);
            }
        }
        (all, left)
    }

    /// What to do with `new`, which arrived from a client or a peer.
    pub(crate) fn judge(&self, key: &Key, new: &Version) -> Verdict {
        let entry = self.entry(key);
        if let Some(same) = entry.iter().find(|h| h.version.dot == new.dot) {
            return if same.stored { Verdict::Known } else { Verdict::Pending };
        }
        let covering = |stored| entry.iter().find(|h| h.stored == stored && h.version.covers(new.dot));
        if covering(true).is_some() {
            return Verdict::Known;
        }
        if let Some(held) = covering(false) {
            return Verdict::Overtaken(held.version.dot);
        }
        Verdict::New(entry.iter().map(|h| h.version.dot).filter(|dot| new.covers(*dot)).collect())
    }

    /// Notes a version that goes to storage now.
    pub(crate) fn begin(&mut self, key: &Key, version: Arc<Version>) {
        let held = Held { version, stored: false };
        let slots = self.entries.entry(key.hash64()).or_default();
        match slots.binary_search_by(|(other, _)| other.cmp(key)) {
            Ok(at) => slots[at].1.push(held),
            Err(at) => {
                slots.insert(at, (key.clone(), SmallVec::from_buf([held])));
                self.names.insert(key.clone());
            }
        }
    }

    /// Takes in a version that storage held when the node started. It counts once
    /// [`finish_load`](Self::finish_load) was called.
    pub(crate) fn load(&mut self, key: &Key, version: Version) {
        self.loaded.push((key.hash64(), key.clone(), Arc::new(version)));
    }

    /// All that storage held has come; nothing else is here yet. Gives what turns out to be replaced: what a
    /// crash left between keeping a version and dropping what it replaced.
    ///
    /// Both orders are built as a whole from sorted lists: for a million keys that takes a fraction of
    /// the time that one insertion after the other does, and leaves no gaps.
    pub(crate) fn finish_load(&mut self) -> Vec<(Key, Vec<Dot>)> {
        debug_assert!(self.entries.is_empty());
        let mut loaded = std::mem::take(&mut self.loaded);
        loaded.sort_unstable_by(|(a_hash, a, _), (b_hash, b, _)| (a_hash, a).cmp(&(b_hash, b)));
        let (mut entries, mut leftovers): (Vec<(u64, Slots)>, Vec<_>) = (Vec::new(), Vec::new());
        let mut loaded = loaded.into_iter().peekable();
        while let Some((hash, key, version)) = loaded.next() {
            let mut versions: SmallVec<[Arc<Version>; 1]> = SmallVec::from_buf([version]);
            while let Some((_, _, version)) = loaded.next_if(|(_, other, _)| *other == key) {
                versions.push(version);
            }
            let (entry, replaced) = resolve(versions);
            if !replaced.is_empty() {
                leftovers.push((key.clone(), replaced));
            }
            let weight = self.totals.weigh(hash, &entry);
            self.totals.change(hash, &key, None, weight);
            match entries.last_mut().filter(|(last, _)| *last == hash) {
                Some((_, slots)) => slots.push((key, entry)),
                None => entries.push((hash, SmallVec::from_buf([(key, entry)]))),
            }
        }
        self.names = by_name(entries.iter().flat_map(|(_, slots)| slots).map(|(key, _)| key));
        self.entries = entries.into_iter().collect();
        leftovers
    }

    /// Storage has it: it counts from now on, and what it covers is gone. Gives the version.
    pub(crate) fn complete(&mut self, key: &Key, dot: Dot) -> Option<Arc<Version>> {
        self.change(key, |entry| {
            let held = entry.iter_mut().find(|h| h.version.dot == dot)?;
            held.stored = true;
            let version = held.version.clone();
            // A pending one that it covers went to storage before, and was removed there with it.
            entry.retain(|h| !version.covers(h.version.dot));
            #[cfg(turbopump_mutations)]
            entry.retain(|h| h.version.dot == dot || !h.stored || !is_planted(Mutation::ForgottenSibling));
            Some(version)
        })
    }

    /// Storage could not take it, or lost it.
    pub(crate) fn abort(&mut self, key: &Key, dot: Dot) {
        self.change(key, |entry| entry.retain(|h| h.version.dot != dot));
    }

    /// Forgets the stored versions of a key and gives their names.
    pub(crate) fn forget(&mut self, key: &Key) -> Vec<Dot> {
        let dots = self.stored(key).map(|v| v.dot).collect();
        self.change(key, |entry| entry.retain(|h| !h.stored));
        dots
    }

    /// The sums of the trees' partitions.
    pub(crate) fn trees(&self) -> &Trees {
        &self.totals.trees
    }

    /// Keys stored in a tree whose hash is in `low..=high`, by hash, with their digests.
    pub(crate) fn range(
        &self,
        mirrors: Mirrors,
        low: u64,
        high: u64,
    ) -> impl Iterator<Item = (u64, &Key, u64)> {
        let slots = self.entries.range(low..=high).flat_map(|(hash, slots)| slots.iter().map(|s| (*hash, s)));
        slots.filter_map(move |(hash, (key, entry))| {
            let (tree, digest) = self.digest_of(hash, entry)?;
            (tree == mirrors).then_some((hash, key, digest))
        })
    }

    /// Up to `limit` keys in the order of their hashes, after the place `after`.
    pub(crate) fn walk(&self, after: Option<&(u64, Key)>, limit: usize) -> Vec<(u64, Key)> {
        let from = after.map_or(0, |(hash, _)| *hash);
        let slots =
            self.entries.range(from..).flat_map(|(hash, slots)| slots.iter().map(|(key, _)| (*hash, key)));
        let is_passed = |place: &(u64, &Key)| after.is_some_and(|(hash, key)| *place <= (*hash, key));
        slots.skip_while(is_passed).take(limit).map(|(hash, key)| (hash, key.clone())).collect()
    }

    /// Keys in the order of their names, from the prefix on and after `after`.
    pub(crate) fn names<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> + 'a {
        // A key's name that is too long for one: those behind it are behind its beginning, too.
        let after = after.filter(|after| *after >= prefix);
        let name = after.unwrap_or(prefix);
        let mut end = name.len().min(MAX_KEY_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let from = Key::new(&name[..end]).map_or(Bound::Unbounded, Bound::Included);
        let names = self.names.range((from, Bound::Unbounded));
        names
            .skip_while(move |key| after.is_some_and(|after| key.as_str() <= after))
            .take_while(move |key| key.as_str().starts_with(prefix))
    }

    fn entry(&self, key: &Key) -> &[Held] {
        let slots = self.entries.get(&key.hash64());
        let slot = slots.and_then(|slots| slots.iter().find(|(other, _)| other == key));
        slot.map_or(&[], |(_, entry)| entry.as_slice())
    }

    fn digest_of(&self, hash: u64, entry: &[Held]) -> Option<(Mirrors, u64)> {
        self.totals.weigh(hash, entry).map(|weight| (weight.tree, weight.digest))
    }

    /// Changes an entry and keeps totals and names true.
    fn change<T>(&mut self, key: &Key, f: impl FnOnce(&mut Entry) -> T) -> T
    where
        T: Default,
    {
        let hash = key.hash64();
        let Some(slots) = self.entries.get_mut(&hash) else { return T::default() };
        let Some(at) = slots.iter().position(|(other, _)| other == key) else { return T::default() };
        let entry = &mut slots[at].1;
        let before = self.totals.weigh(hash, entry);
        let result = f(entry);
        let after = self.totals.weigh(hash, entry);
        self.totals.change(hash, key, before, after);
        if entry.is_empty() {
            slots.remove(at);
            self.names.remove(key);
            if slots.is_empty() {
                self.entries.remove(&hash);
            }
        }
        result
    }
}

impl Totals {
    /// None where nothing is stored.
    fn weigh(&self, hash: u64, entry: &[Held]) -> Option<Weight> {
        let (mut tree, mut digest, mut deleted_ms) = (None, 0_u64, 0);
        let (mut expires_ms, mut is_alive) = (None, false);
        for version in entry.iter().filter(|h| h.stored).map(|h| &*h.version) {
            tree = tree.max(Some(version.mirrors));
            digest = digest.wrapping_add(version_digest(hash, version.dot));
            match (version.kind, version.expires_ms) {
                (Kind::Tombstone, _) => deleted_ms = deleted_ms.max(version.written_ms),
                (Kind::Value, Some(at_ms)) => expires_ms = expires_ms.max(Some(at_ms)),
                (Kind::Value, None) => is_alive = true,
            }
        }
        let grave = expires_ms.map_or(Grave::Deleted(deleted_ms), Grave::Expiring);
        let tree = if self.everywhere { tree.map(|_| Mirrors::ALL) } else { tree };
        Some(Weight { tree: tree?, digest, grave: (!is_alive).then_some(grave) })
    }

    /// A key that weighed `before` weighs `after`.
    fn change(&mut self, hash: u64, key: &Key, before: Option<Weight>, after: Option<Weight>) {
        let partition = self.partitions.of(hash).0;
        match (before, after) {
            (Some(old), Some(new)) if old.tree == new.tree => {
                self.trees.replace(new.tree, partition, old.digest, new.digest);
            }
            _ => {
                before.iter().for_each(|old| self.trees.subtract(old.tree, partition, old.digest));
                after.iter().for_each(|new| self.trees.add(new.tree, partition, new.digest));
            }
        }
        self.stored_keys += usize::from(after.is_some());
        self.stored_keys -= usize::from(before.is_some());
        let (old, new) = (before.and_then(|w| w.grave), after.and_then(|w| w.grave));
        if old != new {
            if let Some((places, at_ms)) = old.map(|grave| self.graves.of(grave)) {
                places.remove(&(at_ms, hash, key.clone()));
            }
            if let Some((places, at_ms)) = new.map(|grave| self.graves.of(grave)) {
                places.insert((at_ms, hash, key.clone()));
            }
        }
    }
}

/// The keys as an ordered set. Most comparisons see only the first bytes behind what all names begin with:
/// to look at the names themselves, wherever they lie in memory, takes many times as long.
fn by_name<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> BTreeSet<Key> {
    let bytes = |key: &'a Key| key.as_str().as_bytes();
    let first = keys.clone().next().map_or(&[][..], bytes);
    let alike = |key: &'a Key| first.iter().zip(bytes(key)).take_while(|(a, b)| a == b).count();
    let common = keys.clone().map(alike).min().unwrap_or(0);
    let begin = |key: &'a Key| {
        let mut begin = [0; 16];
        let rest = &bytes(key)[common..];
        let len = rest.len().min(begin.len());
        begin[..len].copy_from_slice(&rest[..len]);
        u128::from_be_bytes(begin)
    };
    let mut named: Vec<(u128, &Key)> = keys.map(|key| (begin(key), key)).collect();
    named.sort_unstable();
    named.into_iter().map(|(_, key)| key.clone()).collect()
}

/// Of the stored versions of a key those that stay, and the names of those that another one replaced.
fn resolve(versions: SmallVec<[Arc<Version>; 1]>) -> (Entry, Vec<Dot>) {
    let (mut entry, mut replaced) = (Entry::new(), Vec::new());
    for version in versions {
        let dot = version.dot;
        if entry.iter().any(|h| h.version.dot == dot) {
            continue;
        }
        if entry.iter().any(|h| h.version.covers(dot)) {
            replaced.push(dot);
            continue;
        }
        replaced.extend(entry.iter().map(|h| h.version.dot).filter(|dot| version.covers(*dot)));
        entry.retain(|h| !version.covers(h.version.dot));
        entry.push(Held { version, stored: true });
    }
    (entry, replaced)
}

impl Graves {
    fn of(&mut self, grave: Grave) -> (&mut BTreeSet<Place>, u64) {
        match grave {
            Grave::Deleted(at_ms) => (&mut self.deleted, at_ms),
            Grave::Expiring(at_ms) => (&mut self.expiring, at_ms),
        }
    }
}
