//! Knows what was asked, what was answered, and what must follow from it.
//!
//! Its notion of causality is its own: each write's **past** is the set of writes of that key that
//! its context covered when it was named, checked at that moment against what the client had read
//! or the node had stored. A context that covers anything else, then or later, is a violation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    config::{Ack, Read},
    core::OpId,
    model::{Context, Dot, Key, Kind, Version},
};

/// A set of writes.
pub type Dots = BTreeSet<Dot>;

/// What a client has seen of a key: as it was told, and in truth.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// What it hands back.
    pub context: Context,
    /// What that stands for.
    pub dots: Dots,
}

/// What was asked.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A write or a delete.
    Write {
        /// Value or tombstone.
        kind: Kind,
        /// The bytes.
        value: Bytes,
        /// When it is complete.
        ack: Ack,
        /// What it replaces; none: all that the node knows.
        replaces: Option<Knowledge>,
    },
    /// A read.
    Read(Read),
    /// Anything else.
    Other,
}

/// An operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Where it was submitted.
    pub node: usize,
    /// To which process of that node.
    pub process: u64,
    /// By which client.
    pub client: usize,
    /// About which key.
    pub key: Key,
    /// What.
    pub asked: Asked,
    /// Whether it has ended.
    pub ended: bool,
    /// The writes acknowledged by a quorum before it began, which a quorum read has to show.
    pub must_show: Dots,
}

/// A write that got a name.
#[derive(Clone, Debug)]
pub struct Known {
    /// Of which key.
    pub key: Key,
    /// Its metadata.
    pub version: Arc<Version>,
    /// What it replaced, in truth.
    pub past: Dots,
    /// Nodes that ever had it on their disk.
    pub stored_on: BTreeSet<usize>,
    /// A client was told that it is safe.
    pub acknowledged: bool,
    /// A client was told that most or all owners have it.
    pub by_quorum: bool,
    /// All disks that had it were lost; it may be gone.
    pub excused: bool,
    /// It was deleted or has expired, and so was what replaced it: no trace has to be left.
    pub buried: bool,
    /// Some node has dropped it as deleted or expired: others are about to.
    pub fading: bool,
}

/// See the [module](self).
#[derive(Default)]
pub struct Oracle {
    operations: BTreeMap<OpId, Operation>,
    versions: BTreeMap<Dot, Known>,
    keys: BTreeMap<Key, Vec<Dot>>,
}

/// What a node had when a version was given to its disk.
pub struct Surroundings<'a> {
    /// Versions that it held and that a plain write has to replace.
    pub held: &'a Dots,
    /// Versions that it ever heard of: all that a plain write may replace.
    pub seen: &'a Dots,
}

impl Oracle {
    /// A client asks something.
    pub fn begin(&mut self, op: OpId, mut operation: Operation) {
        if matches!(operation.asked, Asked::Read(Read::Quorum | Read::All)) {
            let all = self.of(&operation.key);
            operation.must_show = all.filter(|k| k.by_quorum && !k.buried).map(|k| k.version.dot).collect();
        }
        self.operations.insert(op, operation);
    }

    /// An operation is over. Gives it, unless that can't be.
    pub fn end(&mut self, op: OpId, node: usize, process: u64) -> Result<Operation, String> {
        let operation = self.operations.get_mut(&op).ok_or_else(|| format!("{op:?} was never submitted"))?;
        if (operation.node, operation.process) != (node, process) {
            return Err(format!("{op:?} was submitted to another process"));
        }
        if std::mem::replace(&mut operation.ended, true) {
            return Err(format!("{op:?} ended twice"));
        }
        Ok(operation.clone())
    }

    /// Operations of a process that have not ended.
    pub fn running(&self, node: usize, process: u64) -> impl Iterator<Item = (OpId, &Operation)> {
        let of = move |o: &Operation| (o.node, o.process) == (node, process) && !o.ended;
        self.operations.iter().filter(move |(_, o)| of(o)).map(|(op, o)| (*op, o))
    }

    /// All named writes of a key.
    pub fn of(&self, key: &Key) -> impl Iterator<Item = &Known> {
        self.keys.get(key).into_iter().flatten().map(|dot| &self.versions[dot])
    }

    /// All named writes.
    pub fn versions(&self) -> impl Iterator<Item = &Known> {
        self.versions.values()
    }

    /// Nodes that ever had this write, or one that replaced it, on their disk.
    pub fn holders_ever(&self, dot: Dot) -> BTreeSet<usize> {
        let Some(known) = self.versions.get(&dot) else { return BTreeSet::new() };
        let covering = self.of(&known.key).filter(|k| k.version.dot == dot || k.past.contains(&dot));
        covering.flat_map(|k| k.stored_on.iter().copied()).collect()
    }

    /// Says that a write may be gone.
    pub fn excuse(&mut self, dot: Dot) {
        if let Some(known) = self.versions.get_mut(&dot) {
            known.excused = true;
        }
    }

    /// Whether a write and what replaced it are gone for good, or about to be.
    pub fn is_buried(&self, dot: Dot) -> bool {
        self.find(dot).is_some_and(|known| known.buried || known.fading)
    }

    /// How many writes the most written key has seen.
    pub fn most_writes(&self) -> usize {
        self.keys.values().map(Vec::len).max().unwrap_or(0)
    }

    /// A named write.
    pub fn find(&self, dot: Dot) -> Option<&Known> {
        self.versions.get(&dot)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, dot: Dot) -> Option<&mut Known> {
        self.versions.get_mut(&dot)
    }

    /// Whether one of these versions is that write, or replaced it.
    pub fn is_covered(&self, dot: Dot, by: impl IntoIterator<Item = Dot>) -> bool {
        by.into_iter().any(|v| v == dot || self.versions.get(&v).is_some_and(|k| k.past.contains(&dot)))
    }

    /// Versions together with all that they replaced.
    pub fn closure(&self, versions: impl IntoIterator<Item = Dot>) -> Dots {
        let mut all = Dots::new();
        for dot in versions {
            all.insert(dot);
            all.extend(self.versions.get(&dot).into_iter().flat_map(|k| k.past.iter().copied()));
        }
        all
    }

    /// What of a key's named writes a context covers.
    pub fn covered_by(&self, key: &Key, context: &Context) -> Dots {
        self.of(key).map(|k| k.version.dot).filter(|dot| context.contains(*dot)).collect()
    }

    /// Checks a context that a client is handed against what it has seen in truth.
    pub fn knowledge(&self, key: &Key, context: Context, seen: Dots) -> Result<Knowledge, String> {
        let covered = self.covered_by(key, &context);
        match covered == seen {
            true => Ok(Knowledge { context, dots: seen }),
            false => Err(format!("the context {context} of {key:?} covers {covered:?}, seen was {seen:?}")),
        }
    }

    /// A version goes to a node's disk.
    pub fn given_to_disk(
        &mut self,
        node: usize,
        key: &Key,
        version: &Arc<Version>,
        value: Option<&Bytes>,
        around: &Surroundings,
    ) -> Result<(), String> {
        if value.is_some_and(|value| !version.matches(value)) {
            return Err(format!("{key:?} {}: the bytes are not those that were written", version.dot));
        }
        match self.versions.get(&version.dot) {
            Some(known) if known.key == *key && known.version == *version => Ok(()),
            Some(known) => Err(format!("{} names {:?} and {version:?}", version.dot, known.version)),
            None => self.name(node, key, version, value, around),
        }
    }

    fn name(
        &mut self,
        node: usize,
        key: &Key,
        version: &Arc<Version>,
        value: Option<&Bytes>,
        around: &Surroundings,
    ) -> Result<(), String> {
        let dot = version.dot;
        let op = value.and_then(|value| op_of(version, value));
        let operation =
            op.and_then(|op| self.operations.get(&op)).filter(|o| o.node == node && o.key == *key);
        let Some(Operation { asked: Asked::Write { kind, value: asked, replaces, .. }, .. }) = operation
        else {
            return Err(format!("{key:?} {dot}: nobody wrote this"));
        };
        if *kind != version.kind || Some(asked) != value {
            return Err(format!("{key:?} {dot}: something else was written"));
        }
        if let Some(before) = self.of(key).find(|k| k.version.covers(dot)) {
            return Err(format!("{key:?} {dot} was replaced by {} before it was made", before.version.dot));
        }
        let past = self.covered_by(key, &version.context);
        match replaces {
            // What it replaces is its author's business: all earlier ones of its own, and what it had seen.
            _ if version.seal.is_some() => {}
            Some(knowledge) if knowledge.dots != past => {
                let known = &knowledge.dots;
                return Err(format!("{key:?} {dot} replaces {past:?}, its client had seen {known:?}"));
            }
            None if !past.is_superset(around.held) => {
                let held = around.held;
                return Err(format!("{key:?} {dot} replaces {past:?}, its node held {held:?}"));
            }
            None if !past.is_subset(around.seen) => {
                let seen = around.seen;
                return Err(format!("{key:?} {dot} replaces {past:?}, its node knew only {seen:?}"));
            }
            _ => {}
        }
        let known = Known {
            key: key.clone(),
            version: version.clone(),
            past,
            stored_on: BTreeSet::new(),
            acknowledged: false,
            by_quorum: false,
            excused: false,
            buried: false,
            fading: false,
        };
        self.versions.insert(dot, known);
        self.keys.entry(key.clone()).or_default().push(dot);
        Ok(())
    }
}

/// From here on an expiry is no time but the number of an operation: how a write without bytes is
/// known again.
const MARKS: u64 = 1 << 60;

/// The expiry that marks a write without bytes.
pub fn mark(op: OpId) -> u64 {
    MARKS + op.0
}

/// Bytes that are known again, at least eight.
pub fn marked_value(op: OpId, len: usize) -> Bytes {
    let mut value = op.0.to_be_bytes().to_vec();
    value.resize(len.max(8), op.0 as u8);
    value.into()
}

fn op_of(version: &Version, value: &Bytes) -> Option<OpId> {
    match value.first_chunk::<8>() {
        Some(number) => Some(OpId(u64::from_be_bytes(*number))),
        None => version.expires_ms?.checked_sub(MARKS).map(OpId),
    }
}
