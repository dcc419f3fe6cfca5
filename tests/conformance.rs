//! Every built-in part keeps what its trait promises.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use turbopump::{
    storage::{Durability, FileStorage, FjallStorage, MemoryStorage, Storage},
    testing::storage::StorageSuite,
};

// ---- storages ---------------------------------------------------------------------------------

fn keeps_every_promise<S: Storage>(open: impl Fn(&Path) -> S, path: impl Fn(&S) -> &Path) {
    let folder = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    StorageSuite::new(|| open(&folder.path().join(made.fetch_add(1, Ordering::Relaxed).to_string())))
        .reopening(|storage| {
            let path = path(&storage).to_owned();
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
    keeps_every_promise(|path| FileStorage::open(path, Durability::Synced).unwrap(), FileStorage::path);
}

#[test]
fn buffered_file_storage_keeps_every_promise() {
    keeps_every_promise(|path| FileStorage::open(path, Durability::Buffered).unwrap(), FileStorage::path);
}

#[test]
fn file_storage_without_extended_attributes_keeps_every_promise() {
    keeps_every_promise(
        |path| FileStorage::open_without_xattrs(path, Durability::Buffered).unwrap(),
        FileStorage::path,
    );
}

#[test]
fn fjall_storage_keeps_every_promise() {
    keeps_every_promise(|path| FjallStorage::open(path, Durability::Synced).unwrap(), FjallStorage::path);
}

#[test]
fn buffered_fjall_storage_keeps_every_promise() {
    keeps_every_promise(|path| FjallStorage::open(path, Durability::Buffered).unwrap(), FjallStorage::path);
}

// ---- the parts that follow have their own sections below --------------------------------------
