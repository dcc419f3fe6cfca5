//! What readers may see of keys of which not everything is simply in the engine: in memory, by the
//! key's hash, only for those keys.
//!
//! A version moves between the engine and the files when one with a long value replaces one with a
//! short value, or the other way round. That takes two steps on two media; this makes it one for readers.
//!
//! ```text
//! files    what readers see in the files
//! hidden   what is in the engine and readers do not see: not yet, not any more, or damaged at load
//! ```
//!
//! Invariant: what a reader found holds if the key's turn has not changed meanwhile, which it does whenever
//! something of the key does.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use smallvec::SmallVec;

use crate::{model::Dot, storage::shards::Shards};

/// A few versions of a key.
pub(super) type Dots = SmallVec<[Dot; 1]>;

/// Turns are kept for so many parts of the keys: a change of one sends few readers back.
const TURNS: usize = 256;

/// Of one key. See the module.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) files: Dots,
    pub(super) hidden: Dots,
}

/// See the module.
pub(super) struct Places {
    keys: Shards<u64, Seen>,
    turns: Box<[AtomicU64]>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { keys: Shards::new(), turns: (0..TURNS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// What `read` finds of a key while nothing of it changes; it is called until that is so.
    pub(super) fn settled<T>(&self, hash: u64, read: impl Fn(Seen) -> T) -> T {
        loop {
            let turn = self.turn(hash);
            let found = read(self.of(hash));
            if self.turn(hash) == turn {
                return found;
            }
        }
    }

    fn turn(&self, hash: u64) -> u64 {
        self.turns[hash as usize % TURNS].load(SeqCst)
    }

    pub(super) fn of(&self, hash: u64) -> Seen {
        self.keys.read(&hash, |seen| seen.cloned().unwrap_or_default())
    }

    pub(super) fn is_plain(&self, hash: u64) -> bool {
        self.keys.read(&hash, |seen| seen.is_none())
    }

    /// Readers see the key before or after `change`, never between.
    pub(super) fn change(&self, hash: u64, change: impl FnOnce(&mut Seen)) {
        self.keys.write(&hash, |shard| {
            self.turns[hash as usize % TURNS].fetch_add(1, SeqCst);
            let seen = shard.entry(hash).or_default();
            change(seen);
            if seen.files.is_empty() && seen.hidden.is_empty() {
                shard.remove(&hash);
            }
        });
    }
}

/// Puts `more` in, each once.
pub(super) fn add(dots: &mut Dots, more: &[Dot]) {
    for dot in more {
        if !dots.contains(dot) {
            dots.push(*dot);
        }
    }
}

/// Takes `less` out.
pub(super) fn take(dots: &mut Dots, less: &[Dot]) {
    dots.retain(|dot| !less.contains(dot));
}
