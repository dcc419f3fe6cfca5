//! Who may connect to this node, and why somebody may not.

use std::collections::BTreeSet;

use crate::model::{Members, PublicKey};

/// Whom a transport that knows keys lets in. Follows from the member list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Admission {
    /// The keys of the members, this node included.
    pub members: BTreeSet<PublicKey>,
    /// The keys of those that were removed, unless they are also those of members.
    pub removed: BTreeSet<PublicKey>,
}

/// What came of handshakes since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Handshakes {
    /// Ended by this node: the other side's key is no member's, or it does not know the cluster's secret.
    pub refused: u64,
    /// Ended in any other way: by the other side, by silence, or by bytes that mean nothing.
    pub failed: u64,
    /// Not begun, because there were too many.
    pub limited: u64,
}

impl Admission {
    /// As the member list says.
    pub fn of(members: &Members) -> Self {
        let keys = |present: bool| {
            let chosen = members.all().filter(move |m| members.contains(m.id) == present);
            chosen.filter_map(|m| m.key.known())
        };
        let members: BTreeSet<PublicKey> = keys(true).collect();
        let removed = keys(false).filter(|key| !members.contains(key)).collect();
        Self { members, removed }
    }
}
