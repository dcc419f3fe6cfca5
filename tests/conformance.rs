//! Every built-in part keeps what its trait promises.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use turbopump::{
    storage::{Durability, FileStorage, MemoryStorage},
    testing::storage::StorageSuite,
};

// ---- storages ---------------------------------------------------------------------------------

fn keeps_every_promise(open: impl Fn(&Path) -> FileStorage) {
    let folder = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    StorageSuite::new(|| open(&folder.path().join(made.fetch_add(1, Ordering::Relaxed).to_string())))
        .reopening(|storage| {
            let path = storage.path().to_owned();
            drop(storage);
            open(&path)
        })
        .run_all();
}

#[test]
fn memory_storage_keeps_every_promise() {
    StorageSuite::new(MemoryStorage::new).run_all();
}

#[test]
fn file_storage_keeps_every_promise() {
    keeps_every_promise(|path| FileStorage::open(path, Durability::Synced).unwrap());
}

#[test]
fn buffered_file_storage_keeps_every_promise() {
    keeps_every_promise(|path| FileStorage::open(path, Durability::Buffered).unwrap());
}

#[test]
fn file_storage_without_extended_attributes_keeps_every_promise() {
    keeps_every_promise(|path| FileStorage::open_without_xattrs(path, Durability::Buffered).unwrap());
}

// ---- the parts that follow have their own sections below --------------------------------------
