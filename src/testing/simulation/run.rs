//! A whole run from one seed, what it says of itself, and how a failing one is made smaller.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    Fault, Options,
    workload::Workload,
    world::{Violation, World},
};

/// Runs that shrinking may take.
const MAX_SHRINKS: usize = 60;

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Equal for equal runs.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Messages that nodes took in.
    pub messages: u64,
    /// Virtual milliseconds.
    pub ms: u64,
    /// Nodes that were members at any time.
    pub nodes: u64,
    /// What was asked of them.
    pub operations: u64,
    /// How often each kind of fault struck; frames that were lost, repeated or late not counted.
    pub faults: BTreeMap<Fault, u64>,
}

/// What many runs did, together.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    ms: u64,
    nodes: u64,
    operations: u64,
    messages: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Totals {
    /// Counts a run in.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.ms += report.ms;
        self.nodes += report.nodes;
        self.operations += report.operations;
        self.messages += report.messages;
        report.faults.iter().for_each(|(fault, count)| *self.faults.entry(*fault).or_default() += count);
    }

    /// Counts others in.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.ms += other.ms;
        self.nodes += other.nodes;
        self.operations += other.operations;
        self.messages += other.messages;
        other.faults.iter().for_each(|(fault, count)| *self.faults.entry(*fault).or_default() += count);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, ms, nodes, operations, messages, faults } = self;
        let hours = *ms as f64 / 3_600_000.0;
        write!(f, "{runs} runs, {hours:.1} simulated hours, {nodes} nodes, {operations} operations, ")?;
        write!(f, "{messages} messages; faults:")?;
        faults.iter().try_for_each(|(fault, count)| write!(f, " {fault:?} {count}"))
    }
}

/// A promise that a run showed to be broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Changes to its options that still show it; see [`Options::adjusted`].
    pub adjusted: String,
    /// What the run was made of.
    pub options: String,
    /// The promise.
    pub violation: Violation,
}

/// Runs what a seed says.
///
/// # Errors
/// The [`Failure`], made smaller where that was possible.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_once(Options::draw(seed), false).map_err(|violation| shrink(seed, violation))
}

/// Runs once, with these options; `printed` prints every event.
///
/// # Errors
/// The [`Violation`].
pub fn run_once(options: Options, printed: bool) -> Result<Report, Violation> {
    let seed = options.seed;
    let whole = || {
        let mut world = if printed { World::printed(options) } else { World::new(options) };
        Workload::new(seed).run(&mut world);
        world.settle()?;
        Ok(world.report())
    };
    catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Violation { promise: "panic", what: text.unwrap_or_default() })
    })
}

impl World {
    /// What happened so far, in numbers.
    pub fn report(&self) -> Report {
        let (hash, events) = (self.trace().hash(), self.trace().events());
        let nodes = self.nodes.iter().filter(|node| node.processes > 0).count() as u64;
        let (messages, operations, faults) = (self.traffic().messages, self.next_op - 1, self.faults.clone());
        Report { hash, events, messages, ms: self.now_ms(), nodes, operations, faults }
    }
}

/// Drops what is not needed to break the same promise, one thing after the other.
fn shrink(seed: u64, violation: Violation) -> Failure {
    let mut best = (String::new(), violation);
    let mut runs = 0;
    let mut try_with = |words: String, best: &mut (String, Violation)| {
        runs += 1;
        if runs > MAX_SHRINKS {
            return false;
        }
        match run_once(Options::draw(seed).adjusted(&words), false) {
            Err(violation) if violation.promise == best.1.promise => {
                *best = (words, violation);
                true
            }
            _ => false,
        }
    };
    let drawn = Options::draw(seed);
    for fault in Fault::ALL.into_iter().filter(|f| drawn.faults.contains(f)) {
        try_with(format!("{} no={fault:?}", best.0), &mut best);
    }
    for word in
        ["drop=0", "duplicate=0", "late=0", "mixed=0", "inline=1", "value=50", "frame=65000", "keys=1"]
    {
        try_with(format!("{} {word}", best.0), &mut best);
    }
    let mut nodes = drawn.nodes;
    while nodes > 1 && try_with(format!("{} nodes={}", best.0, nodes - 1), &mut best) {
        nodes -= 1;
    }
    let (mut low, mut high) = (0, drawn.operations);
    while low + 1 < high {
        let middle = low.midpoint(high);
        match try_with(format!("{} operations={middle}", best.0), &mut best) {
            true => high = middle,
            false => low = middle,
        }
    }
    let (adjusted, violation) = best;
    let options = drawn.adjusted(&adjusted).to_string();
    Failure { seed, adjusted: adjusted.trim().into(), options, violation }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, adjusted, options, violation: Violation { promise, what } } = self;
        writeln!(f, "seed {seed}: {promise}: {what}\n  with {options}\n  replay with every event printed:")?;
        write!(f, "  TURBOPUMP_SEED={seed} TURBOPUMP_WITH=\"{adjusted}\" ")?;
        write!(f, "cargo test --release --features testing --test simulation -- replay --nocapture")
    }
}
