//! Whose turn it is to change a key: batches that share a key run one after the other, all
//! others at the same time.
//!
//! Invariant: a batch takes all of its keys at once or waits holding none, so batches never wait
//! for each other in a circle.

use std::collections::BTreeSet;

use parking_lot::{Condvar, Mutex};

use super::Change;

/// The keys, by their hashes, that batches are changing now.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<BTreeSet<u64>>,
    given_back: Condvar,
}

/// The turn of one batch; gives its keys back when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    keys: BTreeSet<u64>,
}

impl Turns {
    /// Waits until no other batch changes any of the keys that these changes do.
    pub(super) fn take(&self, changes: &[Change]) -> Turn<'_> {
        let keys: BTreeSet<u64> = changes.iter().map(|change| change.key().hash64()).collect();
        let mut taken = self.taken.lock();
        while keys.iter().any(|key| taken.contains(key)) {
            self.given_back.wait(&mut taken);
        }
        taken.extend(&keys);
        Turn { turns: self, keys }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock();
        taken.retain(|key| !self.keys.contains(key));
        self.turns.given_back.notify_all();
    }
}
