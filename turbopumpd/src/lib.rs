//! The turbopump daemon, as a library so that its tests and fuzz targets reach its parts.
//!
//! Not an interface for others: whoever wants a node in a process of their own uses the crate
//! `turbopump`.
//!
//! ```text
//! args -> server -> gate -> routes -> params -> calls -> turbopump::Node -> outcome, reply
//! ```

#![forbid(unsafe_code)]

pub mod args;
pub mod calls;
pub mod gate;
pub mod member;
pub mod metrics;
pub mod outcome;
pub mod params;
pub mod reply;
pub mod routes;
pub mod server;
pub mod sign;
