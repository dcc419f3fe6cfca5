//! From a key and a dot to a file's name and back.
//!
//! No path is ever made of a key's own characters: what is not plainly harmless is escaped, so no
//! key leaves its folder, hides, or meets another one, not even on a file system that ignores
//! case or composes accents. What is left reads well.
//!
//! ```text
//! config/Motor.json, version 00000000000000ab-7
//!   -> data/5c1/config%2f^motor.json@00000000000000ab-7
//! a name that grows too long
//!   -> data/09e/its-readable-beginning~32 hex digits of BLAKE3 of the key@00000000000000ab-7
//! ```
//!
//! | Character | Written as |
//! |---|---|
//! | `a-z 0-9 _ + = ,`, and `.` and `-` but not in front | itself |
//! | `A-Z` | `^` and the lower case letter |
//! | any other byte of the UTF-8 | `%` and two hexadecimal digits |
//!
//! Invariant: `Name::parse(name.text())` gives the same name, and nothing else parses. A shortened
//! name does not tell its key; the metadata does.

use std::path::{Path, PathBuf};

use crate::model::{Dot, Key};

/// The longest escaped key, in bytes. With the dot and `.meta` a name has at most 143 bytes, which
/// is what encrypted home folders allow; 255 is usual.
const MAX_STEM_BYTES: usize = 100;

/// Hexadecimal digits of the key's digest in a shortened name.
const DIGEST_DIGITS: usize = 32;

/// Folders under `data/`. Their number is fixed: a million keys make 244 files each, an empty
/// store has none, and a folder that exists is never removed, so nothing races with that.
pub(super) const FOLDERS: u64 = 4_096;

/// The end of a sidecar's name.
const SIDECAR: &str = ".meta";

/// A file's name: the stem says the key, the dot the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    text: String,
    stem_len: usize,
    dot: Dot,
}

/// What a file in a data folder is by its name.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Found {
    Value(Name),
    Sidecar(Name),
    Foreign,
}

impl Name {
    pub(super) fn new(key: &Key, dot: Dot) -> Self {
        let mut text = stem(key);
        let stem_len = text.len();
        use std::fmt::Write;
        write!(text, "@{dot}").expect("writing to a String does not fail");
        Self { text, stem_len, dot }
    }

    /// What `file_name` stands for.
    pub(super) fn parse(file_name: &str) -> Found {
        let (value, is_sidecar) = match file_name.strip_suffix(SIDECAR) {
            // A key may end like a sidecar, a dot does not.
            Some(value) => (value, true),
            None => (file_name, false),
        };
        match Self::parse_value(value) {
            Some(name) if is_sidecar => Found::Sidecar(name),
            Some(name) => Found::Value(name),
            None => Found::Foreign,
        }
    }

    fn parse_value(text: &str) -> Option<Self> {
        let (stem_text, dot) = text.split_once('@')?;
        let dot: Dot = dot.parse().ok()?;
        let name = Self { text: text.to_owned(), stem_len: stem_text.len(), dot };
        let exact = match name.key() {
            Some(key) => Self::new(&key, dot) == name,
            None => {
                let digest = stem_text.rsplit_once('~')?.1;
                let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
                digest.len() == DIGEST_DIGITS
                    && digest.bytes().all(hex)
                    && stem_text.len() <= MAX_STEM_BYTES
                    && dot.to_string() == text[stem_text.len() + 1..]
            }
        };
        exact.then_some(name)
    }

    pub(super) fn dot(&self) -> Dot {
        self.dot
    }

    /// The key's part of the name.
    pub(super) fn stem(&self) -> &str {
        &self.text[..self.stem_len]
    }

    /// Whether the name was shortened, so that the metadata has to say the key.
    pub(super) fn is_shortened(&self) -> bool {
        self.stem().contains('~')
    }

    /// The key that the name says; `None` for a shortened name and for none of ours.
    pub(super) fn key(&self) -> Option<Key> {
        if self.is_shortened() { None } else { unescape(self.stem()) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn sidecar(&self) -> String {
        format!("{}{SIDECAR}", self.text)
    }
}

/// The folder of a key by the top bits of its hash: keys of one partition lie together.
pub(super) fn folder_of(hash: u64) -> u16 {
    (hash / (u64::MAX / FOLDERS + 1)) as u16
}

/// Where a folder is.
pub(super) fn folder_path(data: &Path, folder: u16) -> PathBuf {
    data.join(format!("{folder:03x}"))
}

fn stem(key: &Key) -> String {
    let mut text = String::with_capacity(MAX_STEM_BYTES);
    // How much of it fits in front of a digest.
    let mut prefix_len = 0;
    for (at, byte) in key.as_str().bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'+' | b'=' | b',' => text.push(char::from(byte)),
            b'.' | b'-' if at > 0 => text.push(char::from(byte)),
            b'A'..=b'Z' => text.extend(['^', char::from(byte.to_ascii_lowercase())]),
            _ => {
                text.push('%');
                push_hex(&mut text, byte);
            }
        }
        if text.len() < MAX_STEM_BYTES - DIGEST_DIGITS {
            prefix_len = text.len();
        }
        if text.len() > MAX_STEM_BYTES {
            text.truncate(prefix_len);
            text.push('~');
            let digest = blake3::hash(key.as_str().as_bytes());
            digest.as_bytes()[..DIGEST_DIGITS / 2].iter().for_each(|&b| push_hex(&mut text, b));
            break;
        }
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    let digit = |nibble| char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit");
    text.extend([digit(byte >> 4), digit(byte & 15)]);
}

fn unescape(stem: &str) -> Option<Key> {
    let mut bytes = Vec::with_capacity(stem.len());
    let mut rest = stem.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'^' => rest.next()?.to_ascii_uppercase(),
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            plain => plain,
        });
    }
    Key::new(String::from_utf8(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Actor;

    fn dot(counter: u64) -> Dot {
        Dot { actor: Actor(0xab), counter }
    }

    fn name(key: &str) -> String {
        Name::new(&Key::new(key).unwrap(), dot(7)).text().to_owned()
    }

    #[test]
    fn names_read_well_and_hide_nothing() {
        assert_eq!(name("config/Motor.json"), "config%2f^motor.json@00000000000000ab-7");
        assert_eq!(name(".."), "%2e.@00000000000000ab-7");
        assert_eq!(name("-rf"), "%2drf@00000000000000ab-7");
        assert_eq!(name("a@b~c^d%"), "a%40b%7ec%5ed%25@00000000000000ab-7");
        assert_eq!(name("ü\0"), "%c3%bc%00@00000000000000ab-7");
    }

    #[test]
    fn a_long_key_keeps_its_readable_beginning_and_gets_a_digest() {
        let long = name(&"log/2026/".repeat(100));
        assert!(long.starts_with("log%2f2026%2flog"), "{long}");
        assert!(long.contains('~') && long.len() <= 138, "{long}");
        assert_ne!(long, name(&"log/2026/".repeat(101)));
    }

    #[test]
    fn what_we_would_not_write_is_foreign() {
        for text in [
            "README",
            "a",
            "a@",
            "@00000000000000ab-7",
            "A@00000000000000ab-7",
            "%41@00000000000000ab-7",
            "a@00000000000000ab-07",
            "a@00000000000000AB-7",
            "a%2F@00000000000000ab-7",
            "^@00000000000000ab-7",
            "a~0@00000000000000ab-7",
            "a@00000000000000ab-7.meta.meta",
            "a@00000000000000ab-7~",
            "%c3@00000000000000ab-7",
        ] {
            assert_eq!(Name::parse(text), Found::Foreign, "{text}");
        }
    }

    #[test]
    fn folders_cover_the_hash_space_in_order() {
        assert_eq!(folder_of(0), 0);
        assert_eq!(folder_of(u64::MAX), 4_095);
        assert_eq!(folder_of(1 << 52), 1);
    }

    proptest! {
        #[test]
        fn every_name_parses_back_and_is_safe(key in "(?s).{1,60}", counter: u64) {
            let key = Key::new(key).unwrap();
            let name = Name::new(&key, dot(counter));
            prop_assert!(name.text().bytes().all(|b| b.is_ascii_graphic() && b != b'/' && !b.is_ascii_uppercase()));
            prop_assert!(!name.text().starts_with(['.', '-']) && name.sidecar().len() <= 143);
            prop_assert_eq!(Name::parse(name.text()), Found::Value(name.clone()));
            prop_assert_eq!(Name::parse(&name.sidecar()), Found::Sidecar(name.clone()));
            if !name.is_shortened() {
                prop_assert_eq!(name.key(), Some(key));
            }
        }

        #[test]
        fn any_text_parses_without_a_panic(text in "(?s).{0,80}") {
            if let Found::Value(name) = Name::parse(&text) {
                prop_assert_eq!(name.text(), text);
            }
        }
    }
}
