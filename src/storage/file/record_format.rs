//! A version's metadata as bytes: the one place that knows how.
//!
//! Not where those bytes are kept (`metadata.rs`) nor what a file is called (`names.rs`).
//!
//! ```text
//! record format (1 byte) | checksum (4) | MessagePack array:
//!   [kind, mirrors, len, digest, written_ms, expires_ms, since, context, key]
//! format      1; 2 with [..., author, signature] behind, of a signed version
//! checksum    low half of XXH3 over the file's name and all the rest, big endian
//! kind        0 value, 1 tombstone
//! expires_ms  nil for never
//! since       nil where it is the highest counter of the dot's actor in the context
//! context     flat array of actor, low, high; actor is nil for the dot's own
//! key         nil where the file's name says it in full
//! ```
//!
//! The dot stands in the file's name and is covered by the checksum, so a file that was renamed by
//! hand is noticed. Fields at the end that a reader does not know are skipped.
//!
//! Small on purpose: an ext4 inode has room for 68 bytes, so that a usual record costs neither a
//! block of its own nor a seek at load.

use std::sync::Arc;

use rmp::Marker;
use rmp::encode::{write_array_len, write_bin, write_nil, write_str, write_uint};
use xxhash_rust::xxh3::xxh3_64;

use super::names::Name;
use crate::model::{Actor, Context, Digest, Key, Kind, Mirrors, PublicKey, Seal, Version};

/// What this release writes of versions that are not signed.
const RECORD_FORMAT: u8 = 1;

/// What it writes of those that are: an older release is to refuse them, not to drop their seals.
const SEALED_FORMAT: u8 = 2;

/// Bytes in front of the array.
const HEADER_BYTES: usize = 5;

/// Fields that every record has.
const FIELDS: u32 = 9;

/// Those that a signed version has on top.
const SEAL_FIELDS: u32 = 2;

/// Why bytes are no metadata of the file that they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("its metadata has format {0}, this release knows {SEALED_FORMAT}")]
    Format(u8),
    #[error("its metadata fails its checksum, or belongs to another file")]
    Checksum,
    #[error("its metadata can't be decoded")]
    Malformed,
}

/// The metadata of the file `name`, which is that of `key`.
pub(super) fn encode(name: &Name, key: &Key, version: &Version) -> Vec<u8> {
    let format = if version.seal.is_some() { SEALED_FORMAT } else { RECORD_FORMAT };
    let mut out = vec![format, 0, 0, 0, 0];
    put_fields(&mut out, name, key, version).expect("writing to a Vec does not fail");
    let sum = checksum(name, &out);
    out[1..HEADER_BYTES].copy_from_slice(&sum);
    out
}

/// What [`encode`] wrote for the file `name`.
pub(super) fn decode(name: &Name, bytes: &[u8]) -> Result<(Key, Version), RecordError> {
    match bytes.first() {
        Some(&(RECORD_FORMAT | SEALED_FORMAT)) if bytes.len() > HEADER_BYTES => {}
        Some(&other) if ![RECORD_FORMAT, SEALED_FORMAT].contains(&other) => {
            return Err(RecordError::Format(other));
        }
        _ => return Err(RecordError::Malformed),
    }
    if bytes[1..HEADER_BYTES] != checksum(name, bytes) {
        return Err(RecordError::Checksum);
    }
    fields(name, &bytes[HEADER_BYTES..], bytes[0] == SEALED_FORMAT).ok_or(RecordError::Malformed)
}

fn checksum(name: &Name, bytes: &[u8]) -> [u8; 4] {
    let mut covered = Vec::with_capacity(name.text().len() + bytes.len());
    covered.extend_from_slice(name.text().as_bytes());
    covered.push(0);
    covered.push(bytes[0]);
    covered.extend_from_slice(&bytes[HEADER_BYTES..]);
    (xxh3_64(&covered) as u32).to_be_bytes()
}

type Written = Result<(), Box<dyn std::error::Error>>;

fn put_fields(out: &mut Vec<u8>, name: &Name, key: &Key, version: &Version) -> Written {
    write_array_len(out, FIELDS + if version.seal.is_some() { SEAL_FIELDS } else { 0 })?;
    write_uint(out, u64::from(version.kind == Kind::Tombstone))?;
    write_uint(out, version.mirrors.0.into())?;
    write_uint(out, version.len)?;
    write_bin(out, &version.digest.0)?;
    write_uint(out, version.written_ms)?;
    put_optional(out, version.expires_ms)?;
    let own = version.dot.actor;
    let implied = version.context.highest(own);
    put_optional(out, Some(version.since).filter(|&since| since != implied))?;
    write_array_len(out, u32::try_from(version.context.ranges().len() * 3)?)?;
    for (actor, low, high) in version.context.ranges() {
        put_optional(out, Some(actor.0).filter(|_| actor != own))?;
        write_uint(out, low)?;
        write_uint(out, high)?;
    }
    if name.is_shortened() {
        write_str(out, key.as_str())?
    } else {
        write_nil(out)?
    }
    if let Some(seal) = &version.seal {
        write_bin(out, &seal.author.0)?;
        write_bin(out, &seal.signature)?;
    }
    Ok(())
}

fn put_optional(out: &mut Vec<u8>, number: Option<u64>) -> Written {
    match number {
        Some(number) => drop(write_uint(out, number)?),
        None => write_nil(out)?,
    }
    Ok(())
}

fn fields(name: &Name, body: &[u8], is_sealed: bool) -> Option<(Key, Version)> {
    let mut rest = Reader(body);
    if rest.array_len()? < FIELDS + if is_sealed { SEAL_FIELDS } else { 0 } {
        return None;
    }
    let kind = match rest.number()? {
        0 => Kind::Value,
        1 => Kind::Tombstone,
        _ => return None,
    };
    let mirrors = Mirrors(rest.number()?.try_into().ok()?);
    let len = rest.number()?;
    let digest = Digest(rest.bin()?.try_into().ok()?);
    let written_ms = rest.number()?;
    let expires_ms = rest.optional()?;
    let since = rest.optional()?;
    let context = rest.context(name.dot().actor)?;
    let key = match rest.text()? {
        Some(key) => Key::new(key).ok().filter(|key| Name::new(key, name.dot()) == *name)?,
        None => name.key()?,
    };
    let seal = match is_sealed {
        true => {
            let author = PublicKey(rest.bin()?.try_into().ok()?);
            Some(Arc::new(Seal { author, signature: rest.bin()?.try_into().ok()? }))
        }
        false => None,
    };
    let since = since.unwrap_or_else(|| context.highest(name.dot().actor));
    let dot = name.dot();
    Some((key, Version { dot, since, context, written_ms, expires_ms, kind, mirrors, len, digest, seal }))
}

/// Reads from the front; every length is checked against the bytes that are there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array_len(&mut self) -> Option<u32> {
        rmp::decode::read_array_len(&mut self.0).ok()
    }

    fn number(&mut self) -> Option<u64> {
        rmp::decode::read_int(&mut self.0).ok()
    }

    fn bin(&mut self) -> Option<&'a [u8]> {
        let len = rmp::decode::read_bin_len(&mut self.0).ok()?;
        self.bytes(len)
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn is_nil(&mut self) -> bool {
        let nil = self.0.first().is_some_and(|&byte| Marker::from_u8(byte) == Marker::Null);
        if nil {
            self.0 = &self.0[1..];
        }
        nil
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        if self.is_nil() { Some(None) } else { self.number().map(Some) }
    }

    fn text(&mut self) -> Option<Option<&'a str>> {
        if self.is_nil() {
            return Some(None);
        }
        let len = rmp::decode::read_str_len(&mut self.0).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok().map(Some)
    }

    fn context(&mut self, own: Actor) -> Option<Context> {
        let numbers = self.array_len()?;
        let mut context = Context::EMPTY;
        for _ in 0..numbers / 3 {
            let actor = self.optional()?.map_or(own, Actor);
            let (low, high) = (self.number()?, self.number()?);
            if low >= high {
                return None;
            }
            context.add(actor, low, high);
        }
        (numbers % 3 == 0).then_some(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{model::Dot, storage::file::names::Found};

    prop_compose! {
        fn contexts()(ranges in prop::collection::vec((0u64..6, any::<u64>(), any::<u64>()), 0..20)) -> Context {
            let mut context = Context::EMPTY;
            ranges.into_iter().for_each(|(actor, a, b)| context.add(Actor(actor), a.min(b), a.max(b)));
            context
        }
    }

    prop_compose! {
        fn versions()(
            actor in 0u64..6, counter: u64, since: u64, context in contexts(), written_ms: u64,
            expires_ms: Option<u64>, tombstone: bool, mirrors: u16, len: u64, digest: [u8; 32],
            author: Option<[u8; 32]>,
        ) -> Version {
            Version {
                dot: Dot { actor: Actor(actor), counter },
                since, context, written_ms, expires_ms,
                kind: if tombstone { Kind::Tombstone } else { Kind::Value },
                mirrors: Mirrors(mirrors), len, digest: Digest(digest),
                seal: author.map(|author| {
                    Arc::new(Seal { author: PublicKey(author), signature: [author[0]; 64] })
                }),
            }
        }
    }

    fn named(key: &Key, version: &Version) -> Name {
        Name::new(key, version.dot)
    }

    fn plain() -> (Key, Version) {
        let mut context = Context::EMPTY;
        context.add(Actor(1), 0, 70_000);
        let version = Version {
            dot: Dot { actor: Actor(1), counter: 70_001 },
            since: 70_000,
            context,
            written_ms: 1_790_000_000_000,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(3),
            len: 60_000,
            digest: Digest::of(b"x"),
            seal: None,
        };
        (Key::new("a-key/of/usual.length").unwrap(), version)
    }

    #[test]
    fn a_usual_record_fits_into_an_inode() {
        let (key, version) = plain();
        let len = encode(&named(&key, &version), &key, &version).len();
        assert!(len <= 68, "{len}");
    }

    #[test]
    fn fields_of_a_later_release_are_skipped() {
        let (key, version) = plain();
        let name = named(&key, &version);
        let mut bytes = encode(&name, &key, &version);
        bytes[HEADER_BYTES] += 1;
        rmp::encode::write_str(&mut bytes, "a field that is new").unwrap();
        let sum = checksum(&name, &bytes);
        bytes[1..HEADER_BYTES].copy_from_slice(&sum);
        assert_eq!(decode(&name, &bytes), Ok((key, version)));
    }

    #[test]
    fn a_later_format_is_named_and_refused() {
        let (key, version) = plain();
        let name = named(&key, &version);
        let mut bytes = encode(&name, &key, &version);
        bytes[0] = 3;
        assert_eq!(decode(&name, &bytes), Err(RecordError::Format(3)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (key, version) = plain();
        let name = named(&key, &version);
        let bytes = encode(&name, &key, &version);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&name, &bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&name, &bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn metadata_of_another_file_is_noticed() {
        let (key, version) = plain();
        let bytes = encode(&named(&key, &version), &key, &version);
        let other = Name::new(&Key::new("another").unwrap(), version.dot);
        assert_eq!(decode(&other, &bytes), Err(RecordError::Checksum));
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(version in versions(), key in "(?s).{1,250}") {
            let key = Key::new(key).unwrap();
            let name = named(&key, &version);
            let bytes = encode(&name, &key, &version);
            prop_assert_eq!(decode(&name, &bytes), Ok((key, version)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), sealed: bool) {
            let Found::Value(name) = Name::parse("a@00000000000000ab-7") else { unreachable!() };
            if sealed && bytes.len() > HEADER_BYTES {
                // Past the checksum, so that the parser behind it gets to see them.
                (bytes[0], bytes[HEADER_BYTES]) = (RECORD_FORMAT, 0x99);
                let sum = checksum(&name, &bytes);
                bytes[1..HEADER_BYTES].copy_from_slice(&sum);
            }
            let _ = decode(&name, &bytes);
        }
    }
}
