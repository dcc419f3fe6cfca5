//! What clients asked of one key and were told, with the times of a clock of their own, and the
//! check whether a store that keeps its word could have told them that.
//!
//! A key is a *causal register*: a write names a context and replaces exactly what that covers, a
//! delete likewise and leaves nothing; what nobody replaced stands side by side. [`violations`]
//! judges quorum operations:
//!
//! 1. Nothing acknowledged is lost: the context of a read covers every write by quorum that was
//!    acknowledged before the read began, whoever made it. So a client reads its own writes.
//! 2. Nothing is made up: each value that is read was written, by a write that had begun.
//! 3. A write replaces exactly what it covers: what a read's context covers is either among its
//!    values, or was replaced by a write that the context covers too; never both, never neither.
//! 4. Each read, taken with all writes, is linearizable: there is one order of them, in keeping
//!    with real time, that explains it (Wing and Gong's search, by `todc-utils`). Writes that overlap
//!    the read count as concurrent: owners answer at different moments, so that a read may show
//!    one of them and not another that was acknowledged before that one began.
//!
//! A write that failed is unknown: it may take effect at any time after it began, or never.
//!
//! Beside that no read knows less than one that had ended before it began: [`reversals`] counts those
//! that do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action, History},
    },
    specifications::Specification,
};
use turbopump::model::{Context, Dot};

/// One operation of one key.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub invoked_ns: u64,
    /// When its answer came; of one that is unknown, never.
    pub returned_ns: Option<u64>,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// By quorum.
    Write(Write),
    /// By quorum, and answered.
    Read(Read),
}

#[derive(Clone, Debug)]
pub struct Write {
    /// What it wrote, unlike anything else in the history; a delete has its number as well.
    pub value: u64,
    pub is_delete: bool,
    /// What it was to replace.
    pub covers: Context,
    /// Its name, if it was acknowledged.
    pub dot: Option<Dot>,
}

#[derive(Clone, Debug)]
pub struct Read {
    /// Values and their names.
    pub values: BTreeMap<u64, Dot>,
    pub context: Context,
}

pub struct Violation(String);

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A write with its times, and its name wherever that was seen.
struct Known<'a> {
    invoked_ns: u64,
    returned_ns: Option<u64>,
    write: &'a Write,
    dot: Option<Dot>,
}

impl Known<'_> {
    fn is_acknowledged_before(&self, ns: u64) -> bool {
        self.returned_ns.is_some_and(|returned| returned < ns)
    }

    /// Whether a reader with this context, which returned then, may have known of it.
    fn may_be_in(&self, context: &Context, returned_ns: u64) -> bool {
        self.dot.map_or(self.invoked_ns < returned_ns, |dot| context.contains(dot))
    }
}

/// What in a history of one key breaks the promises.
pub fn violations(history: &[Operation]) -> Vec<Violation> {
    let writes = known_writes(history);
    let mut found = Vec::new();
    for (operation, read, returned_ns) in reads(history) {
        let told = judge(&writes, operation.invoked_ns, returned_ns, read);
        found.extend(told.into_iter().map(|what| {
            Violation(format!(
                "client {} read {:?} from {} to {returned_ns} ns with the context {}: {what}",
                operation.client, read.values, operation.invoked_ns, read.context
            ))
        }));
    }
    found
}

/// How many reads knew less than a read that had ended before they began.
pub fn reversals(history: &[Operation]) -> usize {
    let reads: Vec<_> = reads(history).collect();
    let is_reversed = |(operation, read, _): &(&Operation, &Read, u64)| {
        let mut earlier = reads.iter().filter(|(_, _, returned_ns)| *returned_ns < operation.invoked_ns);
        earlier.any(|(_, before, _)| !read.context.includes(&before.context))
    };
    reads.iter().filter(|r| is_reversed(r)).count()
}

fn reads(history: &[Operation]) -> impl Iterator<Item = (&Operation, &Read, u64)> {
    history.iter().filter_map(|operation| match &operation.what {
        What::Read(read) => Some((operation, read, operation.returned_ns?)),
        What::Write(_) => None,
    })
}

fn known_writes(history: &[Operation]) -> BTreeMap<u64, Known<'_>> {
    let mut writes = BTreeMap::new();
    for operation in history {
        if let What::Write(write) = &operation.what {
            let (invoked_ns, returned_ns) = (operation.invoked_ns, operation.returned_ns);
            writes.insert(write.value, Known { invoked_ns, returned_ns, write, dot: write.dot });
        }
    }
    for (value, dot) in reads(history).flat_map(|(_, read, _)| &read.values) {
        if let Some(write) = writes.get_mut(value) {
            write.dot.get_or_insert(*dot);
        }
    }
    writes
}

fn judge(all: &BTreeMap<u64, Known>, invoked_ns: u64, returned_ns: u64, read: &Read) -> Vec<String> {
    let mut broken = Vec::new();
    let context = &read.context;
    for (value, dot) in &read.values {
        match all.get(value) {
            Some(w) if w.invoked_ns < returned_ns && w.dot == Some(*dot) && !w.write.is_delete => {}
            _ => broken.push(format!("nobody wrote {value} as {dot}")),
        }
    }
    // In the order in which they began, roughly: seen from the end, what covers one is soon found.
    let writes: Vec<&Known> = all.values().filter(|w| w.invoked_ns < returned_ns).collect();
    let covered_by = |dot: Dot, certain: bool| {
        writes.iter().rev().find(|w| {
            w.write.covers.contains(dot) && w.may_be_in(context, returned_ns) && (!certain || w.dot.is_some())
        })
    };
    for known in &writes {
        let Some(dot) = known.dot else { continue };
        let value = known.write.value;
        let is_read = read.values.contains_key(&value);
        if !context.contains(dot) {
            if known.is_acknowledged_before(invoked_ns) {
                broken.push(format!("{value}, named {dot}, was acknowledged before and is unknown to it"));
            } else if is_read {
                broken.push(format!("{value} is there and {dot} not in the context"));
            }
        } else if is_read {
            if let Some(by) = covered_by(dot, true) {
                broken.push(format!("{value} is there, and {} had replaced it", by.write.value));
            }
        } else if !known.write.is_delete && covered_by(dot, false).is_none() {
            broken.push(format!("{value}, named {dot}, is gone, and nothing replaced it"));
        }
    }
    if !is_linearizable(&writes, invoked_ns, returned_ns, read) {
        broken.push("no order of the writes explains it".into());
    }
    broken
}

/// The causal register for the checker: what stands side by side.
struct CausalRegister;

#[derive(Clone, Debug)]
enum Step {
    /// Puts a value in the place of others.
    Write { value: u64, is_delete: bool, covers: BTreeSet<u64> },
    /// Finds just these.
    Read(BTreeSet<u64>),
}

impl Specification for CausalRegister {
    type State = BTreeSet<u64>;
    type Operation = Step;

    fn init() -> Self::State {
        BTreeSet::new()
    }

    fn apply(step: &Step, state: &Self::State) -> (bool, Self::State) {
        match step {
            Step::Read(values) => (values == state, state.clone()),
            Step::Write { value, is_delete, covers } => {
                let mut state: BTreeSet<u64> = state.difference(covers).copied().collect();
                if !is_delete {
                    state.insert(*value);
                }
                (true, state)
            }
        }
    }
}

/// One read and the writes that bear on it: those that it found, those that it knows of or must know
/// of and that nothing of the kind replaced, and the replacers of all these. Of what is unknown, a
/// delete bears on it as well: nobody was told its name.
fn is_linearizable(writes: &[&Known], invoked_ns: u64, returned_ns: u64, read: &Read) -> bool {
    let over = |w: &Known| w.is_acknowledged_before(invoked_ns);
    let counts = |w: &Known| over(w) || w.dot.is_some_and(|dot| read.context.contains(dot));
    let covers = |by: &Known, w: &Known| w.dot.is_some_and(|dot| by.write.covers.contains(dot));
    let replaced = |w: &Known| writes.iter().rev().any(|by| covers(by, w) && counts(by));
    let bears = |w: &Known| {
        let may_delete = w.write.is_delete && w.dot.is_none();
        read.values.contains_key(&w.write.value) || may_delete || (counts(w) && !replaced(w))
    };
    let (mut steps, others): (Vec<&Known>, Vec<&Known>) = writes.iter().partition(|w| bears(w));
    let is_replacer = |by: &&Known| counts(by) && steps.iter().any(|w| covers(by, w));
    let more: Vec<&Known> = others.into_iter().filter(is_replacer).collect();
    steps.extend(more);

    let mut actions: Vec<(u64, usize, Action<Step>)> = Vec::new();
    let mut enter = |process: usize, from: u64, to: u64, step: Step| {
        actions.push((from, process, Action::Call(step.clone())));
        actions.push((to, process, Action::Response(step)));
    };
    enter(0, invoked_ns, returned_ns, Step::Read(read.values.keys().copied().collect()));
    for (process, known) in steps.iter().enumerate() {
        let step = Step::Write {
            value: known.write.value,
            is_delete: known.write.is_delete,
            covers: steps.iter().filter(|w| covers(known, w)).map(|w| w.write.value).collect(),
        };
        let (from, to) = match over(known) {
            true => (known.invoked_ns, known.returned_ns.unwrap_or(u64::MAX)),
            false => {
                (known.invoked_ns.min(invoked_ns), known.returned_ns.unwrap_or(u64::MAX).max(returned_ns))
            }
        };
        enter(process + 1, from, to, step);
    }
    actions.sort_by_key(|(at, _, _)| *at);
    let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<CausalRegister>::is_linearizable(History::from_actions(actions))
}
