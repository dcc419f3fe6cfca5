//! Where versions are kept: the trait, and the built-in storages.
//!
//! A storage holds several versions of a key at once, each with its metadata ([`Version`]). It
//! decides nothing: which version replaces which is the core's business, and arrives here as a
//! list of [`Change`]s. It is shared between threads: the driver's disk threads call
//! [`apply`](Storage::apply) and [`stage`](Storage::stage), any thread of the application calls
//! [`read`](Storage::read).
//!
//! What every storage promises, held by `testing::storage` (feature `testing`):
//!
//! - What `apply` answered `Ok` is there after a crash, as far as the storage's durability says.
//! - A change that failed left either the old state or the new one, never a part.
//! - Changes of one batch take effect in order; changes of one key never overtake each other.
//! - What `read` hands out is what was written, or [`StorageError::Damaged`].

mod file;
#[cfg(feature = "fjall")]
mod fjall;
mod folder;
mod memory;
mod metadata;
mod prefix;
mod shards;
mod stages;
mod turns;

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;

#[cfg(feature = "fjall")]
pub use self::fjall::FjallStorage;
pub use self::{
    file::{Durability, FileStorage},
    memory::MemoryStorage,
    metadata::{decode_version, encode_version},
};
use crate::model::{Digest, Dot, Key, Record, Version};

/// Values up to this many bytes are handed out whole by [`Storage::read`]; longer ones are read
/// with [`Storage::read_piece`].
pub const MAX_WHOLE_VALUE_BYTES: u64 = 65_536;

/// Names a value that arrives in pieces, until it is committed. Chosen by whoever fills it; not used
/// again while the process runs, and without meaning after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StageId(pub u64);

/// One step of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Keep this version; once it is safe, drop those that it replaces.
    Put {
        /// Of which key.
        key: Key,
        /// The metadata.
        version: Arc<Version>,
        /// The bytes, verified already. Empty for a tombstone.
        value: Bytes,
        /// Versions of the key to drop afterwards. Ones that are not there are skipped.
        replaces: Vec<Dot>,
    },
    /// Like `Put`, with the bytes that were staged. Fails with [`StorageError::Damaged`] where
    /// their length or digest is not the version's, and then keeps nothing and discards them.
    Commit {
        /// The staged bytes.
        stage: StageId,
        /// Of which key.
        key: Key,
        /// The metadata.
        version: Arc<Version>,
        /// Versions of the key to drop afterwards.
        replaces: Vec<Dot>,
    },
    /// Drop versions. Ones that are not there are skipped.
    Remove {
        /// Of which key.
        key: Key,
        /// Which.
        dots: Vec<Dot>,
    },
}

impl Change {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Commit { key, .. } | Self::Remove { key, .. } => key,
        }
    }
}

/// What a storage could not do. The state afterwards stands at each variant.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The medium failed. After a failed change: the old state or the new one, unknown which.
    #[error("storage: {0}")]
    Io(#[from] io::Error),
    /// What is stored fails its digest or can't be decoded. It is not handed out; it stays where
    /// it is, for a person to look at, until a reader is given an owner's good copy: that takes its place.
    #[error("storage: {what} is damaged: {why}")]
    Damaged {
        /// The record: a key and version, or a path.
        what: String,
        /// What does not fit.
        why: String,
    },
    /// There is no such version or stage.
    #[error("storage: no such version")]
    Missing,
    /// A store of an unknown format. Nothing was touched. The text says the way out.
    #[error("storage: {0}")]
    Format(String),
}

impl StorageError {
    /// A record that can't be trusted.
    pub fn damaged(what: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { what: what.to_string(), why: why.to_string() }
    }
}

/// What [`Storage::load`] found beside good records.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Versions handed to the visitor.
    pub versions: u64,
    /// Leftovers of a crash that were cleaned away.
    pub cleaned: u64,
    /// Records that could not be decoded, at most the first 100: where, and why. They stay.
    pub damaged: Vec<String>,
}

/// Damaged records that a report names.
const MAX_REPORTED: usize = 100;

impl LoadReport {
    /// Logs a record that could not be decoded, and names it unless there are too many.
    fn note(&mut self, what: String) {
        log::warn!("load: {what}");
        if self.damaged.len() < MAX_REPORTED {
            self.damaged.push(what);
        }
    }
}

/// A place that keeps versions. See the [module](self) for what it promises.
pub trait Storage: Send + Sync {
    /// A short word for `/status` and logs: `memory`, `file`, `fjall`.
    fn kind(&self) -> &'static str;

    /// Whether calls may take longer than some microseconds. If so (the default), the driver
    /// calls from its disk threads and collects changes into batches; else from its loop.
    fn is_slow(&self) -> bool {
        true
    }

    /// How many threads at most may change it side by side, where [`Config`](crate::Config) grants as many. One that
    /// syncs all changes with one journal does best with 1: what comes during a sync goes together with the
    /// next one. By default as many as are granted.
    fn max_writers(&self) -> usize {
        usize::MAX
    }

    /// Called once, before anything else: cleans what a crash left and hands every version to
    /// `visit`, in any order. Values need not be read or verified.
    ///
    /// # Errors
    /// Any [`StorageError`]; the node then refuses to start. Single bad records are no error but
    /// part of the report.
    fn load(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError>;

    /// All versions of `key`, in any order; none is an empty list. Values up to
    /// [`MAX_WHOLE_VALUE_BYTES`] come along. Any thread; may block where [`is_slow`](Self::is_slow).
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where a value fails its digest, [`StorageError::Io`].
    fn read(&self, key: &Key) -> Result<Vec<Record>, StorageError>;

    /// The metadata of all versions of `key`, in any order, whatever state their values are in. Any thread;
    /// may block like [`read`](Self::read), which it is unless a storage can do better.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where metadata is damaged, [`StorageError::Io`].
    fn versions(&self, key: &Key) -> Result<Vec<Arc<Version>>, StorageError> {
        Ok(self.read(key)?.into_iter().map(|record| record.version).collect())
    }

    /// These keys are about to be read or changed, one after the other: where that means to wait for memory, do so
    /// for all of them together. Changes nothing. Called from the loop, and only where the storage is not
    /// [slow](Self::is_slow). Optional; by default nothing is done.
    fn prefetch(&self, keys: &[&Key]) {
        let _ = keys;
    }

    /// Up to `max_len` bytes of one value from `offset` on; empty at or past its end.
    ///
    /// # Errors
    /// [`StorageError::Missing`] where there is no such version, [`StorageError::Io`].
    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError>;

    /// Makes the changes in order, as one group where the medium likes that, and answers for
    /// each. On return they are as durable as the storage is configured to make them.
    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>>;

    /// Keeps a piece of a value that is not committed yet. Pieces come in any order, and twice
    /// with equal bytes. Nothing of it is visible to `read`. After a restart it is gone, or found again
    /// by [`resume`](Self::resume) alone.
    ///
    /// Long values come through here, at best in order: what a storage does as pieces come, such as
    /// making the digest and syncing now and then, it needs not do at the commit, which others wait for.
    ///
    /// # Errors
    /// [`StorageError::Io`]; the core then discards the stage.
    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Begins the stage of a long value that is about to be fetched, and answers from which byte on it
    /// is missing; asked of a stage that is under way, how far it is. A storage may keep the stages of
    /// such values across a restart and hand one out here again, under its new name: what it answers for
    /// counts as staged, and must have been left by a fetch of this very version. Where that does not
    /// pay, as for values of less than some megabytes, it answers 0. Optional; by default nothing is
    /// found again, and a stage begins with its first piece.
    ///
    /// # Errors
    /// [`StorageError::Io`]; the core then discards the stage.
    fn resume(&self, stage: StageId, key: &Key, version: &Version) -> Result<u64, StorageError> {
        let _ = (stage, key, version);
        Ok(0)
    }

    /// Takes the bytes of a local file as a new stage, from where the file stands to its end, and answers
    /// their length and digest: those of the bytes that are kept, whatever happens to the file meanwhile.
    /// For storages that let the system copy, or share blocks; by default `None`, and whoever asked
    /// stages the bytes itself.
    ///
    /// # Errors
    /// [`StorageError::Io`]; the stage is to be discarded.
    fn import(&self, stage: StageId, file: &File) -> Result<Option<(u64, Digest)>, StorageError> {
        let _ = (stage, file);
        Ok(None)
    }

    /// Forgets a stage. One that is not there is skipped.
    fn discard(&self, stage: StageId);
}
