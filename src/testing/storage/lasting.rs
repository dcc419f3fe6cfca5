//! Clauses about many threads, and about what is there when a storage is opened again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{StorageSuite, parts::*};
use crate::{
    model::{Actor, Dot, Key, Version},
    storage::{StageId, Storage, StorageError},
};

/// Length of a value of which a storage may keep track while it comes.
const LONG_BYTES: usize = 17_000_001;
/// Writes made by the clause that reads and writes at once.
const CONCURRENT_WRITES: u64 = 300;
/// Lengths of their values, in turn: a storage may keep them in different ways.
const CONCURRENT_BYTES: [usize; 5] = [500, 20_000, 501, 60_000, 0];

impl<S: Storage> StorageSuite<'_, S> {
    pub(super) fn concurrent_readers(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, &noise(1, 500)), &noise(1, 500), &[])]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut newest = 0;
                    while !done.load(Ordering::Relaxed) {
                        let found = read(&storage, &key("k"));
                        assert_eq!(found.len(), 1, "a reader saw a key in the middle of a change");
                        let version = &found[0].version;
                        assert!(
                            version.matches(found[0].value.as_ref().expect("short")),
                            "bytes of another version"
                        );
                        assert!(version.dot.counter >= newest, "a reader went back in time");
                        newest = version.dot.counter;
                    }
                });
            }
            // A panic must end the readers too.
            let writer = scope.spawn(|| {
                for n in 2..=CONCURRENT_WRITES {
                    let value = noise(n, CONCURRENT_BYTES[n as usize % CONCURRENT_BYTES.len()]);
                    ok(&storage, &[put("k", version(n, &value), &value, &[n - 1])]);
                }
            });
            let outcome = writer.join();
            done.store(true, Ordering::Relaxed);
            outcome.expect("the writer");
        });
        assert_eq!(dots(&storage, "k"), [CONCURRENT_WRITES]);
    }

    pub(super) fn concurrent_writers(&self) {
        let storage = self.made();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let storage = &storage;
                scope.spawn(move || {
                    for n in (1..=30).map(|n| n * 4 + thread) {
                        let own = format!("own {n}");
                        ok(
                            storage,
                            &[
                                put("shared", version(n, b"v"), b"v", &[]),
                                put(&own, version(n, b"w"), b"w", &[]),
                            ],
                        );
                    }
                });
            }
        });
        assert_eq!(dots(&storage, "shared"), (4..124).collect::<Vec<_>>(), "a sibling was lost");
        for n in 4..124 {
            assert_eq!(dots(&storage, &format!("own {n}")), [n]);
        }
    }

    pub(super) fn load_shows_all(&self) {
        let storage = self.made();
        let expected = fill(&storage);
        let (found, report) = load(&storage);
        assert_eq!(found, expected, "load shows what is there");
        assert_eq!(report.versions as usize, expected.len(), "the report counts the versions");
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    }

    pub(super) fn reopen_keeps_all(&self) {
        let Some(reopen) = &self.reopen else { return };
        let mut storage = self.made();
        let expected = fill(&storage);
        for _ in 0..2 {
            storage = reopen(storage);
            let (found, report) = load(&storage);
            assert_eq!(found, expected, "after reopening, exactly what was acknowledged is there");
            assert!(report.damaged.is_empty(), "{:?}", report.damaged);
            for (key, dot) in expected.keys() {
                let all = read(&storage, key);
                let found = all.iter().find(|r| r.version.dot == *dot).expect("it was shown by load");
                let value = read_pieces(&storage, key, *dot, 1 << 20);
                assert!(found.version.matches(&value), "{key:?} {dot}: other bytes after reopening");
            }
        }
    }

    pub(super) fn reopen_resumes_stages(&self) {
        let Some(reopen) = &self.reopen else { return };
        let storage = self.made();
        storage.stage(StageId(1), 0, b"v").expect("staging");
        let value = noise(1, LONG_BYTES);
        let (whole, half) = (version(2, &value), value.len() / 4 * 3);
        let from = storage.resume(StageId(2), &key("long"), &whole).expect("a stage of a version");
        assert_eq!(from, 0, "nothing was staged of it");
        let stage = |storage: &S, stage: u64, from: usize, to: usize| {
            for (n, piece) in value[from..to].chunks(1 << 20).enumerate() {
                let offset = (from + (n << 20)) as u64;
                storage.stage(StageId(stage), offset, piece).expect("staging");
            }
        };
        stage(&storage, 2, 0, half);
        let storage = reopen(storage);
        assert!(load(&storage).0.is_empty(), "a stage is no version");
        for (n, name, version) in [(1, "k", version(1, b"v")), (2, "long", whole.clone())] {
            let gone = only(storage.apply(&[commit(n, name, version, &[])]));
            assert!(matches!(gone, Err(StorageError::Missing)), "a stage of an earlier process: {gone:?}");
        }
        let other = storage.resume(StageId(3), &key("long"), &version(3, &value)).expect("another version");
        assert_eq!(other, 0, "a stage is found again by its own version only");
        storage.discard(StageId(3));
        let from = storage.resume(StageId(4), &key("long"), &whole).expect("the same version") as usize;
        assert!(from <= half, "more is there than was staged");
        stage(&storage, 4, from, value.len());
        ok(&storage, &[commit(4, "long", whole, &[])]);
        let found = read_pieces(&storage, &key("long"), dot(2), 1 << 20);
        assert!(found == value, "other bytes than were staged before and after reopening");
    }
}

/// Some of everything; answers what has to be there then.
pub(super) fn fill(storage: &impl Storage) -> BTreeMap<(Key, Dot), Version> {
    let mut expected = BTreeMap::new();
    let mut changes = Vec::new();
    for n in 1..=200 {
        let name = format!("key {}", n % 70);
        let len = if n % 50 == 0 { 100_000 } else { n as usize };
        let value = noise(n, len);
        let mut version = version(n, &value);
        if n % 7 == 0 {
            (0..n).for_each(|actor| version.context.add(Actor(actor), n, n + 1));
        }
        // Every third one is a sibling of what is there, the others replace it.
        let replaces = if n % 3 == 0 { vec![] } else { vec![n.saturating_sub(70)] };
        replaces.iter().for_each(|&old| drop(expected.remove(&(key(&name), dot(old)))));
        expected.insert((key(&name), version.dot), version.clone());
        changes.push(put(&name, version, &value, &replaces));
    }
    for n in (3..=200).step_by(41) {
        let name = format!("key {}", n % 70);
        expected.remove(&(key(&name), dot(n)));
        changes.push(remove(&name, &[n]));
    }
    changes.chunks(37).for_each(|batch| ok(storage, batch));
    expected
}
