//! Named cases about what is deleted for good, and about nodes that come back with what was.

use turbopump::{
    Ack,
    model::Mirrors,
    testing::simulation::{Options, World, Write},
};

use crate::scenarios::{alive, cluster, healed, key, written};

/// More than it takes to bury what all agree on, milliseconds.
const BURIAL_MS: u64 = 15_000;

/// Lets time go by until no node has a trace of a key.
fn buried(world: &mut World, name: &str) {
    let nodes = 0..world.options().nodes;
    let is_gone = |world: &World| nodes.clone().all(|n| world.on_disk(n, &key(name)).is_empty());
    assert!(world.run_until(BURIAL_MS, is_gone), "{:?}", world.violation());
}

/// Goal: a deleted key leaves nothing behind. Method: delete it, look at all disks.
#[test]
fn a_deleted_key_leaves_no_trace() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    written(&mut world, 1, Write::delete("a").ack(Ack::All));
    assert!((0..3).all(|n| world.on_disk(n, &key("a")).len() == 1));
    buried(&mut world, "a");
    healed(&mut world);
}

/// Goal: a value whose time is over is removed from all disks. Method: a short time to live.
#[test]
fn an_expired_value_is_removed() {
    let mut world = cluster(3);
    let write = Write { ttl_ms: Some(2_000), ..Write::put("a", 20).ack(Ack::All) };
    written(&mut world, 0, write);
    world.run_for(1_000);
    assert!((0..3).all(|n| world.on_disk(n, &key("a")).len() == 1), "not before its time");
    buried(&mut world, "a");
    healed(&mut world);
}

/// Goal: nothing goes while a member has not agreed, however long it is away. Method: hours.
#[test]
fn a_tombstone_waits_for_a_member_that_is_away() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    world.crash(1);
    let deleted = written(&mut world, 0, Write::delete("a").ack(Ack::Quorum));
    world.run_for(3 * 3_600_000);
    assert!([0, 2].iter().all(|n| world.on_disk(*n, &key("a")) == [deleted]));
    let stats = world.stats(0).unwrap();
    assert_eq!(stats.burial_waits_for.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["n1"]);
    world.start(1);
    buried(&mut world, "a");
    healed(&mut world);
}

/// Goal: a member that is gone for good blocks only until it is removed. Method: remove it.
#[test]
fn a_removed_member_is_not_waited_for() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    world.crash(1);
    written(&mut world, 0, Write::delete("a").ack(Ack::Quorum));
    world.run_for(10_000);
    assert!(!world.on_disk(0, &key("a")).is_empty());
    world.remove(1, 0);
    let is_gone = |world: &World| [0, 2].iter().all(|n| world.on_disk(*n, &key("a")).is_empty());
    assert!(world.run_until(BURIAL_MS, is_gone));
    healed(&mut world);
}

/// Goal: an old copy of a disk brings nothing back of which no trace is left. Method: restore it.
#[test]
fn a_restored_copy_brings_nothing_back_that_left_no_trace() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    let kept = written(&mut world, 0, Write::put("b", 20).ack(Ack::All));
    world.run_for(2_000);
    world.back_up(2);
    written(&mut world, 0, Write::delete("a").ack(Ack::All));
    buried(&mut world, "a");
    world.restore(2);
    world.start(2);
    assert_eq!(world.on_disk(2, &key("a")).len(), 1, "it is back on this disk");
    healed(&mut world);
    assert!((0..3).all(|n| world.on_disk(n, &key("a")).is_empty()));
    assert_eq!(alive(&mut world, 2, "b"), [kept]);
    assert_eq!(world.stats(2).unwrap().counters.ghosts_dropped, 1);
}

/// Goal: a restored copy whose node crashes while it is checked is not believed after that either.
#[test]
fn a_restored_copy_stays_in_doubt_across_restarts() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    world.run_for(2_000);
    world.back_up(2);
    written(&mut world, 0, Write::delete("a").ack(Ack::All));
    buried(&mut world, "a");
    world.restore(2);
    // One of those who know is away: the check can't end.
    world.crash(1);
    for _ in 0..5 {
        world.start(2);
        world.run_for(3_000);
        world.crash(2);
    }
    assert!(world.on_disk(0, &key("a")).is_empty());
    world.start(1);
    healed(&mut world);
    assert!((0..3).all(|n| world.on_disk(n, &key("a")).is_empty()));
}

/// Goal: where a restored copy is all that is left, it is kept. Method: the only owner is restored.
#[test]
fn a_restored_copy_that_nobody_else_could_know_is_kept() {
    let mut world = cluster(3);
    let owner = (0..3).find(|n| world.owns(*n, &key("a"), Mirrors(1))).unwrap();
    let kept = written(&mut world, owner, Write::put("a", 20).mirrors(1));
    world.run_for(3_000);
    world.back_up(owner);
    written(&mut world, 0, Write::put("b", 20).ack(Ack::All));
    written(&mut world, 0, Write::delete("b").ack(Ack::All));
    buried(&mut world, "b");
    world.restore(owner);
    world.start(owner);
    healed(&mut world);
    assert_eq!(alive(&mut world, owner, "a"), [kept]);
}

/// Goal: what a member had when it was removed does not come back with it. Method: remove, delete,
/// bury, add again.
#[test]
fn a_member_that_is_added_again_brings_nothing_back() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    let kept = written(&mut world, 0, Write::put("b", 20).ack(Ack::All));
    world.isolate(2);
    world.remove(2, 0);
    written(&mut world, 0, Write::delete("a").ack(Ack::All));
    let is_gone = |world: &World| [0, 1].iter().all(|n| world.on_disk(*n, &key("a")).is_empty());
    assert!(world.run_until(BURIAL_MS, is_gone));
    assert_eq!(world.on_disk(2, &key("a")).len(), 1);
    world.add_again(2, 1);
    world.mend();
    healed(&mut world);
    assert!((0..3).all(|n| world.on_disk(n, &key("a")).is_empty()));
    assert_eq!(alive(&mut world, 2, "b"), [kept]);
}

/// Goal: a copy that a node holds for an owner who was away does not outlive the delete. Method: the
/// holder is cut off while the owners delete and would bury.
#[test]
fn a_copy_held_for_others_does_not_outlive_the_delete() {
    let mut world = cluster(5);
    let holder = (0..5).find(|n| !world.owns(*n, &key("a"), Mirrors(2))).unwrap();
    world.isolate(holder);
    written(&mut world, holder, Write::put("a", 20).mirrors(2));
    let other = (holder + 1) % 5;
    written(&mut world, other, Write::put("a", 20).mirrors(2).ack(Ack::All));
    written(&mut world, other, Write::delete("a").mirrors(2).ack(Ack::All));
    world.run_for(BURIAL_MS);
    world.mend();
    healed(&mut world);
    // It was written beside the delete, by somebody who did not know: it stands.
    assert_eq!(alive(&mut world, other, "a").len(), 1);
    written(&mut world, other, Write::delete("a").mirrors(2).ack(Ack::All));
    buried(&mut world, "a");
    healed(&mut world);
}

/// Goal: a node that leaves gives away all it holds before it is no member. Method: with keys of one
/// mirror, writes while it leaves, and a restart in the middle.
#[test]
fn a_node_that_leaves_loses_nothing() {
    let mut world = World::new(Options::quiet(7, 4));
    world.run_for(2_000);
    let name = |i: usize| format!("key {i}");
    for i in 0..60 {
        let mirrors = [1, 2, 3, 0][i % 4];
        written(&mut world, i % 4, Write::put(&name(i), 50).mirrors(mirrors));
    }
    world.leave(3);
    world.run_for(5);
    world.crash(3);
    world.start(3);
    for i in 60..80 {
        written(&mut world, i % 3, Write::put(&name(i), 50).mirrors(1));
    }
    let has_left = |world: &World| (0..80).all(|i| world.on_disk(3, &key(&name(i))).is_empty());
    assert!(world.run_until(60_000, has_left));
    healed(&mut world);
    for i in 0..80 {
        assert_eq!(alive(&mut world, 0, &name(i)).len(), 1, "{}", name(i));
    }
    assert!(world.write(3, Write::put("late", 9)).is_none_or(|op| !world.is_acknowledged(op)));
}
