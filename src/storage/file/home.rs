//! The folder of a store: taking it, once, and knowing that it is one.
//!
//! ```text
//! turbopump.store   says what this is, and its format; written last when a store is born
//! lock              locked while a process has the store
//! staging/          files that are not part of the store yet; emptied at load
//! data/             the versions
//! ```
//!
//! Invariant: a folder that is refused was not touched.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::metadata;
use crate::storage::StorageError;

/// The format that this release reads and writes.
const STORE_FORMAT: u32 = 1;

const MARKER: &str = "turbopump.store";
const TITLE: &str = "turbopump file store";
const LOCK: &str = "lock";

/// What may lie in a folder that is no store yet: the traces of an `open` that did not get to its
/// end, and what a fresh file system brings along.
const HARMLESS: [&str; 4] = [LOCK, "staging", "turbopump.store.new", "lost+found"];

/// A store's folders, held until dropped.
pub(super) struct Home {
    pub(super) root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) staging: PathBuf,
    /// Whether its file system keeps extended attributes.
    pub(super) has_xattrs: bool,
    _lock: File,
}

impl Home {
    /// Takes the store at `root`; makes one where there is nothing.
    pub(super) fn take(root: &Path) -> Result<Self, StorageError> {
        if root.exists() {
            is_store(root)?;
        } else {
            fs::create_dir_all(root)?;
            root.canonicalize()?.parent().map_or(Ok(()), sync_folder)?;
        }
        let lock = lock(root)?;
        let (data, staging) = (root.join("data"), root.join("staging"));
        create_folder(&staging)?;
        // Asked again: another process may have had the folder until now.
        if !is_store(root)? {
            create_marker(root)?;
        }
        create_folder(&data)?;
        sync_folder(root)?;
        let has_xattrs = metadata::probe(&staging)?;
        Ok(Self { root: root.to_owned(), data, staging, has_xattrs, _lock: lock })
    }
}

/// Makes names that were created, renamed or removed in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates one folder, unless it is there.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn lock(root: &Path) -> Result<File, StorageError> {
    let file = File::options().create(true).truncate(false).write(true).open(root.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("{} is in use: each node needs a store of its own", root.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text).into())
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether `root` is a store; `false` where one may be made.
fn is_store(root: &Path) -> Result<bool, StorageError> {
    match fs::read(root.join(MARKER)) {
        Ok(text) => check_marker(root, &String::from_utf8_lossy(&text)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in fs::read_dir(root)? {
                let name = entry?.file_name();
                if !HARMLESS.iter().any(|harmless| name == **harmless) {
                    return Err(StorageError::Format(format!(
                        "{} is no store: it has no {MARKER} and is not empty ({} is there). Name an empty or \
                         a new folder, or put the {MARKER} of this store back",
                        root.display(),
                        Path::new(&name).display(),
                    )));
                }
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn check_marker(root: &Path, text: &str) -> Result<(), StorageError> {
    let mut lines = text.lines();
    let title = lines.next();
    let format =
        lines.next().and_then(|line| line.strip_prefix("format ")).and_then(|n| n.parse::<u32>().ok());
    match format {
        Some(STORE_FORMAT) if title == Some(TITLE) => Ok(()),
        Some(format) if title == Some(TITLE) => Err(StorageError::Format(format!(
            "{} has format {format}, this release knows format {STORE_FORMAT}. Open it with the release that \
             wrote it, or give this node an empty folder: the other nodes fill it",
            root.display(),
        ))),
        _ => Err(StorageError::Format(format!(
            "{} can't be understood. If the folder is a store of this release, write the lines \"{TITLE}\" \
             and \"format {STORE_FORMAT}\" into it; else name an empty folder",
            root.join(MARKER).display(),
        ))),
    }
}

fn create_marker(root: &Path) -> io::Result<()> {
    let new = root.join("turbopump.store.new");
    let mut file = File::create(&new)?;
    file.write_all(
        format!(
            "{TITLE}\nformat {STORE_FORMAT}\n\n\
             Each file under data/ is the value of one version of one key, named KEY@VERSION. What else is\n\
             known of it is in its extended attribute {}, or beside it in a file .meta.\n\
             Copy a store with `cp -a`, `rsync -aX` or `tar --xattrs`, and only while nobody has it open.\n",
            metadata::ATTRIBUTE,
        )
        .as_bytes(),
    )?;
    file.sync_all()?;
    fs::rename(&new, root.join(MARKER))?;
    sync_folder(root)
}
