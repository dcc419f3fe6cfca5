//! What a read mends: owners that turned out to be behind, and copies here that turned out to be damaged.

use std::sync::Arc;

use super::{Content, Core, Purpose, Work, read::ReadOperation, write::Waiter};
use crate::{
    model::{Dot, Key, Version},
    storage::Change,
};

impl Core {
    /// Gives the owners that answered, and this node if it is one, what they turned out to lack.
    pub(super) fn repair(&mut self, read: &ReadOperation) {
        self.disturb(&read.key);
        for record in read.found.records() {
            let (version, dot) = (&record.version, record.version.dot);
            let held = self.index.holds(&read.key, dot);
            if held
                && read.distrust
                && let Some(value) = &record.value
            {
                let (key, version, value) = (read.key.clone(), version.clone(), value.clone());
                self.mend(&version.clone(), Change::Put { key, version, value, replaces: Vec::new() });
            } else if !held
                && self.owns(self.me, &read.key, version.mirrors)
                && let Some(value) = &record.value
            {
                self.accept(&read.key, version.clone(), Content::Whole(value.clone()), Waiter::Nobody);
            }
            for (id, dots) in &read.answers {
                if *id == self.me || dots.contains(&dot) || !self.owns(*id, &read.key, version.mirrors) {
                    continue;
                }
                match &record.value {
                    Some(value) if !held => self.send_copy(*id, &read.key, version, value),
                    _ => self.owe(*id, &read.key),
                }
            }
        }
    }

    /// Keeps good bytes in the place of damaged ones. Says whether it does: not where something newer
    /// is on its way to storage.
    pub(super) fn mend(&mut self, version: &Arc<Version>, change: Change) -> bool {
        let (key, dot) = (change.key().clone(), version.dot);
        let is_wanted =
            self.index.find(&key, dot).as_ref() == Some(&**version) && !self.index.has_pending(&key);
        if is_wanted {
            self.note_replaced(&key);
            self.work(Purpose::Mend { key, dot }, Work::Change(change));
        }
        is_wanted
    }

    pub(super) fn mended(&mut self, key: &Key, dot: Dot, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.counters.damage_mended += 1;
                self.notice(format!("a damaged copy of {key:?} was replaced with an owner's good one"));
                self.read_stored(dot);
            }
            Err(error) => {
                self.counters.storage_failed += 1;
                self.tell_damage(key, &format!("it can't be replaced: {error}"));
                self.read_failed(dot);
            }
        }
    }
}
