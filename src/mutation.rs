//! Bugs that a test plants, to see the simulator find them. Compiled only under
//! `--cfg turbopump_mutations`, which nothing but `.ci/run` sets.
//!
//! One build holds all of them. The test that runs a simulated cluster says which is planted, for its own
//! thread, so that several can be looked for at once.

use std::cell::Cell;

/// The planted bugs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutation {
    /// A copy is acknowledged when it is given to storage.
    AckBeforeStore,
    /// One peer that acknowledges a copy twice counts as two.
    CopyCountedTwice,
    /// A restarted process names its writes as the one before did.
    ReusedDot,
    /// Copies that belong elsewhere are dropped before anybody acknowledged them.
    HandoffBeforeTheAck,
    /// Copies on their way to storage are not handed off.
    HandoffOfStoredOnly,
    /// A stored version pushes out all others of its key.
    ForgottenSibling,
    /// The last part of a range that differs is not compared.
    RangeCutShort,
    /// A copy that was on its way to a peer and not acknowledged in time is not owed.
    OwedForgotten,
    /// What a removed member says of itself later brings it back.
    RemovalForgotten,
    /// A tombstone is dropped because it is old.
    TombstoneDroppedByAge,
    /// A node has left as soon as it says so, and whether or not anybody hears it.
    LeftUnheard,
}

thread_local! {
    static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Plants this bug, and no other, in all that this thread simulates from now on.
pub fn plant(mutation: Option<Mutation>) {
    PLANTED.set(mutation);
}

/// Whether the code is to be wrong in this way.
pub(crate) fn is_planted(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}
