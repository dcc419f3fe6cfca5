//! Bugs planted in the core, each of which the simulator has to find.
//!
//! A planted bug is a line behind `cfg(turbopump_mutations)` that asks whether it is the one. One build
//! has all of them, and nothing but this test: `.ci/planted` is a wrapper around the compiler that only this
//! workspace's crates go through.
//!
//! ```text
//! RUSTC_WORKSPACE_WRAPPER=.ci/planted cargo test --release --all-features --test simulation -- planted
//! ```

use std::{sync::Mutex, thread, time::Instant};

use turbopump::testing::simulation::{Mutation, Options, Report, Violation, plant, run_once};

/// How a planted bug is looked for.
type Search = fn(u64) -> Result<Report, Violation>;

/// Each planted bug, and in how many seeds it has to show.
const MUTATIONS: [(Mutation, u64, Search); 11] = [
    (Mutation::AckBeforeStore, 50, as_drawn),
    (Mutation::CopyCountedTwice, 50, as_drawn),
    (Mutation::ReusedDot, 50, as_drawn),
    (Mutation::HandoffBeforeTheAck, 50, as_drawn),
    (Mutation::HandoffOfStoredOnly, 500, as_drawn),
    (Mutation::ForgottenSibling, 50, as_drawn),
    (Mutation::RangeCutShort, 100, as_drawn),
    (Mutation::OwedForgotten, 200, super::scenarios::without_sync),
    (Mutation::RemovalForgotten, 1, super::members::removal_meets_later_news),
    (Mutation::TombstoneDroppedByAge, 100, as_drawn),
    (Mutation::LeftUnheard, 300, as_drawn),
];

fn as_drawn(seed: u64) -> Result<Report, Violation> {
    run_once(Options::draw(seed), false)
}

/// Goal: a simulator that finds nothing is one that works. Method: plant bugs and see it fail, and
/// see that the same seeds pass without them.
#[test]
fn every_planted_bug_is_found() {
    let left = Mutex::new(MUTATIONS.to_vec());
    let look = || {
        let mut missed = Vec::new();
        while let Some((mutation, seeds, search)) = { left.lock().unwrap().pop() } {
            let started = Instant::now();
            let shows = |seed| {
                plant(Some(mutation));
                let violation = search(seed).err();
                plant(None);
                // It has to be this bug that breaks the promise.
                violation.filter(|_| search(seed).is_ok())
            };
            match (0..seeds).find_map(|seed| Some((seed, shows(seed)?))) {
                Some((seed, Violation { promise, what })) => {
                    let (what, ms) = (what.get(..100).unwrap_or(&what), started.elapsed().as_millis());
                    println!("{mutation:?}: seed {seed}, after {ms} ms: {promise}: {what}");
                }
                None => missed.push(format!("{mutation:?} was not found in {seeds} seeds")),
            }
        }
        missed
    };
    let missed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(look)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(missed.is_empty(), "{missed:?}");
}
