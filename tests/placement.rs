//! Placement: the promises of every partitioner, and how evenly the ring spreads.
//!
//! `cargo test --release --features testing --test placement -- --nocapture` prints the figures that stand in
//! the docs of `Ring`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use turbopump::{
    model::Seeded,
    partition::{Everywhere, PartitionCount, Partitioner, Ring, Seat},
    testing::partitioner,
};
use xxhash_rust::xxh3::xxh3_64;

/// Memberships per figure. Without optimization a fifth of them, for the time it takes.
const MEMBERSHIPS: u64 = if cfg!(debug_assertions) { 20 } else { 100 };

#[test]
fn the_ring_keeps_its_promises() {
    partitioner::check(|| Box::new(Ring));
    partitioner::check_weights(|| Box::new(Ring));
}

#[test]
fn clone_mode_keeps_its_promises() {
    partitioner::check(|| Box::new(Everywhere));
    partitioner::check_weights(|| Box::new(Everywhere));
    assert!(Everywhere.everywhere());
    assert!(!Ring.everywhere());
}

/// Goal: the figures of balance in the docs. Method: many memberships of each size, named as people
/// name nodes; for each its fullest node over the mean. The textbook ring stands beside it.
#[test]
fn no_node_holds_much_more_than_the_mean() {
    println!("fullest node / mean, 1,024 partitions: mean and worst of {MEMBERSHIPS} memberships");
    println!("nodes  mirrors  ring            textbook ring, 256 virtual nodes");
    let bounds = [
        (3, 1, 1.05, 1.15),
        (3, 3, 1.00, 1.00),
        (10, 1, 1.15, 1.30),
        (10, 3, 1.10, 1.15),
        (100, 1, 1.80, 2.20),
        (100, 3, 1.35, 1.55),
    ];
    for (nodes, mirrors, mean_bound, worst_bound) in bounds {
        let textbook = balance(&TextbookRing(256), nodes, mirrors);
        let (mean, worst) = balance(&Ring, nodes, mirrors);
        println!("{nodes:5}  {mirrors:7}  {mean:.2} ({worst:.2})     {:.2} ({:.2})", textbook.0, textbook.1);
        assert!(
            mean <= mean_bound && worst <= worst_bound,
            "{nodes} nodes, {mirrors} mirrors: {mean} {worst}"
        );
    }
}

fn balance(partitioner: &dyn Partitioner, nodes: usize, mirrors: usize) -> (f64, f64) {
    let fullest: Vec<f64> = (0..MEMBERSHIPS)
        .map(|round| {
            let held = held(partitioner, &named(round, nodes), mirrors);
            let mean = held.iter().sum::<usize>() as f64 / nodes as f64;
            *held.iter().max().unwrap() as f64 / mean
        })
        .collect();
    (fullest.iter().sum::<f64>() / MEMBERSHIPS as f64, fullest.into_iter().fold(0.0, f64::max))
}

fn held(partitioner: &dyn Partitioner, seats: &[Seat], mirrors: usize) -> Vec<usize> {
    let mut held = vec![0; seats.len()];
    for order in partitioner.layout(seats, PartitionCount::default()) {
        order.iter().take(mirrors).for_each(|&place| held[usize::from(place)] += 1);
    }
    held
}

/// `1 2 3`, then `a-1 a-2 a-3` and so on.
fn named(round: u64, nodes: usize) -> Vec<Seat> {
    let prefix = if round == 0 { String::new() } else { format!("n{round}-") };
    (1..=nodes).map(|n| Seat { id: format!("{prefix}{n}").parse().unwrap(), weight: 1 }).collect()
}

/// The ring as Karger et al. drew it, to compare: so many virtual nodes anywhere on one ring,
/// partitions at equal distances, and a walk that collects distinct seats.
#[derive(Debug)]
struct TextbookRing(u32);

impl Partitioner for TextbookRing {
    fn kind(&self) -> &'static str {
        "textbook"
    }

    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
        let mut ring: Vec<(u64, Seat, u16)> = Vec::new();
        for (place, seat) in seats.iter().enumerate() {
            let tokens = 0..self.0 * u32::from(seat.weight);
            ring.extend(
                tokens.map(|t| (xxh3_64(format!("{}/{t}", seat.id).as_bytes()), *seat, place as u16)),
            );
        }
        ring.sort_unstable_by_key(|&(token, seat, _)| (token, seat.id));
        let walk = |partition| {
            let (low, _) = partitions.bounds(partition);
            let start = ring.partition_point(|&(token, ..)| token < low);
            let mut met = vec![false; seats.len()];
            let mut order = Vec::new();
            for &(_, _, place) in ring[start..].iter().chain(&ring[..start]) {
                if !std::mem::replace(&mut met[usize::from(place)], true) {
                    order.push(place);
                    if order.len() == seats.len() {
                        break;
                    }
                }
            }
            order
        };
        partitions.all().map(walk).collect()
    }
}

/// Goal: the figures of movement in the docs. Method: one more joins, and every copy that is on
/// another node than before has moved; a leave is the same read backwards.
#[test]
fn one_of_n_moves_about_its_share() {
    println!(
        "share of copies that move when one joins, 1,024 partitions: mean and worst of {MEMBERSHIPS}, ideal"
    );
    for (nodes, mirrors) in [(2, 1), (9, 1), (99, 1), (3, 3), (9, 3), (99, 3)] {
        let moved: Vec<f64> =
            (0..MEMBERSHIPS).map(|round| moved(&named(round, nodes + 1), mirrors)).collect();
        let mean = moved.iter().sum::<f64>() / MEMBERSHIPS as f64;
        let worst = moved.iter().copied().fold(0.0, f64::max);
        let ideal = 1.0 / (nodes + 1) as f64;
        println!("{nodes:3} + 1, {mirrors} mirrors: {mean:.4} ({worst:.4}), ideal {ideal:.4}");
        assert!((mean / ideal - 1.0).abs() < 0.05, "{nodes} nodes, {mirrors} mirrors: {mean}");
        assert!(worst / ideal < 2.2, "{nodes} nodes, {mirrors} mirrors: {worst}");
    }
}

fn moved(seats: &[Seat], mirrors: usize) -> f64 {
    let before = Ring.layout(&seats[..seats.len() - 1], PartitionCount::default());
    let after = Ring.layout(seats, PartitionCount::default());
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (&before[..mirrors.min(before.len())], &after[..mirrors]);
        moved += after.iter().filter(|place| !before.contains(place)).count();
    }
    moved as f64 / (after.len() * mirrors) as f64
}

/// Goal: the first owners that a lost node leaves are spread over all others and not dumped on
/// one. Method: the second places of the partitions that one node is first in.
#[test]
fn the_load_of_a_lost_node_is_shared_by_all_others() {
    let seats = named(0, 10);
    for lost in 0..10u16 {
        let mut heirs = [0; 10];
        for order in Ring.layout(&seats, PartitionCount::default()).iter().filter(|order| order[0] == lost) {
            heirs[usize::from(order[1])] += 1;
        }
        let (most, total) = (heirs.iter().max().unwrap(), heirs.iter().sum::<i32>());
        assert!(most * 9 < total * 25 / 10, "of {total} partitions of {lost}, one heir has {most}");
    }
}

/// Goal: weights count at the ends of their range too. Method: the least against the greatest.
#[test]
fn a_seat_of_the_least_weight_gets_little_beside_the_greatest() {
    let seats =
        [("light", 1), ("heavy", u16::MAX)].map(|(id, weight)| Seat { id: id.parse().unwrap(), weight });
    let held = held(&Ring, &seats, 1);
    assert!(held[0] <= 1, "the light one is first in {} of 1,024", held[0]);
}

/// Goal: a change of members never stalls a node. Method: a thousand nodes, by the clock, with room
/// for slow machines and builds without optimization.
#[test]
fn a_layout_of_a_thousand_nodes_is_done_in_bounded_time() {
    for nodes in [100, 1_000] {
        let seats = named(0, nodes);
        let start = std::time::Instant::now();
        let layout = Ring.layout(&seats, PartitionCount::default());
        let took = start.elapsed();
        println!("layout of {nodes} nodes x 1,024 partitions: {took:?}");
        assert_eq!(layout[1_023].len(), nodes);
        assert!(took.as_secs() < 10, "{nodes} nodes took {took:?}");
    }
}

/// Goal: the suite is worth something. Method: partitioners that break one promise each are caught
/// with that promise.
#[test]
fn the_suite_catches_who_breaks_a_promise() {
    caught("every partition has its list", |_, _| Vec::new());
    caught("lists every seat exactly once", |seats, partitions| {
        partitions.all().map(|_| vec![0; seats.len()]).collect()
    });
    caught("the order of seats does not matter", |seats, partitions| {
        partitions.all().map(|_| (0..seats.len() as u16).collect()).collect()
    });
    caught("leave the others in their order", |seats, partitions| {
        let mut order: Vec<u16> = (0..seats.len() as u16).collect();
        order.sort_by_key(|&place| seats[usize::from(place)].id);
        let rotated = |p: u32| {
            let mut order = order.clone();
            order.rotate_left(p as usize % seats.len().max(1));
            order
        };
        (0..partitions.get()).map(rotated).collect()
    });
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    caught("equal arguments, equal answer", |seats, partitions| {
        let mut chance = Seeded::new(CALLS.fetch_add(1, Ordering::Relaxed) as u64);
        let mut order: Vec<u16> = (0..seats.len() as u16).collect();
        order.sort_by_key(|_| chance.next_u64());
        partitions.all().map(|_| order.clone()).collect()
    });
    caught("weights count", |seats, partitions| {
        let equal: Vec<Seat> = seats.iter().map(|seat| Seat { weight: 1, ..*seat }).collect();
        Ring.layout(&equal, partitions)
    });
}

type Layout = fn(&[Seat], PartitionCount) -> Vec<Vec<u16>>;

#[derive(Debug)]
struct Broken(Layout);

impl Partitioner for Broken {
    fn kind(&self) -> &'static str {
        "broken"
    }

    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
        (self.0)(seats, partitions)
    }
}

fn caught(promise: &str, layout: Layout) {
    let run = || {
        partitioner::check(|| Box::new(Broken(layout)));
        partitioner::check_weights(|| Box::new(Broken(layout)));
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err(promise);
    let told = panic.downcast_ref::<String>().expect("a text");
    assert!(told.contains(promise), "{promise:?} was broken, this was told: {told}");
}
