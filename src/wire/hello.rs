//! What two nodes tell each other before anything else.

use bytes::Bytes;

use super::{
    DecodeError, FRAME_HEADER_BYTES, FrameType, Header,
    pack::{Reader, put_array, put_text, put_uint},
    parts::decode_node_id,
};
use crate::model::NodeId;

/// The longest name of a cluster or of a placement, in bytes. Keeps a hello below any frame limit.
pub const MAX_CLUSTER_BYTES: usize = 256;

/// Why one node will not talk to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("it belongs to another cluster")]
    Cluster,
    /// Its number of partitions is another.
    #[error("its number of partitions is another")]
    Partitions,
    /// Its partitioner is of another kind.
    #[error("its partitioner is of another kind")]
    Placement,
    /// Its id is not in the member list.
    #[error("its id is not in the member list")]
    UnknownNode,
    /// Its id was removed from the cluster.
    #[error("its id was removed from the cluster")]
    RemovedNode,
    /// Another process goes by our id.
    #[error("another process goes by the same id")]
    SelfId,
    /// A later process goes by its id.
    #[error("a later process goes by its id")]
    Superseded,
    /// Its key is not the one of the member that it says it is.
    #[error("its key is not the one of the member that it says it is")]
    Key,
    /// It speaks another wire version.
    #[error("it speaks another wire version")]
    WireVersion,
    /// For a reason of a later release.
    #[error("for a reason that this release does not know")]
    Other,
}

/// One hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster's name.
    pub cluster: String,
    /// Who speaks.
    pub id: NodeId,
    /// Which of its processes: later ones have greater numbers.
    pub incarnation: u64,
    /// The cluster's number of partitions.
    pub partitions: u32,
    /// The kind of its partitioner.
    pub placement: String,
    /// What the receiver shall say to show that it got this.
    pub token: u64,
    /// The token that the speaker got from the receiver; 0 where it got none.
    pub echo: u64,
    /// Why the speaker does not talk to the receiver, if it does not.
    pub refusal: Option<Refusal>,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Cluster,
        Self::Partitions,
        Self::Placement,
        Self::UnknownNode,
        Self::RemovedNode,
        Self::SelfId,
        Self::Superseded,
        Self::Key,
        Self::WireVersion,
        Self::Other,
    ];

    fn code(self) -> u64 {
        match self {
            Self::Cluster => 1,
            Self::Partitions => 2,
            Self::Placement => 3,
            Self::UnknownNode => 4,
            Self::RemovedNode => 5,
            Self::SelfId => 6,
            Self::Superseded => 7,
            Self::WireVersion => 8,
            Self::Key => 9,
            Self::Other => 255,
        }
    }

    fn of_code(code: u64) -> Option<Self> {
        match code {
            0 => None,
            _ => Some(Self::ALL.into_iter().find(|r| r.code() == code).unwrap_or(Self::Other)),
        }
    }
}

impl Hello {
    /// The frame that carries it.
    pub fn to_frame(&self) -> Bytes {
        let mut out = vec![0; FRAME_HEADER_BYTES];
        put_array(&mut out, 8);
        put_text(&mut out, &self.cluster);
        put_text(&mut out, self.id.as_str());
        put_uint(&mut out, self.incarnation);
        put_uint(&mut out, self.partitions.into());
        put_text(&mut out, &self.placement);
        put_uint(&mut out, self.token);
        put_uint(&mut out, self.echo);
        put_uint(&mut out, self.refusal.map_or(0, Refusal::code));
        Header::seal(FrameType::Hello, 0, out)
    }

    /// Reads it from the body of a frame. What stands behind it is of a later release.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let later = r.fields("hello", 8)?;
        let hello = Self {
            cluster: name(&mut r, "cluster")?,
            id: decode_node_id(&mut r)?,
            incarnation: r.uint("incarnation")?,
            partitions: r.small("partitions")?,
            placement: name(&mut r, "placement")?,
            token: r.uint("token")?,
            echo: r.uint("echo")?,
            refusal: Refusal::of_code(r.uint("refusal")?),
        };
        r.skip(later)?;
        Ok(hello)
    }
}

fn name(r: &mut Reader<'_>, field: &'static str) -> Result<String, DecodeError> {
    let text = r.text(field)?;
    match text.len() <= MAX_CLUSTER_BYTES {
        true => Ok(text.into()),
        false => Err(DecodeError::Malformed(field)),
    }
}
