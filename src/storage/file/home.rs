//! The folders of a file store.
//!
//! ```text
//! turbopump.store, lock   ../folder.rs
//! staging/                files that are not part of the store yet; emptied at load
//! data/                   the versions
//! ```

use std::path::{Path, PathBuf};

use super::metadata;
use crate::storage::{
    StorageError,
    folder::{Folder, Kind, create_folder, sync_folder},
};

const KIND: Kind = Kind {
    title: "turbopump file store",
    format: 1,
    about: "Each file under data/ is the value of one version of one key, named KEY@VERSION. What else is\n\
            known of it is in its extended attribute user.tp, or beside it in a file .meta.\n\
            Copy a store with `cp -a`, `rsync -aX` or `tar --xattrs`, and only while nobody has it open.\n",
};

/// A store's folders, held until dropped.
pub(super) struct Home {
    pub(super) data: PathBuf,
    pub(super) staging: PathBuf,
    /// Whether its file system keeps extended attributes.
    pub(super) has_xattrs: bool,
    pub(super) folder: Folder,
}

impl Home {
    /// Takes the store at `root`; makes one where there is nothing.
    pub(super) fn take(root: &Path) -> Result<Self, StorageError> {
        let folder = Folder::take(root, &KIND)?;
        let data = root.join("data");
        create_folder(&data)?;
        sync_folder(root)?;
        let has_xattrs = metadata::probe(&folder.staging)?;
        Ok(Self { data, staging: folder.staging.clone(), has_xattrs, folder })
    }
}
