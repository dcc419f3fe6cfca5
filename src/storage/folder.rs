//! The folder of a store: taking it, once, and knowing that it is one.
//!
//! ```text
//! turbopump.store   says what this is, and its format; written last when a store is born
//! lock              locked while a process has the store
//! staging/          what is not part of the store yet
//! ```
//!
//! Knows nothing of what else a store keeps there.
//!
//! Invariant: a folder that is refused was not touched.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::StorageError;

const MARKER: &str = "turbopump.store";
const NEW_MARKER: &str = "turbopump.store.new";
const LOCK: &str = "lock";
const STAGING: &str = "staging";

/// What may lie in a folder that is no store yet: the traces of an `open` that did not get to its
/// end, and what a fresh file system brings along.
const HARMLESS: [&str; 4] = [LOCK, STAGING, NEW_MARKER, "lost+found"];

/// What the marker says of a store of one kind.
pub(super) struct Kind {
    /// The first line. All kinds end in `store`.
    pub(super) title: &'static str,
    /// The format that this release reads and writes.
    pub(super) format: u32,
    /// For a person who looks into the folder.
    pub(super) about: &'static str,
}

/// A store's folder, held until dropped.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) staging: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the store at `root`; makes an empty one where there is nothing.
    pub(super) fn take(root: &Path, kind: &Kind) -> Result<Self, StorageError> {
        if root.exists() {
            is_store(root, kind)?;
        } else {
            fs::create_dir_all(root)?;
            root.canonicalize()?.parent().map_or(Ok(()), sync_folder)?;
        }
        let lock = lock(root)?;
        let staging = root.join(STAGING);
        create_folder(&staging)?;
        // Asked again: another process may have had the folder until now.
        if !is_store(root, kind)? {
            create_marker(root, kind)?;
        }
        Ok(Self { root: root.to_owned(), staging, _lock: lock })
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
fn is_store(root: &Path, kind: &Kind) -> Result<bool, StorageError> {
    match fs::read(root.join(MARKER)) {
        Ok(text) => check_marker(root, kind, &String::from_utf8_lossy(&text)).map(|()| true),
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

fn check_marker(root: &Path, kind: &Kind, text: &str) -> Result<(), StorageError> {
    let Kind { title, format, .. } = kind;
    let mut lines = text.lines();
    let found_title = lines.next().unwrap_or_default();
    let found_format =
        lines.next().and_then(|line| line.strip_prefix("format ")).and_then(|n| n.parse::<u32>().ok());
    match found_format {
        Some(found) if found_title == *title && found == *format => Ok(()),
        Some(found) if found_title == *title => Err(StorageError::Format(format!(
            "{} has format {found}, this release knows format {format}. Open it with the release that \
             wrote it, or give this node an empty folder: the other nodes fill it",
            root.display(),
        ))),
        Some(_) if found_title.starts_with("turbopump ") && found_title.ends_with(" store") => {
            Err(StorageError::Format(format!(
                "{} is a {found_title}, not a {title}. Open it as what it is, or give this node an empty \
                 folder: the other nodes fill it",
                root.display(),
            )))
        }
        _ => Err(StorageError::Format(format!(
            "{} can't be understood. If the folder is a store of this release, write the lines \"{title}\" \
             and \"format {format}\" into it; else name an empty folder",
            root.join(MARKER).display(),
        ))),
    }
}

fn create_marker(root: &Path, kind: &Kind) -> io::Result<()> {
    let new = root.join(NEW_MARKER);
    let mut file = File::create(&new)?;
    write!(file, "{}\nformat {}\n\n{}", kind.title, kind.format, kind.about)?;
    file.sync_all()?;
    fs::rename(&new, root.join(MARKER))?;
    sync_folder(root)
}
