//! The name of a value.

use std::{fmt, sync::Arc};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1_024;

/// A key: 1 to 1,024 bytes of UTF-8, any characters, slashes and dots included.
///
/// Cloning is cheap (a reference count). Keys order by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The empty name.
    #[error("a key needs at least one byte")]
    Empty,
    /// Longer than [`MAX_KEY_BYTES`].
    #[error("a key has at most 1024 bytes, this one has {0}")]
    TooLong(usize),
    /// What a node keeps in its store about the store itself.
    #[error("this name belongs to the store itself")]
    Reserved,
}

impl Key {
    /// Checks the length and takes the name.
    ///
    /// # Errors
    /// [`KeyError`] when the name is empty or longer than [`MAX_KEY_BYTES`].
    pub fn new(name: impl AsRef<str>) -> Result<Self, KeyError> {
        let name = name.as_ref();
        match name.len() {
            0 => Err(KeyError::Empty),
            n if n > MAX_KEY_BYTES => Err(KeyError::TooLong(n)),
            _ => Ok(Self(name.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash that places the key: XXH3 (64 bit, seed 0) of its bytes. Fixed for ever; the
    /// test vectors stand in `tests/vectors.rs`.
    pub fn hash64(&self) -> u64 {
        xxh3_64(self.0.as_bytes())
    }

    /// Another hash of the name. Two keys with equal [`hash64`](Self::hash64), be they made so on
    /// purpose, have equal ones only by chance: the seed is drawn anew each time.
    pub fn check(&self, seed: u64) -> u32 {
        xxh3_64_with_seed(self.0.as_bytes(), seed) as u32
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;
    fn try_from(name: &str) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(name: String) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl TryFrom<&String> for Key {
    type Error = KeyError;
    fn try_from(name: &String) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl TryFrom<&Key> for Key {
    type Error = KeyError;
    fn try_from(key: &Key) -> Result<Self, KeyError> {
        Ok(key.clone())
    }
}
