//! Clusters that name an admin: who signs what of their members.

use super::Options;
use crate::{
    Identity,
    model::{Appointment, Digest, FOR_GOOD, Member, MemberKey, NodeId, PublicKey, Vouched, Warrant},
};

/// The name of every simulated cluster.
pub(super) const CLUSTER: &str = "simulation";

/// The admin, for [`Config::admin_keys`](crate::Config::admin_keys): who signs what members change.
pub fn admin() -> Identity {
    Identity::from_seed([8; 32])
}

/// The key pair of a node.
pub fn identity_of(id: NodeId) -> Identity {
    Identity::from_seed(Digest::of(id.as_str().as_bytes()).0)
}

/// The admin's word that a node is a member.
pub(super) fn appointed(id: NodeId) -> (PublicKey, Warrant) {
    signed(id, 0)
}

/// The admin's word that a node is none any more.
pub(super) fn removed(id: NodeId) -> (PublicKey, Warrant) {
    signed(id, FOR_GOOD)
}

/// A node's entry as others are introduced to it, without addresses.
pub(super) fn introduction(options: &Options, id: NodeId) -> Member {
    let bare = Member::new(id, Vec::new());
    if options.config.admin_keys.is_empty() {
        return bare;
    }
    let (key, warrant) = appointed(id);
    Member { key: MemberKey::Known(key), vouched: Vouched::by(warrant), ..bare }
}

fn signed(id: NodeId, generation: u32) -> (PublicKey, Warrant) {
    let key = identity_of(id).public_key();
    (key, admin().appoint(&Appointment { cluster: CLUSTER.into(), id, key, generation }))
}
