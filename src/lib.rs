//! A distributed key-value store that lives inside your process.

#![forbid(unsafe_code)]

mod builder;
mod config;
pub mod core;
pub mod digest;
mod driver;
mod error;
pub mod model;
mod node;
pub mod operations;
pub mod partition;
mod pending;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;

pub use builder::NodeBuilder;
pub use bytes::Bytes;
pub use config::{Ack, Config, Read};
pub use core::{Counters, Event, KeyInfo, KeyPage, MemberInfo, PeerStats, Progress, Stats, Written};
pub use driver::{Clock, SystemClock, Task};
pub use error::{MemberError, ReadError, StartError, SubmitError, WriteError};
pub use model::{
    Context, Dot, Key, Member, MemberState, Members, Mirrors, NodeId, Record, Siblings, Version,
};
pub use node::{Node, Watch};
pub use operations::Reading;
pub use partition::PartitionCount;
pub use pending::Pending;
