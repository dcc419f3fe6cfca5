//! Clusters with signed members: who signs what of them.

use super::Options;
use crate::{
    Identity,
    model::{Appointment, Digest, Member, MemberKey, NodeId, Warrant},
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

/// The admin's word of a node.
pub(super) fn appoint(id: NodeId, generation: u32) -> Warrant {
    let key = identity_of(id).public_key();
    admin().appoint(&Appointment { cluster: CLUSTER.into(), id, key, generation })
}

/// A node's entry as others are introduced to it, without addresses.
pub(super) fn introduction(options: &Options, id: NodeId) -> Member {
    let (config, key) = (&options.config, identity_of(id).public_key());
    match (config.admin_keys.is_empty(), config.signed_members) {
        (false, _) => appoint(id, 0).entry(id, key, 0, Vec::new()),
        (true, true) => Member { key: MemberKey::Known(key), ..Member::new(id, Vec::new()) },
        (true, false) => Member::new(id, Vec::new()),
    }
}
