//! One write of a key: its name, what it replaced, and what it carries.

use std::{fmt, str::FromStr, sync::Arc};

use super::{Context, ContextError, Seal};

/// Who names writes: one process of one node, from its start to its end.
///
/// An actor is 64 random bits drawn at every start. So a node that lost its disk, was restored
/// from an old copy, runs twice by accident, or whose clock went back can't name a write with a
/// dot that exists already: it never goes on with an old actor's counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(pub u64);

/// The name of one write. Written as `ACTOR-COUNTER`, the actor in 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote.
    pub actor: Actor,
    /// Which of its writes, from 1 up, over all keys.
    pub counter: u64,
}

/// How many nodes hold a key; 0 means all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mirrors(pub u16);

/// What a version is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It carries a value.
    Value,
    /// It says that the key was deleted.
    Tombstone,
}

/// BLAKE3 of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// All that is known of one write except the value's bytes.
///
/// In memory what a reader looks at comes first, beside the count of those that share it: that is a tenth of the
/// time of a read among a million keys.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Version {
    /// Wall clock from which the value counts as absent, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Length of the value in bytes; 0 for a tombstone.
    pub len: u64,
    /// How many nodes shall hold it.
    pub mirrors: Mirrors,
    /// Value or tombstone.
    pub kind: Kind,
    /// Its name.
    pub dot: Dot,
    /// The actor wrote nothing else to this key after its counter `since` and before `dot`.
    /// This lets contexts join neighbouring dots without guessing. Less than `dot.counter`.
    pub since: u64,
    /// Exactly what it replaced.
    pub context: Context,
    /// Wall clock of the writer, milliseconds since 1970. Orders siblings for display only.
    pub written_ms: u64,
    /// Digest of the value; of no bytes for a tombstone.
    pub digest: Digest,
    /// Who vouches for it, where it is signed. Then all other fields follow from what was signed.
    pub seal: Option<Arc<Seal>>,
}

impl Version {
    /// Whether this version replaced the one named `dot`.
    pub fn covers(&self, dot: Dot) -> bool {
        self.context.contains(dot)
    }

    /// Whether the value counts as absent at `wall_ms`.
    pub fn is_expired(&self, wall_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= wall_ms)
    }

    /// Whether a reader at `wall_ms` gets a value from it.
    pub fn is_live(&self, wall_ms: u64) -> bool {
        self.kind == Kind::Value && !self.is_expired(wall_ms)
    }

    /// Newest first by time, then by dot: the order in which siblings are shown.
    pub fn recency(&self) -> (u64, Dot) {
        (self.written_ms, self.dot)
    }

    /// Whether `value` is what the writer wrote: length and digest.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.len == value.len() as u64 && self.digest == Digest::of(value)
    }
}

impl Mirrors {
    /// On every node.
    pub const ALL: Self = Self(0);

    /// Of how many of `nodes` nodes.
    pub fn of(self, nodes: usize) -> usize {
        if self == Self::ALL { nodes } else { nodes.min(usize::from(self.0)) }
    }
}

/// By how far a key spreads: 1 < 2 < ... < [`Mirrors::ALL`].
impl Ord for Mirrors {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.wrapping_sub(1).cmp(&other.0.wrapping_sub(1))
    }
}

impl PartialOrd for Mirrors {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Digest {
    /// The digest of `value`.
    pub fn of(value: &[u8]) -> Self {
        Self(*blake3::hash(value).as_bytes())
    }
}

/// Makes the digest of a value that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Digester(blake3::Hasher);

impl Digester {
    /// Takes in the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.actor.0, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Dot {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let (actor, counter) = text.split_once('-').ok_or(ContextError::Malformed)?;
        match super::context::number(counter, 10)? {
            0 => Err(ContextError::Malformed),
            counter => Ok(Self { actor: actor.parse()?, counter }),
        }
    }
}

impl FromStr for Actor {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        if text.len() != 16 {
            return Err(ContextError::Malformed);
        }
        super::context::number(text, 16).map(Self)
    }
}
