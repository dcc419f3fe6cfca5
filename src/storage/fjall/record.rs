//! Where a version lies in the engine, and its metadata as bytes.
//!
//! ```text
//! place    length of the name (2 bytes, big endian) | name | actor (8) | counter (8)
//! record   record format (1 byte) | metadata as encode_version makes it | checksum (4)
//! checksum low half of XXH3 over the place and the rest of the record, big endian
//! ```
//!
//! The length in front keeps the versions of a key together and apart from those of longer names that
//! begin alike. The value of a version lies under the same place, in a keyspace of its own.

use xxhash_rust::xxh3::Xxh3;

use crate::{
    model::{Actor, Dot, Key, Version},
    storage::{decode_version, encode_version},
};

/// What this release writes.
const RECORD_FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const DOT_BYTES: usize = 16;

/// Why bytes are no record of the version at whose place they lie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("its metadata has format {0}, this release knows {RECORD_FORMAT}")]
    Format(u8),
    #[error("its metadata fails its checksum, or belongs to another version")]
    Checksum,
    #[error("its metadata can't be decoded: {0}")]
    Malformed(String),
}

/// How the places of all versions of `key` begin.
pub(super) fn prefix(key: &Key) -> Vec<u8> {
    let name = key.as_str().as_bytes();
    let mut place = Vec::with_capacity(2 + name.len() + DOT_BYTES);
    let len = u16::try_from(name.len()).expect("a key is shorter");
    place.extend_from_slice(&len.to_be_bytes());
    place.extend_from_slice(name);
    place
}

/// Where a version lies.
pub(super) fn place(key: &Key, dot: Dot) -> Vec<u8> {
    let mut place = prefix(key);
    place.extend_from_slice(&dot.actor.0.to_be_bytes());
    place.extend_from_slice(&dot.counter.to_be_bytes());
    place
}

/// What lies at `place`; `None` where nothing of ours may.
pub(super) fn parse_place(place: &[u8]) -> Option<(Key, Dot)> {
    let (len, rest) = place.split_first_chunk::<2>()?;
    let (name, dot) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let key = Key::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((key, parse_dot(dot)?))
}

/// The dot at the end of a place.
pub(super) fn parse_dot(dot: &[u8]) -> Option<Dot> {
    let (actor, counter) = dot.split_first_chunk::<8>()?;
    let counter = u64::from_be_bytes(counter.try_into().ok()?);
    Some(Dot { actor: Actor(u64::from_be_bytes(*actor)), counter })
}

/// The record that lies at `place`.
pub(super) fn encode(place: &[u8], version: &Version) -> Vec<u8> {
    let mut record = vec![RECORD_FORMAT];
    record.extend_from_slice(&encode_version(version));
    let sum = checksum(place, &record);
    record.extend_from_slice(&sum);
    record
}

/// What [`encode`] wrote.
pub(super) fn decode(place: &[u8], record: &[u8]) -> Result<Version, RecordError> {
    match record.first() {
        Some(&RECORD_FORMAT) | None => {}
        Some(&other) => return Err(RecordError::Format(other)),
    }
    match record.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((covered, sum)) if *sum == checksum(place, covered) => {
            decode_version(&covered[1..]).map_err(|error| RecordError::Malformed(error.to_string()))
        }
        _ => Err(RecordError::Checksum),
    }
}

fn checksum(place: &[u8], covered: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = Xxh3::new();
    sum.update(place);
    sum.update(covered);
    (sum.digest() as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Context, Digest, Kind, Mirrors};

    fn dot() -> Dot {
        Dot { actor: Actor(0xab), counter: 7 }
    }

    fn version() -> Version {
        Version {
            dot: dot(),
            since: 6,
            context: Context::EMPTY,
            written_ms: 1_790_000_000_000,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(3),
            len: 1,
            digest: Digest::of(b"x"),
            seal: None,
        }
    }

    #[test]
    fn a_place_tells_its_version_and_lies_beside_its_siblings() {
        let (short, long) = (Key::new("a").unwrap(), Key::new("a\0\0\0").unwrap());
        for key in [&short, &long] {
            let place = place(key, dot());
            assert_eq!(parse_place(&place), Some((key.clone(), dot())));
            assert!(place.starts_with(&prefix(key)));
            (0..place.len()).for_each(|len| assert_eq!(parse_place(&place[..len]), None, "{len}"));
            assert_eq!(parse_place(&[&place[..], b"x"].concat()), None);
        }
        assert!(!place(&long, dot()).starts_with(&prefix(&short)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let place = place(&Key::new("k").unwrap(), dot());
        let record = encode(&place, &version());
        assert_eq!(decode(&place, &record), Ok(version()));
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&place, &bad).is_err(), "bit {bit}");
        }
        for len in 0..record.len() {
            assert_eq!(decode(&place, &record[..len]), Err(RecordError::Checksum), "cut to {len}");
        }
        assert_eq!(decode(b"another place", &record), Err(RecordError::Checksum));
        let newer = [&[RECORD_FORMAT + 1], &record[1..]].concat();
        assert_eq!(decode(&place, &newer), Err(RecordError::Format(2)));
    }
}
