//! Clauses about single changes and batches: what is put is read, and nothing else changes.

use super::{StorageSuite, parts::*};
use crate::{
    model::{Actor, Kind, Mirrors, Record},
    storage::{Change, LoadReport, MAX_WHOLE_VALUE_BYTES, Storage, StorageError},
};

impl<S: Storage> StorageSuite<'_, S> {
    pub(super) fn new_is_empty(&self) {
        let storage = (self.make)();
        let (found, report) = load(&storage);
        assert!(found.is_empty(), "a new storage shows versions: {found:?}");
        assert_eq!(report, LoadReport::default(), "a new storage has nothing to report");
        assert!(read(&storage, &key("k")).is_empty(), "a key that was never put has versions");
        let missing = storage.read_piece(&key("k"), dot(1), 0, 10);
        assert!(
            matches!(missing, Err(StorageError::Missing)),
            "a piece of nothing is Missing, not {missing:?}"
        );
    }

    pub(super) fn put_is_read(&self) {
        let storage = self.made();
        let mut full = version(7, b"value");
        full.since = 3;
        full.context.add(Actor(9), 4, 8);
        full.context.add(Actor(u64::MAX), 0, u64::MAX);
        full.written_ms = u64::MAX;
        full.expires_ms = Some(0);
        full.mirrors = Mirrors::ALL;
        ok(&storage, &[put("k", full.clone(), b"value", &[])]);
        assert_eq!(read(&storage, &key("k")), [record(full, b"value")]);
    }

    pub(super) fn sizes(&self) {
        let storage = self.made();
        let limit = MAX_WHOLE_VALUE_BYTES as usize;
        for (n, len) in (1..).zip([0, 1, limit - 1, limit, limit + 1, 1 << 20]) {
            let (name, value) = (format!("size {len}"), noise(n, len));
            ok(&storage, &[put(&name, version(n, &value), &value, &[])]);
            let found = read(&storage, &key(&name));
            assert_eq!(found.len(), 1, "{name}");
            assert!(found[0].version.matches(&value), "{name}: the metadata is another one's");
            match &found[0].value {
                Some(whole) => assert!(*whole == value, "{name}: other bytes"),
                None => assert!(len > limit, "{name}: up to {limit} bytes come whole"),
            }
            assert!(
                read_pieces(&storage, &key(&name), dot(n), 10_007) == value,
                "{name}: other bytes in pieces"
            );
            let past = storage.read_piece(&key(&name), dot(n), len as u64 + 1, 10).expect("past the end");
            assert!(past.is_empty(), "{name}: there is nothing past the end");
            let rest = storage.read_piece(&key(&name), dot(n), 0, usize::MAX).expect("no limit");
            assert!(rest == value, "{name}: a piece without limit is all of it");
        }
    }

    pub(super) fn tombstones(&self) {
        let storage = self.made();
        let mut gone = version(2, b"");
        gone.kind = Kind::Tombstone;
        ok(&storage, &[put("k", version(1, b"v"), b"v", &[])]);
        ok(&storage, &[put("k", gone.clone(), b"", &[1])]);
        assert_eq!(read(&storage, &key("k")), [record(gone, b"")]);
    }

    pub(super) fn replaces(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, b"a"), b"a", &[]), put("k", version(2, b"b"), b"b", &[])]);
        ok(&storage, &[put("other", version(3, b"c"), b"c", &[])]);
        ok(&storage, &[put("k", version(4, b"d"), b"d", &[1, 99])]);
        assert_eq!(dots(&storage, "k"), [2, 4], "replaces just what it names and skips what is not there");
        assert_eq!(dots(&storage, "other"), [3], "another key is left alone");
    }

    pub(super) fn siblings(&self) {
        let storage = self.made();
        for n in 1..=20 {
            let value = noise(n, 100);
            ok(&storage, &[put("k", version(n, &value), &value, &[])]);
        }
        let found = read(&storage, &key("k"));
        assert_eq!(found.len(), 20, "all siblings are kept");
        let mut versions = storage.versions(&key("k")).expect("versions");
        versions.sort_by_key(|version| version.dot);
        assert!(versions.iter().eq(found.iter().map(|record| &record.version)), "metadata alone is the same");
        for Record { version, value } in found {
            assert!(version.matches(&value.expect("short")), "siblings were mixed up");
        }
    }

    pub(super) fn order_in_a_batch(&self) {
        let storage = self.made();
        ok(
            &storage,
            &[
                put("k", version(1, b"a"), b"a", &[]),
                put("k", version(2, b"b"), b"b", &[1]),
                put("k", version(3, b"c"), b"c", &[2]),
                put("gone", version(4, b"d"), b"d", &[]),
                remove("gone", &[4]),
                put("back", version(5, b"e"), b"e", &[]),
                remove("back", &[5]),
                put("back", version(5, b"e"), b"e", &[]),
                remove("late", &[6]),
                put("late", version(6, b"f"), b"f", &[]),
            ],
        );
        assert_eq!(dots(&storage, "k"), [3], "the last of three puts stays");
        assert_eq!(dots(&storage, "gone"), [], "put, then removed");
        assert_eq!(dots(&storage, "back"), [5], "put, removed, put");
        assert_eq!(dots(&storage, "late"), [6], "removed before it was put");
    }

    pub(super) fn large_batch(&self) {
        let storage = self.made();
        let changes: Vec<Change> = (1..=600)
            .map(|n| put(&format!("k{}", n % 250), version(n, b"v"), b"v", &[n.saturating_sub(250)]))
            .collect();
        ok(&storage, &changes);
        for n in 351..=600 {
            assert_eq!(dots(&storage, &format!("k{}", n % 250)), [n]);
        }
        assert!(storage.apply(&[]).is_empty(), "no changes, no answers");
    }

    pub(super) fn repeats(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, b"a"), b"a", &[])]);
        let change = put("k", version(2, b"b"), b"b", &[1]);
        ok(&storage, &[change.clone(), change.clone()]);
        ok(&storage, &[change]);
        assert_eq!(read(&storage, &key("k")), [record(version(2, b"b"), b"b")]);
        ok(&storage, &[remove("k", &[2]), remove("k", &[2])]);
        ok(&storage, &[remove("k", &[2])]);
        assert_eq!(dots(&storage, "k"), []);
    }

    pub(super) fn removes(&self) {
        let storage = self.made();
        ok(&storage, &(1..=3).map(|n| put("k", version(n, b"v"), b"v", &[])).collect::<Vec<_>>());
        ok(&storage, &[remove("k", &[1, 3, 99]), remove("never there", &[1])]);
        assert_eq!(dots(&storage, "k"), [2]);
        ok(&storage, &[remove("k", &[2])]);
        assert_eq!(dots(&storage, "k"), []);
        let missing = storage.read_piece(&key("k"), dot(2), 0, 1);
        assert!(
            matches!(missing, Err(StorageError::Missing)),
            "what was removed is Missing, not {missing:?}"
        );
    }

    pub(super) fn failure_is_alone(&self) {
        let storage = self.made();
        let outcomes = storage.apply(&[
            put("a", version(1, b"v"), b"v", &[]),
            commit(404, "a", version(2, b"v"), &[1]),
            put("b", version(3, b"v"), b"v", &[]),
        ]);
        let good: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true], "each change has its own answer, at its place");
        assert_eq!((dots(&storage, "a"), dots(&storage, "b")), (vec![1], vec![3]));
    }
}
