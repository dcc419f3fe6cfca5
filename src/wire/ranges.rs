//! What sync and offers are made of, packed: thousands of them go into one message.
//!
//! ```text
//! tree    = mirrors (2) | sum (8)
//! parts   = prefix | checks (3 each)
//! list    = prefix | count (1) | checks (3 each)
//! offered = hash (8) | check (4) | actor (8) | counter (8)
//! ```
//!
//! All big endian, one behind the other in one byte string. A prefix takes as many bytes as the bits
//! of the message need; what stands behind its bits is zero.

use super::{
    CHECK_BITS, DecodeError, Interest, MAX_CHECKS_PER_LIST, Offered, PARTS_PER_RANGE, RangeList, RangeParts,
    TreeDigest,
    codec::{MAX_OFFERED_PER_MESSAGE, MAX_RANGES_PER_MESSAGE, MAX_TREES_PER_MESSAGE},
    pack::{Reader, put_bytes_len},
    parts::packed,
};
use crate::model::{Actor, Dot, Mirrors};

/// Bytes of a check.
pub const CHECK_BYTES: usize = CHECK_BITS as usize / 8;
/// Bytes of a range with the checks of its parts, at most.
pub const RANGE_PARTS_BYTES: usize = 8 + PARTS_PER_RANGE * CHECK_BYTES;
/// Bytes of a listed range beside its checks, at most.
pub const LIST_BYTES: usize = 9;
/// Bytes of an offered version.
pub const OFFERED_BYTES: usize = 28;
/// Bytes of a tree.
pub(super) const TREE_BYTES: usize = 10;

pub(super) fn encode_trees(trees: &[TreeDigest], out: &mut Vec<u8>) {
    put_bytes_len(out, trees.len() * TREE_BYTES);
    for TreeDigest { mirrors, sum } in trees {
        out.extend_from_slice(&mirrors.0.to_be_bytes());
        out.extend_from_slice(&sum.to_be_bytes());
    }
}

pub(super) fn decode_trees(r: &mut Reader<'_>) -> Result<Vec<TreeDigest>, DecodeError> {
    let tree = |&[high, low, ref sum @ ..]: &[u8; TREE_BYTES]| TreeDigest {
        mirrors: Mirrors(u16::from_be_bytes([high, low])),
        sum: u64::from_be_bytes(*sum),
    };
    Ok(packed::<TREE_BYTES>(r, "trees", MAX_TREES_PER_MESSAGE)?.map(tree).collect())
}

pub(super) fn encode_parts(bits: u8, ranges: &[RangeParts], out: &mut Vec<u8>) {
    put_bytes_len(out, ranges.len() * (prefix_bytes(bits) + PARTS_PER_RANGE * CHECK_BYTES));
    for range in ranges {
        put_prefix(bits, range.prefix, out);
        range.checks.iter().for_each(|check| put_check(*check, out));
    }
}

pub(super) fn decode_parts(r: &mut Reader<'_>, bits: u8) -> Result<Vec<RangeParts>, DecodeError> {
    let mut packed = Packed(r.bytes("ranges")?);
    let mut ranges = Vec::new();
    while !packed.0.is_empty() && ranges.len() < MAX_RANGES_PER_MESSAGE {
        let prefix = packed.prefix(bits)?;
        let mut checks = [0; PARTS_PER_RANGE];
        for check in &mut checks {
            *check = packed.check()?;
        }
        ranges.push(RangeParts { prefix, checks });
    }
    packed.end(ranges)
}

pub(super) fn encode_lists(bits: u8, ranges: &[RangeList], out: &mut Vec<u8>) {
    put_bytes_len(out, lists_len(bits, ranges));
    for range in ranges {
        put_prefix(bits, range.prefix, out);
        out.push(u8::try_from(range.checks.len()).expect("a list is short"));
        range.checks.iter().for_each(|check| put_check(*check, out));
    }
}

pub(super) fn decode_lists(r: &mut Reader<'_>, bits: u8) -> Result<Vec<RangeList>, DecodeError> {
    let mut packed = Packed(r.bytes("ranges")?);
    let mut ranges = Vec::new();
    while !packed.0.is_empty() && ranges.len() < MAX_RANGES_PER_MESSAGE {
        let prefix = packed.prefix(bits)?;
        let count = packed.number(1)? as usize;
        let checks = (0..count).map(|_| packed.check()).collect::<Result<_, _>>()?;
        ranges.push(RangeList { prefix, checks });
    }
    packed.end(ranges)
}

pub(super) fn lists_len(bits: u8, ranges: &[RangeList]) -> usize {
    let len = |range: &RangeList| prefix_bytes(bits) + 1 + range.checks.len() * CHECK_BYTES;
    ranges.iter().map(len).sum()
}

/// Whether each fits its count.
pub(super) fn lists_fit(ranges: &[RangeList]) -> bool {
    ranges.len() <= MAX_RANGES_PER_MESSAGE && ranges.iter().all(|r| r.checks.len() <= MAX_CHECKS_PER_LIST)
}

pub(super) fn decode_bits(r: &mut Reader<'_>) -> Result<u8, DecodeError> {
    match r.small("bits")? {
        bits @ 0..=64 => Ok(bits),
        _ => Err(DecodeError::Malformed("bits")),
    }
}

pub(super) fn encode_offered(versions: &[Offered], out: &mut Vec<u8>) {
    put_bytes_len(out, versions.len() * OFFERED_BYTES);
    for Offered { hash, check, dot } in versions {
        out.extend_from_slice(&hash.to_be_bytes());
        out.extend_from_slice(&check.to_be_bytes());
        out.extend_from_slice(&dot.actor.0.to_be_bytes());
        out.extend_from_slice(&dot.counter.to_be_bytes());
    }
}

pub(super) fn decode_offered(r: &mut Reader<'_>) -> Result<Vec<Offered>, DecodeError> {
    let offered = |bytes: &[u8; OFFERED_BYTES]| {
        let mut packed = Packed(bytes);
        let (hash, check) = (packed.number(8)?, packed.number(4)? as u32);
        let dot = Dot { actor: Actor(packed.number(8)?), counter: packed.number(8)? };
        Ok(Offered { hash, check, dot })
    };
    packed::<OFFERED_BYTES>(r, "versions", MAX_OFFERED_PER_MESSAGE)?.map(offered).collect()
}

pub(super) fn encode_interest(answers: &[Interest], out: &mut Vec<u8>) {
    put_bytes_len(out, answers.len());
    out.extend(answers.iter().map(|answer| match answer {
        Interest::Wanted => 0,
        Interest::Known => 1,
        Interest::Coming => 2,
    }));
}

pub(super) fn decode_interest(r: &mut Reader<'_>) -> Result<Vec<Interest>, DecodeError> {
    let interest = |byte: &[u8; 1]| match byte[0] {
        0 => Ok(Interest::Wanted),
        1 => Ok(Interest::Known),
        2 => Ok(Interest::Coming),
        _ => Err(DecodeError::Malformed("answers")),
    };
    packed::<1>(r, "answers", MAX_OFFERED_PER_MESSAGE)?.map(interest).collect()
}

fn prefix_bytes(bits: u8) -> usize {
    usize::from(bits).div_ceil(8)
}

fn put_prefix(bits: u8, prefix: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&prefix.to_be_bytes()[..prefix_bytes(bits)]);
}

fn put_check(check: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&check.to_be_bytes()[4 - CHECK_BYTES..]);
}

/// Takes numbers off the front of a byte string that was received whole: it is malformed where it
/// ends too early.
struct Packed<'a>(&'a [u8]);

impl Packed<'_> {
    fn number(&mut self, bytes: usize) -> Result<u64, DecodeError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(DecodeError::Malformed("ranges"))?;
        self.0 = rest;
        Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn check(&mut self) -> Result<u32, DecodeError> {
        Ok(self.number(CHECK_BYTES)? as u32)
    }

    fn prefix(&mut self, bits: u8) -> Result<u64, DecodeError> {
        let bytes = prefix_bytes(bits);
        let prefix = self.number(bytes)?.checked_shl(64 - 8 * bytes as u32).unwrap_or(0);
        match prefix.checked_shl(bits.into()).unwrap_or(0) {
            0 => Ok(prefix),
            _ => Err(DecodeError::Malformed("ranges")),
        }
    }

    fn end<T>(self, ranges: Vec<T>) -> Result<Vec<T>, DecodeError> {
        if self.0.is_empty() { Ok(ranges) } else { Err(DecodeError::Malformed("ranges")) }
    }
}
