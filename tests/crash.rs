//! What is left of a store after a crash, and after somebody or something spoiled its files.
//!
//! A crash is a kill -9 of a child process: this test binary again, told by the environment to
//! write until it dies. That shows what survives the process. What survives a power loss can't be
//! shown without cutting it; the order of syncs is in the `group.rs` of each storage.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

#[cfg(feature = "fjall")]
use turbopump::storage::FjallStorage;
use turbopump::{
    model::{Actor, Context, Digest, Dot, Key, Kind, Mirrors, Seeded, Version},
    storage::{Change, Durability, FileStorage, LoadReport, StageId, Storage, StorageError},
};

/// Set for the child: the store that it writes to, and the first number that it writes.
const CHILD_STORE: &str = "TURBOPUMP_CRASH_STORE";
const CHILD_FIRST: &str = "TURBOPUMP_CRASH_FIRST";

const KEYS: u64 = 50;
const BATCH: u64 = 20;
const ROUNDS: u64 = 8;

#[test]
fn every_acknowledged_version_survives_kill_9_whole() {
    // Goal: after each of several kills at any moment of a batch, the newest acknowledged version of
    // every key is there, or a newer one; with the right bytes; and nothing is damaged or half.
    survives_kill_9("file", &["staging"]);
}

#[cfg(feature = "fjall")]
#[test]
fn every_acknowledged_version_survives_kill_9_whole_in_fjall_too() {
    // Values of all lengths replace each other, so that the kill falls between its two media as well.
    survives_kill_9("fjall", &["staging", "files/staging"]);
}

fn survives_kill_9(kind: &str, staging: &[&str]) {
    for durability in [Durability::Synced, Durability::Buffered] {
        let folder = tempfile::tempdir().unwrap();
        let mut seeded = Seeded::new(durability as u64);
        let mut acknowledged = 0;
        for round in 0..ROUNDS {
            let killed_after = 1 + seeded.below(12);
            let last = acknowledged_by_child(kind, folder.path(), durability, acknowledged + 1, killed_after);
            assert!(last > acknowledged, "round {round}: the child did nothing");
            acknowledged = last;
            let storage = open(kind, folder.path(), durability);
            let (found, report) = loaded(&*storage);
            assert_eq!(report.damaged, [""; 0], "round {round}");
            for n in (acknowledged.saturating_sub(KEYS - 1)..=acknowledged).filter(|&n| n > 0) {
                let records = storage.read(&key(n)).unwrap();
                let newest = records.iter().map(|r| r.version.dot.counter).max();
                assert!(newest >= Some(n), "round {round}: {n} was acknowledged, {newest:?} is there");
                for record in records {
                    let expected = value(record.version.dot.counter);
                    assert!(record.version.matches(&expected), "round {round}: metadata of another value");
                    let read = storage.read_piece(&key(n), record.version.dot, 0, usize::MAX).unwrap();
                    assert!(read == expected, "round {round}: other bytes");
                }
            }
            // One batch may be in place and not acknowledged; then numbers in it are used again.
            let newest = found.iter().map(|(_, version)| version.dot.counter).max().unwrap();
            assert!(newest <= acknowledged + BATCH, "round {round}: {newest} came out of nowhere");
            acknowledged = newest;
            for staging in staging {
                let left = fs::read_dir(folder.path().join(staging)).unwrap().count();
                assert_eq!(left, 0, "leftovers are cleaned");
            }
        }
    }
}

/// Not a test of its own: what the child of the test above runs.
#[test]
fn child_that_writes_until_it_is_killed() {
    let (Ok(store), Ok(first)) = (std::env::var(CHILD_STORE), std::env::var(CHILD_FIRST)) else { return };
    let (kind, store) = store.split_once(':').unwrap();
    let (durability, store) = match store.strip_prefix("buffered:") {
        Some(store) => (Durability::Buffered, store),
        None => (Durability::Synced, store),
    };
    let storage = open(kind, Path::new(store), durability);
    storage.load(&mut |_, _| {}).unwrap();
    let mut next: u64 = first.parse().unwrap();
    loop {
        let batch: Vec<Change> = (next..next + BATCH).map(|n| change(&*storage, n)).collect();
        storage.apply(&batch).into_iter().for_each(|outcome| outcome.unwrap());
        next += BATCH;
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nacknowledged {}", next - 1).unwrap();
        out.flush().unwrap();
    }
}

/// Starts the child, kills it soon after `answers` batches, and answers the last number that it
/// acknowledged.
fn acknowledged_by_child(kind: &str, store: &Path, durability: Durability, first: u64, answers: u64) -> u64 {
    let how = if durability == Durability::Buffered { "buffered:" } else { "" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_STORE, format!("{kind}:{how}{}", store.display()))
        .env(CHILD_FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = 0;
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
            last = number.parse().unwrap();
            seen += 1;
        }
        // Goes on reading: what was printed before the kill was acknowledged.
        if seen == answers {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last
}

#[test]
fn torn_files_and_stages_are_cleaned_at_load() {
    let (folder, store) = store_with(3);
    let staging = store.join("staging");
    for name in ["put-0", "put-77", "meta-3", "stage-9"] {
        fs::write(staging.join(name), b"half a val").unwrap();
    }
    fs::write(staging.join("notes.txt"), b"of a person").unwrap();
    let (storage, found, report) = reopened(&store, Durability::Synced);
    assert_eq!((found.len(), report.cleaned), (3, 4));
    assert!(report.damaged.len() == 1 && report.damaged[0].contains("notes.txt"), "{:?}", report.damaged);
    assert!(staging.join("notes.txt").exists(), "what is not ours is never deleted");
    let none = storage.apply(&[commit(9, 1)]).remove(0);
    assert!(matches!(none, Err(StorageError::Missing)), "{none:?}");
    drop(folder);
}

#[test]
fn a_sidecar_whose_value_never_came_is_cleaned_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let storage = FileStorage::open_without_xattrs(folder.path(), Durability::Synced).unwrap();
    (1..=2).for_each(|n| put(&storage, n));
    drop(storage);
    fs::remove_file(file_of(folder.path(), 1)).unwrap();
    let (_, found, report) = reopened(folder.path(), Durability::Synced);
    assert_eq!((found.len(), report.cleaned, report.damaged.len()), (1, 1, 0));
}

#[test]
fn a_truncated_value_is_reported_at_load_and_not_served() {
    let (_folder, store) = store_with(2);
    let file = fs::File::options().write(true).open(file_of(&store, 1)).unwrap();
    file.set_len(value(1).len() as u64 - 1).unwrap();
    is_reported_and_not_served(&store, 1, "length");
}

#[test]
fn a_value_of_no_bytes_left_is_reported_at_load_and_not_served() {
    let (_folder, store) = store_with(2);
    fs::write(file_of(&store, 1), b"").unwrap();
    is_reported_and_not_served(&store, 1, "length");
}

#[test]
fn a_flipped_bit_in_metadata_is_reported_at_load_and_not_served() {
    let (_folder, store) = store_with(2);
    let path = file_of(&store, 1);
    let good = xattr::get(&path, "user.tp").unwrap().expect("the test needs extended attributes");
    for bit in (0..good.len() * 8).step_by(29) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        xattr::set(&path, "user.tp", &bad).unwrap();
        is_reported_and_not_served(&store, 1, "metadata");
    }
    for len in 0..good.len() {
        xattr::set(&path, "user.tp", &good[..len]).unwrap();
        is_reported_and_not_served(&store, 1, "metadata");
    }
}

#[test]
fn a_value_without_metadata_is_reported_with_the_reason_why_that_happens() {
    let (_folder, store) = store_with(2);
    xattr::remove(file_of(&store, 1), "user.tp").unwrap();
    is_reported_and_not_served(&store, 1, "extended attributes");
}

#[test]
fn a_file_that_was_renamed_or_moved_is_reported_and_not_served() {
    let (_folder, store) = store_with(2);
    let path = file_of(&store, 1);
    let renamed = path.with_file_name(path.file_name().unwrap().to_str().unwrap().replace("key-", "kez-"));
    fs::rename(&path, &renamed).unwrap();
    is_reported_and_not_served(&store, 1, "another file");
    fs::rename(&renamed, store.join("data/000").join(path.file_name().unwrap())).unwrap_or_else(|_| {
        fs::create_dir(store.join("data/000")).unwrap();
        fs::rename(&renamed, store.join("data/000").join(path.file_name().unwrap())).unwrap();
    });
    is_reported_and_not_served(&store, 1, "wrong folder");
}

#[test]
fn a_flipped_bit_in_a_value_is_not_served_and_a_new_copy_heals_it() {
    // Goal: load does not read values, so read has to notice. A sibling that is good is not served
    // either, since the answer would look whole; and it is not lost.
    let (_folder, store) = store_with(2);
    let (storage, _, _) = reopened(&store, Durability::Synced);
    storage.apply(&[put_as(1, 900)]).remove(0).unwrap();
    let path = file_of(&store, 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 4;
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&bytes, 0).unwrap();
    let damaged = storage.read(&key(1));
    assert!(
        matches!(&damaged, Err(StorageError::Damaged { why, .. }) if why.contains("digest")),
        "{damaged:?}"
    );
    assert!(
        storage.read_piece(&key(1), dot(900), 0, 1 << 20).unwrap() == value(900),
        "the sibling is still there"
    );
    assert_eq!(storage.versions(&key(1)).unwrap().len(), 2, "what versions there are is known");
    assert_eq!(storage.read(&key(2)).unwrap().len(), 1, "other keys are served");
    assert!(path.exists(), "it stays for a person to look at");
    put(&storage, 1);
    assert_eq!(storage.read(&key(1)).unwrap().len(), 2, "the same version written again heals it");
}

#[test]
fn a_file_that_was_deleted_is_damage_and_not_absence() {
    let (_folder, store) = store_with(2);
    let (storage, _, _) = reopened(&store, Durability::Synced);
    fs::remove_file(file_of(&store, 1)).unwrap();
    let gone = storage.read(&key(1));
    assert!(matches!(&gone, Err(StorageError::Damaged { why, .. }) if why.contains("gone")), "{gone:?}");
}

#[test]
fn foreign_files_are_reported_and_left_alone() {
    let (_folder, store) = store_with(2);
    let inside = file_of(&store, 1);
    let foreign = [
        store.join("data/README"),
        store.join("data/fff0"),
        inside.with_file_name("notes.txt"),
        inside.with_file_name(".hidden"),
        inside.with_file_name("Upper@00000000000000ab-1"),
    ];
    foreign.iter().for_each(|path| fs::write(path, b"of a person").unwrap());
    fs::create_dir(inside.with_file_name("folder@00000000000000ab-1")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside.with_file_name("link@00000000000000ab-1")).unwrap();
    let (_, found, report) = reopened(&store, Durability::Synced);
    assert_eq!((found.len(), report.damaged.len(), report.cleaned), (2, 7, 0), "{:?}", report.damaged);
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn at_most_a_hundred_damaged_records_are_named() {
    let (_folder, store) = store_with(1);
    (0..150).for_each(|n| fs::write(file_of(&store, 1).with_file_name(n.to_string()), b"").unwrap());
    let (_, found, report) = reopened(&store, Durability::Synced);
    assert_eq!((found.len(), report.damaged.len()), (1, 100));
}

#[test]
fn an_unknown_format_is_refused_untouched_with_the_way_out() {
    let (_folder, store) = store_with(1);
    for (marker, says) in [
        ("turbopump file store\nformat 2\n", "format 2"),
        ("turbopump file store\nformat x\n", "can't be understood"),
        ("something else\nformat 1\n", "can't be understood"),
        ("", "can't be understood"),
    ] {
        fs::write(store.join("turbopump.store"), marker).unwrap();
        let before = listing(&store);
        let Err(StorageError::Format(text)) = FileStorage::open(&store, Durability::Synced).map(drop) else {
            panic!("{marker:?} was accepted")
        };
        assert!(text.contains(says) && text.contains("folder"), "{text}");
        assert_eq!(listing(&store), before, "a refused store is not touched");
    }
}

#[test]
fn a_folder_that_is_no_store_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), b"of a person").unwrap();
    let refused = FileStorage::open(folder.path(), Durability::Synced).map(drop);
    assert!(
        matches!(&refused, Err(StorageError::Format(text)) if text.contains("thesis.tex")),
        "{refused:?}"
    );
    assert_eq!(listing(folder.path()).len(), 1);
}

#[test]
fn a_store_that_was_being_born_when_the_power_went_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lock"), b"").unwrap();
    fs::write(folder.path().join("turbopump.store.new"), b"turbop").unwrap();
    fs::create_dir(folder.path().join("staging")).unwrap();
    let (_, found, report) = reopened(folder.path(), Durability::Synced);
    assert_eq!((found.len(), report), (0, LoadReport::default()));
}

#[test]
fn two_never_share_a_store() {
    let (_folder, store) = store_with(1);
    let first = FileStorage::open(&store, Durability::Synced).unwrap();
    let second = FileStorage::open(&store, Durability::Synced).map(drop);
    assert!(
        matches!(&second, Err(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::ResourceBusy),
        "{second:?}"
    );
    drop(first);
    FileStorage::open(&store, Durability::Synced).unwrap();
}

#[test]
fn a_change_that_the_disk_refuses_leaves_the_old_state_and_no_files() {
    // Method: a file where the data folder of the key has to be, so that placing it fails.
    let folder = tempfile::tempdir().unwrap();
    let (storage, _, _) = reopened(folder.path(), Durability::Synced);
    let blocked = folder.path().join(format!("data/{:03x}", key(1).hash64() >> 52));
    fs::write(&blocked, b"in the way").unwrap();
    let outcomes = storage.apply(&[put_as(1, 1), put_as(2, 2)]);
    assert!(matches!(&outcomes[..], [Err(StorageError::Io(_)), Ok(())]), "{outcomes:?}");
    assert_eq!(storage.read(&key(1)).unwrap().len(), 0);
    assert_eq!(fs::read_dir(folder.path().join("staging")).unwrap().count(), 0, "nothing is left over");
    fs::remove_file(blocked).unwrap();
    put(&storage, 1);
    assert_eq!(storage.read(&key(1)).unwrap().len(), 1, "the same change works when the reason is gone");
}

#[test]
#[ignore = "needs a small file system of its own: its folder in TURBOPUMP_SMALL_DISK"]
fn a_full_disk_refuses_and_keeps_what_it_has() {
    // By hand: unshare -m sh -c 'mount -t tmpfs -o size=1m none /mnt && TURBOPUMP_SMALL_DISK=/mnt
    // cargo test --test crash -- --ignored'
    let folder = std::env::var("TURBOPUMP_SMALL_DISK").expect("the folder of a small file system");
    let store = Path::new(&folder).join("store");
    let (storage, _, _) = reopened(&store, Durability::Synced);
    let mut kept = Vec::new();
    let mut refused = 0;
    for n in 1_u64.. {
        // Odd ones replace nothing, so that it fills up.
        let replaces = if n.is_multiple_of(2) { vec![dot(n.saturating_sub(KEYS))] } else { vec![] };
        let change = Change::Put { key: key(n), version: version(n), value: value(n).into(), replaces };
        let outcomes = storage.apply(&[change]);
        match &outcomes[0] {
            Ok(()) => {
                kept.retain(|&old| old + KEYS != n || !n.is_multiple_of(2));
                kept.push(n);
            }
            Err(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => refused += 1,
            other => panic!("{other:?}"),
        }
        assert!(n < 10_000, "the file system is not small");
        if refused == 2 * KEYS {
            break;
        }
    }
    drop(storage);
    let (_, found, report) = reopened(&store, Durability::Synced);
    assert_eq!(report.damaged, [""; 0]);
    let mut found: Vec<u64> = found.iter().map(|(_, version)| version.dot.counter).collect();
    found.sort_unstable();
    assert_eq!(found, kept);
}

fn is_reported_and_not_served(store: &Path, n: u64, why: &str) {
    let (storage, found, report) = reopened(store, Durability::Synced);
    assert!(found.iter().all(|(found, _)| *found != key(n)), "what is damaged is not shown");
    assert_eq!(found.len(), 1, "the other one is");
    assert!(report.damaged.len() == 1 && report.damaged[0].contains(why), "{why}: {:?}", report.damaged);
    assert!(storage.read(&key(n)).unwrap().is_empty(), "what is damaged is not served");
}

/// A store with the versions 1 to `count`, each of a key of its own, and closed again.
fn store_with(count: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let (storage, _, _) = reopened(&store, Durability::Synced);
    (1..=count).for_each(|n| put(&storage, n));
    (folder, store)
}

fn reopened(store: &Path, durability: Durability) -> (FileStorage, Vec<(Key, Version)>, LoadReport) {
    let storage = FileStorage::open(store, durability).unwrap();
    let (found, report) = loaded(&storage);
    (storage, found, report)
}

fn open(kind: &str, store: &Path, durability: Durability) -> Box<dyn Storage> {
    match kind {
        "file" => Box::new(FileStorage::open(store, durability).unwrap()),
        #[cfg(feature = "fjall")]
        "fjall" => Box::new(FjallStorage::open(store, durability).unwrap()),
        other => panic!("{other}"),
    }
}

fn loaded(storage: &dyn Storage) -> (Vec<(Key, Version)>, LoadReport) {
    let mut found = Vec::new();
    let report = storage.load(&mut |key, version| found.push((key, version))).unwrap();
    (found, report)
}

fn put(storage: &FileStorage, n: u64) {
    storage.apply(&[put_as(n, n)]).remove(0).unwrap();
}

/// Number `counter` as a version of the key of `n`.
fn put_as(n: u64, counter: u64) -> Change {
    Change::Put { key: key(n), version: version(counter), value: value(counter).into(), replaces: vec![] }
}

fn commit(stage: u64, n: u64) -> Change {
    Change::Commit { stage: StageId(stage), key: key(n), version: version(n), replaces: vec![] }
}

/// Number `n` in the child's endless row: it replaces the one of a round before; some are staged.
fn change(storage: &dyn Storage, n: u64) -> Change {
    let replaces = vec![dot(n.saturating_sub(KEYS))];
    if n.is_multiple_of(5) {
        storage.stage(StageId(n), 0, &value(n)).unwrap();
        Change::Commit { stage: StageId(n), key: key(n), version: version(n), replaces }
    } else {
        Change::Put { key: key(n), version: version(n), value: value(n).into(), replaces }
    }
}

fn key(n: u64) -> Key {
    Key::new(format!("key-{}", n % KEYS)).unwrap()
}

fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(0xab), counter }
}

fn value(n: u64) -> Vec<u8> {
    let mut seeded = Seeded::new(n);
    let len = 50 + if n.is_multiple_of(11) { 200_000 } else { seeded.below(5_000) };
    (0..len).map(|_| seeded.next_u64() as u8).collect()
}

fn version(n: u64) -> Arc<Version> {
    let value = value(n);
    Arc::new(Version {
        dot: dot(n),
        since: n.saturating_sub(KEYS),
        context: Context::EMPTY,
        written_ms: n,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: value.len() as u64,
        digest: Digest::of(&value),
        seal: None,
    })
}

/// The file of the version `n` of the key of `n`.
fn file_of(store: &Path, n: u64) -> PathBuf {
    store.join(format!("data/{:03x}/key-{}@{}", key(n).hash64() >> 52, n % KEYS, dot(n)))
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(listing(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}
