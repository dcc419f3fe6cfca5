//! Keys of which this node does not know for certain what its storage holds: those with a removal
//! under way, and those of which a change failed.
//!
//! A change that failed was made or was not. So what there is of the key is read again, until that works; what is
//! there and unknown to the index goes the way of every version that arrives, unless something known
//! replaced it; what is known and not there is given up, for others to give it back. Meanwhile
//! this node does not agree to bury anything with that hash, and does not tell anybody that it has
//! what they have: they might drop it.
//!
//! Limits: `MAX_UNSURE` keys; past it no key is sure until the next start.

use std::collections::{BTreeMap, BTreeSet};

use super::{Content, Core, Purpose, Timer, Work, index::Verdict, write::Waiter};
use crate::model::{Dot, Key, Record};

/// Keys with a failed change that are told apart.
const MAX_UNSURE: usize = 100_000;
/// Keys read again at once.
const MAX_CHECKED: usize = 64;
/// How often that is tried.
const CHECK_MS: u64 = 1_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Unsure {
    /// How many removals are under way.
    removing: BTreeMap<(u64, Key), usize>,
    failed: BTreeSet<(u64, Key)>,
    is_full: bool,
}

impl Unsure {
    pub(super) fn is_empty(&self) -> bool {
        self.removing.is_empty() && self.failed.is_empty()
    }
}

impl Core {
    /// A removal was given to storage.
    pub(super) fn note_removal(&mut self, key: &Key) {
        *self.unsure.removing.entry((key.hash64(), key.clone())).or_default() += 1;
    }

    /// It ended.
    pub(super) fn removal_ended(&mut self, key: &Key, is_done: bool) {
        let place = (key.hash64(), key.clone());
        if let Some(count) = self.unsure.removing.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.unsure.removing.remove(&place);
            }
        }
        if !is_done {
            self.note_unsure(key);
        }
    }

    /// A change of a key failed.
    pub(super) fn note_unsure(&mut self, key: &Key) {
        if self.unsure.failed.len() >= MAX_UNSURE {
            self.unsure.is_full = true;
            return;
        }
        self.unsure.failed.insert((key.hash64(), key.clone()));
        self.timers.set_earlier(Timer::Check, self.now.mono_ms + CHECK_MS);
    }

    /// Whether a change of this key failed: what counts as stored may not be there, and the other way round.
    pub(crate) fn is_unsure(&self, key: &Key) -> bool {
        !self.unsure.failed.is_empty() && self.unsure.failed.contains(&(key.hash64(), key.clone()))
    }

    /// Whether storage holds of the keys with this hash what the index says.
    pub(super) fn is_sure(&self, hash: u64) -> bool {
        // The shortest key stands before all others with its hash.
        let first = (hash, Key::new("\0").expect("not empty"));
        let is_of = |place: Option<&(u64, Key)>| place.is_some_and(|(other, _)| *other == hash);
        !self.unsure.is_full
            && !is_of(self.unsure.removing.range(first.clone()..).next().map(|(place, _)| place))
            && !is_of(self.unsure.failed.range(first..).next())
    }

    /// Reads keys of which a change failed.
    pub(super) fn check_unsure(&mut self) {
        let keys: Vec<Key> =
            self.unsure.failed.iter().map(|(_, key)| key.clone()).take(MAX_CHECKED).collect();
        if keys.is_empty() {
            return;
        }
        self.timers.set_earlier(Timer::Check, self.now.mono_ms + CHECK_MS);
        for key in keys {
            let is_removing = self.unsure.removing.contains_key(&(key.hash64(), key.clone()));
            if !is_removing && !self.index.has_pending(&key) && !self.is_disk_busy() {
                self.work(Purpose::Check { key: key.clone(), values: false }, Work::Versions(key));
            }
        }
    }

    /// What storage holds of a key of which a change failed.
    pub(super) fn checked(&mut self, key: &Key, values: bool, result: Result<Vec<Record>, String>) {
        let place = (key.hash64(), key.clone());
        // Something new may be under way since it was read: then it is read once more.
        let is_settled = !self.index.has_pending(key) && !self.unsure.removing.contains_key(&place);
        let Ok(records) = result else { return };
        if !is_settled || !self.unsure.failed.contains(&place) {
            return;
        }
        let kept: Vec<Dot> = records.iter().map(|r| r.version.dot).collect();
        let strange = records.into_iter().filter(|r| !self.index.holds(key, r.version.dot));
        let strange: Vec<Record> = strange.collect();
        if !values && strange.iter().any(|record| !Self::is_bare(&record.version)) {
            let purpose = Purpose::Check { key: key.clone(), values: true };
            return self.work(purpose, Work::Read(key.clone()));
        }
        self.unsure.failed.remove(&place);
        if !strange.is_empty() {
            return strange.into_iter().for_each(|record| self.take_back(key, record));
        }
        let gone: Vec<Dot> =
            self.index.stored(key).map(|v| v.dot).filter(|dot| !kept.contains(dot)).collect();
        if !gone.is_empty() {
            self.notice(format!("storage has lost versions of {key:?}: {gone:?}"));
            self.drop_versions(key, gone);
        }
    }

    /// Storage holds a version of which this node thought that it did not.
    fn take_back(&mut self, key: &Key, Record { version, value }: Record) {
        let value = value.or_else(|| Self::is_bare(&version).then(bytes::Bytes::new));
        self.note_unsure(key);
        self.doubt_anew();
        match (self.judge(key, &version), value) {
            (Verdict::New(_), Some(value)) => {
                self.accept(key, version, Content::Whole(value), Waiter::Nobody);
            }
            // A long one stays unknown until the next start finds it.
            (Verdict::New(_), None) => {}
            _ => self.remove(key, vec![version.dot]),
        }
    }
}
