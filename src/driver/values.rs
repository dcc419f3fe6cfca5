//! Adds values from storage to versions that were found without them.
//!
//! Between finding a version and reading its value, a write may replace it. Then what is stored
//! by now takes its place: a reader gets something newer, never nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};

use super::callbacks::message;
use crate::{
    core::Found,
    error::{ReadError, SubmitError},
    model::{Key, Kind, Record, Siblings},
    storage::{MAX_WHOLE_VALUE_BYTES, Storage, StorageError},
};

/// Pieces in which a long value is read.
const PIECE_BYTES: usize = 1 << 20;
/// Times that a key is looked at anew when its versions are replaced while they are read.
const MAX_LOOKS: usize = 16;

/// Whether a value is still to be read.
pub(crate) fn are_missing(siblings: &Siblings) -> bool {
    siblings.records().iter().any(|r| r.value.is_none() && r.version.kind == Kind::Value)
}

/// Whether all values are there, and none is longer than that.
pub(crate) fn are_there(siblings: &Siblings, max: u64) -> bool {
    siblings.records().iter().all(|record| record.value.is_some() && record.version.len <= max)
}

/// Reads the values that are missing, up to so many bytes each. May block where storage is slow. A storage
/// that panics has failed: somebody waits for the answer.
pub(crate) fn fill(storage: &dyn Storage, found: Found, max: u64) -> Result<Found, ReadError> {
    if are_there(&found.siblings, max) {
        return Ok(found);
    }
    catch_unwind(AssertUnwindSafe(|| look(storage, found, max)))
        .unwrap_or_else(|panic| Err(ReadError::Storage(format!("storage panicked: {}", message(&*panic)))))
}

fn look(storage: &dyn Storage, found: Found, max: u64) -> Result<Found, ReadError> {
    let Found { key, mut siblings, short } = found;
    for _ in 0..MAX_LOOKS {
        let mut filled = Vec::with_capacity(siblings.records().len());
        let mut replaced = false;
        for record in siblings.into_records() {
            let len = record.version.len;
            if short && is_left_out(storage, &key, &record)? {
                filled.push(record);
                continue;
            }
            if len > max {
                return Err(ReadError::TooLong { len, max });
            }
            match value_of(storage, &key, &record) {
                Ok(value) => filled.push(Record { version: record.version, value: Some(value) }),
                Err(StorageError::Missing) => replaced = true,
                Err(error) => return Err(ReadError::storage(&error)),
            }
        }
        if replaced {
            filled.extend(storage.read(&key).map_err(|error| ReadError::storage(&error))?);
            if filled.is_empty() {
                // All of it was handed to its owners just now: it is not absent, it is elsewhere.
                return Err(ReadError::Refused(SubmitError::Busy));
            }
        }
        siblings = Siblings::resolve(filled);
        if !replaced {
            return Ok(Found { key, siblings, short });
        }
    }
    Err(ReadError::Storage(format!("{key:?} is replaced faster than it can be read")))
}

/// Whether the value of a record is for a reader to fetch in pieces: a long one, or one that is elsewhere.
fn is_left_out(storage: &dyn Storage, key: &Key, record: &Record) -> Result<bool, ReadError> {
    let version = &record.version;
    if record.value.is_some() || version.kind != Kind::Value {
        return Ok(false);
    }
    match storage.read_piece(key, version.dot, 0, 1) {
        Err(StorageError::Missing) => Ok(true),
        Err(error) => Err(ReadError::storage(&error)),
        Ok(_) => Ok(version.len > MAX_WHOLE_VALUE_BYTES),
    }
}

/// The whole value of a record, from itself or from storage, verified.
fn value_of(storage: &dyn Storage, key: &Key, record: &Record) -> Result<Bytes, StorageError> {
    let version = &record.version;
    if let Some(value) = &record.value {
        return Ok(value.clone());
    }
    if version.len <= MAX_WHOLE_VALUE_BYTES {
        let kept = storage.read(key)?.into_iter().find(|r| r.version.dot == version.dot);
        return kept.and_then(|r| r.value).ok_or(StorageError::Missing);
    }
    let mut value = BytesMut::with_capacity(version.len as usize);
    while (value.len() as u64) < version.len {
        let piece = storage.read_piece(key, version.dot, value.len() as u64, PIECE_BYTES)?;
        if piece.is_empty() {
            break;
        }
        value.extend_from_slice(&piece);
    }
    match version.matches(&value) {
        true => Ok(value.freeze()),
        false => Err(StorageError::damaged(format!("{key:?} {}", version.dot), "its digest does not fit")),
    }
}
