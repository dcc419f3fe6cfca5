//! Signed membership: where entries of the member list are checked, and where this node signs.
//!
//! Why a signature protects what it does stands at [`model`](crate::model). Here is the one door by which
//! news of members come in (`on_members`), the two by which a person brings them (`add_member`,
//! `remove_member`), and the one by which this node's own word goes out.
//!
//! Where members sign, this node signs each entry that it keeps (`take_member`), so that it can be asked for
//! all of them whoever said them first; one signature per id, key and generation. What it finds in its
//! members file it stands by, as far as it can: what another said of itself without a signature is left out.
//!
//! Without signatures an entry is as good as the member that sent it, which is as good as its link.

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{Core, Output, seals::Told};
use crate::{
    config::Config,
    error::MemberError,
    model::{
        Appointment, FOR_GOOD, Member, MemberKey, NodeId, Proofs, PublicKey, Verify, Vouched, Warrant,
        WarrantError,
    },
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
    /// This node's key, where it signs what it says of members.
    signer: Option<PublicKey>,
    sign: Sign,
    verify: Verify,
    refusals: Told,
}

impl Warrants {
    pub(crate) fn new(
        cluster: String,
        (sign, verify): (Sign, Verify),
        config: &Config,
        key: MemberKey,
    ) -> Self {
        let signs = config.signed_members && config.admin_keys.is_empty();
        let signer = key.known().filter(|_| signs);
        Self { cluster, signer, sign, verify, refusals: Told::default() }
    }

    /// What this node says of a member, where it says anything.
    fn appoint(&self, id: NodeId, key: PublicKey, generation: u32) -> Option<Warrant> {
        let said = Appointment { cluster: self.cluster.clone(), id, key, generation };
        self.signer.map(|signer| Warrant { signer, signature: (self.sign.0)(&said.message()) })
    }

    /// The entry with this node's word for it instead of another's, where it gives any. `known` is what it
    /// has of the member.
    fn vouched(&self, entry: Member, known: Option<&Member>) -> Member {
        let Some(key) = entry.key.known() else { return entry };
        let is_same = |m: &&Member| (m.key, m.generation) == (entry.key, entry.generation);
        let before = known.filter(is_same).and_then(|m| m.vouched.0.as_ref()).map(|proofs| proofs.warrant);
        let mine = before.filter(|warrant| Some(warrant.signer) == self.signer);
        let Some(warrant) = mine.or_else(|| self.appoint(entry.id, key, entry.generation)) else {
            return entry;
        };
        let own = entry.vouched.0.as_ref().and_then(|proofs| proofs.own);
        Member { vouched: Vouched(Some(Proofs { warrant, own }.into())), ..entry }
    }

    /// What this node makes of an entry that it begins with.
    pub(crate) fn kept(&self, entry: Member) -> Option<Member> {
        if self.signer.is_none() {
            return Some(entry);
        }
        let key = entry.key.known()?;
        let entry = self.vouched(entry, None);
        match (entry.check_own_word(&self.cluster, self.verify), &entry.vouched.0) {
            (Err(_), Some(proofs)) if entry.is_present() => {
                Some(proofs.warrant.entry(entry.id, key, entry.generation, entry.addrs))
            }
            (word, _) => word.is_ok().then_some(entry),
        }
    }

    /// This node's own entry as it goes out: where it was appointed, with its own signature.
    pub(crate) fn signed(&self, mine: Member, known: Option<&Member>) -> Member {
        let mine = self.vouched(mine, known);
        let (Some(proofs), Some(key)) = (&mine.vouched.0, mine.key.known()) else { return mine };
        let own = Some((self.sign.0)(&mine.own_message(&self.cluster, &key)));
        let vouched = Vouched(Some(Proofs { warrant: proofs.warrant, own }.into()));
        Member { vouched, ..mine }
    }
}

impl Core {
    /// Whose signature counts for what `from` says of others.
    pub(super) fn signers(&self, from: NodeId) -> Vec<PublicKey> {
        if !self.config.admin_keys.is_empty() {
            return self.config.admin_keys.clone();
        }
        let present = self.members.find(from).filter(|_| self.members.contains(from));
        present.and_then(|m| m.key.known()).into_iter().collect()
    }

    /// Merges what this node says of itself.
    pub(super) fn merge_mine(&mut self, mine: Member) -> bool {
        let mine = self.warrants.signed(mine, self.members.find(self.me));
        self.members.merge(&mine)
    }

    /// Merges what was let in.
    pub(super) fn take_member(&mut self, entry: Member) -> bool {
        let known = self.members.find(entry.id);
        let entry = self.warrants.vouched(entry, known);
        self.members.merge(&entry)
    }

    /// Whether news of a member may enter the list. Counts a refusal, and tells it unless one was told a
    /// moment ago.
    pub(super) fn lets_in_member(&mut self, from: NodeId, news: &Member, signers: &[PublicKey]) -> bool {
        let Err(error) = self.check_member(news, signers) else { return true };
        self.counters.members_refused += 1;
        if self.warrants.refusals.allows(self.now.mono_ms) {
            self.notice(format!("what {from} says of member {} was refused: {error}", news.id));
        }
        false
    }

    fn check_member(&self, entry: &Member, signers: &[PublicKey]) -> Result<(), WarrantError> {
        if self.config.has_signed_members() {
            return entry.check_warrant(&self.warrants.cluster, signers, self.warrants.verify);
        }
        // Nobody here could say that.
        if entry.generation == FOR_GOOD { Err(WarrantError::Missing) } else { Ok(()) }
    }

    /// Somebody adds a member, which may be this node itself: with a signature, or where this node signs.
    pub(super) fn appoint(
        &mut self,
        id: NodeId,
        addrs: Vec<SocketAddr>,
        key: Option<PublicKey>,
        appointed: Option<(u32, Warrant)>,
    ) -> Result<(), MemberError> {
        let known = self.members.find(id);
        let key = key.or(known.and_then(|m| m.key.known())).ok_or(WarrantError::Key)?;
        if known.is_some_and(Member::is_gone_for_good) || self.members.is_banned(&key) {
            return Err(MemberError::RemovedForGood(id));
        }
        let next = known.map_or(0, |m| m.generation.saturating_add((!m.is_present()).into()));
        let by_me = || self.warrants.appoint(id, key, next).map(|warrant| (next, warrant));
        let (generation, warrant) = appointed.or_else(by_me).ok_or(WarrantError::Missing)?;
        let entry = warrant.entry(id, key, generation, addrs.clone());
        let signers = self.signers(self.me);
        self.check_member(&entry, &signers)?;
        if generation < next {
            return Err(MemberError::Generation { id, next });
        }
        let keeps_its_key = id == self.me || known.is_some_and(|m| m.generation == generation);
        if keeps_its_key && known.is_some_and(|m| m.key != entry.key) {
            return Err(MemberError::Key(id));
        }
        if id == self.me {
            if self.hear_of_myself(self.me, &entry, &signers) {
                self.members_changed();
            }
            return Ok(());
        }
        if self.take_member(entry) {
            self.members_changed();
        }
        if !addrs.is_empty() {
            // It need not be where it said to be last.
            self.out.push(Output::Dial { peer: id, addrs });
        }
        Ok(())
    }

    /// The entry that removes a member for good: with a signature, or where this node signs.
    pub(super) fn removal(
        &self,
        known: &Member,
        key: Option<PublicKey>,
        warrant: Option<Warrant>,
    ) -> Result<Member, MemberError> {
        let key = key.or(known.key.known()).ok_or(WarrantError::Key)?;
        if known.key.known().is_some_and(|known| known != key) {
            return Err(MemberError::Key(known.id));
        }
        let by_me = || self.warrants.appoint(known.id, key, FOR_GOOD);
        let removed = warrant.or_else(by_me).ok_or(WarrantError::Missing)?.removal(known.id, key);
        self.check_member(&removed, &self.signers(self.me))?;
        Ok(removed)
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sign")
    }
}
