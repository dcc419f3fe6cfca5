//! What the gate counts. Written by its loop, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}

/// Counters (since the start) and gauges (now).
#[derive(Debug, Default)]
pub struct GateStats {
    /// Connections accepted.
    pub accepted: Count,
    /// Accepts that failed, mostly for lack of file descriptors.
    pub accept_failures: Count,
    /// Idle connections closed to make room.
    pub evicted: Count,
    /// Requests passed on.
    pub requests: Count,
    /// Requests that the gate refused by itself.
    pub refused: Count,
    /// Requests given up because the client left.
    pub abandoned: Count,
    /// Times that `tiny_http` stopped accepting and another was started.
    pub restarts: Count,
    /// Client connections, now.
    pub connections: Count,
    /// Lanes, now.
    pub lanes: Count,
    /// Requests that wait for a lane, now.
    pub queued: Count,
}
