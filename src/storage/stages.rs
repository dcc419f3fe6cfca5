//! Values that arrive in pieces: collected in files, digested as they come, found again after a restart.
//!
//! ```text
//! staging/stage-12    the bytes, with holes where pieces are missing
//! staging/resume-12   of which version, and how far nothing is missing; from the first 8 MiB on
//! ```
//!
//! A stage that begins as that of a version ([`Storage::resume`]) has its progress noted each time that
//! [`SYNC_BYTES`] more are there without a hole, after they were synced (where the store syncs at all).
//! The next process takes such stages over at its load and goes on with one when the same version is
//! fetched again: the bytes up to the noted place are read once, for the digest, and what lies behind is
//! cut off. What a crash did to them is found out by the digest of the whole. So a long value is never
//! far from durable, and its commit has little to sync and nothing to read.
//!
//! For storages that keep long values in files. What they do with a complete one is theirs: they
//! [`take`](Stages::take) the stage, look whether it [is](Stage::is_of) what it should be, and either
//! [`keep`](Stage::keep) its file, to be renamed, or drop it.
//!
//! Invariant: what is in the digest is not written again.
//!
//! Limits: stages of versions that nobody fetches any more go after [`MAX_IDLE`], at the next load or
//! when the next stage begins; stages of writers do not outlive the process.
//!
//! [`Storage::resume`]: crate::storage::Storage::resume

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{StageId, StorageError, decode_version, encode_version, prefix::Prefix};
use crate::model::{Digest, Dot, Key, Version};

/// How much comes between two syncs of a stage: what a crash costs at most, and what is left to be
/// synced by the commit.
const SYNC_BYTES: u64 = 8 << 20;
/// How long a stage of an earlier process waits for its version to be fetched again.
const MAX_IDLE: Duration = Duration::from_secs(86_400);
/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;

/// All stages of a store.
pub(super) struct Stages {
    folder: PathBuf,
    is_synced: bool,
    open: Mutex<BTreeMap<StageId, Arc<Mutex<Stage>>>>,
    /// Those of an earlier process.
    left: Mutex<BTreeMap<Dot, Left>>,
}

/// A value of which pieces have come. Dropped, it takes its files along.
pub(super) struct Stage {
    path: PathBuf,
    /// There until it is given away.
    file: Option<File>,
    prefix: Prefix,
    synced: u64,
    resumes: Option<Resumes>,
}

/// What lets a stage be found again. Its file goes with it.
pub(super) struct Resumes {
    path: PathBuf,
    file: Option<File>,
    record: Vec<u8>,
}

struct Left {
    number: u64,
    key: Key,
    version: Version,
    len: u64,
    noted: SystemTime,
}

impl Stages {
    pub(super) fn new(folder: &Path, is_synced: bool) -> Self {
        Self { folder: folder.into(), is_synced, open: Mutex::default(), left: Mutex::default() }
    }

    /// Takes over a stage of an earlier process by its number. False: it is worth nothing any more.
    pub(super) fn take_over(&self, number: u64) -> bool {
        let Some(left) = self.read_left(number).filter(|left| !left.is_old()) else { return false };
        self.left.lock().insert(left.version.dot, left).is_none()
    }

    /// Begins the stage of a version. Answers from where on bytes are missing.
    pub(super) fn resume(&self, id: StageId, key: &Key, version: &Version) -> Result<u64, StorageError> {
        if let Some(stage) = self.open.lock().get(&id).cloned() {
            return Ok(stage.lock().prefix.len());
        }
        self.drop_old();
        let left = self.left.lock().remove(&version.dot);
        let is_same = |left: &Left| left.key == *key && left.version == *version;
        let (mut stage, number) = match left {
            Some(left) if is_same(&left) => (self.take_up(&left)?, left.number),
            other => {
                other.iter().for_each(|left| self.remove_files(left.number));
                (Stage::create(&self.stage_path(id.0))?, id.0)
            }
        };
        let path = self.resume_path(number);
        let file = File::options().write(true).open(&path).ok();
        stage.resumes = Some(Resumes { path, file, record: record(key, version) });
        let len = stage.prefix.len();
        self.open.lock().insert(id, Arc::new(Mutex::new(stage)));
        Ok(len)
    }

    /// Keeps a piece.
    pub(super) fn write(&self, id: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let stage = self.stage(id)?;
        let mut stage = stage.lock();
        stage.write(offset, bytes)?;
        Ok(stage.note_progress(self.is_synced)?)
    }

    /// Copies a whole file into a new stage, and answers what is there then.
    pub(super) fn import(&self, id: StageId, source: &File) -> Result<(u64, Digest), StorageError> {
        let stage = self.stage(id)?;
        let mut stage = stage.lock();
        loop {
            // The system copies, and shares the blocks of both files where the file system can.
            let copied = io::copy(&mut source.take(SYNC_BYTES), &mut stage.file())?;
            if copied == 0 {
                return Ok((stage.prefix.len(), stage.prefix.digest()));
            }
            let from = stage.prefix.len();
            stage.read_on(from..from + copied)?;
            stage.note_progress(self.is_synced)?;
        }
    }

    /// Takes a stage out, to be committed.
    pub(super) fn take(&self, id: StageId) -> Result<Stage, StorageError> {
        let stage = self.open.lock().remove(&id).ok_or(StorageError::Missing)?;
        let in_use = |_| io::Error::other("a stage is committed while it is written");
        Ok(Arc::try_unwrap(stage).map_err(in_use)?.into_inner())
    }

    /// Forgets a stage, and drops its files.
    pub(super) fn discard(&self, id: StageId) {
        let stage = self.open.lock().remove(&id);
        drop(stage);
    }

    fn stage(&self, id: StageId) -> io::Result<Arc<Mutex<Stage>>> {
        let mut open = self.open.lock();
        if let Some(stage) = open.get(&id) {
            return Ok(stage.clone());
        }
        let stage = Arc::new(Mutex::new(Stage::create(&self.stage_path(id.0))?));
        open.insert(id, stage.clone());
        Ok(stage)
    }

    fn take_up(&self, left: &Left) -> io::Result<Stage> {
        let path = self.stage_path(left.number);
        let file = File::options().read(true).write(true).open(&path)?;
        file.set_len(left.len)?;
        let prefix = Prefix::default();
        let mut stage = Stage { path, file: Some(file), prefix, synced: left.len, resumes: None };
        stage.read_on(0..left.len)?;
        Ok(stage)
    }

    fn read_left(&self, number: u64) -> Option<Left> {
        let file = File::open(self.resume_path(number)).ok()?;
        let noted = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).ok()?;
        let (bytes, sum) = bytes.split_last_chunk::<32>()?;
        let (len, record) = bytes.split_first_chunk::<8>()?;
        if Digest::of(bytes) != Digest(*sum) {
            return None;
        }
        let (key, version) = parse_record(record)?;
        let len = u64::from_le_bytes(*len);
        let there = fs::metadata(self.stage_path(number)).ok()?.len();
        (len <= there && len <= version.len).then_some(Left { number, key, version, len, noted })
    }

    fn drop_old(&self) {
        self.left.lock().retain(|_, left| {
            if left.is_old() {
                self.remove_files(left.number);
            }
            !left.is_old()
        });
    }

    fn remove_files(&self, number: u64) {
        remove(&self.stage_path(number));
        remove(&self.resume_path(number));
    }

    fn stage_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{STAGE}{number}"))
    }

    fn resume_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{RESUME}{number}"))
    }
}

/// How the names of the bytes begin.
pub(super) const STAGE: &str = "stage-";
/// How the names of what is known of them begin.
pub(super) const RESUME: &str = "resume-";

/// Length of the name in 2 bytes, the name, the version.
fn record(key: &Key, version: &Version) -> Vec<u8> {
    let name = key.as_str().as_bytes();
    let mut record = (name.len() as u16).to_le_bytes().to_vec();
    record.extend_from_slice(name);
    record.extend_from_slice(&encode_version(version));
    record
}

fn parse_record(bytes: &[u8]) -> Option<(Key, Version)> {
    let (len, bytes) = bytes.split_first_chunk::<2>()?;
    let (name, version) = bytes.split_at_checked(u16::from_le_bytes(*len).into())?;
    let key = Key::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((key, decode_version(version).ok()?))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("left for the next start to clean: {}: {error}", path.display());
        }
        _ => {}
    }
}

impl Left {
    fn is_old(&self) -> bool {
        // A clock that went back makes it look young, which does no harm.
        self.noted.elapsed().is_ok_and(|age| age > MAX_IDLE)
    }
}

impl Stage {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let prefix = Prefix::default();
        Ok(Self { path: path.into(), file: Some(file), prefix, synced: 0, resumes: None })
    }

    /// Whether just the value of this version is there.
    pub(super) fn is_of(&self, version: &Version) -> bool {
        self.prefix.is_of(version)
    }

    /// Gives the file away, and what is known of it: to be dropped when the file has its place.
    pub(super) fn keep(mut self) -> (PathBuf, File, Option<Resumes>) {
        let file = self.file.take().expect("there until it is given away");
        (std::mem::take(&mut self.path), file, self.resumes.take())
    }

    /// Leaves the files to the next process, if there is enough in them.
    fn leave(&mut self, is_synced: bool) {
        if self.resumes.as_ref().is_none_or(|resumes| resumes.file.is_none()) {
            return;
        }
        match self.note(is_synced) {
            Ok(()) => {
                self.file = None;
                self.resumes.iter_mut().for_each(|resumes| resumes.file = None);
            }
            Err(error) => {
                log::warn!("a value that was being fetched is fetched anew after the start: {error}")
            }
        }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("there until it is given away")
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let part = self.prefix.place(offset, bytes.len());
        self.file().write_all_at(&bytes[part.clone()], offset + part.start as u64)?;
        let mut next = self.prefix.add(offset, bytes);
        while let Some(range) = next {
            self.read_on(range)?;
            next = self.prefix.next();
        }
        Ok(())
    }

    fn read_on(&mut self, mut range: std::ops::Range<u64>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES.min((range.end - range.start) as usize)];
        while range.start < range.end {
            let len = buffer.len().min((range.end - range.start) as usize);
            self.file().read_exact_at(&mut buffer[..len], range.start)?;
            self.prefix.read_on(&buffer[..len]);
            range.start += len as u64;
        }
        Ok(())
    }

    fn note_progress(&mut self, is_synced: bool) -> io::Result<()> {
        let len = self.prefix.len();
        if len - self.synced < SYNC_BYTES {
            return Ok(());
        }
        self.note(is_synced)
    }

    fn note(&mut self, is_synced: bool) -> io::Result<()> {
        if is_synced {
            self.file().sync_data()?;
        }
        let len = self.prefix.len();
        self.synced = len;
        let Some(Resumes { path, file, record }) = &mut self.resumes else { return Ok(()) };
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(&Digest::of(&bytes).0);
        if file.is_none() {
            *file = Some(File::options().write(true).create(true).truncate(false).open(path)?);
        }
        file.as_ref().map_or(Ok(()), |file| file.write_all_at(&bytes, 0))
    }
}

/// The store is closed: the next process may go on with what is here.
impl Drop for Stages {
    fn drop(&mut self) {
        for stage in self.open.get_mut().values() {
            stage.lock().leave(self.is_synced);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.file.is_some() {
            remove(&self.path);
        }
    }
}

impl Drop for Resumes {
    fn drop(&mut self) {
        if self.file.is_some() {
            remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, Context, Kind, Mirrors};

    fn version(counter: u64, value: &[u8]) -> Version {
        Version {
            dot: Dot { actor: Actor(7), counter },
            since: 0,
            context: Context::EMPTY,
            written_ms: 1,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(3),
            len: value.len() as u64,
            digest: Digest::of(value),
            seal: None,
        }
    }

    fn value() -> Vec<u8> {
        (0..3 * SYNC_BYTES as u32).map(|n| (n >> 8) as u8 ^ n as u8).collect()
    }

    /// What a process leaves that ends in the middle: its files as they are.
    fn end_abruptly(stages: Stages) {
        std::mem::forget(stages);
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_fetch_goes_on_after_a_crash_from_where_it_was_noted_last() {
        // Goal: at most 8 MiB come twice, and bytes behind the noted place, which a crash may have
        // spoilt, do not count. Method: leave a stage as a crash does, spoil its end, take it over.
        let (folder, value) = (tempfile::tempdir().unwrap(), value());
        let (key, version) = (Key::new("k").unwrap(), version(1, &value));
        let stages = Stages::new(folder.path(), true);
        assert_eq!(stages.resume(StageId(1), &key, &version).unwrap(), 0);
        let there = SYNC_BYTES as usize + 1_000_000;
        for at in (0..there).step_by(1_000_000).rev() {
            stages.write(StageId(1), at as u64, &value[at..(at + 1_000_000).min(there)]).unwrap();
        }
        stages.write(StageId(1), there as u64 + 500, &value[there + 500..there + 900]).unwrap();
        end_abruptly(stages);
        let path = folder.path().join("stage-1");
        File::options().write(true).open(path).unwrap().write_all_at(b"spoilt", there as u64).unwrap();

        let stages = Stages::new(folder.path(), true);
        assert!(stages.take_over(1) && !stages.take_over(2));
        let from = stages.resume(StageId(9), &key, &version).unwrap();
        assert_eq!(from, there as u64);
        assert_eq!(stages.resume(StageId(9), &key, &version).unwrap(), from, "asked again, the same");
        stages.write(StageId(9), from, &value[there..]).unwrap();
        let stage = stages.take(StageId(9)).unwrap();
        assert!(stage.is_of(&version));
        drop(stage);
        assert_eq!(files(folder.path()), 0, "it takes its files along");
    }

    #[test]
    fn a_store_that_is_closed_loses_nothing_of_a_stage() {
        let (folder, value) = (tempfile::tempdir().unwrap(), value());
        let (key, version) = (Key::new("k").unwrap(), version(1, &value));
        let stages = Stages::new(folder.path(), false);
        stages.resume(StageId(1), &key, &version).unwrap();
        let there = SYNC_BYTES as usize + 77;
        stages.write(StageId(1), 0, &value[..SYNC_BYTES as usize]).unwrap();
        stages.write(StageId(1), SYNC_BYTES, &value[SYNC_BYTES as usize..there]).unwrap();
        stages.write(StageId(2), 0, b"of a writer").unwrap();
        drop(stages);
        assert_eq!(files(folder.path()), 2, "what a writer staged goes");
        let stages = Stages::new(folder.path(), false);
        assert!(stages.take_over(1));
        assert_eq!(stages.resume(StageId(3), &key, &version).unwrap(), there as u64);
    }

    #[test]
    fn what_is_known_of_a_stage_is_believed_only_where_it_is_sound_and_of_the_same_version() {
        let (folder, value) = (tempfile::tempdir().unwrap(), value());
        let (key, version_1) = (Key::new("k").unwrap(), version(1, &value));
        let begin = || {
            let stages = Stages::new(folder.path(), false);
            stages.resume(StageId(1), &key, &version_1).unwrap();
            stages.write(StageId(1), 0, &value[..SYNC_BYTES as usize]).unwrap();
            end_abruptly(stages);
        };
        begin();
        let record = folder.path().join("resume-1");
        let mut bytes = fs::read(&record).unwrap();
        bytes[3] ^= 1;
        fs::write(&record, bytes).unwrap();
        let stages = Stages::new(folder.path(), false);
        assert!(!stages.take_over(1), "it is torn");
        stages.remove_files(1);

        begin();
        let stages = Stages::new(folder.path(), false);
        assert!(stages.take_over(1));
        let other = Version { digest: Digest::of(b"other"), ..version_1 };
        assert_eq!(stages.resume(StageId(2), &key, &other).unwrap(), 0);
        assert_eq!(files(folder.path()), 1, "the old one is gone");
    }

    #[test]
    fn a_file_is_imported_as_it_was_copied() {
        let folder = tempfile::tempdir().unwrap();
        let value = value();
        let path = folder.path().join("original");
        fs::write(&path, &value).unwrap();
        let staging = tempfile::tempdir().unwrap();
        let stages = Stages::new(staging.path(), false);
        let found = stages.import(StageId(1), &File::open(&path).unwrap()).unwrap();
        assert_eq!(found, (value.len() as u64, Digest::of(&value)));
        fs::write(&path, b"changed afterwards").unwrap();
        let (copy, ..) = stages.take(StageId(1)).unwrap().keep();
        assert!(fs::read(copy).unwrap() == value);
    }
}
