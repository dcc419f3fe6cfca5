//! A distributed key-value store that lives inside your process.
//!
//! A [`Node`] is a handle. One of them is a local store; several of them, in as many processes or
//! on as many machines as you like, are a cluster in which no node is special: any takes any write,
//! each key lives on as many nodes as its *mirrors* say, and what was missed while a node or a
//! network was down is found and repaired. Conflicting writes are both kept until somebody who has
//! read both settles them.
//!
//! ```
//! use turbopump::Node;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().start()?; // alone, in memory
//! node.put("greeting", "hello").wait()?;
//! node.get("greeting").submit(|outcome| match outcome {
//!     Ok(reading) => println!("{:?}", reading.value()),
//!     Err(error) => println!("{error}"),
//! })?;
//! # Ok(()) }
//! ```
//!
//! # Where to find what
//!
//! | You want to | Look at |
//! |---|---|
//! | start a node, join others | [`Node::builder`], [`NodeBuilder`] |
//! | write, read, delete, list, wait, watch | the methods of [`Node`] |
//! | end an operation with a closure, a handle or `.await` | [`operations`], [`Pending`] |
//! | write or read a value of any length, piece by piece | [`Node::writer`], [`Node::reader`] |
//! | know what a write or a read promises | [`Ack`], [`Read`], and the [`guide`] |
//! | know what an error leaves behind | [`WriteError`], [`ReadError`], [`StartError`] |
//! | set a limit or an interval | [`Config`] |
//! | keep values in files, in memory or in something of your own | [`storage`] |
//! | talk over UDT, UDP, QUIC, memory or something of your own | [`transport`] |
//! | show who a node is | [`Node::public_key`], [`Identity`] |
//! | decide who owns what | [`partition`] |
//! | test parts of your own, or a whole cluster in virtual time | `testing`, behind the feature of that name |
//!
//! The [`guide`] explains the rest in prose. The programs in `examples/` show one thing each,
//! beginning with `cargo run --example hello`. The same node behind HTTP and unix sockets is the
//! daemon `turbopumpd`.
//!
//! # How it is built
//!
//! A pure [`core`] decides and a thin driver acts. The core knows no clock, socket, file or thread:
//! it takes one input (a request, a message, finished work of the storage, the time) and gives
//! back what is to be done. So a whole cluster runs in one thread from one seed, with all the faults
//! that one can think of, and that is how it is tested.
//!
//! ```text
//! Node, NodeBuilder ─> driver ─> core ─> wire, digest, partition ─> model
//!                        └─> storage, transport
//! ```
//!
//! [`model`] has the nouns, [`wire`] the bytes between nodes, [`digest`] what two nodes compare to find
//! out what one of them lacks.
//!
//! # Features
//!
//! - `udt` (default): the UDT transport, reliable and over UDP. Needs a C++ compiler. Without it the
//!   default transport is UDP.
//! - `quic`: the QUIC transport, encrypted and between known keys, for networks that one does not own.
//! - `fjall`: a storage for many small values, in an LSM tree.
//! - `testing`: conformance suites for storages, transports and partitioners, and the simulator.

#![forbid(unsafe_code)]

mod builder;
mod config;
pub mod core;
pub mod digest;
mod driver;
mod error;
mod fixed_map;
pub mod guide;
pub mod identity;
pub mod model;
#[cfg(turbopump_mutations)]
mod mutation;
mod node;
pub mod operations;
pub mod partition;
mod pending;
mod reader;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;
mod writer;

pub use builder::NodeBuilder;
pub use bytes::Bytes;
pub use config::{Ack, Config, Read};
pub use core::{
    Counters, Departure, Event, FetchStats, KeyInfo, KeyPage, MemberInfo, PeerStats, Progress, Standing,
    Stats, Written,
};
pub use driver::{Clock, SystemClock, Task};
pub use error::{MemberError, ReadError, StartError, SubmitError, WriteError};
pub use identity::Identity;
pub use model::{
    Appointment, Context, Dot, FOR_GOOD, Key, Member, MemberKey, MemberState, Members, Mirrors, NodeId,
    PublicKey, Record, Seal, SealError, Siblings, Statement, Version, Warrant, WarrantError,
};
pub use node::{Node, Watch};
pub use operations::Reading;
pub use partition::PartitionCount;
pub use pending::Pending;
pub use reader::ValueReader;
pub use writer::ValueWriter;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
