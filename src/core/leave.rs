//! Leaving in order: a node gives all that it holds to its owners, and only then stops being a member.
//!
//! ```text
//! active ──leave──> leaving: owns nothing, serves clients, hands off
//!                      └──nothing left──> says its last word ──somebody heard it──> left
//! ```
//!
//! A leaving member is asked to agree to burials like any other, and takes writes for others. Once it
//! holds nothing it says itself that it is removed, and takes nothing any more: what it had acknowledged
//! before that was handed on. With it goes all that it knows of members: nobody can ask it later, and it
//! may have been another's only listener. It may be stopped when another member has heard that, which answers with
//! the same word or turns it away: else the others would wait for it, and bury nothing. Restarted before, it
//! goes on leaving, however long that takes, as the others remember.
//!
//! Limits: operations (see [`operations`](super::operations)).

use super::{Core, OpId, Outcome, Standing, Timer, offer::Debts, operations::Operation};
#[cfg(turbopump_mutations)]
use crate::mutation::{Mutation, is_planted};
use crate::{
    error::MemberError,
    model::{Member, MemberState, NodeId},
};

/// How often it is looked at whether anything is left.
const LOOK_MS: u64 = 50;

/// What a node that leaves and holds nothing has said to the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum LastWord {
    #[default]
    Unsaid,
    Said,
    Heard,
}

/// How far a node is with leaving its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Its owners have every copy that it held, it is no member any more, and others know that: it may be
    /// stopped for good.
    Left,
    /// The time was up; it goes on in the background.
    UnderWay {
        /// Keys that it still holds; 0: nobody was there yet to be told that it leaves.
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
            MemberState::Active => {}
            MemberState::Leaving if !self.holds_nothing() => {
                self.timers.set_earlier(Timer::Leave, self.now.mono_ms + LOOK_MS);
            }
            MemberState::Leaving => {
                let revision = mine.revision.saturating_add(1);
                self.merge_mine(Member { state: MemberState::Removed, revision, addrs: Vec::new(), ..mine });
                (self.removed, self.last_word) = (true, LastWord::Said);
                // Names of what its owners have by now: they were offered it, too, and did not say so yet.
                self.peers.values_mut().for_each(|peer| peer.debts = Debts::default());
                self.members_changed();
                #[cfg(turbopump_mutations)]
                if is_planted(Mutation::LeftUnheard) {
                    self.last_word = LastWord::Heard;
                }
            }
            MemberState::Removed => match self.last_word {
                LastWord::Said => {}
                LastWord::Heard => self.end_leaves(Ok(Departure::Left)),
                // By another one's word: nobody takes what is left here.
                LastWord::Unsaid => self.end_leaves(Err(MemberError::Unknown(self.me))),
            },
        }
    }

    /// Whoever leaves has just said so in `entries`, and waits for an answer. It gets it before the list is
    /// published, since after that it has no link.
    pub(super) fn answer_last_word(&mut self, from: NodeId, entries: &[Member]) {
        let is_removal = |m: &&Member| m.id == from && m.state == MemberState::Removed;
        // It has to be passed on, which one who has left itself can't be counted on for.
        if let Some(gone) = self.members.find(from).filter(is_removal).cloned()
            && entries.iter().any(|m| is_removal(&m))
            && !self.removed
        {
            self.send_entries(from, [&gone], false);
        }
    }

    /// Another one knows that this node is removed.
    pub(super) fn last_word_heard(&mut self, by: NodeId) {
        if self.last_word == LastWord::Said && self.members.contains(by) {
            self.last_word = LastWord::Heard;
            self.notice("this node has left the cluster: nothing is left here, it may be stopped".into());
            self.end_leaves(Ok(Departure::Left));
        }
    }

    fn end_leaves(&mut self, result: Result<Departure, MemberError>) {
        for op in self.operations.take_leaves() {
            self.finish(op, Outcome::Departure(result.clone()));
        }
    }

    /// Whether all that was ever acknowledged here is with others, and nothing can turn up any more.
    fn holds_nothing(&self) -> bool {
        let is_idle = self.handoff.is_idle() && self.transfers.len() == 0 && self.unsure.is_empty();
        self.index.is_empty() && is_idle
    }

    pub(super) fn standing(&self) -> Standing {
        let is_leaving = self.members.find(self.me).is_some_and(|m| m.state == MemberState::Leaving);
        match (self.last_word, self.is_removed(), is_leaving) {
            (LastWord::Heard, ..) => Standing::Left,
            (LastWord::Said, ..) | (_, false, true) => Standing::Leaving,
            (_, true, _) => Standing::Removed,
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
            return self.last_word != LastWord::Said;
        }
        let owes = self.peers.values().any(|peer| peer.outstanding() > 0);
        !owes && self.handoff.is_idle() && !self.operations.has_writes() && !self.books.wanted.doubts
    }
}
