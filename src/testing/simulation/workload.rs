//! The first phase: clients that ask, and faults that happen, as the seed says.

use super::{
    Fault,
    control::{Replaces, Write},
    node::Standing,
    world::World,
};
use crate::{
    config::{Ack, Read},
    core::WatchId,
    model::{Key, Kind, Mirrors, Seeded},
};

/// Clients, each with a memory of its own.
const CLIENTS: u64 = 3;
/// How often a copy of a disk is made, in faults.
const BACKUP_PERCENT: u64 = 20;
/// Removals at most: the others have to know enough to go on.
const MAX_REMOVALS: u64 = 2;

/// Draws what happens next.
pub(super) struct Workload {
    operations: Seeded,
    faults: Seeded,
    rots: Seeded,
    watches: Vec<(usize, WatchId)>,
    removals: u64,
    ports: u16,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            operations: Seeded::new(seed ^ 0x636c_6965_6e74_7321),
            faults: Seeded::new(seed ^ 0x6661_756c_7473_2121),
            rots: Seeded::new(seed ^ 0x726f_7474_656e_2121),
            watches: Vec::new(),
            removals: 0,
            ports: 2_000,
        }
    }

    /// Runs all operations, with faults between them.
    pub(super) fn run(&mut self, world: &mut World) {
        let gap = |chance: &mut Seeded, mean_us: u64| chance.below(2 * mean_us) + 1;
        let mut left = world.options.operations;
        let mut operation_at = world.now_us + gap(&mut self.operations, world.options.operation_gap_us);
        let mut fault_at = world.now_us + gap(&mut self.faults, world.options.fault_gap_us);
        let rots = world.options.faults.contains(&Fault::Rot);
        let mut rot_at = if rots { world.now_us } else { u64::MAX };
        // A cluster may also be hurt while it comes up.
        if self.operations.percent(70) {
            operation_at += 3_000_000;
        }
        while left > 0 && world.violation().is_none() {
            world.run_until_us(operation_at.min(fault_at).min(rot_at));
            if operation_at <= world.now_us {
                self.ask(world);
                left -= 1;
                operation_at = world.now_us + gap(&mut self.operations, world.options.operation_gap_us);
            }
            if rot_at <= world.now_us {
                let n = self.rots.below(world.nodes.len() as u64) as usize;
                world.rot(n, self.rots.next_u64());
                *world.faults.entry(Fault::Rot).or_default() += 1;
                rot_at = world.now_us + gap(&mut self.rots, world.options.fault_gap_us);
            }
            if fault_at <= world.now_us {
                self.hurt(world);
                fault_at = world.now_us + gap(&mut self.faults, world.options.fault_gap_us);
            }
        }
    }

    fn ask(&mut self, world: &mut World) {
        let running: Vec<usize> =
            (0..world.nodes.len()).filter(|n| world.nodes[*n].process.is_some()).collect();
        let chance = &mut self.operations;
        if running.is_empty() {
            return;
        }
        let n = *chance.pick(&running);
        let client = chance.below(CLIENTS) as usize;
        let key = format!("key {}", chance.below(world.options.keys));
        let name = Key::new(&key).expect("a key");
        match chance.below(100) {
            0..55 => {
                let write = self.write(world, &key, client);
                world.write(n, write);
            }
            55..80 => {
                let read = *chance.pick(&[Read::One, Read::One, Read::Quorum, Read::All]);
                world.read(n, client, &name, read);
            }
            80..86 => {
                let timeout_ms = chance.below(5_000) + 1;
                world.wait(n, client, &name, timeout_ms);
            }
            86..90 => {
                if let Some(watch) = world.watch(n, "key 1") {
                    self.watches.push((n, watch));
                }
            }
            90..92 => {
                if let Some((n, watch)) = self.watches.pop() {
                    world.unwatch(n, watch);
                }
            }
            92..96 => _ = world.list(n),
            _ => _ = world.stats(n),
        }
    }

    fn write(&mut self, world: &World, key: &str, client: usize) -> Write {
        let chance = &mut self.operations;
        let max = world.options.max_value_bytes;
        let len = match chance.below(10) {
            0 => 0,
            1..6 => 8 + chance.below(max.min(50)) as usize,
            _ => 8 + chance.below(max) as usize,
        };
        let kind = if chance.percent(world.options.delete_percent) { Kind::Tombstone } else { Kind::Value };
        let mirrors = [Mirrors(1), Mirrors(2), Mirrors(4), Mirrors::ALL];
        Write {
            sequence: None,
            kind,
            len: if kind == Kind::Tombstone { 0 } else { len },
            ack: *chance.pick(&[
                Ack::Local,
                Ack::Local,
                Ack::Mirrors(1),
                Ack::Mirrors(2),
                Ack::Quorum,
                Ack::All,
            ]),
            mirrors: (world.options.mixed_mirrors && chance.percent(30)).then(|| *chance.pick(&mirrors)),
            replaces: *chance.pick(&[
                Replaces::AllThatTheNodeKnows,
                Replaces::WhatTheClientRead,
                Replaces::WhatTheClientRead,
                Replaces::Nothing,
            ]),
            ttl_ms: chance.percent(world.options.ttl_percent).then(|| chance.below(5_000)),
            timeout_ms: chance.percent(20).then(|| chance.below(1_000) + 1),
            client,
            ..Write::put(key, 0)
        }
    }

    fn hurt(&mut self, world: &mut World) {
        let chance = &mut self.faults;
        let count = world.nodes.len() as u64;
        let n = chance.below(count) as usize;
        let other = chance.below(count) as usize;
        if chance.percent(BACKUP_PERCENT) {
            world.back_up(n);
        }
        // What was hurt heals now and then.
        if chance.percent(40) {
            for m in 0..world.nodes.len() {
                if world.nodes[m].standing == Standing::Member && chance.percent(60) {
                    world.start(m);
                }
                world.slow_disk(m, false);
                world.fail_disk(m, false);
            }
            if chance.percent(60) {
                world.mend();
            }
        }
        let faults: Vec<Fault> =
            world.options.faults.iter().filter(|fault| **fault != Fault::Rot).copied().collect();
        if faults.is_empty() {
            return;
        }
        let fault = *chance.pick(&faults);
        let member = world.nodes[n].standing == Standing::Member;
        match fault {
            Fault::Crash => {
                world.crash(n);
                if member && chance.percent(50) {
                    world.start(n);
                }
            }
            Fault::Pause => {
                let ms = chance.below(8_000);
                world.pause(n, ms);
            }
            Fault::Cut => Self::cut(chance, world, n, other),
            Fault::LoseDisk if member => {
                // It alone may know who was removed, or has left.
                let leaves = world.options.faults.contains(&Fault::Leave);
                let members = n != 0 && chance.percent(50) && !leaves;
                world.lose_disk(n, members);
                world.start(n);
            }
            Fault::Restore if member => {
                world.restore(n);
                world.start(n);
            }
            Fault::ClockJump => {
                let range_ms = *chance.pick(&[1_000, 60_000, 86_400_000]);
                world.jump(n, chance.below(2 * range_ms) as i64 - range_ms as i64);
            }
            Fault::SlowDisk => world.slow_disk(n, true),
            Fault::FailDisk => world.fail_disk(n, true),
            Fault::Join if world.nodes[n].standing == Standing::Spare => {
                // Who was introduced only to a node that goes is known to nobody.
                let goes = |fault: &Fault| matches!(fault, Fault::Remove | Fault::Leave);
                let by = if world.options.faults.iter().any(goes) { 0 } else { other };
                if world.nodes[by].is_there() {
                    world.join(n, by);
                }
            }
            // Those that remove are never removed, so somebody stays.
            Fault::Remove
                if member && n != 0 && world.nodes[0].is_there() && self.removals < MAX_REMOVALS =>
            {
                self.removals += 1;
                world.remove(n, 0);
            }
            Fault::Leave if member && n != 0 && self.removals < MAX_REMOVALS => {
                if world.leave(n).is_none() {
                    return;
                }
                self.removals += 1;
            }
            Fault::Weigh if member && n != 0 => {
                world.crash(n);
                world.weigh(n, chance.below(4) as u16);
                world.start(n);
            }
            // Two that moved at once could not find each other.
            Fault::Move if member && n == 0 => {
                world.crash(n);
                self.ports += 1;
                world.move_to_port(n, self.ports);
                world.start(n);
            }
            _ => return,
        }
        *world.faults.entry(fault).or_default() += 1;
    }

    fn cut(chance: &mut Seeded, world: &mut World, n: usize, other: usize) {
        match chance.below(4) {
            0 => world.cut(n, other),
            1 => {
                world.cut(n, other);
                world.cut(other, n);
            }
            2 => world.isolate(n),
            _ => {
                let side: Vec<bool> = (0..world.nodes.len()).map(|_| chance.percent(50)).collect();
                for a in 0..side.len() {
                    for b in (0..side.len()).filter(|b| side[a] != side[*b]) {
                        world.cut(a, b);
                    }
                }
            }
        }
    }
}
