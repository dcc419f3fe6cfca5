//! How often strangers may begin, and how often the log tells of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Least time between two lines of the log that say the same about one address.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Lines a second, whatever the addresses: who sends with false ones fills no log.
const LINES_PER_SECOND: u32 = 5;
/// Lines of which it is remembered when they were told last. Past it, all are forgotten.
const MAX_TOLD: usize = 1_024;

/// So many a second, and as many at once.
pub(super) struct Allowance {
    per_second: u32,
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn per_second(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: per_second.into(), at: now }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.per_second);
        self.left = (self.left + gained).min(self.per_second.into());
        self.at = now;
        let is_there = self.left >= 1.0;
        self.left -= f64::from(u8::from(is_there));
        is_there
    }
}

/// What the log tells of an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Line {
    /// This node refused it.
    Refused,
    /// It does not know the secret.
    Secret,
    /// It refuses this node, with this code.
    RefusesUs(u64),
}

/// What the log told lately.
pub(super) struct Told {
    at: BTreeMap<(SocketAddr, Line), Instant>,
    lines: Allowance,
}

impl Told {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: BTreeMap::new(), lines: Allowance::per_second(LINES_PER_SECOND, now) }
    }

    /// Whether it may tell this of this address now.
    pub(super) fn allows(&mut self, addr: SocketAddr, line: Line, now: Instant) -> bool {
        let before = self.at.get(&(addr, line));
        if before.is_some_and(|at| now.saturating_duration_since(*at) < TELL_EVERY) || !self.lines.take(now) {
            return false;
        }
        if self.at.len() >= MAX_TOLD {
            self.at.clear();
        }
        self.at.insert((addr, line), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_comes_back() {
        let begin = Instant::now();
        let mut allowance = Allowance::per_second(10, begin);
        assert_eq!((0..20).filter(|_| allowance.take(begin)).count(), 10);
        assert_eq!((0..20).filter(|_| allowance.take(begin + Duration::from_millis(350))).count(), 3);
        assert_eq!((0..20).filter(|_| allowance.take(begin + Duration::from_secs(60))).count(), 10);
    }

    #[test]
    fn an_address_is_told_of_once_a_minute_and_neither_log_nor_memory_grow_without_bound() {
        let begin = Instant::now();
        let mut told = Told::new(begin);
        let addr = |number: u32| SocketAddr::from((number.to_be_bytes(), 1));
        assert!(told.allows(addr(1), Line::Refused, begin));
        assert!(!told.allows(addr(1), Line::Refused, begin + TELL_EVERY / 2));
        assert!(told.allows(addr(1), Line::Secret, begin + TELL_EVERY / 2));
        assert!(told.allows(addr(2), Line::Refused, begin + TELL_EVERY / 2));
        assert!(told.allows(addr(1), Line::Refused, begin + TELL_EVERY));
        let lines =
            |told: &mut Told, at| (0..1_000).filter(|n| told.allows(addr(*n), Line::Refused, at)).count();
        assert_eq!(lines(&mut told, begin + TELL_EVERY * 2), LINES_PER_SECOND as usize);
        for second in 0..1_000 {
            lines(&mut told, begin + TELL_EVERY * 3 + Duration::from_secs(second));
        }
        assert!(told.at.len() <= MAX_TOLD);
    }
}
