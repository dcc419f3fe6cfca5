//! Versions as plain files: one file per version, which a person can find, read and copy.
//!
//! No index on disk, no log, no compaction: the file system is the database. The value's file holds
//! the value and nothing else; what is known of it rides in an extended attribute. Not for
//! very many very small values, of which each takes a block and an inode.
//!
//! ```text
//! STORE/turbopump.store                        what this is, and its format      home.rs
//! STORE/lock                                   held by the process that has it
//! STORE/staging/put-12, meta-12                not there yet; emptied at load    staged.rs
//! STORE/staging/stage-3, resume-3              values on their way               ../stages.rs
//! STORE/data/5c1/config%2fmotor@ACTOR-7        the value                         names.rs
//!                  user.tp                     its metadata                      metadata.rs, record_format.rs
//! STORE/data/5c1/config%2fmotor@ACTOR-7.meta   the same, where attributes fail
//!
//! apply -> turns.rs (per key) -> group.rs: write, sync, rename, sync folders, show, unlink
//!                                             folders.rs: which of these syncs are needed
//! read  -> index.rs (memory)  -> read.rs: open, verify
//! load  -> load.rs
//! ```
//!
//! Invariants:
//!
//! - A file in `data/` is complete: it got there by rename, after its contents were synced.
//! - A version goes only after the one that replaces it is durable.
//! - What the index shows is on disk. A reader holds no lock while it waits for the disk.
//! - After a power loss a *replaced* version may be there again, next to the one that replaced it
//!   and that says so in its context. A *removed* one may not.
//!
//! Limits: 4,096 folders, of which none is ever removed; names of at most 143 bytes; about 50 bytes of
//! memory for a version.
//!
//! Where extended attributes do not work (ramfs, FAT, some network file systems), or do not have
//! enough room (ext4: 4 KB per file), metadata goes to a sidecar file. This is found out per
//! file, so a store can be moved between file systems of both sorts.

mod folders;
mod group;
mod home;
mod index;
mod load;
mod metadata;
mod names;
mod read;
mod record_format;
mod staged;

use std::{fs::File, path::Path, sync::Arc};

use bytes::Bytes;

use self::{
    folders::Folders,
    home::Home,
    index::Index,
    staged::{PassingNames, Workshop},
};
use super::{Change, LoadReport, StageId, Storage, StorageError, stages::Stages, turns::Turns};
use crate::model::{Digest, Dot, Key, Record, Version};

/// What `Ok` from [`FileStorage::apply`](Storage::apply) means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// It survives a power loss: files and folders are synced first. Changes of one batch share
    /// their syncs, so many at once cost little more than one.
    #[default]
    Synced,
    /// It survives the end of the process, not of the machine: the operating system writes when it
    /// likes. After a power loss, versions may be missing, and such as are torn are reported
    /// as damaged.
    Buffered,
}

/// Keeps each version in a file of its own.
///
/// ```
/// use turbopump::storage::{Durability, FileStorage, Storage};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("store");
/// let storage = FileStorage::open(path, Durability::Synced)?;
/// let report = storage.load(&mut |key, version| println!("{key} {}", version.dot))?;
/// assert_eq!(report.versions, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileStorage {
    home: Home,
    durability: Durability,
    use_xattrs: bool,
    names: PassingNames,
    index: Index,
    turns: Turns,
    folders: Folders,
    stages: Stages,
}

impl FileStorage {
    /// Opens the store in the folder `path`, or makes one where the folder is empty or missing.
    ///
    /// # Errors
    /// [`StorageError::Format`] where the folder is something else or a store of another
    /// format: nothing was touched. [`StorageError::Io`] with kind
    /// [`ResourceBusy`](std::io::ErrorKind::ResourceBusy) where another process has it.
    pub fn open(path: impl AsRef<Path>, durability: Durability) -> Result<Self, StorageError> {
        let storage = Self::open_without_xattrs(path, durability)?;
        if !storage.home.has_xattrs {
            let store = storage.path().display();
            log::warn!(
                "{store}: no extended attributes here, metadata goes to .meta files beside the values"
            );
        }
        Ok(Self { use_xattrs: storage.home.has_xattrs, ..storage })
    }

    /// Like [`open`](Self::open), with the metadata of new versions in `.meta` files always: for
    /// stores that are copied with tools which lose extended attributes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_without_xattrs(path: impl AsRef<Path>, durability: Durability) -> Result<Self, StorageError> {
        let home = Home::take(path.as_ref())?;
        Ok(Self {
            durability,
            use_xattrs: false,
            names: PassingNames::default(),
            index: Index::new(),
            turns: Turns::default(),
            folders: Folders::new(&home.data),
            stages: Stages::new(&home.staging, durability == Durability::Synced),
            home,
        })
    }

    /// The folder of the store.
    pub fn path(&self) -> &Path {
        &self.home.folder.root
    }

    fn workshop(&self) -> Workshop<'_> {
        let Self { home, names, use_xattrs, stages, .. } = self;
        Workshop { home, names, use_xattrs: *use_xattrs, stages }
    }
}

impl Storage for FileStorage {
    fn kind(&self) -> &'static str {
        "file"
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
        self.stages.write(stage, offset, bytes)
    }

    fn resume(&self, stage: StageId, key: &Key, version: &Version) -> Result<u64, StorageError> {
        self.stages.resume(stage, key, version)
    }

    fn import(&self, stage: StageId, file: &File) -> Result<Option<(u64, Digest)>, StorageError> {
        self.stages.import(stage, file).map(Some)
    }

    fn discard(&self, stage: StageId) {
        self.stages.discard(stage);
    }
}
