//! The public keys of nodes, and what the member list says of them.

use std::{fmt, str::FromStr};

use super::NodeId;

/// Digits of a key's short form.
const SHORT_DIGITS: usize = 16;

/// The public half of a node's Ed25519 key pair. As text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Why a text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 64 hexadecimal digits")]
pub struct PublicKeyError;

/// What is known of a member's key.
///
/// For one generation of a member it only ever goes from unknown to known, and from known to
/// disputed: a key that was known is not changed silently. To give a node another one, remove
/// it and add it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum MemberKey {
    /// Nobody said which it is.
    #[default]
    Unknown,
    /// This one.
    Known(PublicKey),
    /// Two were named: none of them is believed.
    Disputed,
}

/// A signature as text: 128 hexadecimal digits.
pub fn signature_text(signature: &[u8; 64]) -> String {
    signature.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`signature_text`] wrote: two halves as long as a key.
pub fn parse_signature(text: &str) -> Option<[u8; 64]> {
    let (first, second) = text.split_at_checked(64)?;
    let (first, second): (PublicKey, PublicKey) = (first.parse().ok()?, second.parse().ok()?);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&first.0);
    signature[32..].copy_from_slice(&second.0);
    Some(signature)
}

impl PublicKey {
    /// The id of a node that was given no name: the first 16 digits.
    pub fn short(&self) -> NodeId {
        let digits = &self.to_string()[..SHORT_DIGITS];
        digits.parse().expect("hexadecimal digits are allowed")
    }
}

impl MemberKey {
    /// What is known by those who know this and those who know that. Commutative, associative,
    /// idempotent.
    pub fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, key) | (key, Self::Unknown) => key,
            (a, b) if a == b => a,
            _ => Self::Disputed,
        }
    }

    /// The key, where one is believed.
    pub fn known(self) -> Option<PublicKey> {
        match self {
            Self::Known(key) => Some(key),
            Self::Unknown | Self::Disputed => None,
        }
    }
}

impl From<Option<PublicKey>> for MemberKey {
    fn from(key: Option<PublicKey>) -> Self {
        key.map_or(Self::Unknown, Self::Known)
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let mut key = [0; 32];
        if text.len() != 2 * key.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(PublicKeyError);
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| PublicKeyError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| PublicKeyError)?;
        }
        Ok(Self(key))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
