//! Which nodes own which slice of the hash space: the trait, and the built-in partitioners.
//!
//! The hash space is cut into a power of two of fixed partitions: a key belongs to the partition
//! named by the top bits of its hash ([`Key::hash64`](crate::model::Key::hash64)). Members come and go and move partitions between
//! them; a partition never splits.

mod everywhere;
mod placement;
mod ring;

use std::fmt;

pub use everywhere::Everywhere;
pub use placement::Placement;
pub use ring::Ring;

use crate::model::NodeId;

/// How many partitions a cluster has: a power of two from 1 to 65,536, fixed when it is born.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionCount(u32);

/// One slice of the hash space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(pub u32);

/// A number that is no partition count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the number of partitions is a power of two from 1 to 65536, not {0}")]
pub struct PartitionCountError(pub u32);

/// A member as far as placement is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Who.
    pub id: NodeId,
    /// Its share relative to the others; never 0 here.
    pub weight: u16,
}

/// Decides who owns what. A pure function: equal arguments, equal answer, on every machine and in
/// every release of one partitioner.
///
/// What every partitioner promises, held by `testing::partitioner` (feature
/// `testing`): each partition lists every seat exactly once; the order of `seats` does not
/// matter; when one of N seats comes or goes, the others keep their order relative to each other,
/// so that about 1/N of the copies move.
pub trait Partitioner: Send + Sync + fmt::Debug {
    /// A short word, told to peers so that clusters that place differently never mix: `ring`.
    fn kind(&self) -> &'static str;

    /// For each partition all seats (as places in `seats`), best owner first. The owners of a key
    /// with n mirrors are the first n.
    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>>;

    /// Whether every key lives on every node, whatever its mirrors say.
    fn everywhere(&self) -> bool {
        false
    }
}

impl PartitionCount {
    /// Checks the number.
    ///
    /// # Errors
    /// [`PartitionCountError`] if it is no power of two from 1 to 65,536.
    pub fn new(count: u32) -> Result<Self, PartitionCountError> {
        if count.is_power_of_two() && count <= 65_536 {
            Ok(Self(count))
        } else {
            Err(PartitionCountError(count))
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The partition of a key hash.
    pub fn of(self, hash: u64) -> Partition {
        Partition(((u128::from(hash) * u128::from(self.0)) >> 64) as u32)
    }

    /// All partitions, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(Partition)
    }

    /// The lowest and the highest hash of a partition, both inclusive.
    pub fn bounds(self, partition: Partition) -> (u64, u64) {
        let width = (1u128 << 64) / u128::from(self.0);
        let low = u128::from(partition.0) * width;
        (low as u64, (low + (width - 1)) as u64)
    }
}

impl Default for PartitionCount {
    fn default() -> Self {
        Self(1_024)
    }
}
