//! Finding out what is there: the walk through all folders when a node starts.
//!
//! Values are not read. What can be told without that is checked: the metadata's checksum and format,
//! the value's length, that name, metadata and folder belong together. Several threads walk, since
//! they mostly wait; the visitor runs on the caller's.
//!
//! Invariant: only what this storage wrote, by name and place, is ever deleted: files in `staging/`,
//! and sound sidecars whose value is gone. Anything else that does not belong is reported.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use super::{
    FileStorage, metadata,
    names::{FOLDERS, Found, Name, folder_of, folder_path},
    read::{NO_METADATA, WRONG_LENGTH},
    record_format, staged,
};
use crate::{
    model::{Key, Version},
    storage::{LoadReport, StorageError},
};

/// Threads that walk the folders.
const LOAD_THREADS: usize = 8;

/// Folders that may wait for the visitor.
const MAX_WAITING_FOLDERS: usize = 64;

/// What one folder holds.
#[derive(Default)]
struct Walked {
    versions: Vec<(Key, Version)>,
    cleaned: u64,
    damaged: Vec<String>,
}

impl FileStorage {
    pub(super) fn load_all(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        let mut report = LoadReport::default();
        self.clean_staging(&mut report)?;
        let folders = self.data_folders(&mut report)?;
        let next = AtomicUsize::new(0);
        let (sender, receiver) = sync_channel(MAX_WAITING_FOLDERS);
        thread::scope(|scope| {
            for _ in 0..LOAD_THREADS.min(folders.len()) {
                let (sender, folders, next, data) = (sender.clone(), &folders, &next, &self.home.data);
                scope.spawn(move || {
                    while let Some(&folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // Nobody listens any more after an error or a panic of the visitor.
                        if sender.send(walk(data, folder)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for walked in receiver {
                let walked = walked?;
                report.cleaned += walked.cleaned;
                walked.damaged.into_iter().for_each(|what| report.note(what));
                report.versions += walked.versions.len() as u64;
                for (key, version) in walked.versions {
                    self.index.replace(key.hash64(), Some(version.dot), &[]);
                    visit(key, version);
                }
            }
            Ok::<(), StorageError>(())
        })?;
        Ok(report)
    }

    /// Leaves stages that can be gone on with.
    fn clean_staging(&self, report: &mut LoadReport) -> io::Result<()> {
        let mut kept = BTreeSet::new();
        for entry in fs::read_dir(&self.home.staging)? {
            let number = entry?.file_name().to_str().and_then(staged::stage_number);
            kept.extend(number.filter(|number| !kept.contains(number) && self.stages.take_over(*number)));
        }
        for entry in fs::read_dir(&self.home.staging)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if staged::stage_number(name).is_some_and(|number| kept.contains(&number)) {
                continue;
            }
            if staged::is_passing(name) {
                fs::remove_file(entry.path())?;
                report.cleaned += 1;
            } else {
                report.note(foreign(&entry.path()));
            }
        }
        Ok(())
    }

    fn data_folders(&self, report: &mut LoadReport) -> io::Result<Vec<u16>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.home.data)? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| u16::from_str_radix(name.to_str()?, 16).ok());
            match number.filter(|&n| u64::from(n) < FOLDERS && folder_path(&self.home.data, n) == path) {
                Some(folder) if path.is_dir() => folders.push(folder),
                _ => report.note(foreign(&path)),
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }
}

fn foreign(path: &Path) -> String {
    format!("{}: not a file of this store; left alone", path.display())
}

fn walk(data: &Path, folder: u16) -> io::Result<Walked> {
    let path = folder_path(data, folder);
    let mut walked = Walked::default();
    let mut values: Vec<(Name, DirEntry)> = Vec::new();
    let mut sidecars: Vec<Name> = Vec::new();
    for entry in fs::read_dir(&path)? {
        let entry = entry?;
        let name: OsString = entry.file_name();
        match name.to_str().map_or(Found::Foreign, Name::parse) {
            Found::Value(name) if entry.file_type()?.is_file() => values.push((name, entry)),
            Found::Sidecar(name) if entry.file_type()?.is_file() => sidecars.push(name),
            _ => walked.damaged.push(foreign(&entry.path())),
        }
    }
    let with_sidecar: BTreeSet<&str> = sidecars.iter().map(Name::text).collect();
    for (name, entry) in &values {
        let sidecar = with_sidecar.contains(name.text()).then(|| path.join(name.sidecar()));
        match record_of(folder, name, entry, sidecar)? {
            Ok(found) => walked.versions.push(found),
            Err(why) => walked.damaged.push(format!("{}: {why}", entry.path().display())),
        }
    }
    let with_value: BTreeSet<&str> = values.iter().map(|(name, _)| name.text()).collect();
    for name in sidecars.iter().filter(|name| !with_value.contains(name.text())) {
        let sidecar = path.join(name.sidecar());
        // A store without extended attributes, stopped between the two files of a version.
        if fs::read(&sidecar).is_ok_and(|bytes| record_format::decode(name, &bytes).is_ok()) {
            fs::remove_file(&sidecar)?;
            walked.cleaned += 1;
        } else {
            walked.damaged.push(format!("{}: a sidecar without its value", sidecar.display()));
        }
    }
    Ok(walked)
}

/// The inner error is what to report of this record.
fn record_of(
    folder: u16,
    name: &Name,
    entry: &DirEntry,
    sidecar: Option<PathBuf>,
) -> io::Result<Result<(Key, Version), String>> {
    let Some(bytes) = metadata::of_path(&entry.path(), sidecar.as_deref())? else {
        return Ok(Err(NO_METADATA.to_owned()));
    };
    let (key, version) = match record_format::decode(name, &bytes) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if folder_of(key.hash64()) != folder {
        return Ok(Err("it lies in the wrong folder".to_owned()));
    }
    if entry.metadata()?.len() != version.len {
        return Ok(Err(WRONG_LENGTH.to_owned()));
    }
    Ok(Ok((key, version)))
}
