//! Finds silent damage before a reader does: a walk over all stored values that reads each and
//! compares it with its digest.
//!
//! ```text
//! next key ──> Read ──> whole: next one, after a pause
//!               │  └──> long: Piece, Piece ... hashed as they come
//!               └─damaged──> a read that distrusts this node's copy (`read`) ──> mended
//!                       └──> several versions: each by Piece; what is damaged is fetched (`transfer`)
//! ```
//!
//! What is damaged is replaced by the first owner's copy that is whole. Where there is none, the
//! operator is told, once a key; what is here stays as it is, and each pass tries again.
//!
//! The pace is bounded: `scrub_interval` after each key, and as much time as its bytes take at
//! `BYTES_PER_SECOND`. It stands still while clients keep the disk busy. Tombstones and empty values
//! have nothing to be damaged. A small store is not read over and over: a pass takes as long as one
//! of `MIN_PASS_KEYS` would.
//!
//! Limits: one key at a time; `MAX_TOLD` keys of which it is remembered that the operator was told.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{Core, OpId, Outcome, Purpose, ReadRequest, Timer, Work};
use crate::model::{Digester, Key, NodeId, Record, Version};

/// How fast values are read, at most.
const BYTES_PER_SECOND: u64 = 4 << 20;
/// Pieces in which a long value is read.
const PIECE_BYTES: usize = 256 << 10;
/// Keys looked at in search of one with a value.
const STEP_KEYS: usize = 256;
/// Keys that a pass takes its time for at least.
const MIN_PASS_KEYS: u64 = 600;
/// Keys that are told of once and not again.
const MAX_TOLD: usize = 1_000;
/// Pause while clients come first.
const BUSY_PAUSE_MS: u64 = 1_000;
/// How long a good copy is looked for, at least.
const MENDING_MS: u64 = 10_000;
/// Names the reads that fetch a good copy. No client's operation gets there.
pub(super) const OP: OpId = OpId(u64::MAX);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    place: Option<(u64, Key)>,
    keys_this_pass: u64,
    reading: Option<Reading>,
    mending: Option<Mending>,
    told: BTreeSet<Key>,
}

/// A long value on its way through the digest.
#[derive(Debug)]
struct Reading {
    key: Key,
    version: Arc<Version>,
    offset: u64,
    digester: Digester,
    /// Other values of the key to be read like that.
    others: Vec<Arc<Version>>,
    /// Storage says that something of the key is damaged; whether it was found out what.
    damaged: Option<bool>,
}

/// A damaged key for which a good copy is looked for.
#[derive(Debug)]
struct Mending {
    key: Key,
    is_replaced: bool,
}

impl Core {
    pub(super) fn start_scrub(&mut self) {
        self.scrub_later(0);
    }

    /// Reads what comes next.
    pub(super) fn continue_scrub(&mut self) {
        if self.serves_clients() || self.is_disk_busy() {
            return self.timers.set(Timer::Scrub, self.now.mono_ms + BUSY_PAUSE_MS);
        }
        if self.scrub.reading.is_some() {
            return self.read_on();
        }
        let keys = self.index.walk(self.scrub.place.as_ref(), STEP_KEYS);
        if keys.is_empty() {
            let left = MIN_PASS_KEYS.saturating_sub(std::mem::take(&mut self.scrub.keys_this_pass));
            self.scrub.place = None;
            let rest_ms = left * self.config.scrub_interval.as_millis() as u64;
            return self.timers.set(Timer::Scrub, self.now.mono_ms + rest_ms.max(1));
        }
        let last = keys.last().cloned();
        let found = keys.into_iter().find(|(_, key)| self.has_bytes(key));
        self.scrub.place = found.clone().or(last);
        match found {
            Some((_, key)) => {
                self.scrub.keys_this_pass += 1;
                self.work(Purpose::Scrub { key: key.clone() }, Work::Read(key));
            }
            None => self.scrub_later(0),
        }
    }

    /// A key was read: its short values are there.
    pub(super) fn scrub_read(&mut self, key: &Key, result: Result<Vec<Record>, String>) {
        let versions: Vec<Arc<Version>> =
            self.index.stored(key).filter(|v| !Self::is_bare(v)).map(Arc::new).collect();
        if self.index.has_pending(key) || versions.is_empty() {
            return self.scrub_later(0); // Changed meanwhile: the next pass sees it.
        }
        let Ok(records) = result else { return self.found_damaged(key) };
        let (mut long, mut bytes) = (Vec::new(), 0);
        for version in versions {
            // What is not there was replaced since it was read, or is lost.
            match records.iter().find(|r| r.version.dot == version.dot).map(|r| &r.value) {
                Some(Some(value)) if version.matches(value) => bytes += version.len,
                Some(None) => {
                    long.push(version);
                    continue;
                }
                _ => return self.found_damaged(key),
            }
            self.counters.scrubbed += 1;
        }
        self.read_next(key.clone(), long, None, bytes);
    }

    /// A piece of a long value was read.
    pub(super) fn scrub_piece(&mut self, result: Result<Bytes, String>) {
        let Some(mut reading) = self.scrub.reading.take() else { return };
        if !self.index.holds(&reading.key, reading.version.dot) {
            return self.scrub_later(0);
        }
        let piece = match result {
            Ok(piece) if !piece.is_empty() => piece,
            _ => return self.value_read(reading, false, 0),
        };
        reading.digester.add(&piece);
        reading.offset += piece.len() as u64;
        if reading.offset < reading.version.len {
            self.scrub.reading = Some(reading);
            return self.scrub_later(piece.len() as u64);
        }
        let is_whole =
            reading.offset == reading.version.len && reading.digester.digest() == reading.version.digest;
        self.value_read(reading, is_whole, piece.len() as u64);
    }

    /// Good bytes take the place of damaged ones.
    pub(super) fn note_replaced(&mut self, key: &Key) {
        if let Some(mending) = self.scrub.mending.as_mut().filter(|mending| mending.key == *key) {
            mending.is_replaced = true;
        }
    }

    /// The search for a good copy is over.
    pub(super) fn scrub_ended(&mut self, _: Outcome) {
        let Some(Mending { key, is_replaced }) = self.scrub.mending.take() else { return };
        if is_replaced {
            self.scrub.told.remove(&key);
        } else if self.has_bytes(&key) {
            // A read leaves out what has expired.
            let expired: Vec<Arc<Version>> =
                self.index.stored(&key).filter(|v| v.is_expired(self.now.wall_ms)).map(Arc::new).collect();
            match expired.is_empty() {
                true => self.tell_damage(&key, "no other owner gave a whole one"),
                false => expired.into_iter().for_each(|version| self.fetch_whole(&key, version)),
            }
        }
        self.scrub_later(0);
    }

    /// Tells the operator of a damaged copy that could not be replaced, once.
    pub(super) fn tell_damage(&mut self, key: &Key, why: &str) {
        if self.scrub.told.len() < MAX_TOLD && self.scrub.told.insert(key.clone()) {
            self.notice(format!("the copy of {key:?} here is damaged: {why}"));
        }
    }

    /// A value was read in pieces.
    fn value_read(&mut self, reading: Reading, is_whole: bool, bytes: u64) {
        let Reading { key, version, others, mut damaged, .. } = reading;
        self.counters.scrubbed += 1;
        if !is_whole && damaged.is_none() {
            return self.found_damaged(&key);
        }
        if !is_whole {
            damaged = Some(true);
            self.fetch_whole(&key, version);
        }
        self.read_next(key, others, damaged, bytes);
    }

    fn read_next(&mut self, key: Key, mut left: Vec<Arc<Version>>, damaged: Option<bool>, bytes: u64) {
        if let Some(version) = left.pop() {
            let digester = Digester::default();
            self.scrub.reading = Some(Reading { key, version, offset: 0, digester, others: left, damaged });
        } else if damaged == Some(false) {
            return self.read_elsewhere(&key);
        }
        self.scrub_later(bytes);
    }

    fn read_on(&mut self) {
        let Some(Reading { key, version, offset, .. }) = &self.scrub.reading else { return };
        let (key, dot, offset) = (key.clone(), version.dot, *offset);
        self.work(Purpose::ScrubPiece, Work::Piece { key, dot, offset, len: PIECE_BYTES });
    }

    /// Of a key with several versions a storage may hand out none where one is damaged, and that may
    /// be another one at each owner: then each is looked at by itself.
    fn found_damaged(&mut self, key: &Key) {
        let versions: Vec<Arc<Version>> =
            self.index.stored(key).filter(|v| !Self::is_bare(v)).map(Arc::new).collect();
        // A read ends with the first owner that has something: an empty sibling would do.
        match (versions.len(), self.index.stored(key).count()) {
            (0, _) => self.scrub_later(0),
            (1, 1) => self.read_elsewhere(key),
            _ => self.read_next(key.clone(), versions, Some(false), 0),
        }
    }

    fn read_elsewhere(&mut self, key: &Key) {
        self.scrub.mending = Some(Mending { key: key.clone(), is_replaced: false });
        let ask = ReadRequest { distrust: true, ..ReadRequest::one(key.clone()) };
        // Nobody waits for it, and the one whole copy may be with the last who is asked.
        let timeout_ms = self.timeout_ms(None).max(MENDING_MS);
        self.begin_read(OP, ask, timeout_ms, false);
    }

    /// Fetches one version from the owners, in an order drawn anew each time: the first one that has
    /// it may have it damaged.
    fn fetch_whole(&mut self, key: &Key, version: Arc<Version>) {
        self.counters.damage_found += 1;
        // Who owns the key by a sibling with more mirrors holds all of them.
        let mirrors = self.index.mirrors(key).unwrap_or(version.mirrors);
        let owners = self.placement.owners(key.hash64(), mirrors).filter(|id| self.is_up(*id));
        let mut owners: Vec<NodeId> = owners.collect();
        if owners.is_empty() {
            return self.tell_damage(key, "no other owner is there");
        }
        let first = self.chance.below(owners.len() as u64) as usize;
        owners.rotate_left(first);
        for owner in owners {
            self.fetch(owner, None, key.clone(), version.clone());
        }
    }

    /// Whether something is stored of a key that could be damaged, and nothing is in the way.
    fn has_bytes(&self, key: &Key) -> bool {
        !self.index.has_pending(key)
            && !self.is_doubted(key)
            && self.index.stored(key).any(|v| !Self::is_bare(&v))
    }

    fn scrub_later(&mut self, bytes: u64) {
        let interval_ms = self.config.scrub_interval.as_millis() as u64;
        if interval_ms == 0 {
            return;
        }
        let pause_ms = match self.scrub.reading.is_some() {
            true => 0,
            false => interval_ms,
        };
        let pause_ms = (pause_ms + bytes * 1_000 / BYTES_PER_SECOND).max(1);
        self.timers.set(Timer::Scrub, self.now.mono_ms + pause_ms);
    }
}
