//! The versions of one key that exist side by side, and what a reader makes of them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Context, Dot, Version};

/// A version together with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is known of the write.
    pub version: Arc<Version>,
    /// The bytes; `None` where they were not asked for or are too long to be handed out whole.
    pub value: Option<Bytes>,
}

/// Versions of one key of which none replaced another, newest first.
///
/// Merging is commutative, associative and idempotent, so copies that met the same writes in any
/// order hold the same siblings. That hangs on contexts as reads give them out
/// ([`context`](Self::context)): one that covers a version covers what that version replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    records: Vec<Record>,
}

impl Siblings {
    /// Drops what another one replaced, and doubles; sorts newest first.
    pub fn resolve(records: impl IntoIterator<Item = Record>) -> Self {
        let records: Vec<Record> = records.into_iter().collect();
        if records.len() < 2 {
            return Self { records };
        }
        let mut siblings = Self::default();
        records.into_iter().for_each(|r| siblings.insert(r));
        siblings
    }

    /// Takes in one more version, unless it is known or was replaced.
    pub fn insert(&mut self, new: Record) {
        let dot = new.version.dot;
        if let Some(known) = self.records.iter_mut().find(|r| r.version.dot == dot) {
            if known.value.is_none() {
                known.value = new.value;
            }
            return;
        }
        if self.records.iter().any(|r| r.version.covers(dot)) {
            return;
        }
        self.records.retain(|r| !new.version.covers(r.version.dot));
        let at = self.records.partition_point(|r| r.version.recency() > new.version.recency());
        self.records.insert(at, new);
    }

    /// All of them, tombstones and expired ones included, newest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Those that a reader at `wall_ms` gets a value from, newest first.
    pub fn live(&self, wall_ms: u64) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |r| r.version.is_live(wall_ms))
    }

    /// The one named `dot`.
    pub fn find(&self, dot: Dot) -> Option<&Record> {
        self.records.iter().find(|r| r.version.dot == dot)
    }

    /// What one knows after having read all of them.
    pub fn context(&self) -> Context {
        let mut context = Context::EMPTY;
        self.records.iter().for_each(|r| context.see(&r.version));
        context
    }

    /// All of them, newest first, taken out.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
