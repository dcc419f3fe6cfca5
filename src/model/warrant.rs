//! Signed membership: what an admin says of a member, what a member says of itself, and why nobody else
//! can make anything of it.
//!
//! Not who the admins are, which the configuration says and the core enforces, nor the arithmetic of
//! signatures, which is `identity`'s.
//!
//! A cluster that names admins takes no other's word for who belongs to it. An entry of its list is
//! vouched for twice:
//!
//! ```text
//! the admin signs    cluster, id, key, generation         whether it is a member, and which key is its own
//! the member signs   the same, and state, revision,       what only it can know; with its key
//!                    weight, addresses
//! ```
//!
//! - An entry of revision 0 is one of which the member has not spoken yet: active, of weight 1, and its
//!   addresses are no more than a hint of where it may be found. A wrong hint does no harm: who is there
//!   has to have the key.
//! - A removal is an appointment to generation [`FOR_GOOD`], above all others: nothing stale, and nothing
//!   that will ever be signed, goes before it, in whichever order nodes hear of it. Its key stays out under
//!   every other id as well ([`Members::present`](super::Members::present)).
//! - A member leaves by its own word, and an admin may appoint it again, to the next generation.
//! - Replayed statements lose by generation or revision, as all old news do; those of other clusters name
//!   those.
//!
//! **What it does not protect from:** admins, and whoever has their keys; a member that keeps news to itself.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{Member, MemberKey, MemberState, NodeId, PublicKey, Verify};

/// The generation of those who were removed: there is none after it.
pub const FOR_GOOD: u32 = u32::MAX;

const APPOINTMENT: &[u8; 32] = b"turbopump 2026-11 appointment 01";
const OWN_WORD: &[u8; 32] = b"turbopump 2026-11 own word    01";

/// What an admin says of a member.
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
    /// An admin.
    pub admin: PublicKey,
    /// Over [`Appointment::message`].
    pub signature: [u8; 64],
}

/// What vouches for an entry of the member list. It says nothing that the entry does not say: any two are
/// equal, so that they never tell two entries apart.
#[derive(Clone, Default, Debug)]
pub struct Vouched(pub Option<Arc<Proofs>>);

/// An admin's and the member's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proofs {
    /// The admin's.
    pub warrant: Warrant,
    /// The member's, over [`Member::own_message`], where it has spoken.
    pub own: Option<[u8; 64]>,
}

/// Why an entry, or a change of the member list, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WarrantError {
    /// Nobody vouches for it.
    #[error("this cluster takes no changes of its members without the signature of an admin")]
    Missing,
    /// Who signed it is nobody here.
    #[error("who signed it is no admin of this cluster")]
    Admin,
    /// It is not over this.
    #[error("the signature is not this admin's over this cluster, id, key and generation")]
    Signature,
    /// It says of the member what only itself can say.
    #[error("what it says of the member is not signed by the member")]
    Own,
    /// Its key is not named.
    #[error("an admin names a member with its public key")]
    Key,
}

impl Appointment {
    /// The bytes to be signed.
    pub fn message(&self) -> Vec<u8> {
        message(APPOINTMENT, &self.cluster, self.id, &self.key, self.generation)
    }
}

impl Vouched {
    /// By an admin alone.
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

    /// Whether an admin appointed it, whatever else it says.
    ///
    /// # Errors
    /// None did.
    pub fn check_appointment(
        &self,
        cluster: &str,
        admins: &[PublicKey],
        verify: Verify,
    ) -> Result<(), WarrantError> {
        let Proofs { warrant, .. } = &**self.vouched.0.as_ref().ok_or(WarrantError::Missing)?;
        let key = self.key.known().ok_or(WarrantError::Key)?;
        if !admins.contains(&warrant.admin) {
            return Err(WarrantError::Admin);
        }
        let said = message(APPOINTMENT, cluster, self.id, &key, self.generation);
        match verify(&warrant.admin, &said, &warrant.signature) {
            true => Ok(()),
            false => Err(WarrantError::Signature),
        }
    }

    /// Whether an admin and the member itself stand by all that it says.
    ///
    /// # Errors
    /// They don't.
    pub fn check_warrant(
        &self,
        cluster: &str,
        admins: &[PublicKey],
        verify: Verify,
    ) -> Result<(), WarrantError> {
        self.check_appointment(cluster, admins, verify)?;
        let (Some(proofs), Some(key)) = (&self.vouched.0, self.key.known()) else {
            return Err(WarrantError::Missing);
        };
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
        write!(f, "Warrant({})", self.admin)
    }
}
