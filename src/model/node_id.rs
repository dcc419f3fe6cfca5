//! The name of a node.

use std::{fmt, str::FromStr};

/// The longest node id, in bytes.
pub const MAX_NODE_ID_BYTES: usize = 32;

/// A node's name: 1 to 32 characters out of `A-Z a-z 0-9 . _ -`.
///
/// Stored inline, so it is `Copy`. A peer is its id, whatever address its frames come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    bytes: [u8; MAX_NODE_ID_BYTES],
    len: u8,
}

/// Why a text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node id has 1 to 32 characters out of A-Z a-z 0-9 . _ -, this is {0:?}")]
pub struct NodeIdError(String);

impl NodeId {
    /// The id made of 16 hexadecimal digits of `number`, for nodes that were given no name.
    pub fn from_u64(number: u64) -> Self {
        format!("{number:016x}").parse().expect("hexadecimal digits are allowed")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("checked when made")
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_NODE_ID_BYTES || !text.bytes().all(allowed) {
            return Err(NodeIdError(text.chars().take(64).collect()));
        }
        let mut bytes = [0; MAX_NODE_ID_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }
}

impl TryFrom<&str> for NodeId {
    type Error = NodeIdError;
    fn try_from(text: &str) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
