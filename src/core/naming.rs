//! Names writes: gives each a dot that was never used, and says how far back it stands alone.

use crate::model::{Actor, Context, Dot, Key, Seeded};

/// Former actors of this process that are remembered.
const MAX_FORMER: usize = 1_024;

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
    chance: Seeded,
    actor: Actor,
    former: Vec<Actor>,
    last: u64,
    floors: Box<[u64]>,
}

impl Naming {
    /// Starts an actor that nobody has used before, as far as `seed` is fresh.
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Seeded::new(seed);
        let actor = Actor(chance.next_u64());
        Self { chance, actor, former: Vec::new(), last: 0, floors: vec![0; FLOOR_BUCKETS].into() }
    }

    /// Names the next write of `key`, of which `seen` is everything that this node knows. Gives
    /// the dot, and since when the actor wrote nothing else to the key.
    pub(crate) fn name(&mut self, key: &Key, seen: &Context) -> (Dot, u64) {
        if seen.highest(self.actor) > self.last {
            // A client made up a context that covers what this actor has not written yet. Its
            // writes would count as replaced before they are made; those of a new actor don't.
            let mut former = std::mem::take(&mut self.former);
            if former.len() < MAX_FORMER {
                former.push(self.actor);
            }
            *self = Self { former, ..Self::new(self.chance.next_u64()) };
        }
        let since = seen.highest(self.actor).max(self.floors[Self::bucket(key)]);
        self.last += 1;
        (Dot { actor: self.actor, counter: self.last }, since)
    }

    /// Whether this process named a write.
    pub(crate) fn named(&self, dot: Dot) -> bool {
        dot.actor == self.actor || self.former.contains(&dot.actor)
    }

    /// Where that bug is planted: names as a process of this node before gave them.
    #[cfg(turbopump_mutations)]
    pub(crate) fn or_reused(self, id: crate::model::NodeId) -> Self {
        match crate::mutation::is_planted(crate::mutation::Mutation::ReusedDot) {
            true => Self::new(id.as_str().bytes().map(u64::from).sum()),
            false => self,
        }
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
        let (key, mut naming) = (Key::new("k").unwrap(), Naming::new(7));
        let (first, since) = naming.name(&key, &Context::EMPTY);
        assert_eq!((first.counter, since), (1, 0));
        let mut seen = Context::EMPTY;
        seen.add(first.actor, since, first.counter);
        naming.forget(&key, &seen);
        let (second, since) = naming.name(&key, &Context::EMPTY);
        assert_eq!((second.counter, since), (2, 1));
    }

    #[test]
    fn a_made_up_context_does_not_cover_writes_to_come() {
        let (key, mut naming) = (Key::new("k").unwrap(), Naming::new(7));
        let (first, _) = naming.name(&key, &Context::EMPTY);
        let mut made_up = Context::EMPTY;
        made_up.add(first.actor, 0, 1 << 40);
        let (second, since) = naming.name(&key, &made_up);
        assert!(!made_up.contains(second) && second.counter == 1 && since == 0);
    }
}
