//! Leaving in order: a node gives all that it holds to its owners, and only then stops being a member.
//!
//! ```text
//! active ──leave──> leaving: owns nothing, serves clients, hands off ──nothing left──> removed
//! ```
//!
//! A leaving member is asked to agree to burials like any other, and takes writes for others. Once it
//! holds nothing it says itself that it is removed, and takes nothing any more: what it had acknowledged
//! before that was handed on. It goes on leaving after a restart, however long that takes.
//!
//! Limits: operations (see [`operations`](super::operations)).

use super::{Core, OpId, Outcome, Standing, Timer, offer::Debts, operations::Operation};
use crate::{
    error::MemberError,
    model::{Member, MemberState},
};

/// How often it is looked at whether anything is left.
const LOOK_MS: u64 = 50;

/// How far a node is with leaving its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Its owners have every copy that it held, and it is no member any more: it may be stopped for good.
    Left,
    /// The time was up; it goes on in the background.
    UnderWay {
        /// Keys that it still holds.
        remaining: usize,
    },
}

impl Core {
    pub(super) fn submit_leave(&mut self, op: OpId, timeout_ms: u64) {
        let is_other = |m: &&Member| m.id != self.me && m.state == MemberState::Active && m.weight > 0;
        let Some(mine) = self.members.find(self.me).cloned() else { return };
        if mine.is_present() && self.members.present().find(is_other).is_none() {
            return self.finish(op, Outcome::Departure(Err(MemberError::LastMember)));
        }
        if mine.state == MemberState::Active {
            let revision = mine.revision.saturating_add(1);
            self.merge_mine(Member { state: MemberState::Leaving, revision, ..mine });
            self.members_changed();
        }
        self.keep(op, Operation::Leave, timeout_ms);
        self.look_whether_left();
    }

    pub(super) fn leave_timed_out(&mut self, op: OpId) {
        let remaining = self.index.keys() + self.index.tombstones();
        self.finish(op, Outcome::Departure(Ok(Departure::UnderWay { remaining })));
    }

    /// Ends the departure where nothing is left here. Called at the start and from then on.
    pub(super) fn look_whether_left(&mut self) {
        let Some(mine) = self.members.find(self.me).cloned() else { return };
        match mine.state {
            MemberState::Active => return,
            MemberState::Leaving if !self.holds_nothing() => {
                return self.timers.set_earlier(Timer::Leave, self.now.mono_ms + LOOK_MS);
            }
            MemberState::Leaving => {
                let revision = mine.revision.saturating_add(1);
                self.merge_mine(Member { state: MemberState::Removed, revision, addrs: Vec::new(), ..mine });
                (self.removed, self.left) = (true, true);
                // Names of what its owners have by now: they were offered it, too, and did not say so yet.
                self.peers.values_mut().for_each(|peer| peer.debts = Debts::default());
                self.notice("this node has left the cluster: nothing is left here, it may be stopped".into());
                self.members_changed();
            }
            MemberState::Removed => {}
        }
        for op in self.operations.take_leaves() {
            self.finish(op, Outcome::Departure(Ok(Departure::Left)));
        }
    }

    /// Whether all that was ever acknowledged here is with others.
    fn holds_nothing(&self) -> bool {
        self.index.is_empty() && self.handoff.is_idle()
    }

    pub(super) fn standing(&self) -> Standing {
        let is_leaving = self.members.find(self.me).is_some_and(|m| m.state == MemberState::Leaving);
        match (self.left, self.is_removed(), is_leaving) {
            (true, ..) => Standing::Left,
            (_, true, _) => Standing::Removed,
            (.., true) => Standing::Leaving,
            _ => Standing::Member,
        }
    }

    /// Whether another member removed this node: one said so, or there are only some that turn it away.
    pub(super) fn is_removed(&self) -> bool {
        self.removed || (!self.refused_by.is_empty() && !self.peers.values().any(|p| p.up))
    }

    /// Whether nothing waits here to be given to others: stopping this node leaves no copy behind that
    /// is needed elsewhere.
    pub(super) fn is_safe_to_stop(&self) -> bool {
        if self.removed {
            return true;
        }
        let owes = self.peers.values().any(|peer| peer.outstanding() > 0);
        !owes && self.handoff.is_idle() && !self.operations.has_writes() && !self.books.wanted.doubts
    }
}
