//! Wires that lose, repeat, reorder and delay frames, and that can be cut.

use std::collections::BTreeSet;

use super::Options;
use crate::model::Seeded;

/// How late a late frame is at most, microseconds.
const LATE_US: u64 = 5_000_000;

/// See the [module](self).
pub struct Network {
    chance: Seeded,
    drop_percent: u64,
    duplicate_percent: u64,
    late_percent: u64,
    delay_us: u64,
    jitter_us: u64,
    /// From, to: frames this way are lost.
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// As the options say, nothing cut.
    pub fn new(options: &Options) -> Self {
        Self {
            chance: Seeded::new(options.seed ^ 0x6e65_7477_6f72_6b21),
            drop_percent: options.drop_percent,
            duplicate_percent: options.duplicate_percent,
            late_percent: options.late_percent,
            delay_us: options.delay_us,
            jitter_us: options.jitter_us,
            cut: BTreeSet::new(),
        }
    }

    /// How long each copy of a frame takes; none: it is lost.
    pub fn route(&mut self, from: usize, to: usize) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || self.chance.percent(self.drop_percent) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.chance.percent(self.duplicate_percent));
        (0..copies).map(|_| self.delay()).collect()
    }

    /// Loses all frames from one node to another from now on.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Ends all cuts; frames still get lost.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Ends all cuts, and loses, repeats and holds up nothing any more.
    pub fn heal(&mut self) {
        self.cut.clear();
        (self.drop_percent, self.duplicate_percent, self.late_percent) = (0, 0, 0);
    }

    fn delay(&mut self) -> u64 {
        let late = if self.chance.percent(self.late_percent) { self.chance.below(LATE_US) } else { 0 };
        self.delay_us + self.chance.below(self.jitter_us + 1) + late
    }
}
