//! A version's metadata as bytes, for storages that keep it in one field.
//!
//! ```text
//! format (1 byte) | MessagePack array:
//!   [actor, counter, since, kind, mirrors, len, digest, written_ms, expires_ms, context]
//! format      1; 2 with [..., author, signature] behind, of a signed version
//! kind        0 value, 1 tombstone
//! expires_ms  nil for never
//! context     flat array of actor, low, high
//! ```
//!
//! No checksum: whoever keeps the bytes knows better whether they need one. Fields at the end that
//! a reader does not know are skipped. [`FileStorage`](super::FileStorage) has a shorter form of its
//! own, which leaves out what stands in a file's name.

use std::sync::Arc;

use rmp::{
    Marker,
    decode::{NumValueReadError, read_array_len, read_bin_len, read_int, read_marker},
    encode::{write_array_len, write_bin, write_nil, write_uint},
};

use super::StorageError;
use crate::model::{Actor, Context, Digest, Dot, Kind, Mirrors, PublicKey, Seal, Version};

/// What this release writes of versions that are not signed.
const FORMAT: u8 = 1;
/// What it writes of those that are: an older release is to refuse them, not to drop their seals.
const SEALED_FORMAT: u8 = 2;
/// Fields that every format has.
const FIELDS: u32 = 10;
/// Those that a signed version has on top.
const SEAL_FIELDS: u32 = 2;

/// The metadata of a version as bytes that later releases read, for a storage of one's own.
///
/// ```
/// use turbopump::{Version, storage::{decode_version, encode_version}};
///
/// # fn keep(version: &Version) -> Result<(), Box<dyn std::error::Error>> {
/// let bytes = encode_version(version); // about 70 of them, and more for a long context
/// assert_eq!(decode_version(&bytes)?, *version);
/// # Ok(()) }
/// ```
pub fn encode_version(version: &Version) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(if version.seal.is_some() { SEALED_FORMAT } else { FORMAT });
    put_fields(&mut out, version).expect("writing to a Vec does not fail");
    out
}

/// What [`encode_version`] wrote.
///
/// # Errors
/// [`StorageError::Format`] where a newer release wrote it, [`StorageError::Damaged`] where nobody did.
pub fn decode_version(bytes: &[u8]) -> Result<Version, StorageError> {
    let damaged = || StorageError::damaged("a version's metadata", "it can't be decoded");
    match bytes.split_first() {
        Some((&FORMAT, rest)) => take_fields(rest, false).ok_or_else(damaged),
        Some((&SEALED_FORMAT, rest)) => take_fields(rest, true).ok_or_else(damaged),
        Some((&format, _)) if format > SEALED_FORMAT => {
            let text =
                format!("a version has format {format}, this release knows {SEALED_FORMAT}; use a newer one");
            Err(StorageError::Format(text))
        }
        _ => Err(damaged()),
    }
}

fn put_fields(out: &mut Vec<u8>, v: &Version) -> Result<(), Box<dyn std::error::Error>> {
    write_array_len(out, FIELDS + if v.seal.is_some() { SEAL_FIELDS } else { 0 })?;
    for number in [v.dot.actor.0, v.dot.counter, v.since, u64::from(v.kind == Kind::Tombstone)] {
        write_uint(out, number)?;
    }
    write_uint(out, v.mirrors.0.into())?;
    write_uint(out, v.len)?;
    write_bin(out, &v.digest.0)?;
    write_uint(out, v.written_ms)?;
    match v.expires_ms {
        Some(at) => drop(write_uint(out, at)?),
        None => write_nil(out)?,
    }
    write_array_len(out, u32::try_from(v.context.ranges().len() * 3)?)?;
    for (actor, low, high) in v.context.ranges() {
        for number in [actor.0, low, high] {
            write_uint(out, number)?;
        }
    }
    if let Some(seal) = &v.seal {
        write_bin(out, &seal.author.0)?;
        write_bin(out, &seal.signature)?;
    }
    Ok(())
}

fn take_fields(mut rest: &[u8], is_sealed: bool) -> Option<Version> {
    let bytes = &mut rest;
    if read_array_len(bytes).ok()? < FIELDS + if is_sealed { SEAL_FIELDS } else { 0 } {
        return None;
    }
    let dot = Dot { actor: Actor(number(bytes)?), counter: number(bytes)? };
    let since = number(bytes)?;
    let kind = match number(bytes)? {
        0 => Kind::Value,
        1 => Kind::Tombstone,
        _ => return None,
    };
    let mirrors = Mirrors(number(bytes)?.try_into().ok()?);
    let len = number(bytes)?;
    let digest = Digest(binary(bytes)?);
    let written_ms = number(bytes)?;
    let expires_ms = optional(bytes)?;
    let context = context(bytes)?;
    let seal = match is_sealed {
        true => Some(Arc::new(Seal { author: PublicKey(binary(bytes)?), signature: binary(bytes)? })),
        false => None,
    };
    Some(Version { dot, since, context, written_ms, expires_ms, kind, mirrors, len, digest, seal })
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let number: Result<u64, NumValueReadError> = read_int(bytes);
    number.ok()
}

/// `Some(None)`: nil.
fn optional(bytes: &mut &[u8]) -> Option<Option<u64>> {
    let mut ahead = *bytes;
    if read_marker(&mut ahead).ok()? == Marker::Null {
        *bytes = ahead;
        return Some(None);
    }
    number(bytes).map(Some)
}

fn binary<const BYTES: usize>(bytes: &mut &[u8]) -> Option<[u8; BYTES]> {
    let len = read_bin_len(bytes).ok()? as usize;
    let (binary, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    binary.try_into().ok()
}

fn context(bytes: &mut &[u8]) -> Option<Context> {
    let count = read_array_len(bytes).ok()?;
    let mut context = Context::EMPTY;
    // Each range takes at least three bytes, so a made-up count ends with the bytes.
    for _ in 0..count / 3 {
        context.add(Actor(number(bytes)?), number(bytes)?, number(bytes)?);
    }
    (count % 3 == 0).then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        let mut context = Context::EMPTY;
        context.add(Actor(u64::MAX), 0, u64::MAX);
        context.add(Actor(1), 3, 9);
        Version {
            dot: Dot { actor: Actor(7), counter: 12 },
            since: 11,
            context,
            written_ms: 1_700_000_000_000,
            expires_ms: Some(0),
            kind: Kind::Value,
            mirrors: Mirrors(u16::MAX),
            len: 5,
            digest: Digest::of(b"hello"),
            seal: None,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let tombstone = Version { kind: Kind::Tombstone, expires_ms: None, ..version() };
        let seal = Some(Arc::new(Seal { author: PublicKey([7; 32]), signature: [8; 64] }));
        let signed = Version { seal, ..version() };
        for version in [version(), tombstone, signed, Version { context: Context::EMPTY, ..version() }] {
            assert_eq!(decode_version(&encode_version(&version)).unwrap(), version);
        }
    }

    #[test]
    fn the_bytes_are_those_of_every_release() {
        // Goal: the format is frozen. Method: one version written out by hand.
        let plain = Version { context: Context::EMPTY, expires_ms: None, written_ms: 8, ..version() };
        let mut bytes = vec![1, 0x9a, 7, 12, 11, 0, 0xcd, 0xff, 0xff, 5, 0xc4, 32];
        bytes.extend_from_slice(&Digest::of(b"hello").0);
        bytes.extend_from_slice(&[8, 0xc0, 0x90]);
        assert_eq!(encode_version(&plain), bytes);
    }

    #[test]
    fn what_nobody_wrote_is_damaged_and_what_is_newer_says_so() {
        let bytes = encode_version(&version());
        for cut in 0..bytes.len() {
            assert!(matches!(decode_version(&bytes[..cut]), Err(StorageError::Damaged { .. })), "{cut}");
        }
        let newer = [&[SEALED_FORMAT + 1], &bytes[1..]].concat();
        assert!(matches!(decode_version(&newer), Err(StorageError::Format(_))));
    }
}
