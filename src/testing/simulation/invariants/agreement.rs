//! What a node believes to hold, what lies on its disk, and what its digests say are one.

use crate::{
    core::{Input, Output},
    digest::{Trees, key_digest},
    model::{Mirrors, NodeId},
    partition::{Partition, Placement},
    testing::simulation::{World, act::names},
    wire::{Message, RangeDigest},
};

/// Disk and belief. That the core lists what it is believed to believe is checked with each listing.
pub fn check(world: &World) -> Result<(), String> {
    for n in world.there() {
        let node = &world.nodes[n];
        let Some(process) = &node.process else { continue };
        let keys: std::collections::BTreeSet<_> =
            process.held.keys().chain(node.disk.written().map(|(key, _)| key)).collect();
        for key in keys {
            let kept = names(node.disk.of(key).iter().map(|kept| &kept.version));
            let (held, stored) = (process.holds(key), process.stored(key));
            if kept != stored || held != stored {
                return Err(format!(
                    "node {n} holds {held:?} of {key:?}, stored {stored:?}, on disk {kept:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Whether every node's digests are those of its disk: each is asked as a peer would ask.
pub fn digests_fit(world: &mut World) -> Result<(), String> {
    let there: Vec<usize> = world.there().collect();
    for &n in &there {
        for &m in there.iter().filter(|m| **m != n) {
            let (peer, now) = (world.nodes[m].id, world.nodes[n].now(world.now_us));
            let ranges = whole_ranges(world, n, peer);
            let Some(process) = world.nodes[n].process.as_mut() else { continue };
            let input = Input::Message { from: peer, message: Message::Compare { ranges } };
            let mut outputs = Vec::new();
            process.core.handle(now, input, &mut outputs);
            let equal = |o: &Output| matches!(o, Output::Send { message: Message::Compare { ranges }, .. } if ranges.is_empty());
            if !outputs.iter().any(equal) {
                return Err(format!("node {n} tells node {m} other digests than its disk has: {outputs:?}"));
            }
        }
    }
    Ok(())
}

fn whole_ranges(world: &World, n: usize, peer: NodeId) -> Vec<RangeDigest> {
    let node = &world.nodes[n];
    let Some(process) = &node.process else { return Vec::new() };
    let placement: &Placement = process.core.placement();
    let mut trees = Trees::default();
    for (key, kept) in node.disk.written() {
        let Some(mirrors) = kept.iter().map(|kept| kept.version.mirrors).max() else { continue };
        let digest = key_digest(key.hash64(), kept.iter().map(|kept| kept.version.dot));
        trees.add(placement.effective(mirrors), placement.partition(key.hash64()).0, digest);
    }
    let mut all = trees.mirrors();
    if all.is_empty() {
        all.push(Mirrors::ALL);
    }
    let digest = |mirrors: Mirrors| {
        let mut range = RangeDigest { mirrors, low: 0, high: u64::MAX, keys: 0, sum: 0 };
        for partition in placement.partitions().all() {
            let owns = |id: NodeId| placement.owners_of(partition, mirrors).any(|owner| owner == id);
            if owns(node.id) && owns(peer) {
                let Partition(number) = partition;
                let sum = trees.sum(mirrors, number);
                range.keys += sum.keys;
                range.sum = range.sum.wrapping_add(sum.sum);
            }
        }
        range
    };
    all.into_iter().map(digest).collect()
}
