//! The built-in transports keep the promises of the trait, and those of their own.

mod memory;
#[cfg(feature = "quic")]
mod quic;
mod udp;
#[cfg(feature = "udt")]
mod udt;

use std::net::SocketAddr;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
