//! Names writes: gives each a dot that was never used, and says how far back it stands alone.

use crate::model::{Actor, Context, Dot, Key};

/// Buckets of keys that share a floor. Two keys in one bucket cost at most a longer context.
const FLOOR_BUCKETS: usize = 4_096;

/// The counter of this process's actor.
///
/// `since` of a version promises that the actor wrote nothing else to the key between the two
/// counters. What the index still shows of the key answers that, except for versions that were
/// forgotten since (handed off, failed to store): for those a floor per bucket of keys remembers
/// the highest counter.
#[derive(Debug)]
pub(crate) struct Naming {
    actor: Actor,
    last: u64,
    floors: Box<[u64]>,
}

impl Naming {
    /// Starts an actor that nobody has used before.
    pub(crate) fn new(actor: Actor) -> Self {
        Self { actor, last: 0, floors: vec![0; FLOOR_BUCKETS].into() }
    }

    /// Names the next write of `key`, of which `seen` is everything that this node knows. Gives
    /// the dot, and since when the actor wrote nothing else to the key.
    pub(crate) fn name(&mut self, key: &Key, seen: &Context) -> (Dot, u64) {
        let since = seen.highest(self.actor).max(self.floors[Self::bucket(key)]);
        // A context that a client made up may cover counters that are still to come: skip them.
        self.last = self.last.max(since) + 1;
        (Dot { actor: self.actor, counter: self.last }, since)
    }

    /// A version of `key` is about to leave the index without one that covers it.
    pub(crate) fn forget(&mut self, key: &Key, known: &Context) {
        let floor = &mut self.floors[Self::bucket(key)];
        *floor = (*floor).max(known.highest(self.actor));
    }

    fn bucket(key: &Key) -> usize {
        (key.hash64() % FLOOR_BUCKETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_version_is_not_claimed_by_the_next_one() {
        let (key, mut naming) = (Key::new("k").unwrap(), Naming::new(Actor(7)));
        let (first, since) = naming.name(&key, &Context::EMPTY);
        assert_eq!((first.counter, since), (1, 0));
        let mut seen = Context::EMPTY;
        seen.add(Actor(7), since, first.counter);
        naming.forget(&key, &seen);
        let (second, since) = naming.name(&key, &Context::EMPTY);
        assert_eq!((second.counter, since), (2, 1));
    }
}
