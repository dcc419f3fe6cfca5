//! The header that stands in front of every frame.

use bytes::{BufMut, Bytes};

/// Bytes of a header.
pub const FRAME_HEADER_BYTES: usize = 16;

/// The one version of frames that this release speaks.
pub const WIRE_VERSION: u8 = 2;

const MAGIC: [u8; 2] = *b"tp";

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameType {
    /// One hello.
    Hello,
    /// Messages, one after the other.
    Messages,
    /// A part of one message that is longer than a frame.
    Part,
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What follows.
    pub kind: FrameType,
    /// The token that the receiver gave the sender; 0 in a hello.
    pub token: u64,
    /// Bytes that follow the header.
    pub len: u32,
}

/// Why bytes are no frame that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short, or without the magic: something else talks to our port.
    #[error("not a frame of this protocol")]
    NotOurs,
    /// Of another wire version.
    #[error("wire version {0} is not ours ({WIRE_VERSION})")]
    Version(u8),
    /// Of a type that this version does not have.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// The length is not that of the bytes: cut short, or two in one.
    #[error("the length in the header is not that of the frame")]
    Length,
}

impl Header {
    /// The header at the front of `frame`, which it must fit.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(frame: &[u8]) -> Result<Self, FrameError> {
        let (header, body) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(FrameError::NotOurs)?;
        let [m0, m1, version, kind, l0, l1, l2, l3, token @ ..] = *header;
        if [m0, m1] != MAGIC {
            return Err(FrameError::NotOurs);
        }
        if version != WIRE_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = match kind {
            1 => FrameType::Hello,
            2 => FrameType::Messages,
            3 => FrameType::Part,
            other => return Err(FrameError::Type(other)),
        };
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len as usize != body.len() {
            return Err(FrameError::Length);
        }
        Ok(Self { kind, token: u64::from_be_bytes(token), len })
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u8(WIRE_VERSION);
        out.put_u8(match self.kind {
            FrameType::Hello => 1,
            FrameType::Messages => 2,
            FrameType::Part => 3,
        });
        out.put_u32(self.len);
        out.put_u64(self.token);
        bytes
    }

    /// Makes `frame`, whose first [`FRAME_HEADER_BYTES`] were kept free, ready to be sent.
    pub(super) fn seal(kind: FrameType, token: u64, mut frame: Vec<u8>) -> Bytes {
        let len = u32::try_from(frame.len() - FRAME_HEADER_BYTES).expect("frames are shorter than 4 GiB");
        frame[..FRAME_HEADER_BYTES].copy_from_slice(&Self { kind, token, len }.emit());
        frame.into()
    }
}
