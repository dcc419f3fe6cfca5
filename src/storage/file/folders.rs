//! Which data folders are durable themselves, and which hold unlinkings that are not.
//!
//! Knows nothing of keys and syncs nothing of its own accord. Not used by a buffered store.
//!
//! Invariants: a folder is known as durable only after a sync of `data/` that began when it was
//! there; it counts as dirty until a sync of it that began after its latest unlinking is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::names::folder_path;
use crate::storage::folder::sync_folder;

/// See the module.
pub(super) struct Folders {
    data: PathBuf,
    durable: Mutex<BTreeSet<u16>>,
    /// With the number of unlinkings since it was clean.
    dirty: Mutex<BTreeMap<u16, u64>>,
}

impl Folders {
    pub(super) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), durable: Mutex::default(), dirty: Mutex::default() }
    }

    /// Makes `folders`, which exist, durable, with one sync at most.
    pub(super) fn keep(&self, folders: &BTreeSet<u16>) -> io::Result<()> {
        if folders.is_subset(&self.durable.lock()) {
            return Ok(());
        }
        sync_folder(&self.data)?;
        self.durable.lock().extend(folders);
        Ok(())
    }

    /// Something in `folder` was unlinked, and nobody waits until that is durable.
    pub(super) fn soil(&self, folder: u16) {
        *self.dirty.lock().entry(folder).or_default() += 1;
    }

    /// Whether something in `folder` was unlinked that may come back after a crash.
    pub(super) fn is_dirty(&self, folder: u16) -> bool {
        self.dirty.lock().contains_key(&folder)
    }

    /// Makes the names in `folder` durable.
    pub(super) fn sync(&self, folder: u16) -> io::Result<()> {
        let before = self.dirty.lock().get(&folder).copied();
        sync_folder(&folder_path(&self.data, folder))?;
        let mut dirty = self.dirty.lock();
        if dirty.get(&folder).copied() == before {
            dirty.remove(&folder);
        }
        Ok(())
    }
}
