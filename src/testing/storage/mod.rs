//! What every [`Storage`] promises, as checks to run against yours.
//!
//! ```
//! use turbopump::{storage::MemoryStorage, testing::storage::StorageSuite};
//!
//! StorageSuite::new(MemoryStorage::new).run_all();
//! ```
//!
//! A storage that outlives its process says how it is opened again:
//!
//! ```
//! use turbopump::storage::{Durability, FileStorage};
//! use turbopump::testing::storage::StorageSuite;
//!
//! # let folder = tempfile::tempdir()?;
//! # let count = std::cell::Cell::new(0);
//! let open = |path: &std::path::Path| FileStorage::open(path, Durability::Buffered).unwrap();
//! let new_path = || { count.set(count.get() + 1); folder.path().join(count.get().to_string()) };
//!
//! StorageSuite::new(|| open(&new_path()))
//!     .reopening(|storage| {
//!         let path = storage.path().to_owned();
//!         drop(storage);
//!         open(&path)
//!     })
//!     .run_all();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Not a benchmark, and no test of what happens when the medium fails: that takes a medium that
//! fails on demand.

mod changes;
mod extremes;
mod lasting;
mod parts;
mod stages;

use crate::storage::Storage;

/// Opens a storage again: takes the old one, and drops it first where that matters.
type Reopen<'a, S> = Box<dyn Fn(S) -> S + 'a>;

/// The promises, and how to get a storage that they are checked against.
pub struct StorageSuite<'a, S> {
    make: Box<dyn Fn() -> S + 'a>,
    reopen: Option<Reopen<'a, S>>,
}

/// A clause: what is promised, and the check.
type Clause<'a, S> = (&'static str, fn(&StorageSuite<'a, S>));

impl<'a, S: Storage> StorageSuite<'a, S> {
    /// `make` gives a new and empty storage at each call; several may exist at once.
    pub fn new(make: impl Fn() -> S + 'a) -> Self {
        Self { make: Box::new(make), reopen: None }
    }

    /// Adds the clauses for storages that keep what they have. `reopen` gets a storage, closes it
    /// and opens the same one again.
    pub fn reopening(mut self, reopen: impl Fn(S) -> S + 'a) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }

    /// The names of all clauses, in the order in which they run.
    pub fn clauses() -> impl Iterator<Item = &'static str> {
        Self::table().into_iter().map(|(name, _)| name)
    }

    /// Runs every clause.
    ///
    /// # Panics
    /// With the first promise that is broken.
    pub fn run_all(&self) {
        for (name, check) in Self::table() {
            // Shown by a test that fails, in front of the panic.
            println!("storage promise: {name}");
            check(self);
        }
    }

    fn table() -> Vec<Clause<'a, S>> {
        vec![
            ("a new storage is empty", Self::new_is_empty),
            ("what was put is read, with all of its metadata", Self::put_is_read),
            ("values of every size come back: none, one byte, the limit, above it, 1 MB", Self::sizes),
            ("a tombstone is kept like a value", Self::tombstones),
            ("a put replaces what it names, and nothing else", Self::replaces),
            ("siblings live side by side", Self::siblings),
            ("changes of one batch take effect in order", Self::order_in_a_batch),
            ("a batch of hundreds of changes answers for each", Self::large_batch),
            ("a repeated change changes nothing", Self::repeats),
            ("removing takes what is named, and skips what is not there", Self::removes),
            ("a value staged in pieces, in any order and twice, is committed whole", Self::staging),
            ("a wrong length or digest is refused, and leaves nothing", Self::refuses_wrong_content),
            ("a stage with holes is refused", Self::refuses_holes),
            ("a discarded stage is gone", Self::discard),
            ("a failed change does not keep the others of its batch from being made", Self::failure_is_alone),
            ("names of every kind are kept apart", Self::hostile_names),
            ("a context of any size is kept", Self::large_context),
            ("readers see a key before or after a change, never between", Self::concurrent_readers),
            ("changes of many threads are all made", Self::concurrent_writers),
            ("load shows every version", Self::load_shows_all),
            ("what was acknowledged is there after reopening", Self::reopen_keeps_all),
            (
                "after reopening a stage is gone, or found again as that of its version",
                Self::reopen_resumes_stages,
            ),
        ]
    }

    fn made(&self) -> S {
        let storage = (self.make)();
        parts::load(&storage);
        storage
    }
}
