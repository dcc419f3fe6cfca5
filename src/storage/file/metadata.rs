//! Where the metadata of a file is kept: in an extended attribute, else in a sidecar beside it.
//!
//! Not what it consists of (`record_format.rs`). A sidecar `NAME.meta` is used where the file
//! system has no extended attributes, or not enough room for these. A reader looks for the
//! attribute first, then for the sidecar, so one store may hold both kinds and may move to another
//! file system. The value's file is the value and nothing else in either case.
//!
//! Invariant: a sidecar is in place before its value and goes after it, so a value is never
//! without.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use xattr::FileExt;

/// The attribute. Four letters at most after the dot cost least room in an ext4 inode.
pub(super) const ATTRIBUTE: &str = "user.tp";

/// Metadata above this goes straight to a sidecar: ext4 has 4,096 bytes for all attributes of a
/// file, and others want some too.
const MAX_ATTRIBUTE_BYTES: usize = 2_048;

/// The longest metadata: a context of some hundred thousand holes.
pub(super) const MAX_METADATA_BYTES: usize = 16 << 20;

/// Whether the file system of `folder` keeps attributes.
pub(super) fn probe(folder: &Path) -> io::Result<bool> {
    let path = folder.join("probe");
    let file = File::create(&path)?;
    let works = file.set_xattr(ATTRIBUTE, b"probe").is_ok()
        && matches!(file.get_xattr(ATTRIBUTE), Ok(Some(found)) if found == b"probe");
    fs::remove_file(path)?;
    Ok(works)
}

/// Tries the attribute of `file`; `false` where it needs a sidecar.
pub(super) fn fits_attribute(file: &File, metadata: &[u8]) -> bool {
    // Whatever the reason is, no room or no support: a sidecar works, or says what is wrong.
    metadata.len() <= MAX_ATTRIBUTE_BYTES && file.set_xattr(ATTRIBUTE, metadata).is_ok()
}

/// Creates a sidecar at `path`.
pub(super) fn create_sidecar(path: &Path, metadata: &[u8]) -> io::Result<File> {
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the context of this version is too long"));
    }
    let mut file = File::create(path)?;
    file.write_all(metadata)?;
    Ok(file)
}

/// The metadata of an open file; `None` where it has none.
pub(super) fn of_file(file: &File, sidecar: &Path) -> io::Result<Option<Vec<u8>>> {
    match file.get_xattr(ATTRIBUTE) {
        Ok(Some(metadata)) => Ok(Some(metadata)),
        Ok(None) => of_sidecar(sidecar),
        Err(error) if lacks_attributes(&error) => of_sidecar(sidecar),
        Err(error) => Err(error),
    }
}

/// Like [`of_file`], without opening it.
pub(super) fn of_path(path: &Path, sidecar: Option<&Path>) -> io::Result<Option<Vec<u8>>> {
    let beside = || sidecar.map_or(Ok(None), of_sidecar);
    match xattr::get(path, ATTRIBUTE) {
        Ok(Some(metadata)) => Ok(Some(metadata)),
        Ok(None) => beside(),
        Err(error) if lacks_attributes(&error) => beside(),
        Err(error) => Err(error),
    }
}

fn lacks_attributes(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn of_sidecar(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut metadata = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_METADATA_BYTES as u64 + 1).read_to_end(&mut metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(metadata))
}
