//! Changes of the member list, signed or not.

use std::{future::IntoFuture, net::SocketAddr};

use super::{Prepare, Prepared, start, submit, wait};
use crate::{
    core::{Outcome, Request},
    error::{MemberError, SubmitError},
    model::{NodeId, PublicKey, Warrant},
    node::Node,
    pending::Pending,
};

/// A change of the member list: [`Node::add_member`], [`Node::remove_member`].
#[must_use = "nothing is changed before submit, start or wait"]
pub struct ChangeMembers {
    node: Node,
    id: NodeId,
    change: Change,
    key: Option<PublicKey>,
    signed: Option<(u32, Warrant)>,
}

pub(crate) enum Change {
    Add(Vec<SocketAddr>),
    Remove,
}

operation!(ChangeMembers, (), MemberError);

impl ChangeMembers {
    pub(crate) fn new(node: Node, id: NodeId, change: Change) -> Self {
        Self { node, id, change, key: None, signed: None }
    }

    /// The public key of the node, which is needed where members are signed. Default, of one that is added:
    /// none is named, it is taken over from the node itself where the transport does not ask for keys; of
    /// one that is known: that.
    pub fn key(mut self, key: PublicKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The signature of an admin over the [`Appointment`](crate::Appointment) of the node to this generation,
    /// which is [`FOR_GOOD`](crate::FOR_GOOD) to remove it: for a cluster that [names
    /// admins](crate::Config::admin_keys). Where [members sign](crate::Config::signed_members), this node does.
    pub fn signed(mut self, generation: u32, warrant: Warrant) -> Self {
        self.signed = Some((generation, warrant));
        self
    }
}

impl Prepare for ChangeMembers {
    type Ok = ();
    type Error = MemberError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let Self { id, key, signed, .. } = self;
        let request = match self.change {
            Change::Add(addrs) => Request::AddMember { id, addrs, key, appointed: signed },
            Change::Remove => Request::RemoveMember { id, key, warrant: signed.map(|(_, warrant)| warrant) },
        };
        Ok(Prepared::Ask(request, 0))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<(), MemberError> {
        match outcome {
            Outcome::Members(result) => result,
            _ => Err(MemberError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}
