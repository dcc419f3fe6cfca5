//! Two ways to stay calm when too much comes in.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};

/// Addresses that [`Once`] keeps in mind. With more than these at once, the oldest may be told
/// again before its time.
const MAX_ADDRS_IN_MIND: usize = 4_096;

/// So many a second, whoever asks.
pub(super) struct Allowance {
    per_second: u32,
    second: u64,
    taken: u32,
}

impl Allowance {
    pub(super) fn per_second(per_second: u32) -> Self {
        Self { per_second, second: 0, taken: 0 }
    }

    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        let left = self.taken < self.per_second;
        self.taken += u32::from(left);
        left
    }
}

/// Once per address and period.
pub(super) struct Once {
    period_ms: u64,
    /// By time, then to be looked up.
    order: VecDeque<(u64, SocketAddr)>,
    known: BTreeSet<SocketAddr>,
}

impl Once {
    pub(super) fn per(period_ms: u64) -> Self {
        Self { period_ms, order: VecDeque::new(), known: BTreeSet::new() }
    }

    pub(super) fn allows(&mut self, now_ms: u64, addr: SocketAddr) -> bool {
        while let Some(&(at, oldest)) = self.order.front() {
            if now_ms.saturating_sub(at) < self.period_ms && self.order.len() < MAX_ADDRS_IN_MIND {
                break;
            }
            self.order.pop_front();
            self.known.remove(&oldest);
        }
        let is_new = self.known.insert(addr);
        if is_new {
            self.order.push_back((now_ms, addr));
        }
        is_new
    }
}
