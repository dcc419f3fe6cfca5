//! Versions in an LSM tree (the crate `fjall`): for millions of small values.
//!
//! Not for a person to look at, as the files of [`FileStorage`] are, and not an index in memory: what
//! is known of a key is looked up where it is needed. Long values are written once, not again at each
//! level of a tree: they are files of a [`FileStorage`] inside.
//!
//! ```text
//! STORE/turbopump.store, lock, staging/     what this is, who has it                  ../folder.rs
//! STORE/engine/  versions: place -> record  every version that is not in the files    engine.rs
//!                values:   place -> value   values of up to 4 KiB                     record.rs
//! STORE/files/                              longer and staged values                  ../file/
//!
//! apply -> turns (per key) -> group.rs: long values to the files, then one batch of the engine, one sync
//! read  -> read.rs: places.rs (memory), the records, the values; files where the key has some
//! load  -> load.rs: one scan of the records; values are not touched
//! ```
//!
//! Invariants:
//!
//! - A batch of the engine takes effect as a whole or not at all, for readers as after a crash.
//! - A version goes only after the one that replaces it is durable, in whichever of the two that is.
//! - Readers see a key before or after a change, never between. They wait for no writer.
//! - After a power loss a *replaced* version may be there again, next to the one that replaced it and that
//!   says so in its context. A *removed* one may not.
//!
//! Limits: 32 MiB of cache; 16 MiB of changes in memory for each of the two keyspaces before they are
//! sorted into tables; about 64 MiB of journal, which a start reads. After a failed write or sync
//! the engine takes no more changes until it is opened again: what is on disk is unknown then, each
//! change is answered with an error, reads go on. A table that was spoilt is noticed when it is read, and
//! ends a load: such a store is given up for an empty folder, which the other nodes fill.

mod engine;
mod group;
mod load;
mod places;
mod read;
mod record;
#[cfg(test)]
mod tests;

use std::{fs::File, path::Path, sync::Arc};

use bytes::Bytes;

use self::{engine::Engine, places::Places};
use super::{
    Change, Durability, FileStorage, LoadReport, StageId, Storage, StorageError,
    folder::{Folder, Kind},
    turns::Turns,
};
use crate::model::{Digest, Dot, Key, Record, Version};

/// Longer values are files: the engine would write them again at each level of its tree.
const MAX_INLINE_BYTES: usize = 4_096;

const KIND: Kind = Kind {
    title: "turbopump fjall store",
    format: 1,
    about: "engine/ is a database of fjall 3 with what is known of each key, and values of up to 4 KiB.\n\
            files/ holds longer values; it is a store of files, and says more of itself.\n\
            Copy this store as a whole, with `cp -a`, `rsync -aX` or `tar --xattrs`, and only while nobody\n\
            has it open.\n",
};

/// Keeps versions in an LSM tree, and long values in files beside it (feature `fjall`).
///
/// ```
/// use turbopump::storage::{Durability, FjallStorage, Storage};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("store");
/// let storage = FjallStorage::open(path, Durability::Synced)?;
/// let report = storage.load(&mut |key, version| println!("{key} {}", version.dot))?;
/// assert_eq!(report.versions, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FjallStorage {
    // Both before the folder: closed before it is given free.
    engine: Engine,
    files: FileStorage,
    durability: Durability,
    places: Places,
    turns: Turns,
    folder: Folder,
}

impl FjallStorage {
    /// Opens the store in the folder `path`, or makes one where the folder is empty or missing.
    ///
    /// # Errors
    /// [`StorageError::Format`] where the folder is something else or a store of another kind or
    /// format: nothing was touched. [`StorageError::Io`] with kind
    /// [`ResourceBusy`](std::io::ErrorKind::ResourceBusy) where another process has it.
    /// [`StorageError::Damaged`] where the engine can't make sense of its own files.
    pub fn open(path: impl AsRef<Path>, durability: Durability) -> Result<Self, StorageError> {
        let folder = Folder::take(path.as_ref(), &KIND)?;
        let files = folder.root.join("files");
        let engine = Engine::open(&folder, &files)?;
        let files = FileStorage::open(files, durability)?;
        Ok(Self { engine, files, durability, places: Places::new(), turns: Turns::default(), folder })
    }

    /// The folder of the store.
    pub fn path(&self) -> &Path {
        &self.folder.root
    }
}

impl Storage for FjallStorage {
    fn kind(&self) -> &'static str {
        "fjall"
    }

    /// There is one journal. Two threads made groups of 3 changes where 16 clients waited; one keeps a third more of
    /// them.
    fn max_writers(&self) -> usize {
        1
    }

    fn load(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        self.load_all(visit)
    }

    fn read(&self, key: &Key) -> Result<Vec<Record>, StorageError> {
        self.read_all(key, true)
    }

    fn versions(&self, key: &Key) -> Result<Vec<Arc<Version>>, StorageError> {
        Ok(self.read_all(key, false)?.into_iter().map(|record| record.version).collect())
    }

    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError> {
        self.read_some(key, dot, offset, max_len)
    }

    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>> {
        let _turn = self.turns.take(changes);
        group::apply(self, changes)
    }

    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.files.stage(stage, offset, bytes)
    }

    fn resume(&self, stage: StageId, key: &Key, version: &Version) -> Result<u64, StorageError> {
        self.files.resume(stage, key, version)
    }

    fn import(&self, stage: StageId, file: &File) -> Result<Option<(u64, Digest)>, StorageError> {
        self.files.import(stage, file)
    }

    fn discard(&self, stage: StageId) {
        self.files.discard(stage);
    }
}
