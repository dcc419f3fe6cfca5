//! What every [`Storage`] promises, as checks to run against yours.
//!
//! ```
//! use turbopump::{storage::MemoryStorage, testing::storage::StorageSuite};
//!
//! StorageSuite::new(MemoryStorage::new).run_all();
//! ```
//!
//! A storage that outlives its process says how it is opened again:
//!
//! ```
//! use turbopump::storage::{Durability, FileStorage};
//! use turbopump::testing::storage::StorageSuite;
//!
//! # let folder = tempfile::tempdir()?;
//! # let count = std::cell::Cell::new(0);
//! let open = |path: &std::path::Path| FileStorage::open(path, Durability::Buffered).unwrap();
//! let new_path = || { count.set(count.get() + 1); folder.path().join(count.get().to_string()) };
//!
//! StorageSuite::new(|| open(&new_path()))
//!     .reopening(|storage| {
//!         let path = storage.path().to_owned();
//!         drop(storage);
//!         open(&path)
//!     })
//!     .run_all();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Not a benchmark, and no test of what happens when the medium fails: that takes a medium that
//! fails on demand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    model::{Actor, Context, Digest, Dot, Key, Kind, Mirrors, Record, Seeded, Version},
    storage::{Change, LoadReport, MAX_WHOLE_VALUE_BYTES, StageId, Storage, StorageError},
};

/// Writes made by the clause that reads and writes at once.
const CONCURRENT_WRITES: u64 = 300;

/// Opens a storage again: takes the old one, and drops it first where that matters.
type Reopen<'a, S> = Box<dyn Fn(S) -> S + 'a>;

/// The promises, and how to get a storage that they are checked against.
pub struct StorageSuite<'a, S> {
    make: Box<dyn Fn() -> S + 'a>,
    reopen: Option<Reopen<'a, S>>,
}

/// A clause: what is promised, and the check.
type Clause<'a, S> = (&'static str, fn(&StorageSuite<'a, S>));

impl<'a, S: Storage> StorageSuite<'a, S> {
    /// `make` gives a new and empty storage at each call; several may exist at once.
    pub fn new(make: impl Fn() -> S + 'a) -> Self {
        Self { make: Box::new(make), reopen: None }
    }

    /// Adds the clauses for storages that keep what they have. `reopen` gets a storage, closes it
    /// and opens the same one again.
    pub fn reopening(mut self, reopen: impl Fn(S) -> S + 'a) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }

    /// The names of all clauses, in the order in which they run.
    pub fn clauses() -> impl Iterator<Item = &'static str> {
        Self::table().into_iter().map(|(name, _)| name)
    }

    /// Runs every clause.
    ///
    /// # Panics
    /// With the first promise that is broken.
    pub fn run_all(&self) {
        for (name, check) in Self::table() {
            // Shown by a test that fails, in front of the panic.
            println!("storage promise: {name}");
            check(self);
        }
    }

    fn table() -> Vec<Clause<'a, S>> {
        vec![
            ("a new storage is empty", Self::new_is_empty),
            ("what was put is read, with all of its metadata", Self::put_is_read),
            ("values of every size come back: none, one byte, the limit, above it, 1 MB", Self::sizes),
            ("a tombstone is kept like a value", Self::tombstones),
            ("a put replaces what it names, and nothing else", Self::replaces),
            ("siblings live side by side", Self::siblings),
            ("changes of one batch take effect in order", Self::order_in_a_batch),
            ("a batch of hundreds of changes answers for each", Self::large_batch),
            ("a repeated change changes nothing", Self::repeats),
            ("removing takes what is named, and skips what is not there", Self::removes),
            ("a value staged in pieces, in any order and twice, is committed whole", Self::staging),
            ("a wrong length or digest is refused, and leaves nothing", Self::refuses_wrong_content),
            ("a stage with holes is refused", Self::refuses_holes),
            ("a discarded stage is gone", Self::discard),
            ("a failed change does not keep the others of its batch from being made", Self::failure_is_alone),
            ("names of every kind are kept apart", Self::hostile_names),
            ("a context of any size is kept", Self::large_context),
            ("readers see a key before or after a change, never between", Self::concurrent_readers),
            ("changes of many threads are all made", Self::concurrent_writers),
            ("load shows every version", Self::load_shows_all),
            ("what was acknowledged is there after reopening", Self::reopen_keeps_all),
            ("stages do not outlive the process", Self::reopen_forgets_stages),
        ]
    }

    fn made(&self) -> S {
        let storage = (self.make)();
        load(&storage);
        storage
    }

    fn new_is_empty(&self) {
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

    fn put_is_read(&self) {
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

    fn sizes(&self) {
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

    fn tombstones(&self) {
        let storage = self.made();
        let mut gone = version(2, b"");
        gone.kind = Kind::Tombstone;
        ok(&storage, &[put("k", version(1, b"v"), b"v", &[])]);
        ok(&storage, &[put("k", gone.clone(), b"", &[1])]);
        assert_eq!(read(&storage, &key("k")), [record(gone, b"")]);
    }

    fn replaces(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, b"a"), b"a", &[]), put("k", version(2, b"b"), b"b", &[])]);
        ok(&storage, &[put("other", version(3, b"c"), b"c", &[])]);
        ok(&storage, &[put("k", version(4, b"d"), b"d", &[1, 99])]);
        assert_eq!(dots(&storage, "k"), [2, 4], "replaces just what it names and skips what is not there");
        assert_eq!(dots(&storage, "other"), [3], "another key is left alone");
    }

    fn siblings(&self) {
        let storage = self.made();
        for n in 1..=20 {
            let value = noise(n, 100);
            ok(&storage, &[put("k", version(n, &value), &value, &[])]);
        }
        let found = read(&storage, &key("k"));
        assert_eq!(found.len(), 20, "all siblings are kept");
        for Record { version, value } in found {
            assert!(version.matches(&value.expect("short")), "siblings were mixed up");
        }
    }

    fn order_in_a_batch(&self) {
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

    fn large_batch(&self) {
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

    fn repeats(&self) {
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

    fn removes(&self) {
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

    fn staging(&self) {
        let storage = self.made();
        let value = noise(1, 300_001);
        let mut pieces: Vec<(u64, &[u8])> = (0..).step_by(10_000).zip(value.chunks(10_000)).collect();
        pieces.reverse();
        for (offset, piece) in pieces.iter().chain(&pieces[..7]) {
            storage.stage(StageId(1), *offset, piece).expect("staging");
            storage.stage(StageId(2), *offset, b"another stage").expect("staging");
        }
        assert_eq!(dots(&storage, "k"), [], "what is staged is not visible");
        ok(&storage, &[put("k", version(1, b"old"), b"old", &[])]);
        ok(&storage, &[commit(1, "k", version(2, &value), &[1])]);
        assert_eq!(dots(&storage, "k"), [2], "a commit replaces like a put");
        assert!(read_pieces(&storage, &key("k"), dot(2), 65_536) == value, "other bytes than were staged");
        let again = only(storage.apply(&[commit(1, "k", version(3, &value), &[])]));
        assert!(matches!(again, Err(StorageError::Missing)), "a stage is committed once; again: {again:?}");
        storage.stage(StageId(3), 0, b"short").expect("staging");
        ok(&storage, &[commit(3, "short", version(4, b"short"), &[])]);
        assert_eq!(read(&storage, &key("short")), [record(version(4, b"short"), b"short")]);
    }

    fn refuses_wrong_content(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, b"good"), b"good", &[])]);
        let mut long = version(3, b"goods");
        long.digest = Digest::of(b"good");
        for (n, lie) in
            [version(2, b"Good"), long, version(4, b"goo"), version(5, b"")].into_iter().enumerate()
        {
            let stage = n as u64;
            storage.stage(StageId(stage), 0, b"good").expect("staging");
            let refused = only(storage.apply(&[commit(stage, "k", lie, &[1])]));
            assert!(matches!(refused, Err(StorageError::Damaged { .. })), "wrong content: {refused:?}");
            assert_eq!(dots(&storage, "k"), [1], "a refused commit leaves what was there");
            let gone = only(storage.apply(&[commit(stage, "k", version(6, b"good"), &[])]));
            assert!(matches!(gone, Err(StorageError::Missing)), "a refused stage is discarded: {gone:?}");
        }
    }

    fn refuses_holes(&self) {
        let storage = self.made();
        let value = noise(1, 30_000);
        storage.stage(StageId(1), 0, &value[..10_000]).expect("staging");
        storage.stage(StageId(1), 20_000, &value[20_000..]).expect("staging");
        storage.stage(StageId(2), 20_000, b"").expect("staging");
        for stage in [1, 2] {
            let refused = only(storage.apply(&[commit(stage, "k", version(stage, &value), &[])]));
            assert!(matches!(refused, Err(StorageError::Damaged { .. })), "a stage with a hole: {refused:?}");
        }
        assert_eq!(dots(&storage, "k"), []);
    }

    fn discard(&self) {
        let storage = self.made();
        storage.stage(StageId(1), 0, b"v").expect("staging");
        storage.discard(StageId(1));
        storage.discard(StageId(1));
        storage.discard(StageId(77));
        let gone = only(storage.apply(&[commit(1, "k", version(1, b"v"), &[])]));
        assert!(matches!(gone, Err(StorageError::Missing)), "a discarded stage: {gone:?}");
    }

    fn failure_is_alone(&self) {
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

    fn hostile_names(&self) {
        let storage = self.made();
        let names = hostile_names();
        for (n, name) in (1..).zip(&names) {
            ok(&storage, &[put(name, version(n, name.as_bytes()), name.as_bytes(), &[])]);
        }
        let check = |storage: &S| {
            for (n, name) in (1..).zip(&names) {
                assert_eq!(
                    read(storage, &key(name)),
                    [record(version(n, name.as_bytes()), name.as_bytes())],
                    "{name:?}"
                );
            }
        };
        check(&storage);
        let storage = match &self.reopen {
            None => storage,
            Some(reopen) => {
                let storage = reopen(storage);
                assert_eq!(load(&storage).0.len(), names.len(), "every name is there after reopening");
                check(&storage);
                storage
            }
        };
        for (n, name) in (1..).zip(&names).step_by(2) {
            ok(&storage, &[remove(name, &[n])]);
        }
        for (n, name) in (1..).zip(&names) {
            let left = if n % 2 == 1 { vec![] } else { vec![n] };
            assert_eq!(
                dots(&storage, name),
                left,
                "removing another name removed {name:?}, or it was not removed"
            );
        }
    }

    fn large_context(&self) {
        let storage = self.made();
        for (n, ranges) in [(1, 60), (2, 200), (3, 20_000)] {
            let mut large = version(n, b"v");
            for actor in 0..ranges {
                large.context.add(Actor(actor << 40), n, u64::MAX - actor);
            }
            ok(&storage, &[put("k", large.clone(), b"v", &[n - 1])]);
            assert_eq!(read(&storage, &key("k")), [record(large, b"v")], "a context of {ranges} ranges");
        }
        ok(&storage, &[remove("k", &[3])]);
        assert_eq!(dots(&storage, "k"), []);
    }

    fn concurrent_readers(&self) {
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
                    let value = noise(n, 500);
                    ok(&storage, &[put("k", version(n, &value), &value, &[n - 1])]);
                }
            });
            let outcome = writer.join();
            done.store(true, Ordering::Relaxed);
            outcome.expect("the writer");
        });
        assert_eq!(dots(&storage, "k"), [CONCURRENT_WRITES]);
    }

    fn concurrent_writers(&self) {
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

    fn load_shows_all(&self) {
        let storage = self.made();
        let expected = fill(&storage);
        let (found, report) = load(&storage);
        assert_eq!(found, expected, "load shows what is there");
        assert_eq!(report.versions as usize, expected.len(), "the report counts the versions");
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    }

    fn reopen_keeps_all(&self) {
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

    fn reopen_forgets_stages(&self) {
        let Some(reopen) = &self.reopen else { return };
        let storage = self.made();
        storage.stage(StageId(1), 0, b"v").expect("staging");
        let storage = reopen(storage);
        assert!(load(&storage).0.is_empty(), "a stage is no version");
        let gone = only(storage.apply(&[commit(1, "k", version(1, b"v"), &[])]));
        assert!(matches!(gone, Err(StorageError::Missing)), "a stage of an earlier process: {gone:?}");
    }
}

/// Names that went wrong somewhere once.
fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "aA",
        "Aa",
        "AA",
        "aa",
        "^a",
        "%41",
        "%61",
        "a%",
        ".",
        "..",
        "...",
        "./a",
        "../a",
        "../../a",
        "/",
        "/a",
        "a/",
        "a/b",
        "a//b",
        "a\\b",
        "/etc/passwd",
        "-",
        "-rf",
        "~",
        "~root",
        "*",
        "?",
        " ",
        "  ",
        "a ",
        " a",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "a\0",
        "a\0b",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{202e}",
        "\u{feff}",
        "ß",
        "SS",
        "ẞ",
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "İ",
        "ı",
        "🚀",
        "con",
        "nul.txt",
        "lock",
        "data",
        "staging",
        "turbopump.store",
        ".meta",
        "a.meta",
        "a@0000000000000001-1",
        "a@0000000000000001-1.meta",
        "0000000000000001-1",
        "@0000000000000001-1",
        "a@",
        "@",
        "a~",
        "put-1",
        "stage-1",
        "user.tp",
        "{}",
        "$HOME",
        "`id`",
        "'",
        "\"",
        "a;b",
        "a&b=c",
        "a?b#c",
        "%00",
        "%2f",
        "%2e%2e",
    ]
    .map(str::to_owned)
    .to_vec();
    // Around what file systems allow as a name, and up to the longest key; such as differ at the
    // end only, and in case only.
    for len in [90, 99, 100, 101, 142, 143, 144, 217, 218, 250, 255, 256, 300, 1_023, 1_024] {
        names.extend(["a", "A"].map(|letter| letter.repeat(len)));
        names.push(format!("{}b", "a".repeat(len - 1)));
        names.push("/".repeat(len));
    }
    names.push("é".repeat(512));
    names.push("../".repeat(341));
    names
}

/// Some of everything; answers what has to be there then.
fn fill(storage: &impl Storage) -> BTreeMap<(Key, Dot), Version> {
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

fn load(storage: &impl Storage) -> (BTreeMap<(Key, Dot), Version>, LoadReport) {
    let mut found = BTreeMap::new();
    let report = storage
        .load(&mut |key, version| {
            let twice = found.insert((key, version.dot), version);
            assert!(twice.is_none(), "load shows a version twice: {twice:?}");
        })
        .expect("load");
    (found, report)
}

/// What is there of `key`, in the order of the dots.
fn read(storage: &impl Storage, key: &Key) -> Vec<Record> {
    let mut found = storage.read(key).expect("read");
    found.sort_by_key(|record| record.version.dot);
    found
}

fn read_pieces(storage: &impl Storage, key: &Key, dot: Dot, piece_bytes: usize) -> Vec<u8> {
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

fn dots(storage: &impl Storage, name: &str) -> Vec<u64> {
    read(storage, &key(name)).iter().map(|record| record.version.dot.counter).collect()
}

fn ok(storage: &impl Storage, changes: &[Change]) {
    let outcomes = storage.apply(changes);
    assert_eq!(outcomes.len(), changes.len(), "each change has an answer");
    for (outcome, change) in outcomes.into_iter().zip(changes) {
        outcome.unwrap_or_else(|error| panic!("{error}: of {:?}", change.key()));
    }
}

fn only(outcomes: Vec<Result<(), StorageError>>) -> Result<(), StorageError> {
    assert_eq!(outcomes.len(), 1, "each change has an answer");
    outcomes.into_iter().next().expect("one")
}

fn put(name: &str, version: Version, value: &[u8], replaces: &[u64]) -> Change {
    let replaces = replaces.iter().copied().map(dot).collect();
    Change::Put { key: key(name), version: Arc::new(version), value: Bytes::copy_from_slice(value), replaces }
}

fn commit(stage: u64, name: &str, version: Version, replaces: &[u64]) -> Change {
    let replaces = replaces.iter().copied().map(dot).collect();
    Change::Commit { stage: StageId(stage), key: key(name), version: Arc::new(version), replaces }
}

fn remove(name: &str, dots: &[u64]) -> Change {
    Change::Remove { key: key(name), dots: dots.iter().copied().map(dot).collect() }
}

fn record(version: Version, value: &[u8]) -> Record {
    Record { version: Arc::new(version), value: Some(Bytes::copy_from_slice(value)) }
}

fn version(counter: u64, value: &[u8]) -> Version {
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
    }
}

fn key(name: &str) -> Key {
    Key::new(name).expect("a name of 1 to 1,024 bytes")
}

fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(1), counter }
}

/// The same bytes for the same seed, and no two alike.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut seeded = Seeded::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| seeded.next_u64().to_le_bytes()).take(len).collect()
}
