//! A version whose files are complete and not part of the store yet.
//!
//! Written under a passing name in `staging/`, and renamed into place when it is durable. Dropped
//! without that, it takes its files along, so an error on the way leaves nothing.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    home::Home,
    metadata,
    names::{Name, folder_of, folder_path},
    record_format,
};
use crate::{
    model::{Key, Version},
    storage::{
        StageId, StorageError,
        folder::create_folder,
        stages::{RESUME, Resumes, STAGE, Stages},
    },
};

/// Names for files in `staging/` that are not used twice while the process runs.
#[derive(Default)]
pub(super) struct PassingNames(AtomicU64);

impl PassingNames {
    fn next(&self, home: &Home, kind: &str) -> PathBuf {
        home.staging.join(format!("{kind}-{}", self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Whether a file in `staging/` is one of ours by its name.
pub(super) fn is_passing(name: &str) -> bool {
    let number = ["put-", "meta-", STAGE, RESUME].iter().find_map(|kind| name.strip_prefix(kind));
    name == "probe" || number.is_some_and(|n| n.parse::<u64>().is_ok())
}

/// The number of a stage, or of what is known of one, by the name of its file.
pub(super) fn stage_number(name: &str) -> Option<u64> {
    name.strip_prefix(STAGE).or_else(|| name.strip_prefix(RESUME))?.parse().ok()
}

/// See the module.
pub(super) struct Staged {
    value: Passing,
    sidecar: Option<Passing>,
    name: Name,
    folder: u16,
    /// Goes when all the rest has its place.
    _resumes: Option<Resumes>,
}

/// A file that is removed when dropped, unless it got its place.
struct Passing {
    path: PathBuf,
    file: Option<File>,
    is_placed: bool,
}

/// What a writer of values needs to know of its store.
#[derive(Clone, Copy)]
pub(super) struct Workshop<'a> {
    pub(super) home: &'a Home,
    pub(super) names: &'a PassingNames,
    pub(super) use_xattrs: bool,
    pub(super) stages: &'a Stages,
}

impl Workshop<'_> {
    /// Writes `value` and its metadata.
    pub(super) fn write(self, key: &Key, version: &Version, value: &[u8]) -> io::Result<Staged> {
        let path = self.names.next(self.home, "put");
        let mut passing = Passing { file: Some(File::create(&path)?), path, is_placed: false };
        passing.file().write_all(value)?;
        self.finish(key, version, passing, None)
    }

    /// Takes the pieces of `stage` as the value, if that is what they are.
    pub(super) fn commit(self, key: &Key, version: &Version, stage: StageId) -> Result<Staged, StorageError> {
        let stage = self.stages.take(stage)?;
        if !stage.is_of(version) {
            return Err(StorageError::damaged(
                format_args!("the staged value of {key:?} {}", version.dot),
                "its length or digest is not the version's",
            ));
        }
        let (path, file, resumes) = stage.keep();
        Ok(self.finish(key, version, Passing { path, file: Some(file), is_placed: false }, resumes)?)
    }

    fn finish(
        self,
        key: &Key,
        version: &Version,
        mut value: Passing,
        resumes: Option<Resumes>,
    ) -> io::Result<Staged> {
        let name = Name::new(key, version.dot);
        let bytes = record_format::encode(&name, key, version);
        let mut sidecar = None;
        if !(self.use_xattrs && metadata::fits_attribute(value.file(), &bytes)) {
            let path = self.names.next(self.home, "meta");
            let mut passing = Passing { path, file: None, is_placed: false };
            passing.file = Some(metadata::create_sidecar(&passing.path, &bytes)?);
            sidecar = Some(passing);
        }
        Ok(Staged { value, sidecar, name, folder: folder_of(key.hash64()), _resumes: resumes })
    }
}

impl Staged {
    /// Makes contents and metadata durable. Both files are closed, so that a large group does
    /// not hold many open for longer than needed.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for passing in [Some(&mut self.value), self.sidecar.as_mut()].into_iter().flatten() {
            if let Some(file) = passing.file.take() {
                file.sync_all()?;
            }
        }
        Ok(())
    }

    /// Renames it into place; makes the folder where there is none.
    pub(super) fn place(&mut self, data: &Path) -> io::Result<()> {
        let folder = folder_path(data, self.folder);
        match self.rename_into(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folder(&folder)?;
                self.rename_into(&folder)
            }
            other => other,
        }
    }

    fn rename_into(&mut self, folder: &Path) -> io::Result<()> {
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.rename(&folder.join(self.name.sidecar()))?;
        }
        self.value.rename(&folder.join(self.name.text()))
    }
}

impl Passing {
    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("open until it is synced")
    }

    fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if !self.is_placed
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!("left for the next start to clean: {}: {error}", self.path.display());
        }
    }
}
