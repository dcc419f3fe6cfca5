//! Conformance of [`Partitioner`]s: what the rest of the library relies on, over random memberships.
//!
//! ```
//! use turbopump::{partition::Ring, testing::partitioner};
//!
//! partitioner::check(|| Box::new(Ring));
//! partitioner::check_weights(|| Box::new(Ring));
//! ```

use crate::{
    model::{NodeId, Seeded},
    partition::{PartitionCount, Partitioner, Seat},
};

/// How many memberships are drawn, each with its number of partitions.
const ROUNDS: u64 = 60;

/// The most seats of a drawn membership.
const MAX_SEATS: u64 = 40;

/// By how much a seat's share of first places may miss its weight, in percent.
const WEIGHT_TOLERANCE_PERCENT: u64 = 25;

/// Checks all that every partitioner promises: each partition lists every seat exactly once; equal
/// arguments, equal answer, from any instance; the order of the seats does not matter; seats that
/// come or go leave the others in their order; few seats or none are no problem.
///
/// # Panics
/// With the promise that is broken, and the membership that shows it.
pub fn check(make: impl Fn() -> Box<dyn Partitioner>) {
    for seed in 0..ROUNDS {
        let mut chance = Seeded::new(seed);
        let seats = membership(&mut chance, seed);
        let partitions = PartitionCount::new(1 << chance.below(9)).expect("a power of two");
        let owners = complete(make().as_ref(), &seats, partitions);
        pure(&make, &seats, partitions, &owners);
        order_of_seats_is_nothing(make().as_ref(), &seats, partitions, &owners, &mut chance);
        others_keep_their_order(make().as_ref(), &seats, partitions, &owners, &mut chance);
    }
}

/// Checks that a seat of twice the weight is first owner of about twice the partitions. Apart
/// from [`check`], for a partitioner may have a reason (racks, say) to weigh otherwise.
///
/// # Panics
/// With the seat that has too much or too little.
pub fn check_weights(make: impl Fn() -> Box<dyn Partitioner>) {
    const PARTITIONS: u32 = 8_192;
    let partitions = PartitionCount::new(PARTITIONS).expect("a power of two");
    for seed in 0..8 {
        let mut chance = Seeded::new(seed);
        let scale = [1, 100][(seed % 2) as usize];
        let weights = [1, 1, 2, 3, 4].map(|weight| weight * scale);
        let seats = distinct(&mut chance, &weights);
        let total: u64 = seats.iter().map(|seat| u64::from(seat.weight)).sum();
        let owners = complete(make().as_ref(), &seats, partitions);
        for seat in &seats {
            let has = owners.iter().filter(|order| order[0] == seat.id).count() as u64;
            let due = u64::from(PARTITIONS) * u64::from(seat.weight) / total;
            assert!(
                has.abs_diff(due) * 100 <= due * WEIGHT_TOLERANCE_PERCENT,
                "weights count: seat {seat:?} of {seats:?} is first owner of {has} partitions, {due} are due"
            );
        }
    }
}

/// The layout by names, which is what must not change when places do.
type Owners = Vec<Vec<NodeId>>;

fn complete(partitioner: &dyn Partitioner, seats: &[Seat], partitions: PartitionCount) -> Owners {
    let layout = partitioner.layout(seats, partitions);
    assert_eq!(
        layout.len(),
        partitions.get() as usize,
        "every partition has its list: {} of {} are there, with {seats:?}",
        layout.len(),
        partitions.get()
    );
    for (partition, places) in layout.iter().enumerate() {
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(
            sorted.iter().map(|&place| usize::from(place)).eq(0..seats.len()),
            "each partition lists every seat exactly once: partition {partition} lists {places:?} of {seats:?}"
        );
    }
    let names = |places: Vec<u16>| places.into_iter().map(|place| seats[usize::from(place)].id).collect();
    layout.into_iter().map(names).collect()
}

fn pure(
    make: impl Fn() -> Box<dyn Partitioner>,
    seats: &[Seat],
    partitions: PartitionCount,
    owners: &Owners,
) {
    let partitioner = make();
    for attempt in ["a fresh instance", "the same instance again"] {
        let again = complete(partitioner.as_ref(), seats, partitions);
        same(owners, &again, || format!("equal arguments, equal answer: not from {attempt}, {seats:?}"));
    }
    assert_eq!(partitioner.kind(), make().kind(), "the kind is a constant");
}

fn order_of_seats_is_nothing(
    partitioner: &dyn Partitioner,
    seats: &[Seat],
    partitions: PartitionCount,
    owners: &Owners,
    chance: &mut Seeded,
) {
    let mut shuffled = seats.to_vec();
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, chance.below(last as u64 + 1) as usize);
    }
    let again = complete(partitioner, &shuffled, partitions);
    same(owners, &again, || format!("the order of seats does not matter: {seats:?} and {shuffled:?}"));
}

fn others_keep_their_order(
    partitioner: &dyn Partitioner,
    seats: &[Seat],
    partitions: PartitionCount,
    owners: &Owners,
    chance: &mut Seeded,
) {
    for _ in 0..3.min(seats.len()) {
        let gone = *chance.pick(seats);
        let rest: Vec<Seat> = seats.iter().copied().filter(|seat| seat.id != gone.id).collect();
        let mut expected = owners.clone();
        expected.iter_mut().for_each(|order| order.retain(|&id| id != gone.id));
        let after = complete(partitioner, &rest, partitions);
        same(&expected, &after, || {
            format!("seats that come or go leave the others in their order: {} of {seats:?}", gone.id)
        });
    }
}

fn same(expected: &Owners, found: &Owners, promise: impl Fn() -> String) {
    for (partition, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert!(expected == found, "{}: partition {partition} has {found:?} and not {expected:?}", promise());
    }
}

/// Small ones first, since what they show is easier to read.
fn membership(chance: &mut Seeded, round: u64) -> Vec<Seat> {
    let count = round.min(chance.below(MAX_SEATS + 1));
    let weights: Vec<u16> =
        (0..count).map(|_| if chance.percent(70) { 1 } else { 1 + chance.below(1_000) as u16 }).collect();
    distinct(chance, &weights)
}

fn distinct(chance: &mut Seeded, weights: &[u16]) -> Vec<Seat> {
    let mut seats: Vec<Seat> = Vec::new();
    while let Some(&weight) = weights.get(seats.len()) {
        let id = random_id(chance);
        if seats.iter().all(|seat| seat.id != id) {
            seats.push(Seat { id, weight });
        }
    }
    seats
}

/// Numbers as people give them, or long random names.
fn random_id(chance: &mut Seeded) -> NodeId {
    if chance.percent(50) {
        (1 + chance.below(1_000)).to_string().parse().expect("digits are allowed")
    } else {
        NodeId::from_u64(chance.next_u64())
    }
}
