//! What nodes say to each other: messages, their bytes, and the session of one link.
//!
//! A **frame** is what a transport carries: a header, then either one hello, or any number of
//! messages one after the other, or a part of one that is longer than a frame. Everything else is MessagePack written and read by hand; a decoder
//! checks every length against the bytes that are there and never recurses. What does not parse
//! is refused with a reason and counted; it is never a panic.
//!
//! ```text
//! frame   = magic "tp" (2) | wire version (1) | type (1) | body length (4, big endian) | token (8) | body
//! type    = 1 hello, 2 messages, 3 part
//! part    = name of the message (8, big endian) | index (2) | count (2) | bytes
//! message = array [type, field ...]; fields that a reader does not know at the end are skipped
//! ```
//!
//! The token is the one that the receiver gave the sender in its hello. It shows that the sender
//! really gets what is sent to its address, and that it speaks to this process and not to the
//! one that had the address before.

mod codec;
mod frame;
mod hello;
mod link;
mod link_event;
mod long;
mod message;
mod noise;
mod pack;
mod parts;
mod ranges;
mod session;

pub use codec::{
    MAX_CONTEXT_RANGES, MAX_GRAVES_PER_MESSAGE, MAX_MEMBERS_PER_MESSAGE, MAX_OFFERED_PER_MESSAGE,
    MAX_RANGES_PER_MESSAGE, MAX_RECORDS_PER_REPLY, MAX_TREES_PER_MESSAGE,
};
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameType, Header, WIRE_VERSION};
pub use hello::{Hello, MAX_CLUSTER_BYTES, Refusal};
pub use link_event::{LinkCounters, LinkEvent, SendRefused};
pub use long::{
    MAX_MESSAGE_BYTES, MAX_PARTIAL_AGE_MS, MAX_PARTIAL_BYTES, MAX_PARTIAL_BYTES_PER_LINK,
    MAX_PARTIALS_PER_LINK, MAX_PARTS, MIN_PART_BYTES,
};
pub use message::{
    AckStatus, BurialStep, CHECK_BITS, DecodeError, HashedKey, Interest, MAX_CHECKS_PER_LIST, Message,
    Offered, PARTS_PER_RANGE, RangeList, RangeParts, TreeDigest, Vitals,
};
pub(crate) use parts::{member_len_hint, value_len_hint};
pub use ranges::{CHECK_BYTES, LIST_BYTES, OFFERED_BYTES, RANGE_PARTS_BYTES};
pub use session::{
    Links, Local, MAX_ANSWERS_PER_SECOND, MAX_MESSAGES_PER_FRAME, MAX_REFUSALS_PER_SECOND,
    MAX_UNFLUSHED_FRAMES, REFUSAL_EVENT_MS, STRAY_ANSWER_MS,
};
