//! A disk that takes its time, fails, and forgets in a crash what it has not answered for.
//!
//! As the driver does: changes of one key go to one lane, in order; a lane takes what has gathered
//! as one group; reads have a lane of their own. What was answered is there after a crash; of the
//! group that a crash interrupts, any change may have been made, those of one key in order, and the
//! last of them may have kept the new version without dropping the old ones.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use super::Options;
use crate::{
    core::{Done, JobId, Work},
    model::{Dot, Key, Ledger, Record, Seeded, Version},
    storage::{Change, MAX_WHOLE_VALUE_BYTES, StageId},
};

/// Lanes for changes.
const WRITERS: u64 = 2;
/// The most that one group takes in.
const MAX_GROUP: usize = 64;
/// How much slower a slow disk is.
const SLOWER: u64 = 50;

/// A version and its bytes.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What is known of it.
    pub version: Arc<Version>,
    /// The bytes.
    pub value: Bytes,
    /// Which of them is not any more what it was.
    pub rotten_at: Option<usize>,
}

impl Kept {
    /// Turns a byte over; the second time that makes it whole.
    fn flip(&mut self, at: usize) {
        let mut value = self.value.to_vec();
        value[at] ^= 0x40;
        self.value = value.into();
    }
}

/// All that a disk holds.
pub type Contents = BTreeMap<Key, Vec<Kept>>;

/// See the [module](self).
pub struct Disk {
    contents: Contents,
    stages: BTreeMap<StageId, BTreeMap<u64, Bytes>>,
    /// Of which version a stage is, where that was said.
    staged: BTreeMap<StageId, (Key, Arc<Version>)>,
    /// What a crash left of stages: bytes without a hole.
    left: BTreeMap<Dot, (Key, Arc<Version>, Bytes)>,
    lanes: Vec<Lane>,
    chance: Seeded,
    inline: bool,
    mean_us: u64,
    slow: bool,
    failing: bool,
    applied: Vec<Dot>,
    disagrees: bool,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<(JobId, Work)>,
    running: Vec<(JobId, Work)>,
}

/// What came of giving a disk something to do.
pub enum Given {
    /// It is done.
    Done(Done),
    /// This lane is at work now and is done in so many microseconds.
    Begun(usize, u64),
    /// It waits for its turn, or nothing will be answered.
    Waiting,
}

impl Disk {
    /// An empty one.
    pub fn new(options: &Options, seed: u64) -> Self {
        Self {
            contents: Contents::new(),
            stages: BTreeMap::new(),
            staged: BTreeMap::new(),
            left: BTreeMap::new(),
            lanes: (0..=WRITERS).map(|_| Lane::default()).collect(),
            chance: Seeded::new(seed),
            inline: options.inline_disk,
            mean_us: options.disk_us,
            slow: false,
            failing: false,
            applied: Vec::new(),
            disagrees: false,
        }
    }

    /// Everything on it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What clients wrote of it: all but the ledger.
    pub fn written(&self) -> impl Iterator<Item = (&Key, &Vec<Kept>)> {
        self.contents.iter().filter(|(key, _)| !Ledger::is_named(key))
    }

    /// Replaces everything on it, as one does with a backup.
    pub fn restore(&mut self, contents: Contents) {
        self.contents = contents;
        self.left.clear();
        self.disagrees = false;
    }

    /// A byte of a version's value changes without a word.
    pub fn rot(&mut self, key: &Key, dot: Dot, at: usize) {
        let kept = self.contents.get_mut(key).into_iter().flatten().find(|kept| kept.version.dot == dot);
        if let Some(kept) = kept.filter(|kept| kept.rotten_at.is_none() && at < kept.value.len()) {
            kept.flip(at);
            kept.rotten_at = Some(at);
        }
    }

    /// Undoes that.
    pub fn unrot(&mut self, key: &Key, dot: Dot) {
        let kept = self.contents.get_mut(key).into_iter().flatten().find(|kept| kept.version.dot == dot);
        if let Some(kept) = kept
            && let Some(at) = kept.rotten_at.take()
        {
            kept.flip(at);
        }
    }

    /// What is on it of a key.
    pub fn of(&self, key: &Key) -> &[Kept] {
        self.contents.get(key).map_or(&[], Vec::as_slice)
    }

    /// The versions kept since this was asked last.
    pub fn take_applied(&mut self) -> Vec<Dot> {
        std::mem::take(&mut self.applied)
    }

    /// Makes it slow, or not.
    pub fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// Makes it fail now and then, or not.
    pub fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
    }

    /// Whether a change was made that the disk said had failed: what the process believes and what
    /// is here may differ until it has looked.
    pub fn disagrees(&self) -> bool {
        self.disagrees
    }

    /// Takes work.
    pub fn give(&mut self, job: JobId, work: Work) -> Given {
        if self.inline {
            return self.perform(work).map_or(Given::Waiting, Given::Done);
        }
        let lane = match &work {
            Work::Read(_) | Work::Versions(_) | Work::Piece { .. } => WRITERS as usize,
            Work::Change(change) => (change.key().hash64() % WRITERS) as usize,
            Work::Resume { key, .. } | Work::Stage { key, .. } | Work::Discard { key, .. } => {
                (key.hash64() % WRITERS) as usize
            }
        };
        self.lanes[lane].waiting.push_back((job, work));
        self.begin(lane).map_or(Given::Waiting, |us| Given::Begun(lane, us))
    }

    /// A lane is done. Gives the answers, and when it will be done with what it begins next.
    pub fn finish(&mut self, lane: usize) -> (Vec<(JobId, Done)>, Option<u64>) {
        let group = std::mem::take(&mut self.lanes[lane].running);
        let done = group.into_iter().filter_map(|(job, work)| Some((job, self.perform(work)?))).collect();
        (done, self.begin(lane))
    }

    /// The process is gone, or the power. Gives nothing back.
    pub fn crash(&mut self) {
        for lane in 0..self.lanes.len() {
            let Lane { running, .. } = std::mem::take(&mut self.lanes[lane]);
            self.interrupt(running);
        }
        self.leave_stages();
        self.disagrees = false;
    }

    /// Of a stage whose version is known a part may be found again.
    fn leave_stages(&mut self) {
        let stages = std::mem::take(&mut self.stages);
        for (stage, (key, version)) in std::mem::take(&mut self.staged) {
            let mut bytes = joined(stages.get(&stage).cloned().unwrap_or_default());
            bytes.truncate(self.chance.below(bytes.len() as u64 + 1) as usize);
            self.left.insert(version.dot, (key, version, bytes));
        }
    }

    fn interrupt(&mut self, group: Vec<(JobId, Work)>) {
        let mut stopped: BTreeSet<Key> = BTreeSet::new();
        for (_, work) in group {
            match work {
                Work::Change(change) if !stopped.contains(change.key()) => {
                    let key = change.key().clone();
                    match self.chance.below(4) {
                        0 => _ = stopped.insert(key),
                        1 => {
                            _ = self.change(change, false);
                            stopped.insert(key);
                        }
                        _ => _ = self.change(change, true),
                    }
                }
                Work::Stage { stage, offset, bytes, .. } => self.stage(stage, offset, bytes),
                _ => {}
            }
        }
    }

    fn begin(&mut self, lane: usize) -> Option<u64> {
        let Lane { waiting, running } = &mut self.lanes[lane];
        if waiting.is_empty() || !running.is_empty() {
            return None;
        }
        running.extend(waiting.drain(..waiting.len().min(MAX_GROUP)));
        let us = self.mean_us / 2 + self.chance.below(self.mean_us + 1);
        Some(if self.slow { us * SLOWER } else { us })
    }

    fn perform(&mut self, work: Work) -> Option<Done> {
        let fails = self.failing && self.chance.percent(30);
        let failed = || "the simulated disk failed".to_string();
        Some(match work {
            Work::Change(change) if fails => {
                let (made, removal) = (self.chance.percent(50), matches!(change, Change::Remove { .. }));
                // A removal is believed to be made whatever the disk says.
                self.disagrees |= made != removal;
                if made {
                    _ = self.change(change, true);
                }
                Done::Changed(Err(failed()))
            }
            Work::Change(change) => Done::Changed(self.change(change, true)),
            Work::Read(_) | Work::Versions(_) if fails => Done::Records(Err(failed())),
            Work::Read(key) => {
                let whole = |kept: &Kept| kept.value.len() as u64 <= MAX_WHOLE_VALUE_BYTES;
                if self.of(&key).iter().any(|kept| whole(kept) && kept.rotten_at.is_some()) {
                    return Some(Done::Records(Err(format!("{key:?} is damaged"))));
                }
                let record = |kept: &Kept| Record {
                    version: kept.version.clone(),
                    value: whole(kept).then(|| kept.value.clone()),
                };
                Done::Records(Ok(self.of(&key).iter().map(record).collect()))
            }
            Work::Versions(key) => {
                let record = |kept: &Kept| Record { version: kept.version.clone(), value: None };
                Done::Records(Ok(self.of(&key).iter().map(record).collect()))
            }
            Work::Piece { .. } if fails => Done::Piece(Err(failed())),
            Work::Piece { key, dot, offset, len } => {
                let found = self.of(&key).iter().find(|kept| kept.version.dot == dot);
                Done::Piece(found.ok_or_else(|| "no such version".to_string()).map(|kept| {
                    let from = (offset as usize).min(kept.value.len());
                    kept.value.slice(from..(from + len).min(kept.value.len()))
                }))
            }
            Work::Resume { .. } if fails => Done::Resumed(Err(failed())),
            Work::Resume { key, stage, version } => Done::Resumed(Ok(self.resume(key, stage, version))),
            Work::Stage { .. } if fails => Done::Changed(Err(failed())),
            Work::Stage { stage, offset, bytes, .. } => {
                self.stage(stage, offset, bytes);
                Done::Changed(Ok(()))
            }
            Work::Discard { stage, .. } => {
                self.stages.remove(&stage);
                self.staged.remove(&stage);
                return None;
            }
        })
    }

    fn resume(&mut self, key: Key, stage: StageId, version: Arc<Version>) -> u64 {
        if let Some(pieces) = self.stages.get(&stage) {
            return joined(pieces.clone()).len() as u64;
        }
        let left = self.left.remove(&version.dot);
        let left = left.filter(|(of, old, _)| *of == key && *old == version).map(|(.., bytes)| bytes);
        let bytes = left.unwrap_or_default();
        let len = bytes.len() as u64;
        self.stages.insert(stage, BTreeMap::from([(0, bytes)]));
        self.staged.insert(stage, (key, version));
        len
    }

    fn stage(&mut self, stage: StageId, offset: u64, bytes: Bytes) {
        self.stages.entry(stage).or_default().insert(offset, bytes);
    }

    /// Makes a change; one that is not made wholly keeps the new version beside the old ones.
    fn change(&mut self, change: Change, wholly: bool) -> Result<(), String> {
        let (key, version, value, replaces) = match change {
            Change::Put { key, version, value, replaces } => (key, version, value, replaces),
            Change::Commit { stage, key, version, replaces } => {
                let pieces = self.stages.remove(&stage).ok_or("no such stage")?;
                self.staged.remove(&stage);
                let value = joined(pieces);
                if !version.matches(&value) {
                    return Err("the staged value does not fit its version".into());
                }
                (key, version, value, replaces)
            }
            Change::Remove { key, dots } => {
                if wholly {
                    self.drop_versions(&key, &dots);
                }
                return Ok(());
            }
        };
        self.applied.push(version.dot);
        self.drop_versions(&key, &[version.dot]);
        if wholly {
            self.drop_versions(&key, &replaces);
        }
        self.contents.entry(key).or_default().push(Kept { version, value, rotten_at: None });
        Ok(())
    }

    fn drop_versions(&mut self, key: &Key, dots: &[Dot]) {
        if let Some(all) = self.contents.get_mut(key) {
            all.retain(|kept| !dots.contains(&kept.version.dot));
            if all.is_empty() {
                self.contents.remove(key);
            }
        }
    }
}

/// The bytes of pieces up to the first hole.
fn joined(pieces: BTreeMap<u64, Bytes>) -> Bytes {
    let mut value = BytesMut::new();
    for (offset, piece) in pieces {
        if offset as usize > value.len() {
            break;
        }
        value.truncate(offset as usize);
        value.extend_from_slice(&piece);
    }
    value.freeze()
}
