//! When something is to be done without being asked: an enum and a table.

/// What can be due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Ask the peers whether they are there, and dial those that are not.
    Heartbeat,
    /// Ping peers that were silent for long.
    Urge,
    /// Publish the member list, which has changed.
    Members,
    /// Send unacknowledged copies again.
    Retry,
    /// End operations whose time is up.
    Operations,
    /// Compare with a co-owner.
    Sync,
    /// Go on with what peers asked in comparisons.
    Compare,
    /// Look for copies that belong elsewhere.
    Handoff,
    /// Ask again for pieces that did not come.
    Transfer,
    /// The same for pieces that clients read.
    Piece,
    /// Ask owners again for keys that clients wait for.
    Await,
    /// Let go of the last traces of deleted keys.
    Burial,
    /// Go on checking an older copy of the store.
    Doubt,
    /// Read again what storage may or may not have changed.
    Check,
    /// See whether a leaving node still holds anything.
    Leave,
    /// Read the next value to see whether it is whole.
    Scrub,
}

impl Timer {
    const ALL: [Self; 16] = [
        Self::Heartbeat,
        Self::Urge,
        Self::Members,
        Self::Retry,
        Self::Operations,
        Self::Sync,
        Self::Compare,
        Self::Handoff,
        Self::Transfer,
        Self::Piece,
        Self::Await,
        Self::Burial,
        Self::Doubt,
        Self::Check,
        Self::Leave,
        Self::Scrub,
    ];
}

/// The table: when each is due, on the monotonic clock in milliseconds.
#[derive(Debug)]
pub(crate) struct Timers([u64; Timer::ALL.len()]);

const NEVER: u64 = u64::MAX;

impl Timers {
    pub(crate) fn new() -> Self {
        Self([NEVER; Timer::ALL.len()])
    }

    /// Sets the time, replacing the one that was set.
    pub(crate) fn set(&mut self, timer: Timer, at_ms: u64) {
        self.0[timer as usize] = at_ms;
    }

    /// Sets the time unless an earlier one is set.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at_ms: u64) {
        let due = &mut self.0[timer as usize];
        *due = (*due).min(at_ms);
    }

    /// Takes one that is due, if any.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|t| self.0[*t as usize] <= now_ms)?;
        self.0[timer as usize] = NEVER;
        Some(timer)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.iter().copied().min().filter(|at| *at != NEVER)
    }
}
