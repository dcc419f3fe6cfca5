//! What the clauses are made of: keys, versions and changes that tell by a number who they are.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    model::{Actor, Context, Digest, Dot, Key, Kind, Mirrors, PublicKey, Record, Seal, Seeded, Version},
    storage::{Change, LoadReport, StageId, Storage, StorageError},
};

pub(super) fn load(storage: &impl Storage) -> (BTreeMap<(Key, Dot), Version>, LoadReport) {
    let mut found = BTreeMap::new();
    let report = storage
        .load(&mut |key, version| {
            let twice = found.insert((key, version.dot), version);
            assert!(twice.is_none(), "load shows a version twice: {twice:?}");
        })
        .expect("load");
    (found, report)
}

/// What is there of `key`, in the order of the dots. Looked ahead at before, which must change nothing.
pub(super) fn read(storage: &impl Storage, key: &Key) -> Vec<Record> {
    storage.prefetch(&[key, &self::key("nothing"), key]);
    let mut found = storage.read(key).expect("read");
    found.sort_by_key(|record| record.version.dot);
    found
}

pub(super) fn read_pieces(storage: &impl Storage, key: &Key, dot: Dot, piece_bytes: usize) -> Vec<u8> {
    let mut value = Vec::new();
    loop {
        let piece = storage.read_piece(key, dot, value.len() as u64, piece_bytes).expect("a piece");
        assert!(piece.len() <= piece_bytes, "a piece is longer than was asked for");
        if piece.is_empty() {
            return value;
        }
        value.extend_from_slice(&piece);
    }
}

pub(super) fn dots(storage: &impl Storage, name: &str) -> Vec<u64> {
    read(storage, &key(name)).iter().map(|record| record.version.dot.counter).collect()
}

pub(super) fn ok(storage: &impl Storage, changes: &[Change]) {
    let outcomes = storage.apply(changes);
    assert_eq!(outcomes.len(), changes.len(), "each change has an answer");
    for (outcome, change) in outcomes.into_iter().zip(changes) {
        outcome.unwrap_or_else(|error| panic!("{error}: of {:?}", change.key()));
    }
}

pub(super) fn only(outcomes: Vec<Result<(), StorageError>>) -> Result<(), StorageError> {
    assert_eq!(outcomes.len(), 1, "each change has an answer");
    outcomes.into_iter().next().expect("one")
}

pub(super) fn put(name: &str, version: Version, value: &[u8], replaces: &[u64]) -> Change {
    let replaces = replaces.iter().copied().map(dot).collect();
    Change::Put { key: key(name), version: Arc::new(version), value: Bytes::copy_from_slice(value), replaces }
}

pub(super) fn commit(stage: u64, name: &str, version: Version, replaces: &[u64]) -> Change {
    let replaces = replaces.iter().copied().map(dot).collect();
    Change::Commit { stage: StageId(stage), key: key(name), version: Arc::new(version), replaces }
}

pub(super) fn remove(name: &str, dots: &[u64]) -> Change {
    Change::Remove { key: key(name), dots: dots.iter().copied().map(dot).collect() }
}

pub(super) fn record(version: Version, value: &[u8]) -> Record {
    Record { version: Arc::new(version), value: Some(Bytes::copy_from_slice(value)) }
}

pub(super) fn version(counter: u64, value: &[u8]) -> Version {
    Version {
        dot: dot(counter),
        since: counter.saturating_sub(1),
        context: Context::EMPTY,
        written_ms: 1_790_000_000_000 + counter,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: value.len() as u64,
        digest: Digest::of(value),
        // Some are signed: a storage keeps that too.
        seal: counter
            .is_multiple_of(2)
            .then(|| Arc::new(Seal { author: PublicKey([7; 32]), signature: [8; 64] })),
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).expect("a name of 1 to 1,024 bytes")
}

pub(super) fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(1), counter }
}

/// The same bytes for the same seed, and no two alike.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut seeded = Seeded::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| seeded.next_u64().to_le_bytes()).take(len).collect()
}
