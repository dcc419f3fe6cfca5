//! What the public interface promises, clause by clause.

#[path = "../common/mod.rs"]
mod common;

mod callbacks;
mod handles;
mod keys;
mod limits;
mod overload;
mod parts;
mod reads;
mod start;
mod streams;
mod support;
mod watches;
mod writes;
