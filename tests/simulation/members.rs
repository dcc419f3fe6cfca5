//! Who belongs to a cluster that was cut, left or come back to; few nodes and many.

use turbopump::{
    Standing,
    testing::simulation::{Options, Report, Violation, World},
    wire::Refusal,
};

/// More than any of these takes, milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// Few, where everybody pings everybody, and many, where it is done in turn.
const SIZES: [usize; 2] = [4, 50];

fn cluster(nodes: usize, spares: usize) -> World {
    let mut options = Options::quiet(7, nodes);
    options.spares = spares;
    let mut world = World::new(options);
    assert!(world.run_until(PATIENCE_MS, |world| are_linked(world, nodes)));
    world
}

fn are_linked(world: &World, nodes: usize) -> bool {
    (0..nodes).all(|n| (0..nodes).all(|other| n == other || world.has_link(n, other)))
}

/// Cuts the cluster into those with even numbers and those with odd ones.
fn halve(world: &mut World) {
    let all = world.options().nodes + world.options().spares;
    for (even, odd) in (0..all).step_by(2).flat_map(|even| (1..all).step_by(2).map(move |odd| (even, odd))) {
        world.cut(even, odd);
        world.cut(odd, even);
    }
}

/// Goal: a node that nobody heard for an hour finds its way back. Method: isolate, wait, mend.
#[test]
fn an_isolated_node_finds_its_way_back() {
    for nodes in SIZES {
        let mut world = cluster(nodes, 0);
        world.isolate(1);
        let is_alone = |world: &World| (0..nodes).all(|n| !world.has_link(1, n) && !world.has_link(n, 1));
        assert!(world.run_until(PATIENCE_MS, is_alone), "{nodes} nodes");
        world.run_for(3_600_000 / nodes as u64);
        world.mend();
        assert!(world.run_until(PATIENCE_MS, |world| are_linked(world, nodes)), "{nodes} nodes");
    }
}

/// Goal: two halves that each took in somebody become one cluster. Method: cut, join on both sides
/// and remove on one, mend.
#[test]
fn halves_that_took_in_others_become_one() {
    for nodes in SIZES {
        let mut world = cluster(nodes, 2);
        halve(&mut world);
        world.run_for(10_000);
        world.join(nodes, 0);
        world.join(nodes + 1, 1);
        world.remove(3, 1);
        world.run_for(10_000);
        assert_ne!(world.members(0), world.members(1));
        world.mend();
        world.settle().unwrap();
        let list = world.members(0).unwrap();
        assert_eq!(list.present().count(), nodes + 1);
        assert!(!list.contains(world.id(3)));
    }
}

/// Goal: whoever was removed while it was away is told when it returns, and stays out. Method: crash,
/// remove, start.
#[test]
fn a_removed_node_that_returns_is_told() {
    for nodes in SIZES {
        let mut world = cluster(nodes, 0);
        world.crash(3);
        world.run_for(5_000);
        world.remove(3, 0);
        world.run_for(5_000);
        world.start(3);
        assert!(world.run_until(PATIENCE_MS, |world| world.was_refused(3, Refusal::RemovedNode)));
        assert!((0..3).all(|n| !world.members(n).unwrap().contains(world.id(3))));
    }
}

/// Goal: whoever is removed while it runs is told at once. Method: remove, look.
#[test]
fn a_node_that_is_removed_is_told() {
    let mut world = cluster(4, 0);
    assert_eq!(world.stats(3).unwrap().standing, Standing::Member);
    world.remove(3, 0);
    world.run_for(1_000);
    assert_eq!(world.stats(3).unwrap().standing, Standing::Removed);
}

/// Members that meet again after one of them removed a node which another one has news of.
pub fn removal_meets_later_news(seed: u64) -> Result<Report, Violation> {
    let mut world = World::new(Options::quiet(seed, 4));
    world.run_for(2_000);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut(a, b);
        world.cut(b, a);
    }
    world.remove(3, 0);
    world.run_for(5_000);
    // It comes back with an entry of a higher revision, and only node 2 hears of it.
    world.crash(3);
    world.start(3);
    world.run_for(5_000);
    world.mend();
    world.settle()?;
    Ok(world.report())
}

/// Goal: removal wins over stale gossip, and over news that are younger than it. Method: the
/// removed node restarts on the other side of a cut.
#[test]
fn a_removed_member_is_not_brought_back() {
    removal_meets_later_news(7).unwrap();
}
