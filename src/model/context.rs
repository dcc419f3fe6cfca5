//! What a reader has seen of a key: an exact set of dots, kept as ranges.
//!
//! A plain version vector ("all of actor A up to 7") claims more than was seen: a reader that got
//! A's second write before its first would, on writing, replace the first unread. A set of single
//! dots is exact and grows without end. So each version says how far back its actor wrote nothing
//! else to that key ([`Version::since`](super::Version::since)), which makes it a range
//! `(since, counter]`; ranges that touch join, and the usual context is one range per actor.
//!
//! Invariant: sorted by (actor, low), not empty, not overlapping, not touching within an actor.

use std::{fmt, str::FromStr};

use thin_vec::ThinVec;

use super::{Actor, Dot, Version};

/// Holes kept per actor. Past it the oldest hole is closed, so that contexts stay bounded: then a
/// sibling written by that actor over a thousand writes ago and never seen since counts as seen.
pub const MAX_RANGES_PER_ACTOR: usize = 1_024;

/// The highest counter that a context as text may name: neither an actor that is a node's process nor one
/// that is an author gets there, and a made-up context can't use up the numbers.
const MAX_COUNTER: u64 = (1 << 63) - 1;

/// Low end exclusive, high end inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) actor: Actor,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// What a reader has seen; handed back with a write so that it replaces just that.
///
/// As text: `ACTOR-LOW-HIGH` per range, comma separated; `ACTOR-HIGH` where LOW is 0. The empty
/// context is the empty text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Context {
    ranges: ThinVec<Range>,
}

/// Why a text is no dot or no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Not of the form that a read gave out.
    #[error("not a version or context as a read gave it out")]
    Malformed,
}

impl Context {
    /// The context that covers nothing.
    pub const EMPTY: Self = Self { ranges: ThinVec::new() };

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the write named `dot` was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        let after = self.ranges.partition_point(|r| (r.actor, r.low) < (dot.actor, dot.counter));
        after > 0 && {
            let r = &self.ranges[after - 1];
            r.actor == dot.actor && dot.counter <= r.high
        }
    }

    /// Adds a version and all that it replaced: what one knows after having read it.
    pub fn see(&mut self, version: &Version) {
        self.merge(&version.context);
        self.add(version.dot.actor, version.since, version.dot.counter);
    }

    /// Adds all that `other` covers.
    pub fn merge(&mut self, other: &Self) {
        for r in &other.ranges {
            self.add(r.actor, r.low, r.high);
        }
    }

    /// Adds the dots `(low, high]` of `actor`. Does nothing where `low >= high`.
    pub fn add(&mut self, actor: Actor, mut low: u64, mut high: u64) {
        if low >= high {
            return;
        }
        if self.ranges.is_empty() {
            // Most contexts are one range: no room is wasted on more.
            self.ranges = ThinVec::with_capacity(1);
        }
        let first = self.ranges.partition_point(|r| (r.actor, r.high) < (actor, low));
        let mut end = first;
        while let Some(r) = self.ranges.get(end).filter(|r| r.actor == actor && r.low <= high) {
            (low, high) = (low.min(r.low), high.max(r.high));
            end += 1;
        }
        let range = Range { actor, low, high };
        if end == first {
            self.ranges.insert(first, range);
            self.close_oldest_hole(actor);
        } else {
            self.ranges[first] = range;
            self.ranges.drain(first + 1..end);
        }
    }

    /// The highest counter of `actor` in it, 0 if none.
    pub fn highest(&self, actor: Actor) -> u64 {
        let after = self.ranges.partition_point(|r| r.actor <= actor);
        match after.checked_sub(1).map(|i| self.ranges[i]) {
            Some(r) if r.actor == actor => r.high,
            _ => 0,
        }
    }

    /// Whether everything in `other` is in it.
    pub fn includes(&self, other: &Self) -> bool {
        let mut merged = self.clone();
        merged.merge(other);
        merged == *self
    }

    /// The ranges as (actor, low exclusive, high inclusive), in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (Actor, u64, u64)> + '_ {
        self.ranges.iter().map(|r| (r.actor, r.low, r.high))
    }

    fn close_oldest_hole(&mut self, actor: Actor) {
        let first = self.ranges.partition_point(|r| r.actor < actor);
        let end = self.ranges.partition_point(|r| r.actor <= actor);
        if end - first > MAX_RANGES_PER_ACTOR {
            self.ranges[first + 1].low = self.ranges[first].low;
            self.ranges.remove(first);
        }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.ranges.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match r.low {
                0 => write!(f, "{:?}-{}", r.actor, r.high)?,
                low => write!(f, "{:?}-{}-{}", r.actor, low, r.high)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let mut context = Self::EMPTY;
        for range in text.split(',').filter(|_| !text.is_empty()) {
            let mut parts = range.splitn(3, '-');
            let actor = parts.next().ok_or(ContextError::Malformed)?.parse()?;
            let first = number(parts.next().ok_or(ContextError::Malformed)?, 10)?;
            let (low, high) = match parts.next() {
                Some(high) => (first, number(high, 10)?),
                None => (0, first),
            };
            if low >= high || high > MAX_COUNTER {
                return Err(ContextError::Malformed);
            }
            context.add(actor, low, high);
        }
        Ok(context)
    }
}

/// Digits only: no sign, no space.
pub(super) fn number(text: &str, radix: u32) -> Result<u64, ContextError> {
    if text.is_empty() || !text.chars().all(|c| c.is_digit(radix)) {
        return Err(ContextError::Malformed);
    }
    u64::from_str_radix(text, radix).map_err(|_| ContextError::Malformed)
}
