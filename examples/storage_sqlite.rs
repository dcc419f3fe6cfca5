//! cargo run --example storage_sqlite
//!
//! A storage of one's own: versions in a table of SQLite. It keeps what it is told and decides
//! nothing, so it stays small; `tests/examples.rs` runs the conformance suite against it.

use std::{collections::BTreeMap, error::Error, fmt::Display, io, path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};
use turbopump::{
    Bytes, Dot, Key, Node, Record, Version,
    storage::{Change, LoadReport, MAX_WHOLE_VALUE_BYTES, StageId, Storage, StorageError},
    storage::{decode_version, encode_version},
};

const TABLE: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS versions
        (key TEXT, dot TEXT, version BLOB, value BLOB, PRIMARY KEY (key, dot));";

/// Keeps versions in one SQLite database, one caller at a time.
pub struct SqliteStorage {
    db: Mutex<Connection>,
    /// Long values that are still arriving. In memory, for simplicity; gone with the process.
    staged: Mutex<BTreeMap<StageId, Vec<u8>>>,
}

impl SqliteStorage {
    /// Opens the database, or makes it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let db = Connection::open(path).map_err(failed)?;
        db.execute_batch(TABLE).map_err(failed)?;
        Ok(Self { db: Mutex::new(db), staged: Mutex::default() })
    }

    /// Where the database lies.
    pub fn path(&self) -> String {
        self.db.lock().path().unwrap_or_default().to_owned()
    }

    fn change(&self, db: &Connection, change: &Change) -> Result<(), StorageError> {
        match change {
            Change::Put { key, version, value, replaces } => put(db, key, version, value, replaces),
            Change::Commit { stage, key, version, replaces } => {
                let value = self.staged.lock().remove(stage).ok_or(StorageError::Missing)?;
                if !version.matches(&value) {
                    return Err(StorageError::damaged(key, "what was staged does not fit its digest"));
                }
                put(db, key, version, &value, replaces)
            }
            Change::Remove { key, dots } => remove(db, key, dots),
        }
    }
}

impl Storage for SqliteStorage {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn load(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        let (db, mut report) = (self.db.lock(), LoadReport::default());
        let mut query = db.prepare("SELECT key, version FROM versions").map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let name: String = row.get("key").map_err(failed)?;
            match (Key::new(&name), version(row)) {
                (Ok(key), Ok(version)) => {
                    visit(key, version);
                    report.versions += 1;
                }
                _ => report.damaged.push(name),
            }
        }
        Ok(report)
    }

    fn read(&self, key: &Key) -> Result<Vec<Record>, StorageError> {
        let (db, mut records) = (self.db.lock(), Vec::new());
        let mut query = db.prepare_cached("SELECT * FROM versions WHERE key = ?1").map_err(failed)?;
        let mut rows = query.query([key.as_str()]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (version, mut value) = (version(row)?, None);
            if version.len <= MAX_WHOLE_VALUE_BYTES {
                value = Some(Bytes::from(row.get::<_, Vec<u8>>("value").map_err(failed)?));
            }
            if value.as_ref().is_some_and(|value| !version.matches(value)) {
                return Err(StorageError::damaged(key, "its digest does not fit"));
            }
            records.push(Record { version: Arc::new(version), value });
        }
        Ok(records)
    }

    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError> {
        let query = "SELECT substr(value, ?3 + 1, ?4) FROM versions WHERE key = ?1 AND dot = ?2";
        let which = params![key.as_str(), dot.to_string(), offset as i64, max_len.min(1 << 30) as i64];
        let piece = self.db.lock().query_row(query, which, |row| row.get::<_, Option<Vec<u8>>>(0));
        match piece.optional().map_err(failed)? {
            Some(bytes) => Ok(bytes.unwrap_or_default().into()), // of no bytes SQLite makes NULL
            None => Err(StorageError::Missing),
        }
    }

    /// One transaction for all, so that many changes cost one sync; a savepoint for each, so that
    /// one that fails leaves the others alone.
    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>> {
        let mut db = self.db.lock();
        let made = db.transaction().and_then(|mut batch| {
            let results = changes.iter().map(|change| {
                let step = batch.savepoint().map_err(failed)?;
                self.change(&step, change)?;
                step.commit().map_err(failed)
            });
            let results: Vec<_> = results.collect();
            batch.commit().map(|()| results)
        });
        made.unwrap_or_else(|error| changes.iter().map(|_| Err(failed(&error))).collect())
    }

    /// A hole stays zero, which the digest finds out.
    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let (mut staged, from) = (self.staged.lock(), offset as usize);
        let value = staged.entry(stage).or_default();
        value.resize(value.len().max(from + bytes.len()), 0);
        value[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn discard(&self, stage: StageId) {
        self.staged.lock().remove(&stage);
    }
}

fn put(db: &Connection, key: &Key, v: &Version, value: &[u8], replaces: &[Dot]) -> Result<(), StorageError> {
    let row = params![key.as_str(), v.dot.to_string(), encode_version(v), value];
    let put = "INSERT OR REPLACE INTO versions VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(put).and_then(|mut put| put.execute(row)).map_err(failed)?;
    remove(db, key, replaces)
}

fn remove(db: &Connection, key: &Key, dots: &[Dot]) -> Result<(), StorageError> {
    let mut delete = db.prepare_cached("DELETE FROM versions WHERE key = ?1 AND dot = ?2").map_err(failed)?;
    for dot in dots {
        delete.execute([key.as_str(), &dot.to_string()]).map_err(failed)?;
    }
    Ok(())
}

fn version(row: &Row<'_>) -> Result<Version, StorageError> {
    decode_version(&row.get::<_, Vec<u8>>("version").map_err(failed)?)
}

fn failed(error: impl Display) -> StorageError {
    StorageError::Io(io::Error::other(error.to_string()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("turbopump.sqlite");
    {
        let node = Node::builder().storage(SqliteStorage::open(&path)?).start()?;
        node.put("greeting", "hello").wait()?;
        node.put("greeting", "hello again").wait()?;
    } // the last handle is gone: the node has stopped
    let node = Node::builder().storage(SqliteStorage::open(&path)?).start()?;
    println!(
        "a new node on the same {} store reads {:?}",
        node.storage_kind(),
        node.get("greeting").wait()?.value()
    );

    println!("next: cargo run --example partitioner");
    Ok(())
}
