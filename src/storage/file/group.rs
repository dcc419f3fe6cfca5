//! A batch of changes as few syncs: group commit.
//!
//! ```text
//! 1 write   every value into staging/, with its metadata
//! 2 sync    every file                                     \
//! 3 place   rename every file to where it belongs           > not when buffered: only 1, 3, 5
//! 4 sync    every folder that got one                      /
//! 5 show    readers see the new version; unlink what it replaces, and what is to be removed
//! 6 sync    every folder that something was removed from
//! ```
//!
//! Invariants:
//!
//! - A version goes only after the one that replaces it is durable (5 after 4).
//! - Of a change that fails, readers see what was there, maybe with the new version beside it.
//! - A tombstone is unlinked only when the unlinking of what it replaced is durable; else a crash
//!   could bring a deleted value back. A put does not wait for that (its context tells that the
//!   old version is old); its folder counts as dirty, and a removal there syncs it first.
//! - Changes of one key take effect in their order. A batch is cut into rounds of these six steps
//!   where a round's own order would differ: see [`round_len`].

use std::{collections::BTreeSet, fs, io, thread};

use super::{
    Durability, FileStorage,
    names::{Name, folder_of, folder_path},
    staged::Staged,
};
use crate::{
    model::{Dot, Key},
    storage::{Change, StorageError},
};

/// Changes per round. Each has up to two files open, and a process may usually have 1,024.
const MAX_ROUND_CHANGES: usize = 256;

/// Threads that sync the files of one round. The file system makes one journal entry of what they
/// ask for at the same time: 100 files in 30 ms by 1 thread and in 11 ms by 8 (ext4, virtio disk).
const SYNC_THREADS: usize = 8;

/// Below this many files a thread costs more than it gains.
const MIN_FILES_PER_THREAD: usize = 4;

type Outcome = Result<(), StorageError>;

/// Applies a batch; the caller has the turn of its keys.
pub(super) fn apply(store: &FileStorage, mut changes: &[Change]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(changes.len());
    while !changes.is_empty() {
        let (round, later) = changes.split_at(round_len(changes));
        outcomes.extend(Round::new(store, round).run());
        changes = later;
    }
    outcomes
}

/// How many changes from the front make a round: it ends before a put of what it removed, and
/// before a removal from a key that it put.
fn round_len(changes: &[Change]) -> usize {
    let mut put: BTreeSet<&Key> = BTreeSet::new();
    let mut removed: BTreeSet<(&Key, Dot)> = BTreeSet::new();
    for (at, change) in changes.iter().take(MAX_ROUND_CHANGES).enumerate() {
        let key = change.key();
        let (new, gone) = match change {
            Change::Put { version, replaces, .. } | Change::Commit { version, replaces, .. } => {
                (Some(version.dot), replaces)
            }
            Change::Remove { dots, .. } => (None, dots),
        };
        if new.map_or(put.contains(key), |dot| removed.contains(&(key, dot))) {
            return at;
        }
        put.extend(new.map(|_| key));
        removed.extend(gone.iter().map(|&dot| (key, dot)));
    }
    changes.len().min(MAX_ROUND_CHANGES)
}

struct Round<'a> {
    store: &'a FileStorage,
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    change: &'a Change,
    hash: u64,
    folder: u16,
    /// The files of a put, until they have their place.
    staged: Option<Staged>,
    is_placed: bool,
    outcome: Outcome,
}

impl<'a> Round<'a> {
    fn new(store: &'a FileStorage, changes: &'a [Change]) -> Self {
        let step = |change: &'a Change| {
            let hash = change.key().hash64();
            Step { change, hash, folder: folder_of(hash), staged: None, is_placed: false, outcome: Ok(()) }
        };
        Self { store, steps: changes.iter().map(step).collect() }
    }

    fn run(mut self) -> impl Iterator<Item = Outcome> {
        let synced = self.store.durability == Durability::Synced;
        self.write();
        if synced {
            self.sync_files();
        }
        let touched = self.place();
        if synced {
            self.sync_folders(touched);
        }
        let emptied = self.show_and_remove();
        if synced {
            self.sync_folders(emptied);
        }
        self.steps.into_iter().map(|step| step.outcome)
    }

    fn write(&mut self) {
        let workshop = self.store.workshop();
        for step in &mut self.steps {
            let written = match step.change {
                Change::Put { key, version, value, .. } => {
                    workshop.write(key, version, value).map_err(StorageError::Io)
                }
                Change::Commit { stage, key, version, .. } => workshop.commit(key, version, *stage),
                Change::Remove { .. } => continue,
            };
            match written {
                Ok(staged) => step.staged = Some(staged),
                Err(error) => step.outcome = Err(error),
            }
        }
    }

    fn sync_files(&mut self) {
        let mut pending: Vec<&mut Step> =
            self.steps.iter_mut().filter(|step| step.staged.is_some()).collect();
        on_threads(&mut pending, |step| {
            if let Some(Err(error)) = step.staged.as_mut().map(Staged::sync) {
                step.staged = None;
                step.outcome = Err(error.into());
            }
        });
    }

    /// Answers which folders have to be synced before anything is unlinked.
    fn place(&mut self) -> BTreeSet<u16> {
        let mut touched = BTreeSet::new();
        for step in &mut self.steps {
            match step.staged.take().map(|mut staged| staged.place(&self.store.home.data)) {
                Some(Ok(())) => {
                    step.is_placed = true;
                    touched.insert(step.folder);
                }
                Some(Err(error)) => step.outcome = Err(error.into()),
                None if step.is_removal() && self.store.folders.is_dirty(step.folder) => {
                    touched.insert(step.folder);
                }
                None => {}
            }
        }
        touched
    }

    /// A change in a folder that can't be synced fails: what it did may last or not.
    fn sync_folders(&mut self, folders: BTreeSet<u16>) {
        let store = self.store;
        if let Err(error) = store.folders.keep(&folders) {
            self.fail(&error, |step| folders.contains(&step.folder));
        }
        let mut results: Vec<(u16, io::Result<()>)> = folders.into_iter().map(|f| (f, Ok(()))).collect();
        on_threads(&mut results, |(folder, result)| *result = store.folders.sync(*folder));
        for (folder, result) in results {
            if let Err(error) = result {
                self.fail(&error, |step| step.folder == folder);
            }
        }
    }

    fn fail(&mut self, error: &io::Error, which: impl Fn(&Step) -> bool) {
        for step in self.steps.iter_mut().filter(|step| which(step) && step.outcome.is_ok()) {
            step.outcome = Err(io::Error::new(error.kind(), error.to_string()).into());
        }
    }

    /// Answers which folders something was removed from by a removal.
    fn show_and_remove(&mut self) -> BTreeSet<u16> {
        let mut emptied = BTreeSet::new();
        let store = self.store;
        for step in &mut self.steps {
            let (new, gone) = match step.change {
                Change::Put { version, replaces, .. } | Change::Commit { version, replaces, .. } => {
                    (Some(version.dot), &replaces[..])
                }
                Change::Remove { dots, .. } => (None, &dots[..]),
            };
            let new = new.filter(|_| step.is_placed);
            // Of a failed change the new version may be in place: then it is shown, beside what it
            // would have replaced, so that memory and disk agree.
            let gone = if step.outcome.is_ok() { gone } else { &[] };
            let gone = store.index.replace(step.hash, new, gone);
            for &dot in &gone {
                if let Err(error) = store.unlink(step.change.key(), dot) {
                    store.index.replace(step.hash, Some(dot), &[]);
                    step.outcome = Err(error.into());
                }
            }
            if gone.is_empty() {
                continue;
            }
            if step.is_removal() {
                emptied.insert(step.folder);
            } else if store.durability == Durability::Synced {
                store.folders.soil(step.folder);
            }
        }
        emptied
    }
}

impl Step<'_> {
    fn is_removal(&self) -> bool {
        matches!(self.change, Change::Remove { .. })
    }
}

impl FileStorage {
    /// The value first: a sidecar alone is a leftover, a value alone would be damage.
    fn unlink(&self, key: &Key, dot: Dot) -> io::Result<()> {
        let name = Name::new(key, dot);
        let folder = folder_path(&self.home.data, folder_of(key.hash64()));
        for path in [folder.join(name.text()), folder.join(name.sidecar())] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Runs `job` on every item, on some threads where that pays.
fn on_threads<T: Send>(items: &mut [T], job: impl Fn(&mut T) + Sync) {
    let threads = (items.len() / MIN_FILES_PER_THREAD).clamp(1, SYNC_THREADS);
    if threads == 1 {
        return items.iter_mut().for_each(job);
    }
    let share = items.len().div_ceil(threads);
    thread::scope(|scope| {
        let job = &job;
        for items in items.chunks_mut(share) {
            scope.spawn(move || items.iter_mut().for_each(job));
        }
    });
}
