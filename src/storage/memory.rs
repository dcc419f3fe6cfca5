//! Versions in memory: as fast as a map behind a lock, and gone with the process.
//!
//! Not a cache: nothing is evicted, and memory grows with what is kept. It does no I/O, so the
//! driver calls it from its loop ([`is_slow`](Storage::is_slow) is `false`).
//!
//! ```text
//! key -> shard (RwLock) -> one version (nearly always) | several
//! ```
//!
//! Invariants: a key with no version has no entry; all changes of one key happen under its
//! shard's lock, so a reader sees a key before or after a change, never between.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Change, LoadReport, MAX_WHOLE_VALUE_BYTES, StageId, Storage, StorageError, shards::Shards};
use crate::model::{Dot, Key, Record, Version};

/// Keeps everything in memory.
///
/// ```
/// use turbopump::storage::{MemoryStorage, Storage};
///
/// let storage = MemoryStorage::new();
/// assert!(storage.read(&"nothing yet".try_into()?)?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryStorage {
    keys: Shards<Key, Held>,
    /// Pieces by their offset.
    stages: Mutex<BTreeMap<StageId, BTreeMap<u64, Bytes>>>,
}

/// What a key has. The usual single version costs no list.
enum Held {
    One(Kept),
    Many(Vec<Kept>),
}

#[derive(Clone)]
struct Kept {
    version: Arc<Version>,
    value: Bytes,
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self { keys: Shards::new(), stages: Mutex::default() }
    }

    fn put(&self, key: &Key, kept: Kept, replaces: &[Dot]) {
        self.keys.write(key, |shard| {
            match shard.get_mut(key) {
                None => drop(shard.insert(key.clone(), Held::One(kept))),
                Some(held) => held.put(kept, replaces),
            };
        });
    }

    fn remove(&self, key: &Key, dots: &[Dot]) {
        self.keys.write(key, |shard| {
            if shard.get_mut(key).is_some_and(|held| held.remove(dots)) {
                shard.remove(key);
            }
        });
    }

    fn change(&self, change: &Change) -> Result<(), StorageError> {
        match change {
            Change::Put { key, version, value, replaces } => {
                let kept = Kept { version: Arc::clone(version), value: value.clone() };
                self.put(key, kept, replaces);
            }
            Change::Commit { stage, key, version, replaces } => {
                let pieces = self.stages.lock().remove(stage).ok_or(StorageError::Missing)?;
                let value = join(pieces).filter(|value| version.matches(value)).ok_or_else(|| {
                    StorageError::damaged(
                        format_args!("the staged value of {key:?} {}", version.dot),
                        "its length or digest is not the version's",
                    )
                })?;
                self.put(key, Kept { version: Arc::clone(version), value }, replaces);
            }
            Change::Remove { key, dots } => self.remove(key, dots),
        }
        Ok(())
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for MemoryStorage {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn load(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        let mut report = LoadReport::default();
        self.keys.for_each(|key, held| {
            for kept in held.all() {
                report.versions += 1;
                visit(key.clone(), Version::clone(&kept.version));
            }
        });
        Ok(report)
    }

    fn read(&self, key: &Key) -> Result<Vec<Record>, StorageError> {
        Ok(self
            .keys
            .read(key, |held| held.map_or_else(Vec::new, |h| h.all().iter().map(Kept::record).collect())))
    }

    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError> {
        self.keys.read(key, |held| {
            let all = held.map_or(&[][..], Held::all);
            let value = &all.iter().find(|k| k.version.dot == dot).ok_or(StorageError::Missing)?.value;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
            Ok(value.slice(from..from.saturating_add(max_len).min(value.len())))
        })
    }

    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>> {
        changes.iter().map(|change| self.change(change)).collect()
    }

    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let mut stages = self.stages.lock();
        let pieces = stages.entry(stage).or_default();
        // Of two pieces that start alike the longer one says it all.
        if pieces.get(&offset).is_none_or(|known| known.len() < bytes.len()) {
            pieces.insert(offset, Bytes::copy_from_slice(bytes));
        }
        Ok(())
    }

    fn discard(&self, stage: StageId) {
        self.stages.lock().remove(&stage);
    }
}

impl Held {
    fn all(&self) -> &[Kept] {
        match self {
            Self::One(kept) => std::slice::from_ref(kept),
            Self::Many(all) => all,
        }
    }

    fn put(&mut self, new: Kept, replaces: &[Dot]) {
        let dot = new.version.dot;
        let goes = |kept: &Kept| kept.version.dot == dot || replaces.contains(&kept.version.dot);
        let mut rest: Vec<Kept> = self.all().iter().filter(|kept| !goes(kept)).cloned().collect();
        if rest.is_empty() {
            *self = Self::One(new);
        } else {
            rest.push(new);
            *self = Self::Many(rest);
        }
    }

    /// Answers whether nothing is left; then the entry has to go.
    fn remove(&mut self, dots: &[Dot]) -> bool {
        let mut rest: Vec<Kept> =
            self.all().iter().filter(|kept| !dots.contains(&kept.version.dot)).cloned().collect();
        match rest.len() {
            0 => return true,
            1 => *self = Self::One(rest.remove(0)),
            _ => *self = Self::Many(rest),
        }
        false
    }
}

impl Kept {
    fn record(&self) -> Record {
        let whole = self.value.len() as u64 <= MAX_WHOLE_VALUE_BYTES;
        Record { version: Arc::clone(&self.version), value: whole.then(|| self.value.clone()) }
    }
}

/// The pieces as one value, `None` where one is lacking. Takes no more memory than the pieces do,
/// wherever they say that they belong.
fn join(pieces: BTreeMap<u64, Bytes>) -> Option<Bytes> {
    if let Some(only) = pieces.get(&0).filter(|_| pieces.len() == 1) {
        return Some(only.clone());
    }
    let mut value = BytesMut::with_capacity(pieces.values().map(Bytes::len).sum());
    for (offset, piece) in pieces {
        let known = (value.len() as u64).checked_sub(offset)?;
        if let Some(new) = usize::try_from(known).ok().and_then(|known| piece.get(known..)) {
            value.extend_from_slice(new);
        }
    }
    Some(value.freeze())
}
