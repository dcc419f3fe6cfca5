//! The turbopump daemon.
fn main() {}
