//! The second phase: no more faults; everything has to come right by itself, within a bound.

use super::{
    invariants::{CONVERGENCE, TRUTH, digests_fit},
    node::Standing,
    world::{Violation, World},
};

/// How long healing may take at most, milliseconds, beside what follows from the intervals.
const HEAL_MS: u64 = 60_000;
/// Sync rounds with each peer that healing may take.
const HEAL_ROUNDS: u64 = 30;
/// How long it must stay whole, milliseconds.
const STAY_MS: u64 = 5_000;
/// How long a copy that comes late may disturb it, milliseconds.
const LATE_MS: u64 = 10_000;
/// How often it is looked at, milliseconds.
const LOOK_MS: u64 = 250;

impl World {
    /// Nodes that are members and run.
    pub(super) fn there(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].is_there())
    }

    /// Ends all faults, demands that the cluster heals, and checks all promises.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.end_faults();
        let config = &self.options.config;
        let rounds_ms = config.sync_interval.as_millis() as u64 * self.nodes.len() as u64 * HEAL_ROUNDS;
        let end_us = self.now_us + (HEAL_MS + rounds_ms) * 1_000;
        while let Err(last) = self.has_converged() {
            if self.now_us > end_us && self.violation.is_none() {
                self.fail(
                    last.promise,
                    format!("after {} s of peace: {}", (HEAL_MS + rounds_ms) / 1_000, last.what),
                );
            }
            self.broken()?;
            self.unrot();
            self.run_for(LOOK_MS);
        }
        for (promise, check) in TRUTH {
            let result = check(self);
            self.check(promise, result);
        }
        self.broken()?;
        self.run_for(STAY_MS);
        // A copy that was sent twice may come late; then it goes away again.
        self.run_until(LATE_MS, |world| world.has_converged().is_ok());
        let stayed = self.has_converged();
        if let Err(Violation { promise, what }) = stayed {
            self.fail(promise, format!("whole, and then not any more: {what}"));
        }
        let there: Vec<usize> = self.there().collect();
        there.into_iter().for_each(|n| _ = self.list(n));
        self.broken()?;
        let digests = digests_fit(self);
        self.check("agreement", digests);
        self.broken()
    }

    fn end_faults(&mut self) {
        self.trace.note(self.now_us, 0, 18, || "all faults end".into());
        self.network.heal();
        for n in 0..self.nodes.len() {
            self.nodes[n].disk.set_slow(false);
            self.nodes[n].disk.set_failing(false);
            self.nodes[n].paused_until_us = 0;
            if self.nodes[n].standing != Standing::Member {
                continue;
            }
            // An operator restarts a node whose disk failed, or does not.
            if self.nodes[n].disk.disagrees() && self.chance.percent(50) {
                self.crash(n);
            }
            self.start(n);
        }
    }

    fn has_converged(&self) -> Result<(), Violation> {
        for (promise, check) in CONVERGENCE {
            check(self).map_err(|what| Violation { promise, what })?;
        }
        Ok(())
    }

    fn broken(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }
}
