//! Writes that carry their author's signature, and why nobody else can use it for anything.
//!
//! Not who may write what, which the configuration says and the core enforces, nor the arithmetic of
//! signatures, which is `identity`'s.
//!
//! **A version is a function of what was signed.** An author states: this key has this value (kind, length,
//! digest), on so many mirrors, until then; I have seen this context; and this is my statement number
//! `sequence`. Where other versions have what the coordinating node made up, a signed one has:
//!
//! ```text
//! dot         actor: a hash of author and key; counter: sequence * 2^20 + 20 bits of the statement's hash
//! since       counter - 1
//! written_ms  sequence, by custom the author's clock in milliseconds since 1970
//! context     what the author signed, which holds all lower sequences of the same author and key
//! ```
//!
//! So the author is an actor of its own, and nodes have nothing to choose:
//!
//! - *Forged or altered* (key, value, mirrors, expiry, context, time, name): the signature, or the name,
//!   does not fit, and every owner refuses it, from whomever it comes.
//! - *Replayed*: it is the same dot again, hence known where it is, and replaced where a later statement of
//!   the author, or one whose author had seen it, is. That holds in whichever order owners hear of
//!   them, because it is what contexts do for all versions; there is no rule on top that could part owners.
//! - *Two statements with one sequence* are siblings, unless their 20 bits are the same (then owners
//!   may keep either; it takes the author's key to bring that about).
//!
//! **What it does not protect from:** nodes that keep writes to themselves, or acknowledge what they did not
//! store; a value that was deleted and whose last trace is buried can be replayed, as can one on a
//! cluster that lost all later ones: give such values an expiry, or replace instead of deleting; an author
//! can say anything, in particular replace all that it names in its context.

use std::{fmt, sync::Arc};

use super::{Actor, Context, Digest, Dot, Key, Kind, Mirrors, PublicKey, Version};

/// Bits of a counter that tell statements with one sequence apart.
const HASH_BITS: u32 = 20;

/// The highest sequence: as milliseconds since 1970 it is in the year 2248.
pub const MAX_SEQUENCE: u64 = (1 << 43) - 1;

/// What actors of authors are hashed for, and what a signature is for.
const ACTOR: &str = "turbopump 2026-11 actor of an author";
const STATEMENT: &[u8; 32] = b"turbopump 2026-11 signed write 1";

/// Says whether the holder of a key signed a message. Pure: it depends on nothing but these three.
pub type Verify = fn(&PublicKey, &[u8], &[u8]) -> bool;

/// Who vouches for a version, and the proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Who.
    pub author: PublicKey,
    /// Over [`Statement::message`].
    pub signature: [u8; 64],
}

/// Why a write is refused for its signature, or for having none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key demands one.
    #[error("keys with this prefix take signed writes only, and this one is not signed")]
    Missing,
    /// The key demands another author.
    #[error("its author may not write keys with this prefix")]
    Author,
    /// It is not over this write.
    #[error(
        "the signature is not this author's over this write: name, value, mirrors, expiry, context, sequence"
    )]
    Signature,
    /// The sequence is out of its bounds.
    #[error("a sequence is a number from 1 to {MAX_SEQUENCE}")]
    Sequence,
    /// Something that replaced it is here.
    #[error("it is replaced already, by a higher sequence of its author or by a writer who had read it")]
    Stale,
    /// It would replace something without what that had replaced.
    #[error("its context leaves out what it replaces: read the key and sign with the context of that")]
    Context,
}

/// What an author says of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Who.
    pub author: PublicKey,
    /// Which of the author's statements on this key; the highest counts. From 1 to [`MAX_SEQUENCE`].
    pub sequence: u64,
    /// Value or tombstone.
    pub kind: Kind,
    /// Length of the value in bytes; 0 for a tombstone.
    pub len: u64,
    /// Digest of the value; of no bytes for a tombstone.
    pub digest: Digest,
    /// How many nodes shall hold it.
    pub mirrors: Mirrors,
    /// Wall clock from which it counts as absent, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// What it replaces, beside all earlier statements of the same author.
    pub context: Context,
}

impl Statement {
    /// The bytes to be signed.
    ///
    /// Every part has a fixed length or says its own, so no two statements have the same bytes.
    ///
    /// # Errors
    /// [`SealError::Sequence`].
    pub fn message(&self, key: &Key) -> Result<Vec<u8>, SealError> {
        let context = self.whole_context(key)?;
        let mut out = Vec::with_capacity(160 + key.as_str().len() + 24 * context.ranges().len());
        out.extend_from_slice(STATEMENT);
        out.extend_from_slice(&self.author.0);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.push(u8::from(self.kind == Kind::Tombstone));
        out.extend_from_slice(&self.mirrors.0.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&self.digest.0);
        out.push(u8::from(self.expires_ms.is_some()));
        out.extend_from_slice(&self.expires_ms.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&(key.as_str().len() as u64).to_be_bytes());
        out.extend_from_slice(key.as_str().as_bytes());
        out.extend_from_slice(&(context.ranges().len() as u64).to_be_bytes());
        for (actor, low, high) in context.ranges() {
            [actor.0, low, high].iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        }
        Ok(out)
    }

    /// The version that it is, with this signature. Whether that is right, [`Version::check_seal`] says.
    ///
    /// # Errors
    /// [`SealError::Sequence`].
    pub fn version(&self, key: &Key, signature: [u8; 64]) -> Result<Version, SealError> {
        let dot = Dot { actor: actor(&self.author, Some(key)), counter: self.counter(&self.message(key)?) };
        Ok(Version {
            dot,
            since: dot.counter - 1,
            context: self.whole_context(key)?,
            written_ms: self.sequence,
            expires_ms: self.expires_ms,
            kind: self.kind,
            mirrors: self.mirrors,
            len: self.len,
            digest: self.digest,
            seal: Some(Arc::new(Seal { author: self.author, signature })),
        })
    }

    fn whole_context(&self, key: &Key) -> Result<Context, SealError> {
        if !(1..=MAX_SEQUENCE).contains(&self.sequence) {
            return Err(SealError::Sequence);
        }
        let mut context = self.context.clone();
        context.add(actor(&self.author, Some(key)), 0, self.sequence << HASH_BITS);
        Ok(context)
    }

    fn counter(&self, message: &[u8]) -> u64 {
        let hash = blake3::hash(message);
        let low = hash.as_bytes()[..4].iter().fold(0_u64, |low, byte| (low << 8) | u64::from(*byte));
        // Never 0, so that it lies above all lower sequences.
        (self.sequence << HASH_BITS) | (low % ((1 << HASH_BITS) - 1) + 1)
    }
}

impl Version {
    /// Which of its author's statements it is, where it is signed.
    pub fn sequence(&self) -> Option<u64> {
        self.seal.as_ref().map(|_| self.dot.counter >> HASH_BITS)
    }

    /// Who wrote it, over all keys: of a signed one the author, of others the node's process.
    pub(crate) fn writer(&self) -> Actor {
        self.seal.as_ref().map_or(self.dot.actor, |seal| actor(&seal.author, None))
    }

    /// Whether a version of this key that is signed is what its author signed, to the last field.
    ///
    /// # Errors
    /// It is not, or it is not signed.
    pub fn check_seal(&self, key: &Key, verify: Verify) -> Result<(), SealError> {
        let seal = self.seal.as_ref().ok_or(SealError::Missing)?;
        let statement = Statement {
            author: seal.author,
            sequence: self.dot.counter >> HASH_BITS,
            kind: self.kind,
            len: self.len,
            digest: self.digest,
            mirrors: self.mirrors,
            expires_ms: self.expires_ms,
            context: self.context.clone(),
        };
        let is_what_follows = statement.version(key, seal.signature)? == *self;
        match is_what_follows && verify(&seal.author, &statement.message(key)?, &seal.signature) {
            true => Ok(()),
            false => Err(SealError::Signature),
        }
    }
}

/// The actor that an author is for a key; without one, over all keys.
fn actor(author: &PublicKey, key: Option<&Key>) -> Actor {
    let mut hasher = blake3::Hasher::new_derive_key(ACTOR);
    hasher.update(&author.0);
    key.iter().for_each(|key| _ = hasher.update(key.as_str().as_bytes()));
    let hash = hasher.finalize();
    Actor(hash.as_bytes()[..8].iter().fold(0, |actor, byte| (actor << 8) | u64::from(*byte)))
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({})", self.author)
    }
}
