//! Reading versions, on any thread, without a lock held during a system call.
//!
//! ```text
//! index: hash -> dots -> open, attribute, read, verify
//!                  ^ a file or its sidecar is gone: replaced meanwhile, so ask the index again
//! ```
//!
//! A key of which one version is damaged is not read at all, though its other versions are good: an
//! answer that lacks a sibling looks whole and is not, and other nodes have good copies. The good
//! ones can still be read with [`read_piece`](crate::storage::Storage::read_piece).

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    FileStorage, metadata,
    names::{Found, Name, folder_of, folder_path},
    record_format,
};
use crate::{
    model::{Dot, Key, Record},
    storage::{MAX_WHOLE_VALUE_BYTES, StorageError},
};

/// How often a file may be gone although the index has not changed, before it counts as lost. A
/// version that is removed and written again can look like that once.
const MAX_ATTEMPTS: usize = 3;

/// What became of one version on the way.
enum Opened {
    Whole(Record),
    /// Removed meanwhile, or else lacking what this says.
    Gone(&'static str),
    Damaged(String),
}

impl FileStorage {
    /// Without values, nothing is looked at but metadata.
    pub(super) fn read_all(&self, key: &Key, values: bool) -> Result<Vec<Record>, StorageError> {
        let hash = key.hash64();
        let mut dots = self.index.dots(hash);
        let mut attempts = 0;
        loop {
            let mut records = Vec::with_capacity(dots.len());
            let (mut gone, mut damaged) = (Vec::new(), Vec::new());
            for &dot in &dots {
                match self.open_version(key, dot, values)? {
                    Opened::Whole(record) => records.push(record),
                    Opened::Gone(what) => gone.push((dot, what)),
                    Opened::Damaged(why) => damaged.push(why),
                }
            }
            if !gone.is_empty() {
                let now = self.index.dots(hash);
                attempts += usize::from(now == dots);
                if attempts < MAX_ATTEMPTS {
                    dots = now;
                    continue;
                }
                gone.retain(|&(dot, _)| !self.is_of_another_key(key, dot));
                damaged.extend(gone.iter().map(|(dot, what)| format!("{dot}: {what}")));
            }
            if damaged.is_empty() {
                return Ok(records);
            }
            let error = StorageError::damaged(format_args!("{key:?}"), damaged.join("; "));
            log::error!("{error}; not served from here");
            return Err(error);
        }
    }

    pub(super) fn read_some(
        &self,
        key: &Key,
        dot: Dot,
        offset: u64,
        max_len: usize,
    ) -> Result<Bytes, StorageError> {
        if !self.index.dots(key.hash64()).contains(&dot) {
            return Err(StorageError::Missing);
        }
        let file = match File::open(self.path_of(key, &Name::new(key, dot))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StorageError::Missing),
            opened => opened?,
        };
        let there = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut piece = vec![0; there.min(max_len)];
        let mut filled = 0;
        while filled < piece.len() {
            match file.read_at(&mut piece[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        piece.truncate(filled);
        Ok(piece.into())
    }

    fn open_version(&self, key: &Key, dot: Dot, with_value: bool) -> Result<Opened, StorageError> {
        let name = Name::new(key, dot);
        let path = self.path_of(key, &name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Opened::Gone("its file is gone"));
            }
            opened => opened?,
        };
        let damaged = |why: &str| Ok(Opened::Damaged(format!("{}: {why}", path.display())));
        let Some(bytes) = metadata::of_file(&file, &path.with_file_name(name.sidecar()))? else {
            return Ok(Opened::Gone(NO_METADATA));
        };
        let version = match record_format::decode(&name, &bytes) {
            Ok((of_key, version)) if of_key == *key => version,
            Ok(_) => return damaged("it is a version of another key"),
            Err(error) => return damaged(&error.to_string()),
        };
        let value = if !with_value {
            None
        } else if version.len > MAX_WHOLE_VALUE_BYTES {
            if file.metadata()?.len() != version.len {
                return damaged(WRONG_LENGTH);
            }
            None
        } else {
            let mut value = Vec::with_capacity(version.len as usize + 1);
            file.take(version.len + 1).read_to_end(&mut value)?;
            if !version.matches(&value) {
                return damaged("its value fails its length or digest");
            }
            Some(value.into())
        };
        Ok(Opened::Whole(Record { version: Arc::new(version), value }))
    }

    /// Whether the index has `dot` because of a key with an equal hash.
    fn is_of_another_key(&self, key: &Key, dot: Dot) -> bool {
        let own = Name::new(key, dot);
        let folder = folder_path(&self.home.data, folder_of(key.hash64()));
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let found = entry.file_name().to_str().map_or(Found::Foreign, Name::parse);
            matches!(found, Found::Value(name) if name.dot() == dot && name != own)
        })
    }

    fn path_of(&self, key: &Key, name: &Name) -> PathBuf {
        let mut path = folder_path(&self.home.data, folder_of(key.hash64()));
        path.push(name.text());
        path
    }
}

/// Said of a value whose attribute and sidecar are both gone.
pub(super) const NO_METADATA: &str = "it has no metadata; was the store copied without extended attributes (cp -a, rsync -aX and tar --xattrs keep them)?";

/// Said of a value that was cut or grew.
pub(super) const WRONG_LENGTH: &str = "its value has not the length that was written";
