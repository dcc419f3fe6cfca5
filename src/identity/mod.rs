//! Who a node is: an Ed25519 key pair of its own.
//!
//! Not where it is kept, which is the driver's, nor who is believed, which the member list says. The
//! secret half never leaves this module, except as text into the file that it is kept in.

use std::fmt;

use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use crate::model::{Appointment, Key, PublicKey, Seal, SealError, Statement, Version, Warrant};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What another secret of a node is derived for.
#[cfg(feature = "quic")]
const RESET: &str = "turbopump 2026-11 stateless reset of links";

/// A node's key pair.
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    public_key: PublicKey,
}

/// Why a text is no secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds no secret key, which is one line of 64 hexadecimal digits")]
pub struct SecretKeyError;

impl Identity {
    /// A new one, drawn from the system.
    ///
    /// # Panics
    /// Where the system gives no random bytes: nothing secret could be made then.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the system gives random bytes");
        Self::from_seed(seed)
    }

    /// The one that follows from these bytes, which must be kept secret.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a secret key");
        let mut public_key = [0; 32];
        public_key.copy_from_slice(pair.public_key().as_ref());
        Self { seed, pair, public_key: PublicKey(public_key) }
    }

    /// Reads the text of a key file: 64 hexadecimal digits and the end of the line.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_secret_text(text: &str) -> Result<Self, SecretKeyError> {
        let seed: PublicKey = text.trim_end().parse().map_err(|_| SecretKeyError)?;
        Ok(Self::from_seed(seed.0))
    }

    /// The secret half, as it is kept.
    pub(crate) fn secret_text(&self) -> String {
        format!("{}\n", PublicKey(self.seed))
    }

    /// The half that others know.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// A signature over a message.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// Signs what this key says of a key of the store.
    ///
    /// # Errors
    /// [`SealError::Sequence`]; or [`SealError::Author`] where the statement is somebody else's.
    pub fn seal(&self, key: &Key, statement: &Statement) -> Result<Seal, SealError> {
        if statement.author != self.public_key {
            return Err(SealError::Author);
        }
        Ok(Seal { author: self.public_key, signature: self.sign(&statement.message(key)?) })
    }

    /// Signs what this key says of a member, as an admin or as another member.
    pub fn appoint(&self, appointment: &Appointment) -> Warrant {
        Warrant { signer: self.public_key, signature: self.sign(&appointment.message()) }
    }

    /// What tells others, after a restart, that their link to the process before is gone.
    #[cfg(feature = "quic")]
    pub(crate) fn reset_secret(&self) -> [u8; 32] {
        blake3::derive_key(RESET, &self.seed)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public_key)
    }
}

/// Whether the holder of the key signed this message.
pub fn is_signed_by(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// Who signed this version of this key, if that is true to the last field. It says nothing of the value's
/// bytes: those are the author's if [`Version::matches`] them.
pub fn author_of(key: &Key, version: &Version) -> Option<PublicKey> {
    version.check_seal(key, is_signed_by).ok()?;
    version.seal.as_ref().map(|seal| seal.author)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_published_vector_and_of_no_other_message() {
        // RFC 8032, 7.1, test 2.
        let seed: PublicKey =
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb".parse().unwrap();
        let identity = Identity::from_seed(seed.0);
        let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(identity.public_key().to_string(), key);
        let signature = identity.sign(&[0x72]);
        assert_eq!(signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert!(is_signed_by(&identity.public_key(), &[0x72], &signature));
        assert!(!is_signed_by(&identity.public_key(), &[0x73], &signature));
        assert!(!is_signed_by(&Identity::generate().public_key(), &[0x72], &signature));
    }

    #[test]
    fn the_secret_is_read_back_and_not_shown() {
        let identity = Identity::generate();
        let again = Identity::from_secret_text(&identity.secret_text()).unwrap();
        assert_eq!(again.public_key(), identity.public_key());
        assert!(!format!("{identity:?}").contains(identity.secret_text().trim_end()));
        for text in ["", "\n", "x", &identity.secret_text()[1..], &format!("{0}{0}", identity.secret_text())]
        {
            assert!(Identity::from_secret_text(text).is_err(), "{text:?}");
        }
    }
}
