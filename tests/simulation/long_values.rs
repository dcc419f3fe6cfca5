//! Values that take many pieces, and what interrupts them.

use turbopump::{
    Ack, Dot,
    testing::simulation::{Options, World, Write},
};

use crate::scenarios::{healed, key, written};

const LEN: usize = 400_000;
/// More than any of these takes, milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// On a network that is slow enough to see a value come.
fn cluster(nodes: usize) -> World {
    let mut world = World::new(Options { delay_us: 5_000, ..Options::quiet(7, nodes) });
    world.run_for(2_000);
    world
}

/// Writes a long value and stops when node 2 has fetched about a third of it.
fn under_way(world: &mut World) -> Dot {
    let dot = written(world, 0, Write::put("film", LEN).mirrors(0).ack(Ack::Local));
    for _ in 0..PATIENCE_MS {
        world.run_for(1);
        let fetches = world.stats(2).expect("it runs").fetches;
        if fetches.iter().any(|fetch| fetch.done_bytes > LEN as u64 / 3) {
            assert!(fetches[0].done_bytes < LEN as u64, "{fetches:?}");
            return dot;
        }
    }
    panic!("it is never under way: {:?}", world.stats(2));
}

/// Goal: a broken link costs no piece twice. Method: cut it in the middle of a value, mend it.
#[test]
fn after_a_broken_link_a_long_value_goes_on() {
    let mut world = cluster(3);
    let dot = under_way(&mut world);
    world.isolate(2);
    world.run_for(10_000);
    assert!(world.on_disk(2, &key("film")).is_empty());
    world.mend();
    healed(&mut world);
    assert_eq!(world.on_disk(2, &key("film")), [dot]);
    let counters = world.stats(2).unwrap().counters;
    assert!(counters.resumed_bytes > LEN as u64 / 4, "{counters:?}");
    assert!(counters.fetched_bytes < LEN as u64 * 5 / 4, "{counters:?}");
}

/// Goal: a node that crashes goes on with what it had. Method: crash the receiver in the middle of it.
#[test]
fn after_a_crash_of_its_receiver_a_long_value_goes_on() {
    let mut world = cluster(3);
    let dot = under_way(&mut world);
    world.crash(2);
    world.run_for(1_000);
    world.start(2);
    healed(&mut world);
    assert_eq!(world.on_disk(2, &key("film")), [dot]);
    let counters = world.stats(2).unwrap().counters;
    assert!(counters.resumed_bytes > 0 && counters.fetched_bytes < LEN as u64, "{counters:?}");
}

/// Goal: the same where its only source is gone for a while. Method: crash the writer.
#[test]
fn after_a_crash_of_its_source_a_long_value_goes_on() {
    let mut world = cluster(3);
    world.cut(1, 2);
    world.cut(2, 1);
    let dot = under_way(&mut world);
    world.crash(0);
    world.run_for(10_000);
    assert!(world.on_disk(2, &key("film")).is_empty(), "there is nobody to have it from");
    world.start(0);
    world.mend();
    healed(&mut world);
    assert_eq!(world.on_disk(2, &key("film")), [dot]);
    let counters = world.stats(2).unwrap().counters;
    assert!(counters.resumed_bytes > LEN as u64 / 4, "{counters:?}");
}
