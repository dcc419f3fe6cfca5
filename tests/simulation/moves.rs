//! Keys that move while they are read: who owns them has changed, and the copies are on their way.

use std::{collections::BTreeMap, time::Duration};

use turbopump::{
    Ack, Read,
    core::{OpId, Outcome},
    model::Mirrors,
    testing::simulation::{Options, World, Write},
};

use crate::scenarios::{healed, key, written};

const KEYS: usize = 40;

/// What became of the reads of one world.
#[derive(Default, Debug)]
struct Told {
    found: usize,
    absent: Vec<String>,
    failed: usize,
}

fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(|i| format!("key {i}"))
}

/// A cluster that moves slowly: one copy at a time to each peer, over a network and disks that take long.
fn slow_movers(seed: u64, nodes: usize, spares: usize, mirrors: u16) -> World {
    let mut options = Options { spares, ..Options::quiet(seed, nodes) };
    options.config.mirrors = Mirrors(mirrors);
    options.config.max_flights_per_peer = 1;
    options.config.sync_interval = Duration::from_secs(10);
    (options.delay_us, options.jitter_us, options.disk_us) = (3_000, 3_000, 3_000);
    let mut world = World::new(options);
    world.run_for(2_000);
    for name in names() {
        written(&mut world, 0, Write::put(&name, 30).ack(Ack::All));
    }
    world
}

/// Reads every key at each of these nodes, a few at once.
fn read_all(world: &mut World, nodes: &[usize], read: Read, told: &mut Told) {
    let mut asked: BTreeMap<OpId, String> = BTreeMap::new();
    for (i, name) in names().enumerate() {
        for n in nodes {
            asked.extend(world.read(*n, 0, &key(&name), read).map(|op| (op, format!("{name} by {n}"))));
        }
        if i % 8 == 7 {
            let is_done = |w: &World| asked.keys().all(|op| w.outcome(*op).is_some());
            assert!(world.run_until(20_000, is_done), "{:?}", world.violation());
        }
    }
    for (op, what) in asked {
        match world.outcome(op) {
            Some(Outcome::Read(Ok(found))) if found.siblings.records().is_empty() => told.absent.push(what),
            Some(Outcome::Read(Ok(_))) => told.found += 1,
            _ => told.failed += 1,
        }
    }
}

fn check(told: &Told, what: &str) {
    assert!(told.absent.is_empty(), "{what}: {} were called absent: {:?}", told.absent.len(), told.absent);
    assert!(told.failed * 20 <= told.found, "{what}: {} failed, {} found", told.failed, told.found);
}

/// Seeds from 1 on, with one to three mirrors in turns, and either kind of read.
fn cases(seeds: u64) -> impl Iterator<Item = (u64, u16, Read)> {
    let mirrors = [1, 2, 3].into_iter().cycle();
    let both = |(seed, mirrors)| [Read::One, Read::Quorum].map(|read| (seed, mirrors, read));
    (1..=seeds).zip(mirrors).flat_map(both)
}

/// Goal: no key is called absent while the copies are on their way to those who own it now. Method: three
/// nodes join at once, and every node is asked for every key all the while.
#[test]
fn no_key_is_called_absent_while_others_join() {
    for (seed, mirrors, read) in cases(9) {
        let (mut world, mut told) = (slow_movers(seed, 3, 3, mirrors), Told::default());
        for n in 3..6 {
            world.join(n, n - 3);
            world.run_for(30);
            read_all(&mut world, &(0..=n).collect::<Vec<_>>(), read, &mut told);
        }
        (0..10).for_each(|_| read_all(&mut world, &[0, 1, 2, 3, 4, 5], read, &mut told));
        check(&told, &format!("seed {seed}, {mirrors} mirrors, {read:?}"));
        healed(&mut world);
    }
}

/// Goal: the same where members leave, and the only copies are with those who go. Method: three of six leave.
#[test]
fn no_key_is_called_absent_while_others_leave() {
    for (seed, mirrors, read) in cases(6) {
        let (mut world, mut told) = (slow_movers(seed, 6, 0, mirrors), Told::default());
        for n in [5, 4, 3] {
            world.leave(n);
            world.run_for(30);
            read_all(&mut world, &[0, 1, 2], read, &mut told);
        }
        (0..10).for_each(|_| read_all(&mut world, &[0, 1, 2], read, &mut told));
        check(&told, &format!("seed {seed}, {mirrors} mirrors, {read:?}"));
    }
}
