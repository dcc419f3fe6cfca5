//! The bounded queues between the loop and the threads of the links.
//!
//! They carry frames and know nothing of sockets.
//!
//! ```text
//!   loop -- send() --> Outbox (one a link) --> the link's writer
//!   loop <-- poll() -- Inbox (one) <---------- the links' readers, each on a Credit of its own
//! ```
//!
//! - The loop never waits: an outbox that is full refuses, and wakes the loop once it has room.
//! - A reader whose credit is used up waits, so that UDT's window pushes back on the peer.
//! - The loop is woken when the inbox turns from empty to not empty, not for each frame.
//!
//! Limits: [`OUTBOX_FRAMES`], [`OUTBOX_BYTES`], [`CREDIT_FRAMES`], [`CREDIT_BYTES`], each a link.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use mio::Waker;
use parking_lot::{Condvar, Mutex};

/// How many frames wait to be sent over one link, at most.
pub(super) const OUTBOX_FRAMES: usize = 8_192;
/// How many bytes wait to be sent over one link, at most.
pub(super) const OUTBOX_BYTES: usize = 4 * 1_024 * 1_024;
/// How many frames of one link wait for the loop before its reader pauses.
pub(super) const CREDIT_FRAMES: usize = 8_192;
/// How many bytes of one link wait for the loop before its reader pauses. One read more may come.
pub(super) const CREDIT_BYTES: usize = 2 * 1_024 * 1_024;

/// What waits to be sent over one link.
pub(super) struct Outbox {
    state: Mutex<Outgoing>,
    changed: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Outgoing {
    /// With whether somebody waits for it.
    frames: VecDeque<(Bytes, bool)>,
    bytes: usize,
    finished: bool,
    refused: bool,
    writer_waits: bool,
}

/// Why a frame was not queued.
pub(super) enum NotQueued {
    /// No room; the frame comes back.
    Full(Bytes),
    /// The link takes no more; the frame comes back.
    Finished(Bytes),
}

impl Outbox {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), waker }
    }

    pub(super) fn push(&self, frame: Bytes, is_urgent: bool) -> Result<(), NotQueued> {
        let mut state = self.state.lock();
        if state.finished {
            return Err(NotQueued::Finished(frame));
        }
        if state.frames.len() >= OUTBOX_FRAMES || state.bytes + frame.len() > OUTBOX_BYTES {
            state.refused = true;
            return Err(NotQueued::Full(frame));
        }
        state.bytes += frame.len();
        state.frames.push_back((frame, is_urgent));
        let writer_waits = state.writer_waits;
        drop(state);
        if writer_waits {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for frames and moves them, up to about this many bytes, to `take`. False: there are
    /// none, and there never will be.
    pub(super) fn pop_some(&self, max_bytes: usize, mut take: impl FnMut(Bytes, bool)) -> bool {
        let mut state = self.state.lock();
        while state.frames.is_empty() && !state.finished {
            state.writer_waits = true;
            self.changed.wait(&mut state);
            state.writer_waits = false;
        }
        let mut taken_bytes = 0;
        while taken_bytes < max_bytes {
            let Some((frame, is_urgent)) = state.frames.pop_front() else { break };
            taken_bytes += frame.len();
            take(frame, is_urgent);
        }
        state.bytes -= taken_bytes;
        let roomy = state.frames.len() <= OUTBOX_FRAMES / 2 && state.bytes <= OUTBOX_BYTES / 2;
        let wake = roomy && std::mem::take(&mut state.refused);
        drop(state);
        if wake {
            wake_loop(&self.waker);
        }
        taken_bytes > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }

    /// Takes no more frames; those that are queued can still be popped.
    pub(super) fn finish(&self) {
        self.state.lock().finished = true;
        self.changed.notify_all();
    }

    /// Takes no more frames, drops those that are queued and says how many they were.
    pub(super) fn discard(&self) -> usize {
        let mut state = self.state.lock();
        state.finished = true;
        state.bytes = 0;
        let dropped = std::mem::take(&mut state.frames).len();
        let wake = std::mem::take(&mut state.refused);
        drop(state);
        self.changed.notify_all();
        if wake {
            wake_loop(&self.waker);
        }
        dropped
    }
}

/// How much of one link the inbox holds.
#[derive(Default)]
pub(super) struct Credit {
    used: Mutex<Used>,
    returned: Condvar,
}

#[derive(Default)]
struct Used {
    frames: usize,
    bytes: usize,
    cancelled: bool,
}

impl Credit {
    /// Waits until the link may queue more. False: it was cancelled, nobody wants its frames.
    pub(super) fn wait(&self) -> bool {
        let mut used = self.used.lock();
        while !used.cancelled && (used.frames >= CREDIT_FRAMES || used.bytes >= CREDIT_BYTES) {
            self.returned.wait(&mut used);
        }
        !used.cancelled
    }

    pub(super) fn charge(&self, frames: usize, bytes: usize) {
        let mut used = self.used.lock();
        used.frames += frames;
        used.bytes += bytes;
    }

    pub(super) fn refund(&self, bytes: usize) {
        let mut used = self.used.lock();
        let was_short = used.frames >= CREDIT_FRAMES || used.bytes >= CREDIT_BYTES;
        used.frames -= 1;
        used.bytes -= bytes;
        let is_short = used.frames >= CREDIT_FRAMES || used.bytes >= CREDIT_BYTES;
        drop(used);
        if was_short && !is_short {
            self.returned.notify_one();
        }
    }

    pub(super) fn cancel(&self) {
        self.used.lock().cancelled = true;
        self.returned.notify_all();
    }
}

/// What waits for the loop, from all links.
pub(super) struct Inbox<T> {
    state: Mutex<Incoming<T>>,
    waker: Arc<Waker>,
}

struct Incoming<T> {
    items: VecDeque<T>,
    shut: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let state = Mutex::new(Incoming { items: VecDeque::new(), shut: false });
        Self { state, waker }
    }

    pub(super) fn push_all(&self, new: impl IntoIterator<Item = T>) {
        let mut state = self.state.lock();
        if state.shut {
            return;
        }
        let was_empty = state.items.is_empty();
        state.items.extend(new);
        let wake = was_empty && !state.items.is_empty();
        drop(state);
        if wake {
            wake_loop(&self.waker);
        }
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.state.lock().items.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Drops what waits and all that will come: items refer to links, and links to the inbox.
    pub(super) fn shut(&self) {
        let mut state = self.state.lock();
        state.shut = true;
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        drop(dropped);
    }
}

/// Counts threads, so that a stop can wait for them.
#[derive(Default)]
pub(super) struct Threads {
    running: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    /// Runs `work` on a thread of this name; false if the system has none left.
    pub(super) fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> bool {
        *self.running.lock() += 1;
        let counted = Counted(self.clone());
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || {
            let _counted = counted;
            work();
        });
        if let Err(error) = &spawned {
            log::error!("no thread for {name}: {error}");
        }
        spawned.is_ok()
    }

    /// Waits until no thread runs, or the deadline; true if none does.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let mut running = self.running.lock();
        while *running > 0 {
            if self.ended.wait_until(&mut running, deadline).timed_out() {
                return *running == 0;
            }
        }
        true
    }
}

/// Also counts down when the work panics, or when no thread was had for it.
struct Counted(Arc<Threads>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.ended.notify_all();
    }
}

/// A loop that can't be woken is one that ended: there is nobody left to tell.
fn wake_loop(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::debug!("the loop was not woken: {error}");
    }
}
