//! Signed membership: where entries of the member list are checked and this node's own is signed.
//!
//! Why a signature protects what it does stands at [`model`](crate::model). Here is the one door by which
//! news of members come in (`on_members`), the two by which a person brings them (`add_member`,
//! `remove_member`), and the one by which this node's own word goes out.
//!
//! Without admins an entry is as good as the member that sent it, which is as good as its link.

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{Core, Output, seals::Told};
use crate::{
    error::MemberError,
    model::{FOR_GOOD, Member, NodeId, Proofs, PublicKey, Verify, Vouched, Warrant, WarrantError},
};

/// Makes a signature of a message. Pure: the same message has the same one.
pub type Signer = dyn Fn(&[u8]) -> [u8; 64] + Send + Sync;

/// Signs with this node's key.
#[derive(Clone)]
pub struct Sign(pub Arc<Signer>);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Warrants {
    cluster: String,
    sign: Sign,
    verify: Verify,
    refusals: Told,
}

impl Warrants {
    pub(crate) fn new(cluster: String, sign: Sign, verify: Verify) -> Self {
        Self { cluster, sign, verify, refusals: Told::default() }
    }

    /// This node's own entry as it goes out: where an admin appointed it, with its own signature.
    pub(crate) fn signed(&self, mine: Member) -> Member {
        let (Some(proofs), Some(key)) = (&mine.vouched.0, mine.key.known()) else { return mine };
        let own = Some((self.sign.0)(&mine.own_message(&self.cluster, &key)));
        let vouched = Vouched(Some(Proofs { warrant: proofs.warrant, own }.into()));
        Member { vouched, ..mine }
    }
}

impl Core {
    /// Whether only admins say who is a member.
    pub(super) fn has_admins(&self) -> bool {
        !self.config.admin_keys.is_empty()
    }

    /// Merges what this node says of itself.
    pub(super) fn merge_mine(&mut self, mine: Member) -> bool {
        let mine = self.warrants.signed(mine);
        self.members.merge(&mine)
    }

    /// Whether news of a member may enter the list. Counts a refusal, and tells it unless one was told a
    /// moment ago.
    pub(super) fn lets_in_member(&mut self, from: NodeId, news: &Member) -> bool {
        let Err(error) = self.check_member(news) else { return true };
        self.counters.members_refused += 1;
        if self.warrants.refusals.allows(self.now.mono_ms) {
            self.notice(format!("what {from} says of member {} was refused: {error}", news.id));
        }
        false
    }

    pub(super) fn check_member(&self, entry: &Member) -> Result<(), WarrantError> {
        if self.has_admins() {
            let Warrants { cluster, verify, .. } = &self.warrants;
            return entry.check_warrant(cluster, &self.config.admin_keys, *verify);
        }
        // Nobody here could say that.
        if entry.generation == FOR_GOOD { Err(WarrantError::Missing) } else { Ok(()) }
    }

    /// An admin appoints a member: this node itself too.
    pub(super) fn appoint(
        &mut self,
        (id, key): (NodeId, PublicKey),
        addrs: Vec<SocketAddr>,
        (generation, warrant): (u32, Warrant),
    ) -> Result<(), MemberError> {
        let entry = warrant.entry(id, key, generation, addrs.clone());
        self.check_member(&entry)?;
        let is_gone = self.members.find(id).is_some_and(Member::is_gone_for_good);
        if is_gone || self.members.is_banned(&key) {
            return Err(MemberError::RemovedForGood(id));
        }
        if let Some(known) = self.members.find(id) {
            let next = if known.is_present() { known.generation } else { known.generation.saturating_add(1) };
            if generation < next {
                return Err(MemberError::Generation { id, next });
            }
        }
        if id == self.me {
            if self.members.find(id).and_then(|mine| mine.key.known()) != Some(key) {
                return Err(MemberError::Key(id));
            }
            if self.hear_of_myself(self.me, &entry) {
                self.members_changed();
            }
            return Ok(());
        }
        if self.members.merge(&entry) {
            self.members_changed();
        }
        if !addrs.is_empty() {
            // It need not be where it said to be last.
            self.out.push(Output::Dial { peer: id, addrs });
        }
        Ok(())
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sign")
    }
}
