//! What all keys with stored versions add up to: the sums that sync compares, counts, and the keys of which no
//! value is left.
//!
//! Each key has a weight, which follows from its stored versions alone; the totals change by the difference of
//! what it was and what it is.

use std::collections::BTreeSet;

use super::packed::Unpack;
use crate::{
    digest::{Trees, version_digest},
    model::{Dot, Key, Kind, Mirrors},
    partition::PartitionCount,
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) trees: Trees,
    partitions: PartitionCount,
    everywhere: bool,
    pub(super) stored_keys: usize,
    pub(super) graves: Graves,
}

/// What the stored versions of one key add to the totals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) tree: Mirrors,
    pub(super) digest: u64,
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
pub(super) struct Graves {
    pub(super) deleted: BTreeSet<Place>,
    pub(super) expiring: BTreeSet<Place>,
}

/// A time in milliseconds since 1970, a hash, and its key.
pub(crate) type Place = (u64, u64, Key);

/// Versions of one key that are being weighed.
#[derive(Default)]
pub(super) struct Scales {
    /// The widest spread among them.
    pub(super) widest: Option<Mirrors>,
    digest: u64,
    deleted_ms: u64,
    expires_ms: Option<u64>,
    is_alive: bool,
}

impl Scales {
    pub(super) fn add(
        &mut self,
        hash: u64,
        dot: Dot,
        mirrors: Mirrors,
        (kind, written_ms, expires_ms): (Kind, u64, Option<u64>),
    ) {
        self.widest = self.widest.max(Some(mirrors));
        self.digest = self.digest.wrapping_add(version_digest(hash, dot));
        match (kind, expires_ms) {
            (Kind::Tombstone, _) => self.deleted_ms = self.deleted_ms.max(written_ms),
            (Kind::Value, Some(at_ms)) => self.expires_ms = self.expires_ms.max(Some(at_ms)),
            (Kind::Value, None) => self.is_alive = true,
        }
    }
}

impl Totals {
    pub(super) fn new(partitions: PartitionCount, everywhere: bool) -> Self {
        let (trees, graves) = (Trees::default(), Graves::default());
        Self { trees, partitions, everywhere, stored_keys: 0, graves }
    }

    /// None where nothing is stored.
    pub(super) fn weigh(&self, hash: u64, versions: Unpack<'_>) -> Option<Weight> {
        let mut scales = Scales::default();
        versions.for_each(|v| scales.add(hash, v.dot, v.mirrors, (v.kind, v.written_ms, v.expires_ms)));
        self.weight(&scales)
    }

    /// None where there is nothing on the scales.
    pub(super) fn weight(&self, scales: &Scales) -> Option<Weight> {
        let Scales { widest, digest, deleted_ms, expires_ms, is_alive } = *scales;
        let grave = expires_ms.map_or(Grave::Deleted(deleted_ms), Grave::Expiring);
        let tree = if self.everywhere { widest.map(|_| Mirrors::ALL) } else { widest };
        Some(Weight { tree: tree?, digest, grave: (!is_alive).then_some(grave) })
    }

    /// A key that weighed `before` weighs `after`.
    pub(super) fn change(&mut self, hash: u64, key: &Key, before: Option<Weight>, after: Option<Weight>) {
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

impl Graves {
    fn of(&mut self, grave: Grave) -> (&mut BTreeSet<Place>, u64) {
        match grave {
            Grave::Deleted(at_ms) => (&mut self.deleted, at_ms),
            Grave::Expiring(at_ms) => (&mut self.expiring, at_ms),
        }
    }
}
