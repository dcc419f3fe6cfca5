//! A batch of changes as one batch of the engine and one sync: group commit.
//!
//! ```text
//! 1 write   long values to the files                                  durable there
//! 2 turn    readers see those instead of what they replace            long values, removals
//! 3 commit  records and short values, those that they replace out     one batch, one sync
//! 4 turn    readers see them instead of the files that they replace   short values
//! 5 drop    what nobody sees any more
//! ```
//!
//! Nearly all changes are plain: nothing of their keys is in the files, and 3 alone is all there is. The
//! others stand apart: readers are shown what holds by `places.rs`.
//!
//! Invariants:
//!
//! - A version goes only after the one that replaces it is durable (3 after 1, 5 after 3).
//! - Of a change that fails, readers see what was there, maybe with the new version beside it.
//! - Changes of one key take effect in their order: plain ones in that of the batch, and one that stands
//!   apart is the only one of its key in a round of these steps.
//! - What was dropped does not come back when what replaced it is removed: the engine's journal keeps its
//!   order, and a removal of files is durable before 5 is over.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    FjallStorage, MAX_INLINE_BYTES,
    engine::fault,
    places::{Dots, add, take},
    record,
};
use crate::{
    model::{Dot, Key, Version},
    storage::{Change, Durability, Storage, StorageError},
};

type Outcome = Result<(), StorageError>;

/// Applies a batch; the caller has the turn of its keys.
pub(super) fn apply(store: &FjallStorage, mut changes: &[Change]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(changes.len());
    while !changes.is_empty() {
        let steps = round(store, changes);
        changes = &changes[steps.len()..];
        outcomes.extend(Round { store, steps }.run());
    }
    outcomes
}

/// The changes from the front that make a round.
fn round<'a>(store: &FjallStorage, changes: &'a [Change]) -> Vec<Step<'a>> {
    let mut stands_apart: BTreeMap<u64, bool> = BTreeMap::new();
    let mut goes_along = |step: &Step| {
        let before = stands_apart.insert(step.hash, step.is_apart);
        before.is_none_or(|before| !before && !step.is_apart)
    };
    changes.iter().map(|change| Step::new(store, change)).take_while(|step| goes_along(step)).collect()
}

/// What lies at a place in the end: a record, and a value where it is not empty; or nothing.
type Ops = BTreeMap<Vec<u8>, Option<(Vec<u8>, Bytes)>>;

struct Round<'a> {
    store: &'a FjallStorage,
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    change: &'a Change,
    hash: u64,
    is_apart: bool,
    moves: Moves,
    outcome: Outcome,
}

/// What a change that stands apart takes away, by where that is.
#[derive(Default)]
struct Moves {
    files: Dots,
    engine: Dots,
    /// In the engine, out of it by the drop and not by the commit: only then do readers see what replaces it.
    late: Dots,
    /// What this change hid from readers.
    hides: Dots,
}

impl<'a> Step<'a> {
    fn new(store: &FjallStorage, change: &'a Change) -> Self {
        let hash = change.key().hash64();
        let is_apart = is_long(change) || !store.places.is_plain(hash);
        Self { change, hash, is_apart, moves: Moves::default(), outcome: Ok(()) }
    }

    fn key(&self) -> &'a Key {
        self.change.key()
    }

    /// The version that comes, and those that go.
    fn parts(&self) -> (Option<&'a Arc<Version>>, &'a [Dot]) {
        match self.change {
            Change::Put { version, replaces, .. } | Change::Commit { version, replaces, .. } => {
                (Some(version), replaces)
            }
            Change::Remove { dots, .. } => (None, dots),
        }
    }

    fn is_done(&self) -> bool {
        self.is_apart && self.outcome.is_ok()
    }
}

/// Whether it brings a value that belongs into the files.
fn is_long(change: &Change) -> bool {
    match change {
        Change::Put { value, .. } => value.len() > MAX_INLINE_BYTES,
        Change::Commit { .. } => true,
        Change::Remove { .. } => false,
    }
}

impl Round<'_> {
    fn run(mut self) -> impl Iterator<Item = Outcome> {
        self.write_files();
        let mut ops = Ops::new();
        for step in &mut self.steps {
            if step.is_done()
                && let Err(error) = self.store.turn_before(step)
            {
                step.outcome = Err(error);
            }
            if step.outcome.is_ok() {
                step.collect(&mut ops);
            }
        }
        let committed = self.store.commit(ops, self.store.durability);
        for step in self.steps.iter_mut().filter(|step| step.outcome.is_ok()) {
            if let Err(error) = &committed {
                step.outcome = Err(fault(format_args!("{:?}", step.key()), error));
            }
            if step.is_apart {
                self.store.turn_after(step);
            }
        }
        self.drop_files();
        self.drop_late();
        self.steps.into_iter().map(|step| step.outcome)
    }

    /// What they replace goes later: only when they are safe, and readers see them.
    fn write_files(&mut self) {
        let (mut steps, mut changes) = (Vec::new(), Vec::new());
        for step in self.steps.iter_mut().filter(|step| is_long(step.change)) {
            let mut change = step.change.clone();
            if let Change::Put { replaces, .. } | Change::Commit { replaces, .. } = &mut change {
                replaces.clear();
            }
            changes.push(change);
            steps.push(step);
        }
        if !changes.is_empty() {
            let outcomes = self.store.files.apply(&changes);
            steps.into_iter().zip(outcomes).for_each(|(step, outcome)| step.outcome = outcome);
        }
    }

    fn drop_files(&mut self) {
        let (mut steps, mut changes) = (Vec::new(), Vec::new());
        for step in self.steps.iter_mut().filter(|step| step.is_done() && !step.moves.files.is_empty()) {
            changes.push(Change::Remove { key: step.key().clone(), dots: step.moves.files.to_vec() });
            steps.push(step);
        }
        if changes.is_empty() {
            return;
        }
        for (step, outcome) in steps.into_iter().zip(self.store.files.apply(&changes)) {
            if let Err(error) = outcome {
                // Readers and disk agree.
                self.store.places.change(step.hash, |seen| add(&mut seen.files, &step.moves.files));
                step.outcome = Err(error);
            }
        }
    }

    /// Needs no sync: what comes back after a power loss is known to be replaced.
    fn drop_late(&mut self) {
        let mut ops = Ops::new();
        for step in self.steps.iter().filter(|step| step.is_done()) {
            ops.extend(step.moves.late.iter().map(|&dot| (record::place(step.key(), dot), None)));
        }
        if ops.is_empty() {
            return;
        }
        let committed = self.store.commit(ops, Durability::Buffered);
        for step in self.steps.iter_mut().filter(|step| step.is_done() && !step.moves.late.is_empty()) {
            self.store.places.change(step.hash, |seen| take(&mut seen.hidden, &step.moves.late));
            if let Err(error) = &committed {
                step.outcome = Err(fault(format_args!("{:?}", step.key()), error));
            }
        }
    }
}

impl Step<'_> {
    /// Adds what it does to the engine.
    fn collect(&self, ops: &mut Ops) {
        let (new, gone) = self.parts();
        let gone = if self.is_apart { &self.moves.engine[..] } else { gone };
        ops.extend(gone.iter().map(|&dot| (record::place(self.key(), dot), None)));
        if let (Change::Put { value, .. }, Some(version), false) = (self.change, new, is_long(self.change)) {
            let place = record::place(self.key(), version.dot);
            let record = record::encode(&place, version);
            ops.insert(place, Some((record, value.clone())));
        }
    }
}

impl FjallStorage {
    /// Works out what goes from where, and shows what the files have got already.
    fn turn_before(&self, step: &mut Step) -> Result<(), StorageError> {
        let (new, gone) = step.parts();
        let new = new.map(|version| version.dot);
        let is_long = is_long(step.change);
        let seen = self.places.of(step.hash);
        let moves = &mut step.moves;
        for &dot in gone.iter().filter(|&&dot| Some(dot) != new) {
            let from = if seen.files.contains(&dot) { &mut moves.files } else { &mut moves.engine };
            add(from, &[dot]);
        }
        // The same version may have been written the other way before.
        if let Some(dot) = new {
            if !is_long && seen.files.contains(&dot) {
                add(&mut moves.files, &[dot]);
            } else if is_long && self.engine.record(step.change.key(), dot)?.is_some() {
                add(&mut moves.engine, &[dot]);
            }
        }
        let hide = |moves: &mut Moves, dots: &[Dot]| {
            moves.hides = dots.iter().copied().filter(|dot| !seen.hidden.contains(dot)).collect();
        };
        if !is_long && let Some(dot) = new {
            if !moves.files.is_empty() {
                moves.late = std::mem::take(&mut moves.engine);
                hide(moves, &[dot]);
                self.places.change(step.hash, |seen| add(&mut seen.hidden, &[dot]));
            }
        } else {
            let engine = moves.engine.clone();
            hide(moves, &engine);
            self.places.change(step.hash, |seen| {
                take(&mut seen.files, &moves.files);
                add(&mut seen.files, new.as_slice());
                add(&mut seen.hidden, &engine);
            });
        }
        Ok(())
    }

    /// Shows what the engine has got; or, where it failed, what was there before.
    fn turn_after(&self, step: &Step) {
        let Moves { files, engine, late, hides } = &step.moves;
        let new = step.parts().0.map(|version| version.dot);
        let is_long = is_long(step.change);
        self.places.change(step.hash, |seen| {
            if step.outcome.is_ok() {
                take(&mut seen.hidden, engine);
                if !is_long {
                    take(&mut seen.hidden, new.as_slice());
                    take(&mut seen.files, files);
                    add(&mut seen.hidden, late);
                }
            } else {
                // One that is in both stays hidden in the engine.
                seen.hidden.retain(|dot| !hides.contains(dot) || (is_long && Some(*dot) == new));
                if is_long || new.is_none() {
                    add(&mut seen.files, files);
                }
            }
        });
    }

    fn commit(&self, ops: Ops, durability: Durability) -> fjall::Result<()> {
        let mut batch = self.engine.batch(durability);
        for (place, kept) in ops {
            match kept {
                Some((record, value)) => {
                    if !value.is_empty() {
                        batch.insert(&self.engine.values, &place[..], &value[..]);
                    }
                    batch.insert(&self.engine.versions, place, record);
                }
                None => {
                    batch.remove(&self.engine.values, &place[..]);
                    batch.remove(&self.engine.versions, place);
                }
            }
        }
        batch.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{LONG_BYTES, dots, key, ok, put, remove, store},
        *,
    };

    /// A store where `k` has 10 in the engine and 11 in the files.
    fn with_both() -> (tempfile::TempDir, FjallStorage) {
        let (folder, store) = store();
        ok(&store, &[put("k", 10, 10, &[1, 2]), put("k", 11, LONG_BYTES, &[])]);
        (folder, store)
    }

    #[test]
    fn between_its_two_media_a_change_shows_what_was_there_until_all_is() {
        // Goal: the moment after the commit, too short for a reader to meet. Method: step by step.
        let (_folder, store) = with_both();
        let change = put("k", 15, 10, &[10, 11]);
        let mut step = Step::new(&store, &change);
        store.turn_before(&mut step).unwrap();
        let mut ops = Ops::new();
        step.collect(&mut ops);
        store.commit(ops, Durability::Buffered).unwrap();
        assert_eq!(dots(&store, "k"), [10, 11]);
        store.turn_after(&step);
        assert_eq!(dots(&store, "k"), [15]);
        let mut round = Round { store: &store, steps: vec![step] };
        round.drop_files();
        round.drop_late();
        assert_eq!(dots(&store, "k"), [15]);
        assert!(store.places.is_plain(key("k").hash64()));
    }

    #[test]
    fn where_the_commit_fails_readers_see_what_was_there() {
        for (change, between, after) in [
            (put("k", 15, 10, &[10, 11]), &[10, 11][..], &[10, 11][..]),
            (put("k", 15, LONG_BYTES, &[10, 11]), &[15], &[10, 11, 15]),
            (remove("k", &[10, 11]), &[], &[10, 11]),
        ] {
            let (_folder, store) = with_both();
            let mut round = Round { store: &store, steps: vec![Step::new(&store, &change)] };
            round.write_files();
            let step = &mut round.steps[0];
            store.turn_before(step).unwrap();
            assert_eq!(dots(&store, "k"), between);
            step.outcome = Err(StorageError::Missing);
            store.turn_after(step);
            round.drop_files();
            round.drop_late();
            assert_eq!(dots(&store, "k"), after);
        }
    }
}
