//! Consistent hashing over fixed partitions, with virtual nodes and weights: the default.
//!
//! It places; it knows no keys, no addresses and no states of members. Who takes a seat is decided
//! elsewhere.
//!
//! The ring is the hash space bent round. A partition is an arc of it, and every seat has `weight`
//! virtual nodes in **every** arc. Walking clockwise from where the arc begins, one meets the
//! seats in the order in which they own the partition:
//!
//! ```text
//!   partition 6                     partition 7
//!   |--c-----a---------b--c-------  |-a--c----------c----------b--
//!   owners: c, a, b                 owners: a, c, b
//! ```
//!
//! Each arc holds all seats, so a walk never leaves its arc, and what a seat does in an arc hangs
//! on its id, its weight and the arc alone. From this follows what [`Partitioner`] promises: the
//! order of the list does not matter, and a seat that comes or goes leaves the others as they
//! stood.
//!
//! With tokens at random (Karger et al. 1997; per arc that is the rendezvous hashing of Thaler and
//! Ravishankar, 1998) chance alone makes some seats lucky everywhere. So the tokens of a seat
//! are **stratified**: seen over all P partitions, a seat of weight 1 stands exactly once in each
//! P-th of an arc's length; its id only shuffles which partition gets which.
//! Each seat has as many good places as any other.
//!
//! Only the nearest virtual node of a seat counts. For `w` of them it is found at once and not by
//! trying all: its distance is distributed as an exponential variable divided by `w`, as in
//! the straw2 buckets of Ceph's CRUSH. The logarithm is done in integers, for a floating point
//! one may differ from machine to machine, and then two nodes would disagree on who owns a key.

use xxhash_rust::xxh3::xxh3_64;

use super::{PartitionCount, Partitioner, Seat};
use crate::model::{NodeId, Seeded};

/// Consistent hashing with virtual nodes and weights: the default.
///
/// A partition is an arc of the ring, in which every seat has `weight` virtual nodes; its owners
/// are the seats as one meets them walking clockwise. The layout is fixed for ever: the vectors
/// stand in `tests/vectors.rs`.
///
/// ```
/// use turbopump::partition::{PartitionCount, Partitioner, Ring, Seat};
///
/// let seats = ["a", "b", "c"].map(|id| Seat { id: id.parse().unwrap(), weight: 1 });
/// let layout = Ring.layout(&seats, PartitionCount::default());
/// assert_eq!(layout.len(), 1_024);
/// assert_eq!(layout[0].len(), 3);
/// ```
///
/// # Balance
///
/// Copies on the fullest node over the mean, 1,024 partitions; mean and worst of 100 memberships.
/// The textbook ring has 256 virtual nodes per seat at random. `tests/placement.rs` measures and
/// holds the figures.
///
/// | Nodes | Mirrors | Fullest / mean | Worst | Textbook ring | Worst |
/// |---|---|---|---|---|---|
/// | 3 | 1 | 1.03 | 1.08 | 1.05 | 1.17 |
/// | 3 | 3 | 1.00 | 1.00 | 1.00 | 1.00 |
/// | 10 | 1 | 1.11 | 1.19 | 1.13 | 1.23 |
/// | 10 | 3 | 1.04 | 1.09 | 1.06 | 1.11 |
/// | 100 | 1 | 1.57 | 1.95 | 1.85 | 2.44 |
/// | 100 | 3 | 1.25 | 1.37 | 1.44 | 1.63 |
///
/// With few partitions per node chance weighs most: a cluster that shall grow past 100 nodes is
/// better born with more of them.
///
/// # Movement
///
/// Copies that move when one of N nodes comes or goes: its own share and nothing else.
///
/// | Nodes | Mirrors | Moved | Worst | 1/N |
/// |---|---|---|---|---|
/// | 2 to 3 | 1 | 33.5 % | 35.5 % | 33.3 % |
/// | 9 to 10 | 1 | 9.9 % | 11.8 % | 10 % |
/// | 9 to 10 | 3 | 10.0 % | 10.6 % | 10 % |
/// | 99 to 100 | 1 | 0.96 % | 1.56 % | 1 % |
/// | 99 to 100 | 3 | 0.99 % | 1.27 % | 1 % |
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ring;

/// Length of an arc as a power of two. Two seats meet in one spot once in 2^32 times; then the
/// lower id goes first.
const ARC_BITS: u32 = 32;

impl Partitioner for Ring {
    fn kind(&self) -> &'static str {
        "ring"
    }

    /// Takes about 45 ns for each seat in each partition: 5 ms for 100 nodes and 1,024 partitions.
    ///
    /// # Panics
    /// With more than 65,536 seats, for a place is an `u16`.
    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
        let mut places: Vec<u16> =
            (0..seats.len()).map(|place| u16::try_from(place).expect("at most 65,536 seats")).collect();
        places.sort_unstable_by_key(|&place| seats[usize::from(place)].id);
        let seat = |rank: usize| seats[usize::from(places[rank])];
        let tokens: Vec<Vec<u32>> = (0..seats.len()).map(|rank| tokens(seat(rank).id, partitions)).collect();

        let mut met = Vec::with_capacity(seats.len());
        let walk = |partition: usize| {
            met.clear();
            met.extend((0..seats.len()).map(|rank| {
                let token = tokens[rank][partition];
                (distance(token, seat(rank).weight), token, rank)
            }));
            met.sort_unstable();
            met.iter().map(|&(_, _, rank)| places[rank]).collect()
        };
        (0..partitions.get() as usize).map(walk).collect()
    }
}

/// Where a seat of weight 1 stands in the arc of each partition: one spot out of each of as many
/// equal stretches as there are partitions, shuffled.
fn tokens(id: NodeId, partitions: PartitionCount) -> Vec<u32> {
    let mut chance = Seeded::new(xxh3_64(id.as_str().as_bytes()));
    let stretch = (1 << ARC_BITS) / u64::from(partitions.get());
    let mut tokens: Vec<u32> = (0..u64::from(partitions.get()))
        .map(|number| (number * stretch + chance.below(stretch)) as u32)
        .collect();
    for last in (1..tokens.len()).rev() {
        tokens.swap(last, chance.below(last as u64 + 1) as usize);
    }
    tokens
}

/// How far the nearest of `weight` virtual nodes is, given where the only one would be. Not a
/// length: it orders like one. Grows with `token`, so equal weights keep the order of tokens.
fn distance(token: u32, weight: u16) -> u64 {
    let rest_of_arc = (1 << ARC_BITS) - u64::from(token);
    let exponential = (u64::from(ARC_BITS) << LOG_BITS) - log2(rest_of_arc);
    (exponential << 26) / u64::from(weight.max(1))
}

/// Bits behind the point of a logarithm.
const LOG_BITS: u32 = 32;

/// Base 2 logarithm of 1 to 2^32, by table and straight lines between. Off by less than 0.000003.
fn log2(x: u64) -> u64 {
    let whole = x.ilog2();
    let fraction = (x << (40 - whole)) & ((1 << 40) - 1);
    let (step, between) = ((fraction >> 32) as usize, fraction & ((1 << 32) - 1));
    let (low, high) = (LOG2[step], LOG2[step + 1]);
    (u64::from(whole) << LOG_BITS) + low + (((high - low) * between) >> 32)
}

/// log2(1 + i/256), by squaring: whenever the square passes 2, the next bit is 1.
const LOG2: [u64; 257] = {
    const ONE: u128 = 1 << 62;
    let mut table = [1 << LOG_BITS; 257];
    let mut i = 0;
    while i < 256 {
        let (mut square, mut log, mut bit) = (ONE + ((i as u128) << 54), 0, 1 << (LOG_BITS - 1));
        while bit > 0 {
            square = (square * square) >> 62;
            if square >= 2 * ONE {
                square >>= 1;
                log |= bit;
            }
            bit >>= 1;
        }
        table[i] = log;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the integer logarithm is one, all the way. Method: against the floating point one at
    /// powers of two, their neighbours, and random spots.
    #[test]
    fn the_logarithm_is_close_everywhere() {
        let mut chance = Seeded::new(1);
        let edges = (0..=32).flat_map(|bit| [(1u64 << bit).saturating_sub(1).max(1), 1 << bit]);
        let random = (0..10_000).map(|_| 1 + chance.below(1 << 32)).collect::<Vec<_>>();
        for x in edges.chain(random) {
            let log = log2(x) as f64 / (1u64 << LOG_BITS) as f64;
            assert!((log - (x as f64).log2()).abs() < 3e-6, "log2({x}) is not {log}");
        }
    }

    /// Goal: a seat is as lucky as any other. Method: each stretch of the arc is used once.
    #[test]
    fn a_seat_stands_once_in_each_stretch() {
        for count in [1, 2, 64, 1_024, 65_536] {
            let partitions = PartitionCount::new(count).unwrap();
            let mut stretches: Vec<u64> = tokens("a".parse().unwrap(), partitions)
                .iter()
                .map(|&token| (u64::from(token) * u64::from(count)) >> ARC_BITS)
                .collect();
            stretches.sort_unstable();
            assert!(stretches.into_iter().eq(0..u64::from(count)));
        }
    }
}
