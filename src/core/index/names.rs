//! Keys in the order of their names: a sorted set in runs, which costs little more than a reference a key.
//!
//! Invariants: no run is empty; a run holds names from its own lowest on, up to the next run's.

use std::{collections::BTreeMap, ops::Bound};

use thin_vec::ThinVec;

use crate::model::Key;

/// Keys in a run.
const MAX_KEYS: usize = 128;
/// Keys that a run gets where many are put in at once: later ones find room.
const LOADED_KEYS: usize = 112;
/// A run with fewer is joined with the next where both fit in one.
const MIN_KEYS: usize = 32;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Names {
    runs: BTreeMap<Key, ThinVec<Key>>,
}

impl Names {
    /// Those from `from` on; all of them where it is `None`.
    pub(super) fn range(&self, from: Option<Key>) -> impl Iterator<Item = &Key> {
        let first = from.as_ref().and_then(|from| self.runs.range(..=from).next_back());
        let begin = first.map_or(Bound::Unbounded, |(first, _)| Bound::Included(first));
        let keys = self.runs.range((begin, Bound::Unbounded)).flat_map(|(_, run)| run);
        keys.skip_while(move |key| from.as_ref().is_some_and(|from| *key < from))
    }

    /// Takes in a key that is not here.
    pub(super) fn insert(&mut self, key: &Key) {
        if self.runs.range(..=key).next().is_none() {
            // It is the lowest of all.
            let (_, first) = self.runs.pop_first().unwrap_or_else(|| (key.clone(), ThinVec::new()));
            self.runs.insert(key.clone(), first);
        }
        let Some((_, run)) = self.runs.range_mut(..=key).next_back() else { return };
        let at = run.partition_point(|other| other < key);
        if run.len() == run.capacity() {
            run.reserve_exact(run.len() / 8 + 4);
        }
        run.insert(at, key.clone());
        if run.len() > MAX_KEYS {
            let upper = compact(run.drain(MAX_KEYS / 2..));
            run.shrink_to_fit();
            self.runs.insert(upper[0].clone(), upper);
        }
    }

    /// Drops a key.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some((low, run)) = self.runs.range_mut(..=key).next_back() else { return };
        let Ok(at) = run.binary_search(key) else { return };
        run.remove(at);
        if run.len() < MIN_KEYS {
            let low = low.clone();
            self.join(&low);
        }
    }

    /// Of keys in order.
    pub(super) fn build(keys: Vec<Key>) -> Self {
        let runs = keys.chunks(LOADED_KEYS).map(|keys| (keys[0].clone(), compact(keys.iter().cloned())));
        Self { runs: runs.collect() }
    }

    fn join(&mut self, low: &Key) {
        let Some(run) = self.runs.get(low) else { return };
        let next = self.runs.range((Bound::Excluded(low), Bound::Unbounded)).next();
        match next.filter(|(_, other)| run.len() + other.len() <= MAX_KEYS / 2) {
            Some((next, other)) => {
                let (next, joined) = (next.clone(), compact(run.iter().chain(other).cloned()));
                self.runs.remove(&next);
                self.runs.insert(low.clone(), joined);
            }
            None if run.is_empty() => _ = self.runs.remove(low),
            None => {}
        }
    }
}

/// With no room to spare.
fn compact(keys: impl Iterator<Item = Key>) -> ThinVec<Key> {
    let mut run = ThinVec::with_capacity(keys.size_hint().0);
    run.extend(keys);
    run
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> Key {
        Key::new(n.to_string()).unwrap()
    }

    proptest! {
        #[test]
        fn they_hold_what_a_set_holds(
            steps in prop::collection::vec((0..900_u16, prop::bool::weighted(0.7)), 0..3_000),
            from in prop::option::of(0..1_000_u16),
        ) {
            let (mut names, mut model) = (Names::default(), BTreeSet::new());
            for (n, comes) in steps {
                match comes {
                    true if model.insert(key(n)) => names.insert(&key(n)),
                    true => {}
                    false => {
                        model.remove(&key(n));
                        names.remove(&key(n));
                    }
                }
            }
            let from = from.map(key);
            let behind = |key: &&Key| from.as_ref().is_none_or(|from| *key >= from);
            let check = |names: &Names, model: &BTreeSet<Key>| {
                assert!(names.range(from.clone()).eq(model.iter().filter(behind)));
                assert!(names.range(None).eq(model));
                assert!(names.runs.values().all(|run| !run.is_empty() && run.len() <= MAX_KEYS));
            };
            check(&names, &model);
            check(&Names::build(model.iter().cloned().collect()), &model);
            model.iter().for_each(|key| names.remove(key));
            prop_assert!(names.runs.is_empty());
            (0..900).rev().for_each(|n| names.insert(&Key::new(format!("{n:04}")).unwrap()));
            prop_assert!(names.runs.len() < 900 / MIN_KEYS, "{} runs", names.runs.len());
        }
    }
}
