//! Which versions of which keys this node holds: the memory on which every decision rests.
//!
//! It mirrors storage, with one difference: a version that is on its way to storage stands here
//! as *pending*. It counts when the next write is judged and named, and nowhere else: it is not
//! acknowledged, not listed, not in the digests. When storage says `Stored`, the version becomes
//! part of the key and what it covers leaves.
//!
//! Ordered by key hash, so that a partition, and any range within it, is one stretch. Names are a
//! second order, touched only when a key comes or goes.
//!
//! What is stored may be millions of versions: it is [packed](packed) into [leaves]. What is pending is
//! few, and stands beside them as it came.

mod leaves;
mod names;
mod packed;
mod totals;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use smallvec::SmallVec;

#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    digest::Trees,
    model::{Context, Dot, Key, MAX_KEY_BYTES, Mirrors, Version},
    partition::PartitionCount,
};

use leaves::{Filler, Leaves};
use names::Names;
use packed::{Actors, Packed, Unpack};
use totals::{Place, Scales, Totals};

/// The pending versions of the keys with one hash, in the order of their names.
type Pending = SmallVec<[(Key, SmallVec<[Arc<Version>; 1]>); 1]>;

/// What to do with a version that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Keep it.
    New(News),
    /// This very version is on its way to storage.
    Pending,
    /// It is stored, or something stored replaced it.
    Known,
    /// Something that is on its way to storage replaces it: this one.
    Overtaken(Dot),
}

/// What a version changes that is to be kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// What it replaces.
    pub(crate) replaces: Vec<Dot>,
    /// The widest spread among the versions of its key, with it.
    pub(crate) widest: Mirrors,
    /// The same among those that it leaves.
    pub(crate) left: Mirrors,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Index {
    /// Stored versions, packed.
    held: Leaves,
    actors: Actors,
    pending: BTreeMap<u64, Pending>,
    /// Of the keys with stored versions.
    names: Names,
    totals: Totals,
    loaded: Loaded,
    /// What a key is about to have, packed.
    scratch: Vec<u8>,
}

/// Versions that storage held when the node started, until all have come.
#[derive(Debug, Default)]
struct Loaded {
    /// The hash of the key, the key, and where its version begins.
    keys: Vec<(u64, Key, usize)>,
    versions: Vec<u8>,
    /// Bytes with which all names begin.
    common: usize,
}

impl Index {
    pub(crate) fn new(partitions: PartitionCount, everywhere: bool) -> Self {
        Self {
            held: Leaves::default(),
            actors: Actors::default(),
            pending: BTreeMap::new(),
            names: Names::default(),
            totals: Totals::new(partitions, everywhere),
            loaded: Loaded::default(),
            scratch: Vec::new(),
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
        let is_dead = !self.has_pending(key) && self.stored(key).all(|v| !v.is_live(wall_ms));
        self.totals.weigh(key.hash64(), self.held(key)).filter(|_| is_dead).map(|weight| weight.digest)
    }

    /// Whether no key with this hash is held, or only one, as the grave with this digest.
    pub(crate) fn holds_at_most(&self, hash: u64, digest: u64, wall_ms: u64) -> bool {
        match &self.keys_at(hash)[..] {
            [] => true,
            [key] => self.grave_digest(key, wall_ms) == Some(digest),
            _ => false,
        }
    }

    /// The keys with this hash.
    pub(crate) fn keys_at(&self, hash: u64) -> Vec<Key> {
        let mut keys: Vec<Key> = self.held.range(hash, hash).map(|(key, _)| key.clone()).collect();
        keys.extend(self.pending.get(&hash).into_iter().flatten().map(|(key, _)| key.clone()));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether nothing is stored or on its way to storage.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.pending.is_empty()
    }

    /// The stored versions of a key.
    pub(crate) fn stored(&self, key: &Key) -> impl Iterator<Item = Version> {
        self.held(key).map(|packed| packed.version())
    }

    /// The names of the versions of a key, those on their way to storage too.
    pub(crate) fn dots(&self, key: &Key) -> impl Iterator<Item = Dot> {
        self.held(key).map(|v| v.dot).chain(self.pending(key).iter().map(|v| v.dot))
    }

    /// All stored versions of all keys.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Version> {
        self.held.all().flat_map(|(_, record)| self.unpack(record)).map(|v| v.version())
    }

    /// The stored version of a key with that name.
    pub(crate) fn find(&self, key: &Key, dot: Dot) -> Option<Version> {
        self.held(key).find(|v| v.dot == dot).map(|v| v.version())
    }

    /// Whether the version of a key with that name is stored.
    pub(crate) fn holds(&self, key: &Key, dot: Dot) -> bool {
        self.held(key).any(|v| v.dot == dot)
    }

    /// Whether something stored replaced the version of a key with that name.
    pub(crate) fn replaced(&self, key: &Key, dot: Dot) -> bool {
        self.held(key).any(|v| v.covers(dot))
    }

    /// Whether the version of a key with that name, or what replaced it, is stored.
    pub(crate) fn knows(&self, key: &Key, dot: Dot) -> bool {
        self.held(key).any(|v| v.dot == dot || v.covers(dot))
    }

    /// Whether the version of a key with that name, or what replaced it, is on its way to storage.
    pub(crate) fn is_coming(&self, key: &Key, dot: Dot) -> bool {
        self.pending(key).iter().any(|v| v.dot == dot || v.covers(dot))
    }

    /// Whether some version of the key has not reached storage yet.
    pub(crate) fn has_pending(&self, key: &Key) -> bool {
        !self.pending(key).is_empty()
    }

    /// All that is known of a key, pending versions included.
    pub(crate) fn context(&self, key: &Key) -> Context {
        self.look(key).1
    }

    /// The widest spread among all versions of a key, none if there are none, and all that is known of it.
    pub(crate) fn look(&self, key: &Key) -> (Option<Mirrors>, Context) {
        let (mut widest, mut context) = (None, Context::EMPTY);
        for version in self.held(key) {
            widest = widest.max(Some(version.mirrors));
            version.tell(&mut context);
        }
        for version in self.pending(key) {
            widest = widest.max(Some(version.mirrors));
            context.see(version);
        }
        (widest, context)
    }

    /// A client's context, together with what was replaced by the versions that it covers:
    /// siblings merge alike everywhere only if contexts are closed in that way.
    pub(crate) fn closed(&self, key: &Key, mut context: Context) -> Context {
        let asked = context.clone();
        let covered = self.held(key).filter(|v| asked.contains(v.dot));
        covered.for_each(|v| v.tell_replaced(&mut context));
        let covered = self.pending(key).iter().filter(|v| asked.contains(v.dot));
        covered.for_each(|v| context.merge(&v.context));
        context
    }

    /// The widest spread among all versions of a key, pending ones included.
    pub(crate) fn mirrors(&self, key: &Key) -> Option<Mirrors> {
        let held = self.held(key).map(|v| v.mirrors);
        held.chain(self.pending(key).iter().map(|v| v.mirrors)).max()
    }

    /// What to do with `new`, which arrived from a client or a peer.
    pub(crate) fn judge(&self, key: &Key, new: &Version) -> Verdict {
        let mut news = News { replaces: Vec::new(), widest: new.mirrors, left: new.mirrors };
        let (mut is_replaced, pending) = (false, self.pending(key));
        for held in self.held(key) {
            if held.dot == new.dot {
                return Verdict::Known;
            }
            is_replaced |= held.covers(new.dot);
            news.meet(new, held.dot, held.mirrors);
        }
        if pending.iter().any(|v| v.dot == new.dot) {
            return Verdict::Pending;
        }
        if is_replaced {
            return Verdict::Known;
        }
        if let Some(version) = pending.iter().find(|v| v.covers(new.dot)) {
            return Verdict::Overtaken(version.dot);
        }
        pending.iter().for_each(|v| news.meet(new, v.dot, v.mirrors));
        Verdict::New(news)
    }

    /// Notes a version that goes to storage now.
    pub(crate) fn begin(&mut self, key: &Key, version: Arc<Version>) {
        let slots = self.pending.entry(key.hash64()).or_default();
        match slots.binary_search_by(|(other, _)| other.cmp(key)) {
            Ok(at) => slots[at].1.push(version),
            Err(at) => slots.insert(at, (key.clone(), SmallVec::from_buf([version]))),
        }
    }

    /// Takes in a version that storage held when the node started. It counts once
    /// [`finish_load`](Self::finish_load) was called.
    pub(crate) fn load(&mut self, key: &Key, version: &Version) {
        let Loaded { keys, versions, common } = &mut self.loaded;
        *common = keys.first().map_or(key.as_str().len(), |(_, first, _)| {
            let pairs = first.as_str().bytes().zip(key.as_str().bytes()).take(*common);
            pairs.take_while(|(a, b)| a == b).count()
        });
        keys.push((key.hash64(), key.clone(), versions.len()));
        self.actors.pack(version, versions);
    }

    /// All that storage held has come; nothing else is here yet. Gives what turns out to be replaced: what a
    /// crash left between keeping a version and dropping what it replaced.
    ///
    /// Both orders are built as a whole from sorted lists: for a million keys that takes a fraction of
    /// the time that one insertion after the other does, and leaves no gaps.
    pub(crate) fn finish_load(&mut self) -> Vec<(Key, Vec<Dot>)> {
        debug_assert!(self.held.is_empty());
        let Loaded { mut keys, versions, common } = std::mem::take(&mut self.loaded);
        keys.sort_unstable_by(|(a_hash, a, _), (b_hash, b, _)| (a_hash, a).cmp(&(b_hash, b)));
        let (mut held, mut leftovers) = (Filler::default(), Vec::new());
        let mut keys = keys.into_iter().peekable();
        while let Some((hash, key, at)) = keys.next() {
            let first = |at: usize| Unpack { bytes: &versions[at..], actors: &self.actors }.next_with_bytes();
            let mut record = first(at).map_or(&[][..], |(bytes, _)| bytes);
            let is_same = |(_, other, _): &(u64, Key, usize)| *other == key;
            if keys.peek().is_some_and(is_same) {
                let more = std::iter::from_fn(|| keys.next_if(is_same)).map(|(.., at)| at);
                let all = std::iter::once(at).chain(more).filter_map(first);
                let (kept, replaced) = resolve(all.map(|(_, packed)| packed.version()).collect());
                self.scratch.clear();
                kept.iter().for_each(|version| self.actors.pack(version, &mut self.scratch));
                record = &self.scratch;
                if !replaced.is_empty() {
                    leftovers.push((key.clone(), replaced));
                }
            }
            let weight = self.totals.weigh(hash, Unpack { bytes: record, actors: &self.actors });
            self.totals.change(hash, &key, None, weight);
            held.push(hash, key, record);
        }
        self.held = held.leaves();
        self.names = by_name(self.held.all().map(|(key, _)| key), common);
        leftovers
    }

    /// Storage has it: it counts from now on, and what it covers is gone. Gives the version, and the widest
    /// spread among those of the key, pending ones included.
    pub(crate) fn complete(&mut self, key: &Key, dot: Dot) -> Option<(Arc<Version>, Option<Mirrors>)> {
        let version = self.pending(key).iter().find(|v| v.dot == dot)?.clone();
        // A pending one that it covers went to storage before, and was removed there with it.
        self.retain_pending(key, |v| v.dot != dot && !version.covers(v.dot));
        let keeps = |v: &Packed| {
            #[cfg(turbopump_mutations)]
            if is_planted(Mutation::ForgottenSibling) {
                return false;
            }
            !version.covers(v.dot)
        };
        let stored = self.change(key, keeps, Some(&version));
        let widest = stored.max(self.pending(key).iter().map(|v| v.mirrors).max());
        Some((version, widest))
    }

    /// Storage could not take it, or lost it.
    pub(crate) fn abort(&mut self, key: &Key, dot: Dot) {
        self.retain_pending(key, |v| v.dot != dot);
        self.change(key, |v| v.dot != dot, None);
    }

    /// Forgets the stored versions of a key and gives their names.
    pub(crate) fn forget(&mut self, key: &Key) -> Vec<Dot> {
        let dots = self.held(key).map(|v| v.dot).collect();
        self.change(key, |_| false, None);
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
        self.held.range(low, high).filter_map(move |(key, record)| {
            let hash = key.hash64();
            let weight = self.totals.weigh(hash, self.unpack(record))?;
            (weight.tree == mirrors).then_some((hash, key, weight.digest))
        })
    }

    /// Up to `limit` keys in the order of their hashes, after the place `after`.
    pub(crate) fn walk(&self, after: Option<&(u64, Key)>, limit: usize) -> Vec<(u64, Key)> {
        let from = after.map_or(0, |(hash, _)| *hash);
        let is_passed = |place: &(u64, &Key)| after.is_some_and(|(hash, key)| *place <= (*hash, key));
        let held = self.held.range(from, u64::MAX).map(|(key, _)| (key.hash64(), key));
        let pending = self.pending.range(from..);
        let pending = pending.flat_map(|(hash, slots)| slots.iter().map(|(key, _)| (*hash, key)));
        let mut places: Vec<(u64, &Key)> = held.skip_while(is_passed).take(limit).collect();
        places.extend(pending.skip_while(is_passed).take(limit));
        places.sort_unstable();
        places.dedup();
        places.into_iter().take(limit).map(|(hash, key)| (hash, key.clone())).collect()
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
        let names = self.names.range(Key::new(&name[..end]).ok());
        names
            .skip_while(move |key| after.is_some_and(|after| key.as_str() <= after))
            .take_while(move |key| key.as_str().starts_with(prefix))
    }

    /// Brings near what is stored of each of these keys.
    pub(crate) fn prefetch(&self, keys: &[&Key]) {
        self.held.prefetch(keys);
    }

    fn held(&self, key: &Key) -> Unpack<'_> {
        self.unpack(self.held.find(key))
    }

    fn unpack<'a>(&'a self, bytes: &'a [u8]) -> Unpack<'a> {
        Unpack { bytes, actors: &self.actors }
    }

    fn pending(&self, key: &Key) -> &[Arc<Version>] {
        let slots = self.pending.get(&key.hash64());
        let slot = slots.and_then(|slots| slots.iter().find(|(other, _)| other == key));
        slot.map_or(&[], |(_, versions)| versions)
    }

    fn retain_pending(&mut self, key: &Key, keeps: impl Fn(&Version) -> bool) {
        let Some(slots) = self.pending.get_mut(&key.hash64()) else { return };
        slots.iter_mut().filter(|(other, _)| other == key).for_each(|(_, v)| v.retain(|v| keeps(v)));
        slots.retain(|(_, versions)| !versions.is_empty());
        if slots.is_empty() {
            self.pending.remove(&key.hash64());
        }
    }

    /// Drops stored versions of a key, adds one, and keeps totals and names true. Gives the widest spread among
    /// those that are stored then.
    fn change(
        &mut self,
        key: &Key,
        keeps: impl Fn(&Packed) -> bool,
        new: Option<&Version>,
    ) -> Option<Mirrors> {
        let Self { held, actors, scratch, totals, names, .. } = self;
        let (hash, place) = (key.hash64(), held.place(key));
        let (mut before, mut after) = (Scales::default(), Scales::default());
        scratch.clear();
        let mut versions = Unpack { bytes: held.record(key, &place), actors };
        while let Some((bytes, v)) = versions.next_with_bytes() {
            let rest = (v.kind, v.written_ms, v.expires_ms);
            before.add(hash, v.dot, v.mirrors, rest);
            if keeps(&v) {
                after.add(hash, v.dot, v.mirrors, rest);
                scratch.extend_from_slice(bytes);
            }
        }
        if let Some(v) = new {
            after.add(hash, v.dot, v.mirrors, (v.kind, v.written_ms, v.expires_ms));
            actors.pack(v, scratch);
        }
        totals.change(hash, key, totals.weight(&before), totals.weight(&after));
        if !scratch.is_empty() {
            if held.set(key, place, scratch) {
                names.insert(key);
            }
        } else if before.widest.is_some() {
            held.remove(key, place);
            names.remove(key);
        }
        after.widest
    }
}

impl News {
    /// There is another version, of this name and spread, beside the new one.
    fn meet(&mut self, new: &Version, dot: Dot, mirrors: Mirrors) {
        self.widest = self.widest.max(mirrors);
        if new.covers(dot) {
            self.replaces.push(dot);
        } else {
            self.left = self.left.max(mirrors);
        }
    }
}

/// The keys in the order of their names, which all begin with the same `common` bytes. Most comparisons see
/// only the first bytes behind those: to look at the names themselves, wherever they lie in memory,
/// takes many times as long.
fn by_name<'a>(keys: impl Iterator<Item = &'a Key>, common: usize) -> Names {
    let begin = |key: &'a Key| {
        let mut begin = [0; 16];
        let rest = &key.as_str().as_bytes()[common..];
        let len = rest.len().min(begin.len());
        begin[..len].copy_from_slice(&rest[..len]);
        u128::from_be_bytes(begin)
    };
    let mut named: Vec<(u128, &Key)> = keys.map(|key| (begin(key), key)).collect();
    named.sort_unstable();
    Names::build(&named.into_iter().map(|(_, key)| key).collect::<Vec<_>>())
}

/// Of the stored versions of a key those that stay, and the names of those that another one replaced.
fn resolve(versions: Vec<Version>) -> (Vec<Version>, Vec<Dot>) {
    let (mut kept, mut replaced): (Vec<Version>, Vec<Dot>) = (Vec::new(), Vec::new());
    for version in versions {
        let dot = version.dot;
        if kept.iter().any(|v| v.dot == dot) {
            continue;
        }
        if kept.iter().any(|v| v.covers(dot)) {
            replaced.push(dot);
            continue;
        }
        replaced.extend(kept.iter().map(|v| v.dot).filter(|dot| version.covers(*dot)));
        kept.retain(|v| !version.covers(v.dot));
        kept.push(version);
    }
    (kept, replaced)
}
