//! Finding the versions of a key: its records in the engine, their values, and the files.
//!
//! The engine is read as it stood at one moment, without a lock that writers wait for.
//!
//! Invariant: what is handed out has the length and digest of its version.

use std::sync::Arc;

use bytes::Bytes;
use fjall::{Readable, Snapshot};

use super::{FjallStorage, engine::fault, places::Seen, record};
use crate::{
    model::{Dot, Key, Record, Version},
    storage::{Storage, StorageError},
};

impl FjallStorage {
    /// Without values, nothing is looked at but metadata.
    pub(super) fn read_all(&self, key: &Key, values: bool) -> Result<Vec<Record>, StorageError> {
        let found = self.places.settled(key.hash64(), |seen| self.read_once(key, &seen, values));
        found.inspect_err(|error| {
            if matches!(error, StorageError::Damaged { .. }) {
                log::error!("{error}; not served from here");
            }
        })
    }

    fn read_once(&self, key: &Key, seen: &Seen, values: bool) -> Result<Vec<Record>, StorageError> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        let snapshot = self.engine.database.snapshot();
        let prefix = record::prefix(key);
        for guard in snapshot.prefix(&self.engine.versions, &prefix) {
            let (place, bytes) =
                guard.into_inner().map_err(|error| fault(format_args!("{key:?}"), &error))?;
            let Some(dot) = record::parse_dot(&place[prefix.len()..]) else {
                damaged.push("a record of it has a malformed name".to_owned());
                continue;
            };
            if seen.hidden.contains(&dot) {
                continue;
            }
            let version = record::decode(&place, &bytes).map_err(|error| error.to_string());
            let record = version.and_then(|version| match values {
                true => self.with_value(&snapshot, &place, version),
                false => Ok(Record { version: Arc::new(version), value: None }),
            });
            match record {
                Ok(record) => records.push(record),
                Err(why) => damaged.push(format!("{dot}: {why}")),
            }
        }
        if !seen.files.is_empty() {
            let without_value = |version| Record { version, value: None };
            let files = match values {
                true => self.files.read(key)?,
                false => self.files.versions(key)?.into_iter().map(without_value).collect(),
            };
            records.extend(files.into_iter().filter(|record| seen.files.contains(&record.version.dot)));
        }
        if damaged.is_empty() {
            return Ok(records);
        }
        Err(StorageError::damaged(format_args!("{key:?}"), damaged.join("; ")))
    }

    fn with_value(&self, snapshot: &Snapshot, place: &[u8], version: Version) -> Result<Record, String> {
        let value = if version.len == 0 {
            Bytes::new()
        } else {
            let found = snapshot.get(&self.engine.values, place).map_err(|error| error.to_string())?;
            Bytes::copy_from_slice(&found.ok_or("its value is gone")?)
        };
        if !version.matches(&value) {
            return Err("its value fails its length or digest".to_owned());
        }
        Ok(Record { version: Arc::new(version), value: Some(value) })
    }

    pub(super) fn read_some(
        &self,
        key: &Key,
        dot: Dot,
        offset: u64,
        max_len: usize,
    ) -> Result<Bytes, StorageError> {
        self.places.settled(key.hash64(), |seen| self.read_some_once(key, dot, offset, max_len, &seen))
    }

    fn read_some_once(
        &self,
        key: &Key,
        dot: Dot,
        offset: u64,
        max_len: usize,
        seen: &Seen,
    ) -> Result<Bytes, StorageError> {
        if seen.files.contains(&dot) {
            return self.files.read_piece(key, dot, offset, max_len);
        }
        if seen.hidden.contains(&dot) {
            return Err(StorageError::Missing);
        }
        let place = record::place(key, dot);
        let snapshot = self.engine.database.snapshot();
        let found = |error| fault(format_args!("{key:?} {dot}"), &error);
        let Some(value) = snapshot.get(&self.engine.values, &place).map_err(found)? else {
            let is_there = snapshot.contains_key(&self.engine.versions, &place).map_err(found)?;
            return if is_there { Ok(Bytes::new()) } else { Err(StorageError::Missing) };
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
        let to = from.saturating_add(max_len).min(value.len());
        Ok(Bytes::copy_from_slice(&value[from..to]))
    }
}
