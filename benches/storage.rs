//! Figures for the built-in storages: `cargo bench --features fjall --bench storage -- [FOLDER] [KEYS]`.
//!
//! FOLDER is where stores are made (default: the folder for temporary files), KEYS how many the
//! big ones get (default 100,000). Values have 100 bytes. Disk figures depend on the disk and
//! on who else uses it; the memory figure is a ratio to a bare map in the same run.

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::RwLock;
use turbopump::{
    model::{Actor, Context, Digest, Dot, Key, Kind, Mirrors, Seeded, Version},
    storage::{Change, Durability, FileStorage, FjallStorage, MemoryStorage, Storage},
};

const MEMORY_KEYS: u64 = 1_000_000;
const READS: u64 = 1_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let keys = arguments.next().map_or(100_000, |text| text.parse().expect("KEYS is a number"));
    memory();
    let folder = tempfile::tempdir_in(folder).expect("a folder for the stores");
    let file = |path: &Path, durability| FileStorage::open(path, durability).expect("open");
    let fjall = |path: &Path, durability| FjallStorage::open(path, durability).expect("open");
    for (what, durability, count, batch, threads) in [
        ("synced, one by one", Durability::Synced, 1_000, 1, 1),
        ("synced, batches of 100", Durability::Synced, 10_000, 100, 1),
        ("synced, batches of 100, 4 threads", Durability::Synced, 20_000, 100, 4),
        ("buffered, one by one", Durability::Buffered, 20_000, 1, 1),
    ] {
        puts(folder.path(), what, |path| file(path, durability), count, batch, threads);
        puts(folder.path(), what, |path| fjall(path, durability), count, batch, threads);
    }
    big(folder.path(), |path| file(path, Durability::Buffered), keys);
    big(folder.path(), |path| fjall(path, Durability::Buffered), keys);
}

fn memory() {
    let storage = MemoryStorage::new();
    #[expect(clippy::disallowed_types, reason = "the yardstick")]
    let bare: RwLock<std::collections::HashMap<Key, Arc<Bytes>>> = RwLock::default();
    let keys: Vec<Key> = (0..MEMORY_KEYS).map(key).collect();
    let started = Instant::now();
    for n in 0..MEMORY_KEYS {
        storage.apply(&[put(n)]);
    }
    show("memory: put, 1 M keys", started.elapsed(), MEMORY_KEYS);
    for (n, key) in keys.iter().enumerate() {
        bare.write().insert(key.clone(), Arc::new(value(n as u64)));
    }
    for threads in [1, 2] {
        let ours = reads(threads, &keys, |key| drop(black_box(storage.read(key).expect("in memory"))));
        let theirs = reads(threads, &keys, |key| drop(black_box(bare.read().get(key).cloned())));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        show(&format!("memory: read, 1 M keys, {threads} threads"), ours, READS);
        show(&format!("bare RwLock<HashMap>, {threads} threads (ratio {ratio:.2})"), theirs, READS);
    }
}

fn reads(threads: u64, keys: &[Key], read: impl Fn(&Key) + Sync) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let read = &read;
            scope.spawn(move || {
                let mut seeded = Seeded::new(thread);
                (0..READS).for_each(|_| read(&keys[seeded.below(keys.len() as u64) as usize]));
            });
        }
    });
    started.elapsed()
}

fn puts<S: Storage>(
    folder: &Path,
    what: &str,
    open: impl Fn(&Path) -> S,
    count: u64,
    batch: u64,
    threads: u64,
) {
    let store = tempfile::tempdir_in(folder).expect("a folder");
    let storage = open(store.path());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let storage = &storage;
            scope.spawn(move || {
                let share = count / threads;
                let all: Vec<u64> = (thread * share..(thread + 1) * share).collect();
                for batch in all.chunks(batch as usize) {
                    apply(storage, batch.iter().map(|&n| put(n)).collect());
                }
            });
        }
    });
    show(&format!("{}: put, {what}", storage.kind()), started.elapsed(), count);
}

fn big<S: Storage>(folder: &Path, open: impl Fn(&Path) -> S, keys: u64) {
    let store = tempfile::tempdir_in(folder).expect("a folder");
    let storage = open(store.path());
    let kind = storage.kind();
    let numbers: Vec<u64> = (0..keys).collect();
    let started = Instant::now();
    for batch in numbers.chunks(1_000) {
        apply(&storage, batch.iter().map(|&n| put(n)).collect());
    }
    show(&format!("{kind}: put, buffered, batches of 1,000, {keys} keys"), started.elapsed(), keys);
    let mut seeded = Seeded::new(1);
    let count = 100_000;
    let started = Instant::now();
    for _ in 0..count {
        assert_eq!(storage.read(&key(seeded.below(keys))).expect("good").len(), 1);
    }
    show(&format!("{kind}: read"), started.elapsed(), count);
    let started = Instant::now();
    for n in 0..count {
        assert!(storage.read(&key(keys + n)).expect("good").is_empty());
    }
    show(&format!("{kind}: read of a key that is not there"), started.elapsed(), count);
    drop(storage);
    let started = Instant::now();
    let storage = open(store.path());
    show(&format!("{kind}: opening {keys} keys"), started.elapsed(), keys);
    let started = Instant::now();
    let report = storage.load(&mut |key, version| drop(black_box((key, version)))).expect("load");
    assert_eq!((report.versions, report.damaged.len()), (keys, 0));
    show(&format!("{kind}: load of {keys} keys (page cache warm)"), started.elapsed(), keys);
}

fn apply(storage: &impl Storage, changes: Vec<Change>) {
    storage.apply(&changes).into_iter().for_each(|outcome| outcome.expect("stored"));
}

fn show(what: &str, took: Duration, count: u64) {
    let each = took.as_secs_f64() / count as f64;
    println!(
        "{what:<62} {:>12.0} /s {:>10.2} us  {:>8.3} s in all",
        1.0 / each,
        each * 1e6,
        took.as_secs_f64()
    );
}

fn put(n: u64) -> Change {
    let value = value(n);
    let version = Version {
        dot: Dot { actor: Actor(0x5eed_5eed_5eed_5eed), counter: n + 1 },
        since: 0,
        context: Context::EMPTY,
        written_ms: 1_790_000_000_000,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: value.len() as u64,
        digest: Digest::of(&value),
        seal: None,
    };
    Change::Put { key: key(n), version: Arc::new(version), value, replaces: Vec::new() }
}

fn key(n: u64) -> Key {
    Key::new(format!("bench/key-{n:08}")).expect("short")
}

fn value(n: u64) -> Bytes {
    let mut value = vec![b'.'; 100];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value.into()
}
