//! Versions in as few bytes as they need: what the index keeps of those that are stored.
//!
//! ```text
//! flags, actor, counter, since?, written_ms, expires_ms?, mirrors, len   numbers in LEB128
//! digest                                                                 32 bytes
//! author and signature?                                                  96 bytes
//! length, ranges of (actor, low, high - low)                             the context, unless empty
//! ```
//!
//! An actor is its place in a list, counted from 1, or a 0 and its 8 bytes: most of what a node holds was
//! written by a few actors, but nobody can make it remember more than [`MAX_ACTORS`]. A usual version of
//! 100 B takes 46 B here, one that replaced another 52 B, where a [`Version`] and its context take 200.
//!
//! Not a format: it never leaves the process.

use std::sync::Arc;

use integer_encoding::VarInt;

use crate::{
    fixed_map::FixedMap,
    model::{Actor, Context, Digest, Dot, Kind, Mirrors, PublicKey, Seal, Version},
};

/// Actors that have a short name.
const MAX_ACTORS: usize = 1 << 14;

const TOMBSTONE: u8 = 1;
const SINCE: u8 = 2;
const EXPIRES: u8 = 4;
const SEAL: u8 = 8;
const CONTEXT: u8 = 16;

const DIGEST_BYTES: usize = 32;
const SEAL_BYTES: usize = 96;

/// Short names of actors. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Actors {
    all: Vec<Actor>,
    places: FixedMap<u64, usize>,
}

/// A packed version, read as far as most questions need.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) dot: Dot,
    pub(super) since: u64,
    pub(super) written_ms: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) kind: Kind,
    pub(super) mirrors: Mirrors,
    len: u64,
    digest: &'a [u8],
    seal: &'a [u8],
    context: &'a [u8],
    actors: &'a Actors,
}

/// Packed versions, one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Unpack<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) actors: &'a Actors,
}

impl Actors {
    /// Appends a version.
    pub(super) fn pack(&mut self, version: &Version, out: &mut Vec<u8>) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            flag(version.kind == Kind::Tombstone, TOMBSTONE)
                | flag(version.since > 0, SINCE)
                | flag(version.expires_ms.is_some(), EXPIRES)
                | flag(version.seal.is_some(), SEAL)
                | flag(!version.context.is_empty(), CONTEXT),
        );
        if self.all.len() < MAX_ACTORS && !self.places.contains_key(&version.dot.actor.0) {
            self.all.push(version.dot.actor);
            self.places.insert(version.dot.actor.0, self.all.len());
        }
        self.put_actor(version.dot.actor, out);
        put(version.dot.counter, out);
        if version.since > 0 {
            put(version.since, out);
        }
        put(version.written_ms, out);
        version.expires_ms.iter().for_each(|at_ms| put(*at_ms, out));
        put(version.mirrors.0.into(), out);
        put(version.len, out);
        out.extend_from_slice(&version.digest.0);
        if let Some(seal) = &version.seal {
            out.extend_from_slice(&seal.author.0);
            out.extend_from_slice(&seal.signature);
        }
        if !version.context.is_empty() {
            let mut ranges = Vec::new();
            for (actor, low, high) in version.context.ranges() {
                self.put_actor(actor, &mut ranges);
                put(low, &mut ranges);
                put(high - low, &mut ranges);
            }
            put(ranges.len() as u64, out);
            out.extend_from_slice(&ranges);
        }
    }

    fn put_actor(&self, actor: Actor, out: &mut Vec<u8>) {
        match self.places.get(&actor.0) {
            Some(place) => put(*place as u64, out),
            None => {
                out.push(0);
                out.extend_from_slice(&actor.0.to_le_bytes());
            }
        }
    }

    fn take_actor(&self, bytes: &mut &[u8]) -> Actor {
        match take(bytes) {
            0 => Actor(u64::from_le_bytes(cut(bytes, 8).try_into().expect("8 bytes"))),
            place => self.all[place as usize - 1],
        }
    }
}

impl<'a> Unpack<'a> {
    /// The next version, and its bytes.
    pub(super) fn next_with_bytes(&mut self) -> Option<(&'a [u8], Packed<'a>)> {
        let before = self.bytes;
        let packed = self.next()?;
        Some((&before[..before.len() - self.bytes.len()], packed))
    }
}

impl<'a> Iterator for Unpack<'a> {
    type Item = Packed<'a>;

    fn next(&mut self) -> Option<Packed<'a>> {
        let (bytes, actors) = (&mut self.bytes, self.actors);
        let flags = *bytes.first()?;
        *bytes = &bytes[1..];
        let is = |flag: u8| flags & flag != 0;
        let dot = Dot { actor: actors.take_actor(bytes), counter: take(bytes) };
        Some(Packed {
            dot,
            since: if is(SINCE) { take(bytes) } else { 0 },
            written_ms: take(bytes),
            expires_ms: is(EXPIRES).then(|| take(bytes)),
            kind: if is(TOMBSTONE) { Kind::Tombstone } else { Kind::Value },
            mirrors: Mirrors(take(bytes) as u16),
            len: take(bytes),
            digest: cut(bytes, DIGEST_BYTES),
            seal: if is(SEAL) { cut(bytes, SEAL_BYTES) } else { &[] },
            context: if is(CONTEXT) { cut_counted(bytes) } else { &[] },
            actors,
        })
    }
}

impl Packed<'_> {
    /// Whether it replaced the version named `dot`.
    pub(super) fn covers(&self, dot: Dot) -> bool {
        self.ranges().any(|(actor, low, high)| actor == dot.actor && low < dot.counter && dot.counter <= high)
    }

    /// Adds it, and all that it replaced, to what is known of its key.
    pub(super) fn tell(&self, known: &mut Context) {
        self.tell_replaced(known);
        known.add(self.dot.actor, self.since, self.dot.counter);
    }

    /// Adds what it replaced.
    pub(super) fn tell_replaced(&self, known: &mut Context) {
        self.ranges().for_each(|(actor, low, high)| known.add(actor, low, high));
    }

    /// The whole version.
    pub(super) fn version(&self) -> Version {
        let mut context = Context::EMPTY;
        self.tell_replaced(&mut context);
        let seal = |(author, signature): (&[u8; 32], &[u8])| {
            let signature = signature.try_into().expect("64 bytes");
            Arc::new(Seal { author: PublicKey(*author), signature })
        };
        Version {
            dot: self.dot,
            since: self.since,
            context,
            written_ms: self.written_ms,
            expires_ms: self.expires_ms,
            kind: self.kind,
            mirrors: self.mirrors,
            len: self.len,
            digest: Digest(self.digest.try_into().expect("32 bytes")),
            seal: self.seal.split_first_chunk().map(seal),
        }
    }

    fn ranges(&self) -> impl Iterator<Item = (Actor, u64, u64)> {
        let (mut bytes, actors) = (self.context, self.actors);
        std::iter::from_fn(move || {
            (!bytes.is_empty()).then(|| {
                let (actor, low) = (actors.take_actor(&mut bytes), take(&mut bytes));
                (actor, low, low + take(&mut bytes))
            })
        })
    }
}

/// Appends a number.
pub(super) fn put(number: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let len = number.encode_var(&mut bytes);
    out.extend_from_slice(&bytes[..len]);
}

/// Takes a number that [`put`] wrote.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> u64 {
    if let Some((&low, rest)) = bytes.split_first()
        && low < 0x80
    {
        *bytes = rest;
        return low.into();
    }
    let (number, len) = u64::decode_var(bytes).expect("written by this module");
    *bytes = &bytes[len..];
    number
}

/// Takes bytes whose number stands in front of them.
fn cut_counted<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take(bytes) as usize;
    cut(bytes, len)
}

#[inline]
fn cut<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (cut, rest) = bytes.split_at(len);
    *bytes = rest;
    cut
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> impl Strategy<Value = Version> {
        let number = || prop_oneof![0..200_u64, any::<u64>()];
        let actor = || prop_oneof![0..3_u64, any::<u64>()].prop_map(Actor);
        let ranges = prop::collection::vec((actor(), number(), number()), 0..4);
        let seal = prop::option::of(any::<[u8; 32]>());
        let dot = (actor(), number(), any::<bool>(), any::<u16>(), any::<[u8; 32]>());
        let times = (number(), number(), prop::option::of(number()), number());
        (dot, times, ranges, seal).prop_map(|(dot, times, ranges, seal)| {
            let mut context = Context::EMPTY;
            ranges.into_iter().for_each(|(actor, low, high)| context.add(actor, low, high));
            Version {
                dot: Dot { actor: dot.0, counter: dot.1 },
                since: times.0,
                context,
                written_ms: times.1,
                expires_ms: times.2,
                kind: if dot.2 { Kind::Value } else { Kind::Tombstone },
                mirrors: Mirrors(dot.3),
                len: times.3,
                digest: Digest(dot.4),
                seal: seal.map(|author| Seal { author: PublicKey(author), signature: [7; 64] }.into()),
            }
        })
    }

    proptest! {
        #[test]
        fn versions_come_out_as_they_went_in(versions in prop::collection::vec(version(), 0..4), at: u64) {
            let (mut actors, mut bytes) = (Actors::default(), Vec::new());
            versions.iter().for_each(|v| actors.pack(v, &mut bytes));
            let unpack = Unpack { bytes: &bytes, actors: &actors };
            prop_assert_eq!(unpack.map(|p| p.version()).collect::<Vec<_>>(), versions.clone());
            for (packed, version) in unpack.zip(&versions) {
                let (mut known, mut seen) = (Context::EMPTY, Context::EMPTY);
                packed.tell(&mut known);
                seen.see(version);
                prop_assert_eq!(known, seen);
                prop_assert_eq!(packed.version().is_live(at), version.is_live(at));
                for (actor, low, high) in version.context.ranges() {
                    for counter in [low, low + 1, high, high.saturating_add(1), at] {
                        let dot = Dot { actor, counter };
                        prop_assert_eq!(packed.covers(dot), version.covers(dot));
                    }
                }
            }
        }
    }

    #[test]
    fn no_more_actors_are_remembered_than_there_may_be() {
        let (mut actors, mut bytes) = (Actors::default(), Vec::new());
        let version = |n: u64| Version {
            dot: Dot { actor: Actor(n), counter: n },
            since: 0,
            context: Context::EMPTY,
            written_ms: 1_700_000_000_000,
            expires_ms: None,
            kind: Kind::Value,
            mirrors: Mirrors(3),
            len: 100,
            digest: Digest([9; 32]),
            seal: None,
        };
        let count = MAX_ACTORS as u64 + 100;
        for n in 1..=count {
            bytes.clear();
            actors.pack(&version(n), &mut bytes);
            let unpacked = Unpack { bytes: &bytes, actors: &actors }.next().unwrap();
            assert_eq!(unpacked.version(), version(n));
            assert!(n > 1 || bytes.len() <= 46, "{}", bytes.len());
        }
        assert_eq!((actors.all.len(), actors.places.len()), (MAX_ACTORS, MAX_ACTORS));
    }
}
