//! Keys in the order of their names: a sorted set in runs, which costs little more than a reference a key.
//!
//! Invariants: no run is empty; a run holds names from its own lowest on, up to the next run's.

use thin_vec::ThinVec;

use crate::model::Key;

/// Keys in a run.
const MAX_KEYS: usize = 128;
/// Keys that a run gets where many are put in at once: later ones find room.
const LOADED_KEYS: usize = 112;
/// A run with fewer is joined with the next where both fit in one.
const MIN_KEYS: usize = 32;

/// Parts that a stretch is searched in.
const WIDTH: usize = 12;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Runs and the lowest name that each may have, by that.
    runs: Vec<(Key, ThinVec<Key>)>,
}

impl Names {
    /// Those from `from` on; all of them where it is `None`.
    pub(super) fn range(&self, from: Option<Key>) -> impl Iterator<Item = &Key> {
        let first = from.as_ref().map_or(0, |from| self.run_of(from));
        let keys = self.runs[first..].iter().flat_map(|(_, run)| run);
        keys.skip_while(move |key| from.as_ref().is_some_and(|from| *key < from))
    }

    /// Takes in a key that is not here.
    pub(super) fn insert(&mut self, key: &Key) {
        let n = self.run_of(key);
        let Some((low, run)) = self.runs.get_mut(n) else {
            return self.runs.push((key.clone(), compact(std::iter::once(key.clone()))));
        };
        if key < low {
            *low = key.clone();
        }
        let at = first_not(run, |other| other < key);
        if run.len() == run.capacity() {
            run.reserve_exact(run.len() / 8 + 4);
        }
        run.insert(at, key.clone());
        if run.len() > MAX_KEYS {
            let upper = compact(run.drain(MAX_KEYS / 2..));
            run.shrink_to_fit();
            self.runs.insert(n + 1, (upper[0].clone(), upper));
        }
    }

    /// Drops a key.
    pub(super) fn remove(&mut self, key: &Key) {
        let n = self.run_of(key);
        let Some((_, run)) = self.runs.get_mut(n) else { return };
        let at = first_not(run, |other| other < key);
        if run.get(at) != Some(key) {
            return;
        }
        run.remove(at);
        if run.is_empty() {
            self.runs.remove(n);
        } else if run.len() < MIN_KEYS
            && let Some([(_, run), (_, next)]) = self.runs.get(n..n + 2)
            && run.len() + next.len() <= MAX_KEYS / 2
        {
            self.runs[n].1 = compact(run.iter().chain(next).cloned());
            self.runs.remove(n + 1);
        }
    }

    /// Of keys in order.
    pub(super) fn build(keys: &[&Key]) -> Self {
        let run = |keys: &[&Key]| (keys[0].clone(), compact(keys.iter().copied().cloned()));
        Self { runs: keys.chunks(LOADED_KEYS).map(run).collect() }
    }

    /// The run that may have a name: the first where it is lower than all.
    fn run_of(&self, key: &Key) -> usize {
        first_not(&self.runs, |(low, _)| low <= key).saturating_sub(1)
    }
}

/// As `partition_point`, with comparisons that need not wait for each other: names lie all over memory, so
/// that the processor had to wait for most of those that a bisection looks at, one after the other.
fn first_not<T>(all: &[T], is_before: impl Fn(&T) -> bool) -> usize {
    let (mut begin, mut end) = (0, all.len());
    while begin < end {
        let step = (end - begin).div_ceil(WIDTH);
        let last = |begin: usize| (begin + step).min(end) - 1;
        while begin < end && is_before(&all[last(begin)]) {
            begin = last(begin) + 1;
        }
        end = if begin < end { last(begin) } else { end };
    }
    begin
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

    #[test]
    fn the_first_that_is_not_before_is_found() {
        for len in 0..400 {
            let all: Vec<usize> = (0..len).collect();
            (0..=len).for_each(|at| assert_eq!(first_not(&all, |n| *n < at), at, "of {len}"));
        }
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
                assert!(names.runs.iter().all(|(_, run)| !run.is_empty() && run.len() <= MAX_KEYS));
            };
            check(&names, &model);
            check(&Names::build(&model.iter().collect::<Vec<_>>()), &model);
            model.iter().for_each(|key| names.remove(key));
            prop_assert!(names.runs.is_empty());
            (0..900).rev().for_each(|n| names.insert(&Key::new(format!("{n:04}")).unwrap()));
            prop_assert!(names.runs.len() < 900 / MIN_KEYS, "{} runs", names.runs.len());
        }
    }
}
