//! The database: making and opening it, its two keyspaces, and what its errors mean for us.
//!
//! Knows where versions lie, not what their bytes say (`record.rs`).

use std::{error::Error as _, fs, io, path::Path};

use fjall::{Database, Error, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Slice};

use super::record;
use crate::{
    model::{Dot, Key},
    storage::{
        Durability, StorageError,
        folder::{Folder, sync_folder},
    },
};

/// The folder of the database.
const FOLDER: &str = "engine";

/// Blocks of tables that are kept in memory.
const CACHE_BYTES: u64 = 32 << 20;

/// Changes that gather in memory for each keyspace before they are sorted into tables. A start reads
/// them from the journal again.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// The journal is cut down past that. The least that the engine takes.
const JOURNAL_BYTES: u64 = 64 << 20;

/// See the module.
pub(super) struct Engine {
    pub(super) database: Database,
    /// Place -> record.
    pub(super) versions: Keyspace,
    /// Place -> value; none for an empty one.
    pub(super) values: Keyspace,
}

impl Engine {
    /// Opens the database of a store; makes it where the store is new. `files` is there only where
    /// there was one.
    pub(super) fn open(folder: &Folder, files: &Path) -> Result<Self, StorageError> {
        let path = folder.root.join(FOLDER);
        let unborn = folder.staging.join(FOLDER);
        if unborn.exists() {
            fs::remove_dir_all(&unborn)?;
        }
        if !path.exists() {
            if files.exists() {
                let why = "it is gone, with most of what the store knew. Put it back, or give this node an \
                           empty folder: the other nodes fill it";
                return Err(StorageError::damaged(path.display(), why));
            }
            // Born elsewhere, so that it is there as a whole or not at all.
            drop(Self::open_at(&unborn)?);
            fs::rename(&unborn, &path)?;
            sync_folder(&folder.root)?;
        }
        Self::open_at(&path)
    }

    fn open_at(path: &Path) -> Result<Self, StorageError> {
        let open = || {
            let database =
                Database::builder(path).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES).open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            let versions = database.keyspace("versions", options)?;
            let values = database.keyspace("values", options)?;
            Ok(Self { database, versions, values })
        };
        open().map_err(|error| gone(path.display(), &error))
    }

    /// The record of a version.
    pub(super) fn record(&self, key: &Key, dot: Dot) -> Result<Option<Slice>, StorageError> {
        let found = self.versions.get(record::place(key, dot));
        found.map_err(|error| fault(format_args!("{key:?} {dot}"), &error))
    }

    /// Changes to be made at once. They are as durable as `durability` says when that is done.
    pub(super) fn batch(&self, durability: Durability) -> OwnedWriteBatch {
        self.database.batch().durability(Some(match durability {
            Durability::Synced => PersistMode::SyncData,
            // Handed to the operating system.
            Durability::Buffered => PersistMode::Buffer,
        }))
    }
}

/// What is wrong with a database as a whole.
pub(super) fn gone(what: impl ToString, error: &Error) -> StorageError {
    match fault(what, error) {
        StorageError::Damaged { what, why } => {
            let way_out = "give this node an empty folder: the other nodes fill it";
            StorageError::damaged(what, format_args!("{why}; {way_out}"))
        }
        other => other,
    }
}

/// What went wrong, as our users know it.
pub(super) fn fault(what: impl ToString, error: &Error) -> StorageError {
    match error {
        Error::Poisoned => {
            return io::Error::other(
                "the engine takes no changes since one failed: what is on disk is unknown until the node \
                 starts again",
            )
            .into();
        }
        Error::InvalidVersion(_) => {
            return StorageError::Format(format!(
                "{} is of another release of the engine, this one knows fjall 3. Open it with the release \
                 that wrote it, or give this node an empty folder: the other nodes fill it",
                what.to_string(),
            ));
        }
        _ => {}
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return io::Error::new(inner.kind(), format!("{}: {inner}", what.to_string())).into();
        }
        cause = inner.source();
    }
    StorageError::damaged(what, error)
}
