//! The way into the loop from other threads: a queue, and a wake-up when the loop sleeps.
//!
//! Bounded by what is counted before anything is put in: operations under way and their bytes,
//! and the core's own limit on jobs for storage.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mio::Waker;
use parking_lot::Mutex;

use super::Reply;
use crate::{
    config::Config,
    core::{Done, JobId, OpId, Progress, Request},
    error::SubmitError,
};

/// What other threads tell the loop.
pub(crate) enum Mail {
    /// A client asks for something.
    Request { op: OpId, request: Request, ticket: Ticket },
    /// A request whose answer nobody waits for.
    Tell(Request),
    /// A disk thread finished.
    Done { job: JobId, result: Done },
    /// Finish what runs, at most that long, and end.
    Stop { within: Duration },
}

/// Who waits for a request, and what it holds until it has ended.
pub(crate) struct Ticket {
    /// Who hears how it ended.
    pub(crate) reply: Reply,
    /// Who hears of each mirror's acknowledgement.
    pub(crate) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Whether it waits for others to do something, rather than for something to be done.
    pub(crate) waits: bool,
    /// Bytes of values that it counts for.
    pub(crate) bytes: u64,
}

/// See the [module](self).
pub(crate) struct Mailbox {
    queue: Mutex<VecDeque<Mail>>,
    asleep: AtomicBool,
    waker: Arc<Waker>,
    stopping: AtomicBool,
    operations: AtomicUsize,
    bytes: AtomicU64,
    next_op: AtomicU64,
    max_operations: usize,
    max_bytes: u64,
}

/// What an operation takes of the limits. It ends when this is dropped: when the outcome is set, or
/// when its closure is about to run.
pub(crate) struct Room {
    mailbox: Arc<Mailbox>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.mailbox.release(self.bytes);
    }
}

impl Mailbox {
    pub(crate) fn new(waker: Arc<Waker>, config: &Config) -> Self {
        Self {
            queue: Mutex::default(),
            asleep: AtomicBool::new(false),
            waker,
            stopping: AtomicBool::new(false),
            operations: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            next_op: AtomicU64::new(1),
            max_operations: config.max_operations,
            max_bytes: config.max_operation_bytes,
        }
    }

    /// Makes room for an operation that is done without the loop.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Room, SubmitError> {
        if self.is_closed() {
            return Err(SubmitError::Stopping);
        }
        self.admit(bytes)?;
        Ok(Room { mailbox: self.clone(), bytes })
    }

    /// The room that a submitted operation was given.
    pub(crate) fn room(self: &Arc<Self>, bytes: u64) -> Room {
        Room { mailbox: self.clone(), bytes }
    }

    /// Submits a request.
    pub(crate) fn submit(&self, request: Request, ticket: Ticket) -> Result<(), SubmitError> {
        let bytes = ticket.bytes;
        self.admit(bytes)?;
        let op = OpId(self.next_op.fetch_add(1, SeqCst));
        // Checked under the lock: what gets in before the loop's last look is answered by it.
        let mut queue = self.queue.lock();
        if self.stopping.load(SeqCst) {
            drop(queue);
            self.release(bytes);
            return Err(SubmitError::Stopping);
        }
        queue.push_back(Mail::Request { op, request, ticket });
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Puts in what needs no room: it answers something the loop asked for, or ends it.
    pub(crate) fn post(&self, mail: Mail) {
        self.queue.lock().push_back(mail);
        self.wake();
    }

    /// Puts in several at once.
    pub(crate) fn post_all(&self, mails: impl IntoIterator<Item = Mail>) {
        self.queue.lock().extend(mails);
        self.wake();
    }

    fn release(&self, bytes: u64) {
        self.operations.fetch_sub(1, SeqCst);
        self.bytes.fetch_sub(bytes, SeqCst);
    }

    /// From now on nothing new is taken.
    pub(crate) fn close(&self) {
        let _queue = self.queue.lock();
        self.stopping.store(true, SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Takes everything out, into `mails`, which must be empty.
    pub(crate) fn take(&self, mails: &mut VecDeque<Mail>) {
        std::mem::swap(&mut *self.queue.lock(), mails);
    }

    /// The loop is about to sleep. False: there is mail, don't.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        if self.queue.lock().is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// The loop is awake: no wake-ups are needed.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, SeqCst);
    }

    fn admit(&self, bytes: u64) -> Result<(), SubmitError> {
        let count = self.operations.fetch_add(1, SeqCst);
        let total = self.bytes.fetch_add(bytes, SeqCst);
        if count >= self.max_operations || (total > 0 && total + bytes > self.max_bytes) {
            self.release(bytes);
            return Err(SubmitError::Busy);
        }
        Ok(())
    }

    fn wake(&self) {
        if self.asleep.swap(false, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("the loop can't be woken: {error}");
        }
    }
}
