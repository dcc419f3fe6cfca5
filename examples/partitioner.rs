//! cargo run --example partitioner
//!
//! A partitioner of one's own: rendezvous hashing. Every node draws a number for every partition,
//! and the highest numbers own it. `tests/examples.rs` runs the conformance suite against it.

use std::{cmp::Reverse, error::Error};

use turbopump::{
    Key, Mirrors, Node, NodeId,
    partition::{PartitionCount, Partitioner, Seat},
};

/// Rendezvous hashing (Thaler and Ravishankar, 1998). A seat of weight w draws w times and keeps
/// its best, so that it wins w times as often.
#[derive(Debug, Clone, Copy)]
pub struct Rendezvous;

impl Partitioner for Rendezvous {
    fn kind(&self) -> &'static str {
        "rendezvous"
    }

    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
        let bases: Vec<u64> = seats.iter().map(|seat| hash_of(seat.id)).collect();
        let best = |place: u16, partition: u32| {
            let (base, weight) = (bases[usize::from(place)], seats[usize::from(place)].weight);
            (0..weight).map(|n| mix(base ^ mix(u64::from(partition) << 16 | u64::from(n)))).max()
        };
        let order = |partition: u32| {
            let mut places: Vec<u16> = (0..seats.len() as u16).collect();
            // The id settles a draw, so that the order of the seats never matters.
            places.sort_by_cached_key(|&p| Reverse((best(p, partition), seats[usize::from(p)].id)));
            places
        };
        partitions.all().map(|partition| order(partition.0)).collect()
    }
}

/// FNV-1a, then mixed. Written out, for it must never change: no node may place otherwise.
fn hash_of(id: NodeId) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The last steps of SplitMix64: each bit of the result hangs on each bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn main() -> Result<(), Box<dyn Error>> {
    // All members of a cluster need the same partitioner; peers with another kind are refused.
    let node = Node::builder().id("a").partitioner(Rendezvous).start()?;
    for (id, addr) in [("b", "127.0.0.1:9"), ("c", "127.0.0.1:9")] {
        node.add_member(id.parse()?, vec![addr.parse()?]).wait()?; // never up, and still placed
    }

    let placement = node.placement();
    for (id, partitions) in placement.shares(Mirrors(1)) {
        println!("node {id} comes first in {partitions} of {} partitions", placement.partitions().get());
    }
    let key = Key::new("greeting")?;
    println!("owners of {key}: {:?}", Vec::from_iter(placement.owners(key.hash64(), Mirrors(2))));

    println!("next: cargo run --example transport");
    Ok(())
}
