//! How far the store of a node has come.

/// A mark that a node leaves in its store before it says that it holds nothing of a key but what
/// may go, and that the other nodes remember. A store whose mark is lower than the one that is
/// remembered is not the one that said so: it was emptied, or is an older copy.
///
/// Orders by generation, then number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    /// Of the member: raised when a removed id is added again.
    pub generation: u32,
    /// Raised by the node itself.
    pub number: u64,
}
