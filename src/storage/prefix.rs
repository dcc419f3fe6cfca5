//! The digest of a value whose pieces arrive in any order, made while they come.
//!
//! Bytes are taken into the digest as soon as nothing is missing before them, so that a value which
//! comes in order needs not be read again when it is complete. What has been taken in is not to be
//! overwritten: [`Prefix::place`] says which part of a piece is still to be kept.

use std::{collections::BTreeMap, ops::Range};

use crate::model::{Digest, Digester, Version};

/// How far a value has come. See the [module](self).
#[derive(Default)]
pub(super) struct Prefix {
    digester: Digester,
    len: u64,
    /// Pieces behind a hole, from where to where.
    ahead: BTreeMap<u64, u64>,
}

impl Prefix {
    /// Bytes from the start on that are all there.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The part of a piece of so many bytes that is to be kept: what is in the digest stays as it is.
    pub(super) fn place(&self, offset: u64, len: usize) -> Range<usize> {
        let known = self.len.saturating_sub(offset).min(len as u64);
        known as usize..len
    }

    /// Takes in a piece that was kept. Answers which bytes behind it can be taken in now, with
    /// [`read_on`](Self::read_on), since this piece closed the hole before them.
    pub(super) fn add(&mut self, offset: u64, bytes: &[u8]) -> Option<Range<u64>> {
        let end = offset + bytes.len() as u64;
        if offset > self.len {
            let known = self.ahead.entry(offset).or_default();
            *known = end.max(*known);
            return None;
        }
        self.read_on(&bytes[self.place(offset, bytes.len())]);
        self.next()
    }

    /// Takes in the bytes that follow. Answers what can be taken in after them.
    pub(super) fn read_on(&mut self, bytes: &[u8]) {
        self.digester.add(bytes);
        self.len += bytes.len() as u64;
    }

    /// The bytes kept ahead that can be taken in now.
    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        while let Some(piece) = self.ahead.first_entry().filter(|piece| *piece.key() <= self.len) {
            let end = piece.remove();
            if end > self.len {
                return Some(self.len..end);
            }
        }
        None
    }

    /// Whether just the value of this version is there.
    pub(super) fn is_of(&self, version: &Version) -> bool {
        self.len == version.len && self.ahead.is_empty() && self.digest() == version.digest
    }

    /// Of the bytes taken in so far.
    pub(super) fn digest(&self) -> Digest {
        self.digester.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Seeded;

    #[test]
    fn pieces_in_any_order_and_twice_give_the_digest_of_the_whole() {
        // Goal: whatever overlaps and comes late, the digest is that of what was kept. Method: pieces
        // at random places, kept as a storage does, until the value is whole.
        let value: Vec<u8> = (0..5_000_u32).map(|n| (n * n) as u8).collect();
        let mut chance = Seeded::new(7);
        for _ in 0..50 {
            let (mut prefix, mut kept) = (Prefix::default(), vec![0; value.len()]);
            while prefix.len() < value.len() as u64 {
                let from = chance.below(value.len() as u64) as usize;
                let to = (from + 1 + chance.below(900) as usize).min(value.len());
                let part = prefix.place(from as u64, to - from);
                kept[from..to][part.clone()].copy_from_slice(&value[from..to][part]);
                let mut next = prefix.add(from as u64, &value[from..to]);
                while let Some(range) = next {
                    prefix.read_on(&kept[range.start as usize..range.end as usize]);
                    next = prefix.next();
                }
            }
            assert_eq!((prefix.digest(), kept == value), (Digest::of(&value), true));
            assert!(prefix.ahead.is_empty());
        }
    }

    #[test]
    fn what_is_in_the_digest_is_not_written_again() {
        let mut prefix = Prefix::default();
        assert_eq!(prefix.add(0, b"hello"), None);
        assert_eq!(prefix.place(0, 5), 5..5);
        assert_eq!(prefix.place(3, 5), 2..5);
        assert_eq!(prefix.place(9, 5), 0..5);
        assert_eq!(prefix.add(0, b"HELLO!"), None);
        assert_eq!((prefix.len(), prefix.digest()), (6, Digest::of(b"hello!")));
    }
}
