//! The name of a value.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use triomphe::ThinArc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1_024;

/// A key: 1 to 1,024 bytes of UTF-8, any characters, slashes and dots included.
///
/// Cloning is cheap (a reference count), and a key knows its hash. Keys order by their bytes.
#[derive(Clone)]
pub struct Key(ThinArc<u64, u8>);

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
            _ => Ok(Self(ThinArc::from_header_and_slice(xxh3_64(name.as_bytes()), name.as_bytes()))),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.bytes()).expect("made of a str")
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// The hash that places the key: XXH3 (64 bit, seed 0) of its bytes. Fixed for ever; the
    /// test vectors stand in `tests/vectors.rs`.
    pub fn hash64(&self) -> u64 {
        self.0.header.header
    }

    /// Another hash of the name. Two keys with equal [`hash64`](Self::hash64), be they made so on
    /// purpose, have equal ones only by chance: the seed is drawn anew each time.
    pub fn check(&self, seed: u64) -> u32 {
        xxh3_64_with_seed(self.bytes(), seed) as u32
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const self.0.header, &raw const other.0.header)
            || (self.hash64() == other.hash64() && self.bytes() == other.bytes())
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash64());
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
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
