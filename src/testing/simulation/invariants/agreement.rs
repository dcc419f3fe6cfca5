//! What a node believes to hold, what lies on its disk, and what its digests say are one.

use crate::{
    core::{Input, Output},
    digest::{Trees, key_digest},
    model::{Mirrors, NodeId},
    partition::{Partition, Placement},
    testing::simulation::{World, act::names},
    wire::{Message, TreeDigest},
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
    if !world.options.config.active_sync {
        // Then nobody answers.
        return Ok(());
    }
    let there: Vec<usize> = world.there().collect();
    for &n in &there {
        for &m in there.iter().filter(|m| **m != n) {
            let (peer, now) = (world.nodes[m].id, world.nodes[n].now(world.now_us));
            let trees = whole_trees(world, n, peer);
            let Some(process) = world.nodes[n].process.as_mut() else { continue };
            let message = Message::Compare { round: 1, trees };
            let input = Input::Message { from: peer, message };
            let mut outputs = Vec::new();
            process.core.handle(now, input, &mut outputs);
            let equal = |o: &Output| matches!(o, Output::Send { message: Message::Equal { round: 1 }, .. });
            if !outputs.iter().any(equal) {
                return Err(format!("node {n} tells node {m} other digests than its disk has: {outputs:?}"));
            }
        }
    }
    Ok(())
}

fn whole_trees(world: &World, n: usize, peer: NodeId) -> Vec<TreeDigest> {
    let node = &world.nodes[n];
    let Some(process) = &node.process else { return Vec::new() };
    let placement: &Placement = process.core.placement();
    let mut trees = Trees::default();
    for (key, kept) in node.disk.written() {
        let Some(mirrors) = kept.iter().map(|kept| kept.version.mirrors).max() else { continue };
        let digest = key_digest(key.hash64(), kept.iter().map(|kept| kept.version.dot));
        trees.add(placement.effective(mirrors), placement.partition(key.hash64()).0, digest);
    }
    let digest = |mirrors: Mirrors| {
        let mut sum = 0_u64;
        for partition in placement.partitions().all() {
            let owns = |id: NodeId| placement.owners_of(partition, mirrors).any(|owner| owner == id);
            if owns(node.id) && owns(peer) {
                let Partition(number) = partition;
                sum = sum.wrapping_add(trees.sum(mirrors, number).sum);
            }
        }
        TreeDigest { mirrors, sum }
    };
    trees.mirrors().into_iter().map(digest).collect()
}
