//! Versions in memory: as fast as a map behind a lock, and gone with the process.
//!
//! Not a cache: nothing is evicted, and memory grows with what is kept. It does no I/O, so the
//! driver calls it from its loop ([`is_slow`](Storage::is_slow) is `false`).
//!
//! ```text
//! key -> shard (RwLock) -> one version (nearly always) | several
//! ```
//!
//! A long value that came in pieces stays in pieces: nobody waits until it is copied.
//!
//! Invariants: a key with no version has no entry; all changes of one key happen under its
//! shard's lock, so a reader sees a key before or after a change, never between.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{
    Change, LoadReport, MAX_WHOLE_VALUE_BYTES, StageId, Storage, StorageError, prefix::Prefix, shards::Shards,
};
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
    stages: Mutex<BTreeMap<StageId, Stage>>,
}

/// Pieces by their offset, and how far nothing is missing.
#[derive(Default)]
struct Stage {
    pieces: BTreeMap<u64, Bytes>,
    prefix: Prefix,
}

/// What a key has. The usual single version costs no list.
enum Held {
    One(Kept),
    Many(Vec<Kept>),
}

#[derive(Clone)]
struct Kept {
    version: Arc<Version>,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Whole(Bytes),
    /// By offset, one behind the other.
    Pieces(Arc<BTreeMap<u64, Bytes>>),
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
                let kept = Kept { version: Arc::clone(version), value: Value::Whole(value.clone()) };
                self.put(key, kept, replaces);
            }
            Change::Commit { stage, key, version, replaces } => {
                let staged = self.stages.lock().remove(stage).ok_or(StorageError::Missing)?;
                if !staged.prefix.is_of(version) {
                    return Err(StorageError::damaged(
                        format_args!("the staged value of {key:?} {}", version.dot),
                        "its length or digest is not the version's",
                    ));
                }
                let value = Value::of(staged.pieces, version.len);
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

    /// What a read looks at, and what a change drops.
    fn prefetch(&self, keys: &[&Key]) {
        self.keys.read_all(keys, |held| {
            let versions = || held.iter().flat_map(|held| held.all()).map(|kept| &kept.version);
            let lens: u64 = versions().map(|version| version.len).sum();
            let ranges: usize = versions().map(|version| version.context.ranges().len()).sum();
            black_box((lens, ranges));
        });
    }

    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError> {
        self.keys.read(key, |held| {
            let all = held.map_or(&[][..], Held::all);
            let kept = all.iter().find(|k| k.version.dot == dot).ok_or(StorageError::Missing)?;
            Ok(kept.value.piece(offset, max_len))
        })
    }

    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>> {
        changes.iter().map(|change| self.change(change)).collect()
    }

    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let mut stages = self.stages.lock();
        stages.entry(stage).or_default().take(offset, bytes);
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
        let whole = self.version.len <= MAX_WHOLE_VALUE_BYTES;
        Record { version: Arc::clone(&self.version), value: whole.then(|| self.value.piece(0, usize::MAX)) }
    }
}

impl Stage {
    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let part = self.prefix.place(offset, bytes.len());
        let (at, new) = (offset + part.start as u64, &bytes[part]);
        // Of two pieces that start alike the longer one says it all.
        if self.pieces.get(&at).is_none_or(|known| known.len() < new.len()) {
            self.pieces.insert(at, Bytes::copy_from_slice(new));
        }
        let mut next = self.prefix.add(offset, bytes);
        while let Some(mut range) = next {
            while range.start < range.end {
                let (at, piece) = self.pieces.range(..=range.start).next_back().expect("it was kept");
                let from = (range.start - at) as usize;
                let len = piece.len().min((range.end - at) as usize) - from;
                self.prefix.read_on(&piece[from..from + len]);
                // The rest of a piece is known under its own place, so that all stand one behind the other.
                let part = piece.slice(from..from + len);
                self.pieces.insert(range.start, part);
                range.start += len as u64;
            }
            next = self.prefix.next();
        }
    }
}

impl Value {
    /// Of pieces that hold a value of this length without a hole.
    fn of(pieces: BTreeMap<u64, Bytes>, len: u64) -> Self {
        if let Some(only) = pieces.get(&0).filter(|only| only.len() as u64 == len) {
            return Self::Whole(only.clone());
        }
        let pieces = Self::Pieces(Arc::new(pieces));
        match len <= MAX_WHOLE_VALUE_BYTES {
            true => Self::Whole(pieces.piece(0, usize::MAX)),
            false => pieces,
        }
    }

    fn piece(&self, offset: u64, max_len: usize) -> Bytes {
        let cut = |bytes: &Bytes, skipped: u64| {
            let from = usize::try_from(skipped).unwrap_or(usize::MAX).min(bytes.len());
            bytes.slice(from..from.saturating_add(max_len).min(bytes.len()))
        };
        let pieces = match self {
            Self::Whole(value) => return cut(value, offset),
            Self::Pieces(pieces) => pieces,
        };
        let mut found = BytesMut::new();
        while found.len() < max_len {
            let at = offset + found.len() as u64;
            let Some((start, piece)) = pieces.range(..=at).next_back() else { break };
            let piece = cut(piece, at - start);
            if piece.is_empty() {
                break;
            }
            if found.is_empty() && piece.len() >= max_len {
                return piece;
            }
            found.extend_from_slice(&piece[..piece.len().min(max_len - found.len())]);
        }
        found.freeze()
    }
}
