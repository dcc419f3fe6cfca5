//! A distributed key-value store that lives inside your process.

#![forbid(unsafe_code)]

pub mod config;
pub mod core;
pub mod digest;
pub mod error;
pub mod model;
pub mod partition;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;
