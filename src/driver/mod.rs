//! The only place that does I/O and reads the clock: it turns what happens into inputs of the
//! core and carries out the core's outputs.
//!
//! ```text
//! callers ──Mailbox──┐                        ┌── Links ── Transport ──> peers
//! Transport ─ Links ─┼─> Core (on the loop) ──┼── storage: inline, or Disk threads ──┐
//! Disk threads ──────┘        ▲               └── Replies: callbacks, handles         │
//!                             └───────────────────── Mailbox ─────────────────────────┘
//! ```
//!
//! Threads of a node: the loop; one that runs closures; and where storage is slow or a home is
//! kept, the disk threads and one that reads. Nothing blocks the loop.

mod ahead;
mod callbacks;
mod disk;
mod event_loop;
mod home;
mod mailbox;
mod values;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use callbacks::Task;
pub(crate) use callbacks::{Callbacks, Reply, Watcher};
pub(crate) use event_loop::{EventLoop, Parts, Shared, WAKER};
pub(crate) use home::Home;
pub(crate) use mailbox::{Mail, Mailbox, Room, Ticket};
pub(crate) use values::{are_there, fill};

pub(crate) use disk::Disk;

use crate::core::Now;

/// Where a node gets the time from.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since 1970 as the machine believes it to be. May jump.
    fn wall(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

pub(crate) fn wall_ms(clock: &dyn Clock) -> u64 {
    clock.wall().as_millis() as u64
}

pub(crate) fn now(clock: &dyn Clock) -> Now {
    Now { mono_ms: clock.monotonic().as_millis() as u64, wall_ms: wall_ms(clock) }
}
