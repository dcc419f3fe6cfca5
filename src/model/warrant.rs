//! Signed membership: what is said of a member by one who may, what a member says of itself, and why nobody
//! else can make anything of it.
//!
//! Not who may, which the configuration says and the core enforces, nor the arithmetic of signatures,
//! which is `identity`'s.
//!
//! An entry of a signed list is vouched for twice:
//!
//! ```text
//! the signer signs   cluster, id, key, generation         whether it is a member, and which key is its own
//! the member signs   the same, and state, revision,       what only it can know; with its key
//!                    weight, addresses
//! ```
//!
//! Who signs: in a cluster that names admins, one of them and nobody else, and their signatures are kept and
//! handed on. Where members sign, each does so for all that it takes in, and takes in only what another
//! present member stands by with its own signature. So no list hangs on the word of one who was removed since.
//!
//! - An entry of revision 0 is one of which the member has not spoken yet: active, of weight 1, and its
//!   addresses are no more than a hint of where it may be found. A wrong hint does no harm: who is there
//!   has to have the key.
//! - A removal is an appointment to generation [`FOR_GOOD`], above all others: nothing stale, and nothing
//!   that will ever be signed, goes before it, in whichever order nodes hear of it. Its key stays out under
//!   every other id as well ([`Members::present`](super::Members::present)).
//! - A member leaves by its own word, and may be appointed again, to the next generation.
//! - Replayed statements lose by generation or revision, as all old news do; those of other clusters name
//!   those.
//! - Of two keys for one id the later entry's counts, as with all that it says: one who has spoken for itself
//!   stays who it is, whatever wrong key is named for it.
//!
//! **What it does not protect from:** who may sign, and whoever has their keys; a member that keeps news to
//! itself. Where members sign, that is any member while it is one: it can add, remove and replace others, but
//! not speak for them, and not bring back who was removed.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{Member, MemberKey, MemberState, NodeId, PublicKey, Verify};

/// The generation of those who were removed: there is none after it.
pub const FOR_GOOD: u32 = u32::MAX;

const APPOINTMENT: &[u8; 32] = b"turbopump 2026-11 appointment 01";
const OWN_WORD: &[u8; 32] = b"turbopump 2026-11 own word    01";

/// What is said of a member by one who may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appointment {
    /// Of which cluster.
    pub cluster: String,
    /// Who.
    pub id: NodeId,
    /// Its key.
    pub key: PublicKey,
    /// 0 at first, one more each time that it comes back after it had left; [`FOR_GOOD`] removes it.
    pub generation: u32,
}

/// Who says so, and the proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Warrant {
    /// An admin, or a member where members sign.
    pub signer: PublicKey,
    /// Over [`Appointment::message`].
    pub signature: [u8; 64],
}

/// What vouches for an entry of the member list. It says nothing that the entry does not say: any two are
/// equal, so that they never tell two entries apart.
#[derive(Clone, Default, Debug)]
pub struct Vouched(pub Option<Arc<Proofs>>);

/// Somebody's who may appoint it, and the member's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proofs {
    /// Who appointed it.
    pub warrant: Warrant,
    /// The member's, over [`Member::own_message`], where it has spoken.
    pub own: Option<[u8; 64]>,
}

/// Why an entry, or a change of the member list, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WarrantError {
    /// Nobody vouches for it.
    #[error("this cluster takes no changes of its members without a signature")]
    Missing,
    /// Who signed it may not say so.
    #[error("who signed it is no admin of this cluster, or, where members sign, not the member that says it")]
    Signer,
    /// It is not over this.
    #[error("the signature is not its signer's over this cluster, id, key and generation")]
    Signature,
    /// It says of the member what only itself can say.
    #[error("what it says of the member is not signed by the member")]
    Own,
    /// Its key is not named.
    #[error("where members are signed, each is named with its public key")]
    Key,
}

impl Appointment {
    /// The bytes to be signed.
    pub fn message(&self) -> Vec<u8> {
        message(APPOINTMENT, &self.cluster, self.id, &self.key, self.generation)
    }
}

impl Vouched {
    /// By one who may, and not by the member itself.
    pub fn by(warrant: Warrant) -> Self {
        Self(Some(Arc::new(Proofs { warrant, own: None })))
    }
}

impl Warrant {
    /// The entry of a member that was appointed and has not spoken, and where it may be.
    pub fn entry(self, id: NodeId, key: PublicKey, generation: u32, addrs: Vec<SocketAddr>) -> Member {
        let (key, vouched) = (MemberKey::Known(key), Vouched::by(self));
        Member { generation, key, vouched, ..Member::new(id, addrs) }
    }

    /// The entry of a member that was removed. There is but one for each key, so that all have the same.
    pub fn removal(self, id: NodeId, key: PublicKey) -> Member {
        Member { state: MemberState::Removed, ..self.entry(id, key, FOR_GOOD, Vec::new()) }
    }
}

impl Member {
    /// Whether it was removed in such a way that neither its id nor its key comes back.
    pub fn is_gone_for_good(&self) -> bool {
        self.generation == FOR_GOOD && self.state == MemberState::Removed
    }

    /// What a member signs of its own entry.
    pub fn own_message(&self, cluster: &str, key: &PublicKey) -> Vec<u8> {
        let mut out = message(OWN_WORD, cluster, self.id, key, self.generation);
        out.push(self.state as u8);
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&self.weight.to_be_bytes());
        for addr in &self.addrs {
            put(&mut out, addr.to_string().as_bytes());
        }
        out
    }

    /// Whether one of those who may sign appointed it, whatever else it says.
    ///
    /// # Errors
    /// None did.
    pub fn check_appointment(
        &self,
        cluster: &str,
        signers: &[PublicKey],
        verify: Verify,
    ) -> Result<(), WarrantError> {
        let Proofs { warrant, .. } = &**self.vouched.0.as_ref().ok_or(WarrantError::Missing)?;
        let key = self.key.known().ok_or(WarrantError::Key)?;
        if !signers.contains(&warrant.signer) {
            return Err(WarrantError::Signer);
        }
        let said = message(APPOINTMENT, cluster, self.id, &key, self.generation);
        match verify(&warrant.signer, &said, &warrant.signature) {
            true => Ok(()),
            false => Err(WarrantError::Signature),
        }
    }

    /// Whether what it says beyond its appointment is said by the member itself.
    ///
    /// # Errors
    /// It is not.
    pub fn check_own_word(&self, cluster: &str, verify: Verify) -> Result<(), WarrantError> {
        let proofs = self.vouched.0.as_ref().ok_or(WarrantError::Missing)?;
        let key = self.key.known().ok_or(WarrantError::Key)?;
        let is_own = |own: &[u8; 64]| verify(&key, &self.own_message(cluster, &key), own);
        let is_right = match (self.generation, self.revision) {
            (FOR_GOOD, _) => *self == proofs.warrant.removal(self.id, key),
            (generation, 0) => *self == proofs.warrant.entry(self.id, key, generation, self.addrs.clone()),
            // The members file keeps no addresses of those who left.
            _ if self.state == MemberState::Removed && !self.addrs.is_empty() => false,
            _ => proofs.own.as_ref().is_some_and(is_own),
        };
        if is_right { Ok(()) } else { Err(WarrantError::Own) }
    }

    /// Whether one of those who may sign and the member itself stand by all that it says.
    ///
    /// # Errors
    /// They don't.
    pub fn check_warrant(
        &self,
        cluster: &str,
        signers: &[PublicKey],
        verify: Verify,
    ) -> Result<(), WarrantError> {
        self.check_appointment(cluster, signers, verify)?;
        self.check_own_word(cluster, verify)
    }
}

/// Every part has a fixed length or says its own, so no two statements have the same bytes.
fn message(domain: &[u8; 32], cluster: &str, id: NodeId, key: &PublicKey, generation: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(160 + cluster.len());
    out.extend_from_slice(domain);
    put(&mut out, cluster.as_bytes());
    put(&mut out, id.as_str().as_bytes());
    out.extend_from_slice(&key.0);
    out.extend_from_slice(&generation.to_be_bytes());
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl PartialEq for Vouched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Vouched {}

impl PartialOrd for Vouched {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Vouched {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl fmt::Debug for Warrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warrant({})", self.signer)
    }
}
