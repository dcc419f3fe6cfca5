//! Finding out what is there: one scan of the records, and the walk of the files.
//!
//! Values are not read. A record that can't be trusted is reported, stays, and is hidden from
//! readers. A block of a table that can't be read ends the load: what it held may have been that something
//! else is gone, so going on could bring back what was removed.

use super::{
    FjallStorage,
    engine::gone,
    places::add,
    record::{self, RecordError},
};
use crate::{
    model::{Dot, Key, Version},
    storage::{Change, LoadReport, Storage, StorageError},
};

impl FjallStorage {
    pub(super) fn load_all(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        let mut report = self.load_files(visit)?;
        for guard in self.engine.versions.iter() {
            let (place, bytes) = guard.into_inner().map_err(|error| gone(self.path().display(), &error))?;
            let Some((key, dot)) = record::parse_place(&place) else {
                report.note(format!(
                    "{:?}: no place of a version; left alone",
                    place.escape_ascii().to_string()
                ));
                continue;
            };
            match record_at(&place, dot, &bytes) {
                Ok(version) => {
                    report.versions += 1;
                    visit(key, version);
                }
                Err(why) => {
                    report.note(format!("{key:?} {dot}: {why}"));
                    self.places.change(key.hash64(), |seen| add(&mut seen.hidden, &[dot]));
                }
            }
        }
        Ok(report)
    }

    /// A version that is in the engine too is what a crash left of a move there.
    fn load_files(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        let (mut moved, mut failed) = (Vec::new(), None);
        let mut report = self.files.load(&mut |key, version| {
            let dot = version.dot;
            match self.engine.record(&key, dot) {
                Ok(Some(bytes)) if record_at(&record::place(&key, dot), dot, &bytes).is_ok() => {
                    moved.push(Change::Remove { key, dots: vec![dot] });
                }
                Ok(_) => {
                    self.places.change(key.hash64(), |seen| add(&mut seen.files, &[dot]));
                    visit(key, version);
                }
                Err(error) => failed = Some(error),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        for outcome in self.files.apply(&moved) {
            outcome?;
        }
        report.versions -= moved.len() as u64;
        report.cleaned += moved.len() as u64;
        Ok(report)
    }
}

fn record_at(place: &[u8], dot: Dot, bytes: &[u8]) -> Result<Version, RecordError> {
    record::decode(place, bytes).and_then(|version| match version.dot == dot {
        true => Ok(version),
        false => Err(RecordError::Checksum),
    })
}
