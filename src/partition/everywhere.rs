//! Clone mode: every key on every node, whatever its mirrors say.
//!
//! For small data that is read everywhere: configuration, sessions, feature switches. Each
//! node pays with memory and disk for all of it, and each write goes to all nodes.

use super::{PartitionCount, Partitioner, Ring, Seat};

/// Every key on every node.
///
/// All own everything, so the order says only who is asked first. It is the ring's, so that
/// this duty is spread and stays where it is when members come and go.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Everywhere;

impl Partitioner for Everywhere {
    fn kind(&self) -> &'static str {
        "everywhere"
    }

    fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
        Ring.layout(seats, partitions)
    }

    fn everywhere(&self) -> bool {
        true
    }
}
