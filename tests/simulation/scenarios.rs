//! Named cases: what a person would try first to break a cluster.
//!
//! Each ends with `settle`: the faults end, the cluster has to come right, every promise is checked.

use std::time::Duration;

use turbopump::{
    Ack, Dot, Key, Read,
    core::{OpId, Outcome},
    model::Mirrors,
    testing::simulation::{Fault, Options, Replaces, Report, Violation, World, Write, run_once},
};

/// More than any of these takes, milliseconds.
const PATIENCE_MS: u64 = 60_000;

pub fn cluster(nodes: usize) -> World {
    let mut world = World::new(Options::quiet(7, nodes));
    world.run_for(2_000);
    world
}

pub fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// Writes and waits until it is acknowledged. Gives its name.
pub fn written(world: &mut World, n: usize, write: Write) -> Dot {
    let op = world.write(n, write).unwrap();
    assert!(world.run_until(PATIENCE_MS, |w| w.outcome(op).is_some()), "{:?}", world.violation());
    match world.outcome(op) {
        Some(Outcome::Written(Ok(written))) => written.version,
        other => panic!("{other:?}"),
    }
}

/// Reads from all owners and gives the names of what is alive.
pub fn alive(world: &mut World, n: usize, name: &str) -> Vec<Dot> {
    let op = world.read(n, 0, &key(name), Read::All).unwrap();
    assert!(world.run_until(PATIENCE_MS, |w| w.outcome(op).is_some()));
    match world.outcome(op) {
        Some(Outcome::Read(Ok(found))) => found.siblings.live(u64::MAX >> 1).map(|r| r.version.dot).collect(),
        other => panic!("{other:?}"),
    }
}

pub fn healed(world: &mut World) {
    if let Err(violation) = world.settle() {
        panic!("{violation:?}");
    }
}

pub fn outsider(world: &World, name: &str, mirrors: u16) -> usize {
    (0..7).find(|n| !world.owns(*n, &key(name), Mirrors(mirrors))).unwrap()
}

/// Goal: a write that meets a partition reaches the other side later. Method: cut, write, mend.
#[test]
fn a_write_during_a_partition_reaches_the_other_side() {
    let mut world = cluster(3);
    world.isolate(2);
    let dot = written(&mut world, 0, Write::put("a", 20).ack(Ack::Quorum));
    assert!(world.on_disk(2, &key("a")).is_empty());
    healed(&mut world);
    assert_eq!(world.on_disk(2, &key("a")), [dot]);
}

/// Goal: two sides that wrote alone keep both writes, and a later one settles them. Method: halves.
#[test]
fn two_halves_that_grew_apart_merge() {
    let mut world = cluster(4);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut(a, b);
        world.cut(b, a);
    }
    for i in 0..30 {
        written(&mut world, i % 4, Write::put(&format!("key {}", i / 4), 30).mirrors(0));
    }
    world.mend();
    healed(&mut world);
    assert_eq!(alive(&mut world, 0, "key 1").len(), 2, "one of each half");
    let settled = written(&mut world, 3, Write::put("key 1", 9).mirrors(0));
    healed(&mut world);
    assert_eq!(alive(&mut world, 0, "key 1"), [settled]);
}

/// Goal: what was acknowledged survives the writer's crash; what was not may go. Method: crash
/// right after the acknowledgement, and right after the submit.
#[test]
fn a_crash_keeps_what_was_acknowledged() {
    let mut world = cluster(3);
    world.isolate(0);
    let safe = written(&mut world, 0, Write::put("safe", 20));
    let open = world.write(0, Write::put("open", 20)).unwrap();
    world.crash(0);
    assert!(!world.is_acknowledged(open));
    healed(&mut world);
    assert_eq!(alive(&mut world, 1, "safe"), [safe]);
}

/// Goal: a lost disk fills up again, and its node names no write twice. Method: lose it, write on.
#[test]
fn a_lost_disk_with_the_same_id_heals() {
    let mut world = cluster(3);
    let dots: Vec<Dot> = (0..40)
        .map(|i| written(&mut world, i % 3, Write::put(&format!("key {i}"), 40).ack(Ack::All)))
        .collect();
    world.lose_disk(1, true);
    world.start(1);
    written(&mut world, 1, Write::put("key 1", 40).replacing(Replaces::Nothing));
    healed(&mut world);
    assert_eq!(world.on_disk(1, &key("key 4")), [dots[4]]);
    assert_eq!(alive(&mut world, 0, "key 1").len(), 2, "the old node's write and the new one's");
}

/// Goal: an old copy of a disk brings nothing back. Method: back up, delete, restore.
#[test]
fn a_restored_old_copy_brings_nothing_back() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    let kept = written(&mut world, 0, Write::put("b", 20).ack(Ack::All));
    world.back_up(2);
    written(&mut world, 0, Write::delete("a").ack(Ack::All));
    world.restore(2);
    world.start(2);
    healed(&mut world);
    assert_eq!(alive(&mut world, 2, "a"), []);
    assert_eq!(alive(&mut world, 2, "b"), [kept]);
}

/// Goal: a delete reaches a node that was away, whose copy does not come back. Method: crash it.
#[test]
fn a_delete_while_a_node_is_away_holds() {
    let mut world = cluster(3);
    written(&mut world, 0, Write::put("a", 20).ack(Ack::All));
    world.crash(1);
    written(&mut world, 0, Write::delete("a").ack(Ack::Quorum));
    world.run_for(86_400_000);
    healed(&mut world);
    assert_eq!(alive(&mut world, 1, "a"), []);
}

/// Goal: clocks decide on nothing but expiry. Method: a day forward, a day back, restarts between.
#[test]
fn jumping_clocks_lose_nothing() {
    let mut world = cluster(3);
    let day_ms = 86_400_000;
    let mut last = None;
    for (round, jump) in [day_ms, -2 * day_ms, day_ms].into_iter().enumerate() {
        world.jump(round, jump);
        world.crash(round);
        world.start(round);
        assert!(world.run_until(PATIENCE_MS, |_| true));
        world.run_for(10_000);
        last = Some(written(&mut world, round, Write::put("a", 20).ack(Ack::All)));
    }
    healed(&mut world);
    assert_eq!(alive(&mut world, 0, "a"), [last.unwrap()]);
}

/// Goal: a writer that owns no copy keeps none, and loses none. Method: write there, owners away.
#[test]
fn a_writer_that_is_no_owner_hands_off() {
    let mut world = cluster(7);
    let writer = outsider(&world, "a", 2);
    let owners: Vec<usize> = (0..7).filter(|n| world.owns(*n, &key("a"), Mirrors(2))).collect();
    owners.iter().for_each(|n| world.crash(*n));
    let dot = written(&mut world, writer, Write::put("a", 20).mirrors(2));
    world.run_for(30_000);
    assert_eq!(world.on_disk(writer, &key("a")), [dot], "nobody else has it");
    healed(&mut world);
    assert_eq!(world.on_disk(writer, &key("a")), []);
    assert!(owners.iter().all(|n| world.on_disk(*n, &key("a")) == [dot]));
}

/// Goal: values longer than a frame get through a bad network whole. Method: 30 % loss.
#[test]
fn large_values_cross_a_lossy_network() {
    let mut options = Options::quiet(7, 3);
    (options.drop_percent, options.duplicate_percent, options.jitter_us) = (30, 10, 20_000);
    let mut world = World::new(options);
    world.run_for(5_000);
    let ops: Vec<OpId> =
        (0..5).map(|i| world.write(i % 3, Write::put(&format!("key {i}"), 50_000)).unwrap()).collect();
    world.run_for(20_000);
    assert!(ops.iter().all(|op| world.is_acknowledged(*op)));
    healed(&mut world);
}

/// Goal: fewer mirrors than before leave no old copy that goes round for ever. Method: one owner is
/// away while a key that lived on all nodes comes to live on one.
#[test]
fn fewer_mirrors_leave_no_old_copies() {
    let mut world = cluster(7);
    written(&mut world, 0, Write::put("a", 20).mirrors(0).ack(Ack::All));
    let away = outsider(&world, "a", 1);
    world.isolate(away);
    world.run_for(10_000);
    let dot = written(&mut world, (away + 1) % 7, Write::put("a", 20).mirrors(1).ack(Ack::All));
    world.run_for(10_000);
    world.mend();
    healed(&mut world);
    let holders: Vec<usize> = (0..7).filter(|n| world.on_disk(*n, &key("a")) == [dot]).collect();
    assert_eq!(holders.len(), 1);
    assert!((0..7).all(|n| holders.contains(&n) || world.on_disk(n, &key("a")).is_empty()));
}

/// Goal: nodes that come and go move what they own. Method: join two, remove one, under writes.
#[test]
fn joining_and_leaving_moves_the_copies() {
    let mut options = Options::quiet(7, 3);
    options.spares = 2;
    let mut world = World::new(options);
    world.run_for(2_000);
    for i in 0..60 {
        if i == 20 {
            world.join(3, 0);
        } else if i == 30 {
            world.join(4, 1);
        } else if i == 50 {
            world.remove(2, 0);
        }
        written(&mut world, i % 2, Write::put(&format!("key {i}"), 50).ack(Ack::Quorum).mirrors(2));
    }
    healed(&mut world);
}

/// Goal: silent damage is mended though nobody reads. Method: rot short and long values, wait.
#[test]
fn damage_is_found_and_mended_without_a_reader() {
    let mut options = Options::quiet(7, 3);
    options.config.scrub_interval = Duration::from_millis(10);
    let mut world = World::new(options);
    world.run_for(2_000);
    for i in 0..4 {
        written(&mut world, i % 3, Write::put(&format!("key {i}"), 40_000 * i + 20).ack(Ack::All));
    }
    for chance in 0..8 {
        world.rot(1, (chance << 32) + chance);
    }
    assert!(world.is_rotten(1));
    assert!(world.run_until(PATIENCE_MS, |w| !w.is_rotten(1)), "{:?}", world.stats(1));
    let counters = world.stats(1).unwrap().counters;
    assert_eq!((counters.damage_found, counters.damage_mended), (4, 4), "{counters:?}");
    world.run_for(10_000);
    let counters = world.stats(1).unwrap().counters;
    assert!(counters.scrubbed >= 4 && counters.damage_found == 4, "all are whole now: {counters:?}");
    healed(&mut world);
}

/// Goal: what is known of a key may be longer than a frame. Method: 120 restarts of its writer, each a new
/// name in its context, so that one version alone is too long; then thirty siblings, half of them on each
/// side of a partition. A node that is no owner reads them all.
#[test]
fn a_key_with_many_writers_and_siblings_spreads_and_is_read_by_quorum() {
    const RESTARTS: usize = 120;
    const SIBLINGS: usize = 30;
    let mut world = World::new(Options { max_frame_bytes: 1_200, ..Options::quiet(7, 4) });
    world.run_for(2_000);
    let owners: Vec<usize> = (0..4).filter(|n| world.owns(*n, &key("a"), Mirrors(3))).collect();
    let (left, right) = (owners[0], owners[2]);
    let reader = (0..4).find(|n| !owners.contains(n)).unwrap();
    for _ in 0..RESTARTS {
        world.crash(left);
        world.start(left);
        world.run_for(2_000);
        written(&mut world, left, Write::put("a", 200).ack(Ack::Quorum));
    }
    // Clients that read the same, and then write without knowing of each other.
    for client in 0..SIBLINGS {
        let op = world.read(left, client, &key("a"), Read::Quorum).unwrap();
        assert!(world.run_until(PATIENCE_MS, |w| w.outcome(op).is_some()));
    }
    world.isolate(right);
    let mut dots: Vec<Dot> = (0..SIBLINGS)
        .map(|client| {
            let n = if client % 2 == 0 { left } else { right };
            let write = Write::put("a", 200).replacing(Replaces::WhatTheClientRead);
            written(&mut world, n, Write { client, ..write })
        })
        .collect();
    world.run_for(5_000);
    assert_eq!(world.on_disk(owners[1], &key("a")).len(), SIBLINGS / 2);
    world.mend();
    let has_all = |w: &World, n: usize| w.on_disk(n, &key("a")).len() == SIBLINGS;
    assert!(world.run_until(PATIENCE_MS, |w| owners.iter().all(|n| has_all(w, *n))));

    let op = world.read(reader, SIBLINGS, &key("a"), Read::Quorum).unwrap();
    assert!(world.run_until(PATIENCE_MS, |w| w.outcome(op).is_some()));
    let Some(Outcome::Read(Ok(found))) = world.outcome(op) else { panic!("{:?}", world.outcome(op)) };
    let mut read: Vec<Dot> = found.siblings.live(u64::MAX >> 1).map(|r| r.version.dot).collect();
    read.sort_unstable();
    dots.sort_unstable();
    assert_eq!(read, dots);
    let ranges = |dot| found.siblings.find(dot).unwrap().version.context.ranges().len();
    assert!(dots.iter().all(|dot| ranges(*dot) >= RESTARTS), "each names all that wrote before");
    healed(&mut world);
}

/// Goal: a reader that is no owner gets more long siblings than it may fetch at once. Method: a limit of
/// two, and twelve values longer than a frame.
#[test]
fn more_long_siblings_are_read_than_are_fetched_at_once() {
    let mut options = Options::quiet(7, 4);
    options.config.max_transfers = 2;
    let mut world = World::new(options);
    world.run_for(2_000);
    let reader = (0..4).find(|n| !world.owns(*n, &key("a"), Mirrors(3))).unwrap();
    let mut dots: Vec<Dot> = (0..12)
        .map(|_| {
            let write = Write::put("a", 5_000).replacing(Replaces::Nothing).ack(Ack::All);
            written(&mut world, (reader + 1) % 4, write)
        })
        .collect();
    let mut read = alive(&mut world, reader, "a");
    read.sort_unstable();
    dots.sort_unstable();
    assert_eq!(read, dots);
    healed(&mut world);
}

/// A random run without sync, and with no faults but those that owed copies make good alone. A key
/// whose spread changes needs sync: who owned little of it does not know what the others missed. So
/// does the last trace of a deleted one, which some let go of and others did not.
pub fn without_sync(seed: u64) -> Result<Report, Violation> {
    use Fault::{ClockJump, Cut, Pause, SlowDisk};
    let mut options = Options::draw(seed);
    (options.config.active_sync, options.config.max_owed_per_peer) = (false, 100_000);
    (options.mixed_mirrors, options.nodes) = (false, options.nodes.max(2));
    (options.delete_percent, options.ttl_percent) = (0, 0);
    options.faults.retain(|fault| matches!(fault, Pause | Cut | ClockJump | SlowDisk));
    run_once(options, false)
}

/// Goal: what a peer was away for is owed to it, and that alone is enough while no process dies.
/// Method: random runs without sync.
#[test]
fn owed_copies_converge_without_sync() {
    let failures: Vec<_> = (0..100).filter_map(|seed| Some((seed, without_sync(seed).err()?))).collect();
    assert!(failures.is_empty(), "{failures:?}");
}
