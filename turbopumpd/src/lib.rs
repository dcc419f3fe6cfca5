//! The turbopump daemon, as a library so that its tests and fuzz targets reach its parts.
//!
//! Not an interface for others: whoever wants a node in a process of their own uses the crate
//! `turbopump`.

#![forbid(unsafe_code)]

pub mod gate;
