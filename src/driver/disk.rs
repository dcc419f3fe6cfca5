//! Threads for storage that is slow: changes in groups, reads beside them.
//!
//! Changes of one key always go to the same thread, in order; a thread takes all that has gathered and
//! has storage apply it as one group, which is what makes synced writes cheap under load. Reads have a
//! thread of their own and so never wait for a sync; a read that overtakes a removal, or is overtaken by
//! one, finds the version or does not, and the core takes either.
//!
//! Pieces of long values have a thread for those that come and one for those that go, so that short
//! values do not wait for them. A commit comes after its last piece was answered for.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{JoinHandle, ThreadId},
};

use parking_lot::{Condvar, Mutex};

use super::{Mail, Mailbox, Task, callbacks::message};
use crate::{
    core::{Done, JobId, Work},
    model::Record,
    storage::{Change, Storage, StorageError},
};

/// The most changes in one group: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 1_024;

/// Pieces of long values that are answered for together: their number is a window for those who wait.
const MAX_PIECES: usize = 4;

/// See the [module](self).
pub(crate) struct Disk {
    writers: Vec<Arc<Lane>>,
    reader: Arc<Lane>,
    staging: Arc<Lane>,
    pieces: Arc<Lane>,
    threads: Vec<JoinHandle<()>>,
    slow: bool,
    storage: Arc<dyn Storage>,
}

enum Item {
    Work(JobId, Work),
    Task(Task),
}

struct Lane {
    state: Mutex<State>,
    filled: Condvar,
    max_group: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    ended: bool,
}

impl Disk {
    /// Starts the threads; for storage that is not slow only the one for other files.
    pub(crate) fn start(
        storage: Arc<dyn Storage>,
        mailbox: &Arc<Mailbox>,
        threads: usize,
    ) -> std::io::Result<Self> {
        let slow = storage.is_slow();
        let threads = threads.min(storage.max_writers()).max(1);
        let writers = (0..if slow { threads } else { 0 }).map(|_| Lane::new(MAX_GROUP)).collect();
        let (staging, pieces) = (Lane::new(MAX_PIECES), Lane::new(MAX_PIECES));
        let reader = Lane::new(MAX_GROUP);
        let mut disk = Self { writers, reader, staging, pieces, threads: Vec::new(), slow, storage };
        let lanes: Vec<_> = disk.lanes().cloned().collect();
        for (i, lane) in lanes.into_iter().enumerate() {
            let (storage, mailbox) = (disk.storage.clone(), mailbox.clone());
            let name = format!("turbopump-disk-{i}");
            let thread =
                std::thread::Builder::new().name(name).spawn(move || lane.run(&*storage, &mailbox))?;
            disk.threads.push(thread);
        }
        Ok(disk)
    }

    /// Does the work now and gives its result, or hands it to a thread.
    pub(crate) fn give(&self, job: JobId, work: Work) -> Option<Done> {
        if !self.slow {
            return perform(&*self.storage, work);
        }
        let lane = match &work {
            Work::Read(_) | Work::Versions(_) => &self.reader,
            Work::Piece { .. } => &self.pieces,
            Work::Change(change) => self.writer(change.key().hash64()),
            Work::Resume { .. } | Work::Stage { .. } | Work::Discard { .. } => &self.staging,
        };
        lane.push(Item::Work(job, work));
        None
    }

    /// Whether tasks that touch storage belong on a thread.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    /// The threads, of which one also runs tasks.
    pub(crate) fn thread_ids(&self) -> impl Iterator<Item = ThreadId> + '_ {
        self.threads.iter().map(|thread| thread.thread().id())
    }

    /// Runs something that may block on the reading thread; here, once that has ended.
    pub(crate) fn run(&self, task: Task) {
        match self.threads.is_empty() {
            true => task(),
            false => self.reader.push(Item::Task(task)),
        }
    }

    /// Finishes what was given, then ends the threads.
    pub(crate) fn stop(&mut self) {
        for lane in self.lanes() {
            lane.state.lock().ended = true;
            lane.filled.notify_one();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a disk thread ended with a panic");
            }
        }
    }

    /// Those that have a thread.
    fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        let long = [&self.staging, &self.pieces].into_iter().filter(|_| self.slow);
        self.writers.iter().chain([&self.reader]).chain(long)
    }

    fn writer(&self, hash: u64) -> &Lane {
        &self.writers[(hash % self.writers.len() as u64) as usize]
    }
}

impl Lane {
    fn new(max_group: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), filled: Condvar::new(), max_group })
    }

    fn push(&self, item: Item) {
        let mut state = self.state.lock();
        state.items.push_back(item);
        if state.items.len() == 1 {
            self.filled.notify_one();
        }
    }

    fn run(&self, storage: &dyn Storage, mailbox: &Mailbox) {
        loop {
            let items: Vec<Item> = {
                let mut state = self.state.lock();
                while state.items.is_empty() && !state.ended {
                    self.filled.wait(&mut state);
                }
                if state.items.is_empty() {
                    return;
                }
                let count = state.items.len().min(self.max_group);
                state.items.drain(..count).collect()
            };
            mailbox.post_all(perform_group(storage, items));
        }
    }
}

fn perform_group(storage: &dyn Storage, items: Vec<Item>) -> Vec<Mail> {
    let (mut mails, mut jobs, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Work(job, Work::Change(change)) => {
                jobs.push(job);
                changes.push(change);
            }
            Item::Work(job, work) => {
                mails.extend(perform(storage, work).map(|result| Mail::Done { job, result }));
            }
            Item::Task(task) => task(),
        }
    }
    if !changes.is_empty() {
        let results = apply(storage, &changes);
        mails.extend(jobs.into_iter().zip(results).map(|(job, result)| Mail::Done { job, result }));
    }
    mails
}

/// One answer per change, whatever the storage does.
fn apply(storage: &dyn Storage, changes: &[Change]) -> Vec<Done> {
    let answers = guarded(|| Ok(storage.apply(changes)));
    let answers = answers.unwrap_or_else(|text| changes.iter().map(|_| Err(failed(&text))).collect());
    let mut results: Vec<Done> =
        answers.into_iter().map(|r| Done::Changed(r.map_err(|e| e.to_string()))).collect();
    let short = || Done::Changed(Err("the storage did not answer for this change".into()));
    results.resize_with(changes.len(), short);
    results
}

fn perform(storage: &dyn Storage, work: Work) -> Option<Done> {
    match work {
        Work::Change(change) => apply(storage, &[change]).pop(),
        Work::Read(key) => Some(Done::Records(guarded(|| storage.read(&key)))),
        Work::Versions(key) => {
            let bare = |version| Record { version, value: None };
            let versions = guarded(|| storage.versions(&key));
            Some(Done::Records(versions.map(|all| all.into_iter().map(bare).collect())))
        }
        Work::Piece { key, dot, offset, len } => {
            Some(Done::Piece(guarded(|| storage.read_piece(&key, dot, offset, len))))
        }
        Work::Stage { stage, offset, bytes, .. } => {
            Some(Done::Changed(guarded(|| storage.stage(stage, offset, &bytes))))
        }
        Work::Resume { key, stage, version } => {
            Some(Done::Resumed(guarded(|| storage.resume(stage, &key, &version))))
        }
        Work::Discard { stage, .. } => {
            let _ = guarded(|| {
                storage.discard(stage);
                Ok(())
            });
            None
        }
    }
}

/// A storage that panics has failed: its thread, or the loop, goes on.
fn guarded<T>(work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("storage panicked: {}", message(&*panic))),
    }
}

fn failed(text: &str) -> StorageError {
    StorageError::Io(io::Error::other(text))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;
    use crate::{config::Config, driver::WAKER, storage::MemoryStorage};

    #[test]
    fn what_is_given_after_the_threads_have_ended_is_run_all_the_same() {
        // Goal: a read that the last finished work completes is answered, though it needs the disk.
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
        let mailbox = Arc::new(Mailbox::new(waker, &Config::default()));
        let mut disk = Disk::start(Arc::new(MemoryStorage::new()), &mailbox, 1).unwrap();
        disk.stop();
        let ran = Arc::new(AtomicBool::new(false));
        let its = ran.clone();
        disk.run(Box::new(move || its.store(true, SeqCst)));
        assert!(ran.load(SeqCst));
    }
}
