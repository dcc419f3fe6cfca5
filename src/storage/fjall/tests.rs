//! What the conformance suite and the kills can't show: spoilt records, foreign folders, leftovers of a move.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{
    model::{Actor, Context, Digest, Kind as VersionKind, Mirrors},
    storage::LoadReport,
};

pub(super) const LONG_BYTES: usize = 3 * MAX_INLINE_BYTES;

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(7), counter }
}

fn value(counter: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n * 31 + counter * 17 + n / 255) as u8).collect()
}

fn version(counter: u64, value: &[u8]) -> Arc<Version> {
    Arc::new(Version {
        dot: dot(counter),
        since: 0,
        context: Context::EMPTY,
        written_ms: counter,
        expires_ms: None,
        kind: VersionKind::Value,
        mirrors: Mirrors(3),
        len: value.len() as u64,
        digest: Digest::of(value),
        seal: None,
    })
}

pub(super) fn put(name: &str, counter: u64, len: usize, replaces: &[u64]) -> Change {
    let value = value(counter, len);
    let replaces = replaces.iter().copied().map(dot).collect();
    Change::Put { key: key(name), version: version(counter, &value), value: value.into(), replaces }
}

pub(super) fn remove(name: &str, dots: &[u64]) -> Change {
    Change::Remove { key: key(name), dots: dots.iter().copied().map(dot).collect() }
}

pub(super) fn ok(store: &FjallStorage, changes: &[Change]) {
    store.apply(changes).into_iter().for_each(|outcome| outcome.unwrap());
}

fn open(path: &Path) -> FjallStorage {
    FjallStorage::open(path, Durability::Buffered).unwrap()
}

fn loaded(store: &FjallStorage) -> (Vec<u64>, LoadReport) {
    let mut found = Vec::new();
    let report = store.load(&mut |_, version| found.push(version.dot.counter)).unwrap();
    found.sort_unstable();
    (found, report)
}

pub(super) fn dots(store: &FjallStorage, name: &str) -> Vec<u64> {
    let mut dots: Vec<u64> =
        store.read(&key(name)).unwrap().iter().map(|record| record.version.dot.counter).collect();
    dots.sort_unstable();
    dots
}

/// A store with the versions 1 and 2 of `k`, and 3 of another key.
pub(super) fn store() -> (tempfile::TempDir, FjallStorage) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    loaded(&store);
    ok(&store, &[put("k", 1, 100, &[]), put("k", 2, 100, &[]), put("other", 3, 100, &[])]);
    (folder, store)
}

fn reopened(store: FjallStorage) -> (FjallStorage, Vec<u64>, LoadReport) {
    let path = store.path().to_owned();
    drop(store);
    let store = open(&path);
    let (found, report) = loaded(&store);
    (store, found, report)
}

fn damage(result: Result<Vec<Record>, StorageError>, expected: &str) {
    match result {
        Err(StorageError::Damaged { why, .. }) => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn overwrite(store: &FjallStorage, counter: u64, what: impl FnOnce(&mut Vec<u8>)) {
    let place = record::place(&key("k"), dot(counter));
    let mut bytes = store.engine.versions.get(&place).unwrap().unwrap().to_vec();
    what(&mut bytes);
    store.engine.versions.insert(place, bytes).unwrap();
}

#[test]
fn values_lie_where_their_length_says() {
    let (_folder, store) = store();
    ok(&store, &[put("k", 4, MAX_INLINE_BYTES, &[1]), put("k", 5, MAX_INLINE_BYTES + 1, &[2])]);
    assert_eq!(store.files.read(&key("k")).unwrap().len(), 1);
    assert_eq!(store.engine.values.len().unwrap(), 2, "of k and of the other key");
    assert_eq!(dots(&store, "k"), [4, 5]);
    let (store, found, _) = reopened(store);
    assert_eq!((found, dots(&store, "k")), (vec![3, 4, 5], vec![4, 5]));
    ok(&store, &[put("k", 6, 0, &[4, 5])]);
    assert!(store.files.read(&key("k")).unwrap().is_empty(), "what was replaced is gone from the files");
    assert_eq!(store.engine.values.len().unwrap(), 1, "an empty value takes none");
    ok(&store, &[remove("k", &[6]), remove("other", &[3])]);
    assert_eq!(store.engine.versions.len().unwrap(), 0);
    assert!(store.places.is_plain(key("k").hash64()), "nothing is kept in memory of a plain key");
}

#[test]
fn a_batch_of_changes_between_both_media_takes_effect_in_order() {
    let (_folder, store) = store();
    ok(
        &store,
        &[
            put("k", 4, LONG_BYTES, &[1]),
            put("k", 5, 10, &[4]),
            put("k", 6, LONG_BYTES, &[5]),
            remove("k", &[6]),
            put("k", 6, LONG_BYTES, &[2]),
            put("k", 7, 10, &[]),
            put("k", 8, 10, &[7]),
            remove("k", &[8]),
            put("k", 8, 10, &[]),
        ],
    );
    assert_eq!(dots(&store, "k"), [6, 8]);
    assert_eq!(reopened(store).1, [3, 6, 8]);
}

#[test]
fn siblings_in_both_media_are_replaced_at_once_for_readers() {
    // Method: a reader beside a writer that replaces two siblings, one in each medium, by one version,
    // and that by two again in one change each.
    let (_folder, store) = store();
    ok(&store, &[put("k", 10, 10, &[1, 2]), put("k", 11, LONG_BYTES, &[])]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let all = dots(&store, "k");
                let n = all[0] / 10 * 10;
                let expected = [vec![n], vec![n, n + 1], vec![n + 5]];
                assert!(expected.contains(&all), "{all:?}");
            }
        });
        let writer = scope.spawn(|| {
            for n in (10..3_000).step_by(10) {
                let len = if n % 20 == 0 { 10 } else { LONG_BYTES };
                ok(&store, &[put("k", n + 5, len, &[n, n + 1])]);
                ok(&store, &[put("k", n + 10, 10, &[n + 5])]);
                ok(&store, &[put("k", n + 11, LONG_BYTES, &[])]);
            }
        });
        let outcome = writer.join();
        done.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn a_version_written_both_ways_is_there_once() {
    let (_folder, store) = store();
    let staged = value(4, 10);
    let commit = |stage| {
        store.stage(StageId(stage), 0, &staged).unwrap();
        let (key, version) = (key("k"), version(4, &staged));
        ok(&store, &[Change::Commit { stage: StageId(stage), key, version, replaces: vec![dot(1), dot(2)] }]);
    };
    commit(1);
    assert_eq!(store.files.read(&key("k")).unwrap().len(), 1, "what was staged is a file");
    ok(&store, &[put("k", 4, 10, &[])]);
    assert_eq!((dots(&store, "k"), store.files.read(&key("k")).unwrap().len()), (vec![4], 0));
    commit(2);
    assert_eq!((dots(&store, "k"), store.engine.versions.len().unwrap()), (vec![4], 1));
}

#[test]
fn what_a_crash_left_of_a_move_is_cleaned_at_load() {
    // A crash between the commit of the engine and the removal of the file.
    let (_folder, store) = store();
    let value = value(1, 100);
    let same =
        Change::Put { key: key("k"), version: version(1, &value), value: value.into(), replaces: vec![] };
    store.files.apply(&[same]).remove(0).unwrap();
    let (store, found, report) = reopened(store);
    assert_eq!((found, report.versions, report.cleaned), (vec![1, 2, 3], 3, 1));
    assert_eq!(dots(&store, "k"), [1, 2]);
}

#[test]
fn a_damaged_record_is_reported_at_load_hidden_and_healed_by_a_new_copy() {
    let (_folder, store) = store();
    overwrite(&store, 1, |record| record[9] ^= 4);
    store.engine.versions.insert("no place", "of ours").unwrap();
    let (store, found, report) = reopened(store);
    assert_eq!((found, report.versions), (vec![2, 3], 2));
    assert!(report.damaged[0].contains("checksum") && report.damaged.len() == 2, "{:?}", report.damaged);
    assert!(report.damaged[1].contains("no place of a version"), "{:?}", report.damaged);
    assert_eq!(dots(&store, "k"), [2], "the sibling is served");
    let missing = store.read_piece(&key("k"), dot(1), 0, 10);
    assert!(matches!(missing, Err(StorageError::Missing)), "{missing:?}");
    ok(&store, &[put("k", 1, 100, &[])]);
    assert_eq!(dots(&store, "k"), [1, 2]);
    assert_eq!(reopened(store).2.damaged.len(), 1, "it is well");
}

#[test]
fn a_damaged_record_can_be_removed_and_replaced() {
    for change in [remove("k", &[1]), put("k", 4, LONG_BYTES, &[1]), put("k", 4, 10, &[1])] {
        let (_folder, store) = store();
        overwrite(&store, 1, |record| record[9] ^= 4);
        let (store, _, _) = reopened(store);
        ok(&store, &[change]);
        assert!(!dots(&store, "k").contains(&1));
        assert_eq!(reopened(store).2.damaged, [""; 0], "it is gone");
    }
}

#[test]
fn what_is_spoilt_while_the_store_is_open_is_damage_and_not_absence() {
    let (_folder, store) = store();
    let place = record::place(&key("k"), dot(1));
    let good = store.engine.values.get(&place).unwrap().unwrap();
    let mut bad = good.to_vec();
    bad[10] ^= 4;
    store.engine.values.insert(&place[..], bad).unwrap();
    damage(store.read(&key("k")), "digest");
    assert_eq!(store.versions(&key("k")).unwrap().len(), 2, "what versions there are is known");
    store.engine.values.remove(&place[..]).unwrap();
    damage(store.read(&key("k")), "its value is gone");
    assert_eq!(dots(&store, "other"), [3]);
    ok(&store, &[put("k", 1, 100, &[])]);
    assert_eq!(dots(&store, "k"), [1, 2], "written again it is well");
    overwrite(&store, 1, |record| record[0] += 1);
    damage(store.read(&key("k")), "format 2");
    damage(store.versions(&key("k")).map(|_| vec![]), "format 2");
}

#[test]
fn a_spoilt_table_is_damage_and_neither_absence_nor_a_panic() {
    // Method: the changes in memory are sorted into tables, and bytes of each are turned over, one at a time.
    let (_folder, store) = store();
    for keyspace in [&store.engine.versions, &store.engine.values] {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    let path = store.path().to_owned();
    drop(store);
    let look = || -> Result<(), StorageError> {
        let (mut found, store) = (0, FjallStorage::open(&path, Durability::Buffered)?);
        let report = store.load(&mut |_, _| found += 1)?;
        assert_eq!(found + report.damaged.len(), 3, "something is missing");
        assert_eq!(store.read(&key("k"))?.len() + store.read(&key("other"))?.len(), 3);
        Ok(())
    };
    look().expect("it was sound");
    let mut noticed = 0;
    for table in tables(&path.join("engine")) {
        let file = fs::File::options().read(true).write(true).open(table).unwrap();
        for at in (0..file.metadata().unwrap().len()).step_by(61) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            match look() {
                Ok(()) => {}
                Err(StorageError::Damaged { .. } | StorageError::Io(_) | StorageError::Format(_)) => {
                    noticed += 1
                }
                Err(error) => panic!("{at}: {error}"),
            }
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert!(noticed >= 10, "{noticed}");
    look().expect("it is sound again");
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.parent().unwrap().ends_with("tables") {
            found.push(path);
        }
    }
    found
}

#[test]
fn another_kind_of_store_is_refused_untouched() {
    let (folder, store) = store();
    let path = store.path().to_owned();
    let busy = FjallStorage::open(&path, Durability::Buffered).map(drop);
    assert!(
        matches!(&busy, Err(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::ResourceBusy),
        "{busy:?}"
    );
    drop(store);
    let refused = FileStorage::open(&path, Durability::Buffered).map(drop);
    assert!(
        matches!(&refused, Err(StorageError::Format(text)) if text.contains("is a turbopump fjall store")),
        "{refused:?}"
    );
    let other = folder.path().join("files");
    drop(FileStorage::open(&other, Durability::Buffered).unwrap());
    let refused = FjallStorage::open(&other, Durability::Buffered).map(drop);
    assert!(
        matches!(&refused, Err(StorageError::Format(text)) if text.contains("is a turbopump file store")),
        "{refused:?}"
    );
    assert!(!other.join("engine").exists());
    fs::write(path.join("turbopump.store"), "turbopump fjall store\nformat 2\n").unwrap();
    let refused = FjallStorage::open(&path, Durability::Buffered).map(drop);
    assert!(matches!(&refused, Err(StorageError::Format(text)) if text.contains("format 2")), "{refused:?}");
}

#[test]
fn a_store_that_was_being_born_when_the_power_went_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    fs::remove_dir_all(folder.path().join("files")).unwrap();
    fs::rename(folder.path().join("engine"), folder.path().join("staging/engine")).unwrap();
    fs::write(folder.path().join("staging/engine/0.jnl"), "half").unwrap();
    let store = open(folder.path());
    assert_eq!(loaded(&store), (vec![], LoadReport::default()));
    assert!(!folder.path().join("staging/engine").exists());
}

#[test]
fn a_store_that_lost_its_engine_says_so() {
    let (_folder, store) = store();
    let path = store.path().to_owned();
    drop(store);
    fs::remove_dir_all(path.join("engine")).unwrap();
    let gone = FjallStorage::open(&path, Durability::Buffered).map(drop);
    assert!(matches!(&gone, Err(StorageError::Damaged { why, .. }) if why.contains("gone")), "{gone:?}");
}
