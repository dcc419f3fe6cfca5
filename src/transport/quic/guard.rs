//! How often strangers may begin, and how often the log tells of them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Least time between two lines of the log about one host.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Hosts of which it is remembered when the log told of them last. Past it, all are forgotten.
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

/// Of whom the log told lately.
#[derive(Default)]
pub(super) struct Told {
    at: BTreeMap<IpAddr, Instant>,
}

impl Told {
    /// Whether it may tell of this host now.
    pub(super) fn allows(&mut self, host: IpAddr, now: Instant) -> bool {
        let before = self.at.get(&host);
        if before.is_some_and(|at| now.saturating_duration_since(*at) < TELL_EVERY) {
            return false;
        }
        if self.at.len() >= MAX_TOLD {
            self.at.clear();
        }
        self.at.insert(host, now);
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
    fn a_host_is_told_of_once_a_minute_and_the_memory_is_bounded() {
        let (begin, mut told) = (Instant::now(), Told::default());
        let host = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!(told.allows(host(1), begin) && !told.allows(host(1), begin + TELL_EVERY / 2));
        assert!(told.allows(host(2), begin) && told.allows(host(1), begin + TELL_EVERY));
        (0..10_000).for_each(|number| _ = told.allows(host(number), begin));
        assert!(told.at.len() <= MAX_TOLD);
    }
}
