//! Who owns what right now: one layout of one member list, as a snapshot to share.

use super::{Partition, PartitionCount, Partitioner, Seat};
use crate::model::{MemberState, Members, Mirrors, NodeId};

/// The owners of every partition under one member list. Made anew when the list changes.
#[derive(Debug)]
pub struct Placement {
    partitions: PartitionCount,
    everywhere: bool,
    seats: Vec<Seat>,
    layout: Vec<Vec<u16>>,
}

impl Placement {
    /// Lays out the active members that have a weight.
    pub fn new(partitioner: &dyn Partitioner, members: &Members, partitions: PartitionCount) -> Self {
        let active = members.all().filter(|m| m.state == MemberState::Active && m.weight > 0);
        let seats: Vec<Seat> = active.map(|m| Seat { id: m.id, weight: m.weight }).collect();
        let layout = partitioner.layout(&seats, partitions);
        Self { partitions, everywhere: partitioner.everywhere(), seats, layout }
    }

    /// Whether both put every key on the same nodes.
    pub fn places_like(&self, other: &Self) -> bool {
        self.seats == other.seats && self.layout == other.layout && self.partitions == other.partitions
    }

    /// How many members own something.
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// The partition of a key hash.
    pub fn partition(&self, hash: u64) -> Partition {
        self.partitions.of(hash)
    }

    /// The mirrors that count: all, where every key lives everywhere.
    pub fn effective(&self, mirrors: Mirrors) -> Mirrors {
        if self.everywhere { Mirrors::ALL } else { mirrors }
    }

    /// The owners of a key hash, best first.
    pub fn owners(&self, hash: u64, mirrors: Mirrors) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        self.owners_of(self.partition(hash), mirrors)
    }

    /// The owners of a partition, best first.
    pub fn owners_of(
        &self,
        partition: Partition,
        mirrors: Mirrors,
    ) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        let order = &self.layout[partition.0 as usize];
        let count = self.effective(mirrors).of(order.len());
        order[..count].iter().map(|&i| self.seats[usize::from(i)].id)
    }

    /// Whether `node` is an owner.
    pub fn owns(&self, node: NodeId, hash: u64, mirrors: Mirrors) -> bool {
        self.owners(hash, mirrors).any(|id| id == node)
    }

    /// For each member with a share, how many partitions it owns at `mirrors`.
    pub fn shares(&self, mirrors: Mirrors) -> Vec<(NodeId, usize)> {
        let mut shares = vec![0; self.seats.len()];
        for order in &self.layout {
            let count = self.effective(mirrors).of(order.len());
            order[..count].iter().for_each(|&i| shares[usize::from(i)] += 1);
        }
        self.seats.iter().map(|s| s.id).zip(shares).collect()
    }
}
